"""Book: the Timeline of all aggregates, with every verb that can be asked of it."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from titan_lab.clock import Instant, from_micros, iso
from titan_lab.errors import NoSuchAggregate, nearest
from titan_lab.notebook import deltas, html
from titan_lab.notebook.widget import Scrubber
from titan_lab.story import Story
from titan_lab.verbs.plots import Drawn
from titan_lab.whatif.branch import Edited

NEAR = 20_000  # ids among which near ones are looked for


class Book(Drawn):
    """The Timeline of all aggregates. ``book["id"]`` opens one life.

    kept: where it is kept on disk, and why it was folded again if it was; see ``log.fold(..., keep=)``.
    """

    kept = ""

    def __getitem__(self, aggregate_id: str) -> Story:
        """Open one aggregate's life. Raises NoSuchAggregate, which suggests near ids."""
        wanted = str(aggregate_id)
        number = find(self.typed.ids, wanted)
        if number is None:
            raise no_such(wanted, self.typed.ids, self.basis.source)
        return Story(self, number)

    def __contains__(self, aggregate_id: object) -> bool:
        return find(self.typed.ids, str(aggregate_id)) is not None

    @property
    def ids(self) -> pl.Series:
        """Give all aggregate ids, sorted."""
        return self.typed.ids.alias("aggregate_id")

    def trace(self, aggregate_id: str, version: int | None = None) -> pl.DataFrame:
        """Lay out the tree of causes around an event, across aggregates; see ``Story.trace``.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.trace("550e8400-e29b-41d4-a716-446655440000", version=9)["event_type"].to_list()
        ['OrderCorrected', 'RefundIssued']
        """
        return self[aggregate_id].trace(version)

    def branch(self, name: str = "what-if", at: Instant | int | None = None) -> Branch:
        """Begin a what-if: this history, to be changed by edits that leave it as it is.

        at: branch from the history as it was at an instant (inclusive), or up to a version of each aggregate.
        A branch is a book itself; ``.without(...)``, ``.insert(...)``, ``.edit(...)`` and ``.refold(...)``
        give further ones, and ``.compare()`` tells what they change.

        Raises InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> kept = book.branch("nobody cancels").without(event_type="OrderCancelled")
        >>> kept.compare().states.row(-1)
        ('status', 'CANCELLED', 67, 0, -67)
        """
        return Branch.of(self, name, at)

    def scrub(
        self,
        measure: str | None = "total",
        by: str = "status",
        step: str | timedelta | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
    ) -> Scrubber:
        """Drag through the history of all: how many are in each state, and what `measure` adds up to there.

        measure, by, since, until: as of ``every``. step: as of ``every``; without one, the shortest of a
        second to a month that makes no more than some 400 instants. Raises what ``every`` raises.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.scrub(step="1d")
        <Scrubber of Order by status: 42 instants>
        """
        data, table = deltas.grid(self, measure, by, step, since, until)
        said = f"{self.aggregate.__name__} by {by}: {len(data['instants']):,} instants"
        return Scrubber(data, table, said)

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"aggregates": len(self), "events": len(self.typed)}
        if self.span is not None:
            facts["from"], facts["to"] = (iso(from_micros(moment)) for moment in self.span)
        if len(self.rejected):
            facts["rejected"] = f"{len(self.rejected):,} (see .rejected)"
        if self.undeclared:
            facts["undeclared types"] = ", ".join(f"{name} x {n:,}" for name, n in self.undeclared.items())
        if self.rows.stepping_back.any():
            facts["clocks stepping back"] = (
                f"{int(self.rows.stepping_back.sum()):,} aggregates (see .cuts(instant))"
            )
        facts["source"], facts["complete"] = self.basis.source, self.basis.frontier
        if self.kept:
            facts["kept"] = self.kept
        facts["columns"] = ", ".join(self.aggregate.reducers)
        return html.card(
            f"Timeline of {self.aggregate.__name__}", facts, f"fingerprint {self.basis.fingerprint}"
        )


class Branch(Edited, Book):
    """A Book as it would be with other events; made by ``book.branch()``. It answers every verb of a Book.

    Every edit gives a new Branch. What stays keeps its version, so an event that was left out is a gap.
    """


def find(ids: pl.Series, wanted: str) -> int | None:
    """Find an id's place in the sorted ids, or None."""
    place = int(ids.search_sorted(wanted)) if len(ids) else 0
    return place if place < len(ids) and ids[place] == wanted else None


def no_such(wanted: str, ids: pl.Series, source: str) -> NoSuchAggregate:
    """Build the error for an id nobody has, with near ones: first those that begin alike."""
    begin = ids.filter(ids.str.starts_with(wanted)).head(3).to_list() if wanted else []
    alike = ids.filter(ids.str.starts_with(wanted[:4]))
    near = nearest(wanted, begin or alike.head(NEAR)) or nearest(wanted, ids.head(NEAR))
    if begin:
        near = f"did you mean {' or '.join(map(repr, begin))}?"
    return NoSuchAggregate(
        f"no aggregate {wanted!r} among the {len(ids):,} of {source}",
        hint=near or (f"ids look like {ids[0]!r}" if len(ids) else "the log holds no events"),
        aggregate_id=wanted,
    )
