"""Book: the Timeline of all aggregates, with every verb that can be asked of it."""

from __future__ import annotations

import polars as pl

from titan_lab import conform, dwell
from titan_lab.clock import Instant, from_micros, iso
from titan_lab.errors import NoSuchAggregate, nearest
from titan_lab.notebook import html
from titan_lab.story import Story
from titan_lab.timeline import Timeline

NEAR = 20_000  # ids among which near ones are looked for


class Book(Timeline):
    """The Timeline of all aggregates. ``book["id"]`` opens one life."""

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

    # ------------------------------------------------------------------ mining

    def dwell(self, column: str = "status", until: Instant | None = None) -> pl.DataFrame:
        """Tell how long aggregates stay in each state of a column, those that are still in it included.

        A stay is a longest run of events of one aggregate after which the column has the same value; it lasts
        from the instant from which its first event counts to that from which the next run's does. What is
        not over by the horizon, the log's last instant or `until` (inclusive), is cut off there: it counts as
        at least that long, which dropping it, or taking it for finished, would not. An `until` later than
        the log claims that nothing happened in between.

        Returns one row per state that occurs, in the column's own order (a machine's as declared), null (no
        value yet) last: state, entered (stays begun), finished and open Int64, median, mean and p90
        Duration(us), and total Duration(ms), all time spent there. median and p90 are those of Kaplan and
        Meier (1958), null where too many stays are open to tell; mean is restricted to the longest stay seen,
        hence too small where that one is open. ``titan_lab.dwell.survival`` has the formulas.

        Raises NoSuchColumn, DeclarationError for a column of lists or of more than 256 values, InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.dwell().select("state", "entered", "finished", "open").row(1)
        ('PAID', 460, 445, 15)
        """
        return dwell.dwell(self, column, until)

    def stays(self, column: str = "status", until: Instant | None = None) -> pl.DataFrame:
        """List the stays that ``dwell`` sums up, one row each, sorted by aggregate_id and version.

        Returns aggregate_id String, version Int64 (of the event that began the stay), state, entered_at and
        left_at Datetime(us, UTC) (null: still there at the horizon) and duration Duration(us), up to the
        horizon where it is open.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> stays = book.stays().filter(pl.col("aggregate_id") == "550e8400-e29b-41d4-a716-446655440000")
        >>> stays.select("state", "duration").rows()[:1]
        [('CREATED', datetime.timedelta(seconds=60))]
        """
        return dwell.stays(self, column, until)

    def conform(self) -> conform.Conformance:
        """Hold every life to the rules that the aggregate declares; give what breaks them, with its event.

        Looked at are: "illegal transition", where a machine's `allowed` does not let a state follow the one
        before; "version gap"; the aggregate's own ``checks``, by their names; "snapshot differs from replay",
        field by field at the snapshot's version, where the store keeps snapshots. Fields that a snapshot
        lacks, or that the aggregate does not have, are not compared.

        Returns a Conformance. Its `findings` have one row per finding, sorted by kind, aggregate_id and
        version: kind and aggregate_id String, version Int64, event_type String and timestamp Datetime(us,
        UTC) (null where the log has no event of a snapshot's version), detail String, which says what was
        found and what was expected. Its `counts` say how many there are of each kind. Raises DeclarationError
        for a check that fails.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.conform().findings.select("version", "event_type", "detail").row(0)
        (5, 'OrderDelivered', 'status goes from CANCELLED to DELIVERED, expected nothing more')
        """
        return conform.conform(self)

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
        facts["columns"] = ", ".join(self.aggregate.reducers)
        return html.card(
            f"Timeline of {self.aggregate.__name__}", facts, f"fingerprint {self.basis.fingerprint}"
        )


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
