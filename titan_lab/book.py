"""Book: the Timeline of all aggregates, with every verb that can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from titan_lab import change, conform, dwell
from titan_lab.bisect import bisect
from titan_lab.branch import Edited
from titan_lab.clock import Cut, Instant, check_cut, from_micros, iso, micros
from titan_lab.cohorts import retention
from titan_lab.errors import InstantError, NoSuchAggregate, nearest
from titan_lab.explain import explain
from titan_lab.funnel import Funnel, funnel
from titan_lab.known import Effective, at_known, believed
from titan_lab.notebook import html
from titan_lab.story import Story
from titan_lab.timeline import Timeline
from titan_lab.variants import flow, variants

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

    def at(
        self,
        when: Instant | None = None,
        *,
        version: int | None = None,
        cut: Cut = "prefix",
        columns: str | Iterable[str] | None = None,
        known_at: Instant | None = None,
    ) -> pl.DataFrame:
        """Give the state of every aggregate at an instant, as ``Timeline.at`` does, or as it was known then.

        known_at: use only events recorded by this instant (inclusive, under `cut`), each from the instant on
        at which it is effective: `metadata.effective_at`, else its timestamp. Where the two clocks disagree,
        an aggregate's events are folded in order of (effective_at, version); `version` is then that of the
        last of them, valid_from and valid_to are effective instants. An effective_at that is no instant is
        passed over; ``backdated`` lists it.

        Raises InstantError for an unreadable instant, or a known_at without an instant; NoSuchColumn.

        >>> import titan_lab as tl
        >>> order = "550e8400-e29b-41d4-a716-446655440000"
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order, aggregates=order)
        >>> then, now = (book.at("2025-01-01T10:30Z", known_at=k) for k in ("2025-01-02", "2025-02-01"))
        >>> then["total"].item(), now["total"].item()
        (Decimal('999.00'), Decimal('968.90'))
        """
        if known_at is None:
            return super().at(when, version=version, cut=cut, columns=columns)
        if when is None or version is not None:
            raise InstantError(
                "known_at needs an instant", hint="book.at('2025-01-15', known_at='2025-01-20')"
            )
        moment, known = micros(when, self.zone), micros(known_at, self.zone)
        return at_known(self, self._effective, moment, known, check_cut(cut), self.wanted(columns))

    def believed(
        self,
        when: Instant,
        known_at: Instant,
        columns: str | Iterable[str] | None = None,
    ) -> pl.DataFrame:
        """Lay the state at an instant as it was believed at another beside the one that the log says.

        Returns aggregate_id, then version and each column twice: under its own name as ``at(when)`` gives it
        (by the instant of recording), and with ``_believed`` as ``at(when, known_at=known_at)`` does; and
        differs Boolean, over the asked columns. Null where it did not exist. Sorted by aggregate_id.

        Raises InstantError, NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.believed("2025-01-10", "2025-03-01", columns="total")["differs"].sum()
        8
        """
        now = self.at(when, columns=columns)
        then = self.at(when, known_at=known_at, columns=columns)
        return believed(now, then, self.wanted(columns))

    def backdated(self) -> pl.DataFrame:
        """List the events that are effective at another instant than the one they were recorded at.

        Returns aggregate_id, version, event_type, timestamp, effective_at, by Duration(us) (how much earlier;
        negative: later), correlation_id, and written: effective_at as the metadata has it. effective_at is
        null where that is no instant with a zone; such an event counts from its timestamp. Sorted by
        (aggregate_id, version).

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.backdated()["event_type"].unique().to_list()
        ['OrderCorrected']
        """
        return self._effective.report()

    @cached_property
    def _effective(self) -> Effective:
        return Effective(self.typed, self.zone)

    def __contains__(self, aggregate_id: object) -> bool:
        return find(self.typed.ids, str(aggregate_id)) is not None

    # ------------------------------------------------------------------ explaining

    def blame(self, column: str, when: Instant | None = None, cut: Cut = "prefix") -> pl.DataFrame:
        """Find the event that set the value that a column has now, or had at an instant (inclusive).

        Returns one row per aggregate that existed, sorted by aggregate_id: aggregate_id String, value in the
        column's own dtype, and of the event version Int64, event_type String, timestamp Datetime(us, UTC),
        correlation_id String (from the metadata), all null where no event has set a value yet. A sum's or a
        count's event is the last one that went into it, an extreme's the first one that brought it. upcast
        String names the upcast steps that wrote this field of the event's payload, joined by " > "; null
        where it was stored as it was read.

        Raises NoSuchColumn, InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.blame("total", "2025-01-15").select("value", "version", "event_type", "upcast").row(7)
        (Decimal('274.40'), 1, 'OrderCreated', 'total_of_items')
        """
        return change.blame(self, column, when, cut)

    def diff(
        self,
        t0: Instant | Timeline | None = None,
        t1: Instant | None = None,
        *,
        columns: str | Iterable[str] | None = None,
        cut: Cut | tuple[Cut, Cut] = "prefix",
        versions: tuple[int, int] | None = None,
    ) -> pl.DataFrame:
        """Compare all states at two instants: one row for each field that changed, and the event behind it.

        diff(t0, t1): what changed after t0, up to and including t1. diff(versions=(1, 3)): between two
        versions; 0 is before the first, and a younger aggregate shows its last. diff(other, when): this
        timeline beside another one (a branch, another fold) at an instant or, without one, at their end;
        diff(self, when, cut=("prefix", "latest")): beside itself under another cut.

        Returns aggregate_id and field String, before and after, then as ``blame`` does for the second state
        version, event_type, timestamp, correlation_id; sorted by aggregate_id, fields in order of
        declaration. before and after have the columns' own dtype if all asked for share one, and are text
        otherwise: amounts with their decimals, instants ISO-8601 with a Z, lists and structs as JSON. An
        aggregate that was not there is compared with the state that every life begins with; columns that
        show the id are left out.

        Raises NoSuchColumn, and InstantError when t1 is before t0.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.diff("2025-01-15", "2025-01-16").drop("aggregate_id", "timestamp", "correlation_id").row(0)
        ('status', 'PAID', 'SHIPPED', 3, 'OrderShipped')
        """
        if isinstance(t0, Timeline):
            return change.between(self, t0, t1, columns, cut)
        return change.diff(self, t0, t1, columns, cut, versions)  # type: ignore[arg-type]

    def explain(
        self, measure: str, t0: Instant, t1: Instant, by: str = "event_type", zone: str | None = None
    ) -> pl.DataFrame:
        """Tell why the sum of a column moved after t0, up to and including t1; exactly additive.

        Each event's change is the column after it less the column before it, null counting as 0; the first
        event of a life brings all of its value. by: "event_type", "day" (the calendar day in `zone`, the
        log's or UTC) or a column of the state, as it is after the event.

        Returns the `by` column, change in the measure's own dtype, whose sum is the sum at t1 less that at
        t0, and events Int64: how many moved it. Sorted by the size of the change, largest first, then by key
        with null as the last.

        Raises NoSuchColumn, DeclarationError for a measure that is no exact number, InstantError when t1 is
        before t0.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.explain("total", "2025-01-14", "2025-01-15").row(1)
        ('OrderModified', Decimal('-468.85'), 147)
        """
        return explain(self, measure, t0, t1, by, zone)

    def bisect(
        self,
        predicate: Callable[[pl.DataFrame], bool],
        since: Instant | None = None,
        until: Instant | None = None,
        columns: str | Iterable[str] | None = None,
        scan: bool = False,
    ) -> datetime | None:
        """Find the first instant at which a predicate over the frame of all states holds.

        since, until: the range, both inclusive; the whole history without them. columns: what the frame must
        have, as for ``at``. The answer is an instant at which some event begins to count, or `since` when it
        holds there already; None when it holds nowhere in the range.

        The range is halved, which takes some twenty looks and is right for a predicate that stays true once
        it is. A handful of instants across the range are looked at in any case; if it is true at one and
        false at a later one, NotMonotone shows them. scan=True looks at every instant in turn, up to 10,000.

        Raises PredicateError when the predicate raises, or says neither true nor false; InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.bisect(lambda states: states["refunded"].sum() > 1000, columns="refunded").isoformat()
        '2025-01-02T21:49:27.534035+00:00'
        """
        return bisect(self, predicate, since, until, columns, scan)

    def trace(self, aggregate_id: str, version: int | None = None) -> pl.DataFrame:
        """Lay out the tree of causes around an event, across aggregates; see ``Story.trace``.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.trace("550e8400-e29b-41d4-a716-446655440000", version=9)["event_type"].to_list()
        ['OrderCorrected', 'RefundIssued']
        """
        return self[aggregate_id].trace(version)

    # ------------------------------------------------------------------ what it knows of itself

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

        Raises NoSuchColumn, DeclarationError for a column of lists, InstantError.

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

    def variants(self) -> pl.DataFrame:
        """Group the aggregates by the way they took: one row for each sequence of event types that occurs.

        Returns variant List(String), the types in order of version; count Int64; share Float64, of all
        aggregates; median_duration Duration(us), from the first event to the last, rounded down; and example
        String, the smallest aggregate_id. Sorted by count, most first, then by variant. Durations lie
        between the moments at which events count (law 2), so none is negative.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.variants().select("variant", "count", "share").row(1)
        (['OrderCreated', 'PaymentAuthorized', 'OrderCancelled', 'RefundIssued'], 36, 0.072)
        """
        return variants(self.rows)

    def flow(self) -> pl.DataFrame:
        """Count which event type directly follows which, and how long that takes.

        Returns from_type and to_type String (null: the life begins there, or ends there); count Int64; share
        Float64, of all that comes after from_type; and mean_wait, median_wait and p90_wait Duration(us),
        rounded down, null where a life begins or ends. Sorted by count, most first, then by from_type and
        to_type, nulls first. Quantiles are interpolated as numpy and SQL's percentile_cont do. Waits lie
        between the moments at which events count (law 2): where a clock stepped back, the wait is 0.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.flow().select("from_type", "to_type", "count", "share").row(1)
        ('ItemsReturned', 'RefundIssued', 2776, 1.0)
        """
        return flow(self.rows)

    def funnel(
        self,
        steps: Any,
        within: str | timedelta | None = None,
        by: str | None = None,
        *,
        order: Literal["given", "any"] = "given",
        strict: bool = False,
        reentry: bool = False,
    ) -> Funnel:
        """Count how many aggregates take the steps one after the other, and how far the others come.

        steps: any number of event types, by name or class, or functions from a type's name to True or False;
        one may stand there twice, and then takes two events. Order is version order, so that equal timestamps
        are no ties. within: how long the whole may take ("7d"), inclusive, from the event that takes the
        first step; every such event opens a window of its own. An aggregate counts once, by its longest
        chain, of equally long ones the first. Time is when events count (law 2), so it never steps back.

        strict=True: no other event lies in between, of whatever type. order="any": steps come in any order,
        and step n is any n of them. reentry=True: an aggregate counts each time it enters anew after its
        last chain's end. by: a column of the state, as it was after the first step.

        Returns a Funnel: ``.steps`` is a frame with one row per step, ``.witnesses`` one with a row per
        aggregate and the events that prove how far it came.

        Raises FunnelError for no steps and for one that no event takes, InstantError for a bad duration,
        NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.funnel([tl.OrderCreated, tl.OrderShipped, tl.OrderDelivered], within="7d")
        <Funnel of 500 aggregates: OrderCreated 500 > OrderShipped 409 > OrderDelivered 337>
        """
        grouped = None if by is None else (by, self.track(by).at)
        return funnel(self.rows, steps, within, grouped, order=order, strict=strict, reentry=reentry)

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

    def retention(self, by: str = "1mo", of: str = "user_id", zone: str | None = None) -> pl.DataFrame:
        """Count who comes back: users by the period of their first order, and how many order again when.

        A user is a value of the column `of`, as it is after an aggregate's last event; aggregates without one
        are left out. A user is active in a period if one of their aggregates has its first event then. by:
        the period, of the calendar of `zone` (the log's, else UTC): "1d", "1w" (from Monday), "1mo", "1q",
        "1y".

        Returns cohort Date, the first day of the period of the first order; period Int64, 0 for that one, 1
        for the next, up to the last in which anything began; users Int64, the cohort's size; active Int64;
        and share Float64, of the cohort. Sorted by cohort, period. The last period may not be over yet.

        Raises InstantError for a period or zone that is none, NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.retention("1w").select("period", "users", "active").rows()[:3]
        [(0, 55, 55), (1, 55, 18), (2, 55, 17)]
        """
        users = self.track(of).at(self.rows.last.astype(np.intp), np.arange(len(self)))
        began = self.typed.timestamp[self.typed.starts]
        return retention(users, began, by, zone or self.zone)

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
