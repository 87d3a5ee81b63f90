"""Branch a history: leave events out, put others in, change them, fold them otherwise, and compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import polars as pl

from titan_lab.clock import Instant, from_micros, iso, micros
from titan_lab.errors import BranchError
from titan_lab.event import EVENTS
from titan_lab.fold import Aggregate, declared
from titan_lab.timeline import Timeline
from titan_lab.typed import typed
from titan_lab.whatif.compare import Comparison, same_declaration
from titan_lab.whatif.edits import Choice, decoded, rewritten
from titan_lab.whatif.history import Added, Edit, WhatIf
from titan_lab.whatif.insertion import room_for
from titan_lab.whatif.lazily import Folded
from titan_lab.whatif.recorded import KEY
from titan_lab.whatif.splice import lives, nothing, places, splice


class Edited(WhatIf):
    """A what-if that can be edited: every edit gives a new one."""

    @classmethod
    def of(cls, base: Timeline, name: str, at: Instant | int | None = None) -> Self:
        """Begin a branch on a book, or on its history up to an instant or a version (both inclusive)."""
        if at is None:
            return cls(base, name)
        if isinstance(at, int) and not isinstance(at, bool):
            told, later = f"up to version {at}", base.typed.version > at
        else:
            moment = micros(at, base.zone)  # type: ignore[arg-type]  # True and False are refused there
            told, later = f"until {iso(from_micros(moment))}", base.rows.counted("prefix") > moment
        gone = np.flatnonzero(later)
        step = Edit(told, len(gone), len(np.unique(base.typed.aggregate_of(gone))))
        return cls(cls(base, told, gone=gone, steps=(step,)), name)

    # ------------------------------------------------------------------ editing

    def without(
        self,
        where: pl.Expr | None = None,
        *,
        event_type: Any = None,
        aggregate_id: str | Iterable[str] | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
        version: int | Iterable[int] | None = None,
    ) -> Self:
        """Leave events out: those that pass every filter given, and there must be one.

        event_type: names or event classes. aggregate_id, version: one or several. since, until: instants,
        both inclusive, compared with `timestamp`. where: a polars expression over the columns of EVENTS
        (payload and metadata as JSON text), true for the events meant; it sees those that pass the other
        filters. Only where it names the payload are payloads read, from the store. What stays keeps its
        version, so that a gap shows what is missing. Filters that no event passes leave out nothing: see
        `touched`.

        Raises BranchError where no filter is given, for an event type that nobody knows, and where `where` is
        not true or false; NoSuchColumn; InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.branch().without(event_type="OrderCancelled", since="2025-01-15").touched
        45
        """
        choice = Choice(where, aggregate_id, event_type, version, since, until)
        return self._edited(f"without({choice})", self._chosen(choice))

    def edit(
        self,
        where: pl.Expr | None = None,
        set: Mapping[str, Any] | None = None,  # noqa: A002 -- it reads as what it does
        *,
        event_type: Any = None,
        aggregate_id: str | Iterable[str] | None = None,
        since: Instant | None = None,
        until: Instant | None = None,
        version: int | Iterable[int] | None = None,
    ) -> Self:
        """Change events: those that ``without`` would leave out, by the same filters.

        set: a value for each field. `timestamp`, `event_type`, `metadata` and `payload` (as a whole) are the
        event's own; any other name is a field of the payload, which is brought to its current shape first.
        None takes a field away. A value may be a polars expression over the columns of EVENTS, such as
        ``pl.col("timestamp") + pl.duration(hours=1)``. The chosen events are read from the store.

        Raises BranchError for a payload that no longer fits its declaration (it names aggregate_id, version,
        JSON path and reason, and nothing is changed), and as ``without`` does; NoSuchColumn for a field that
        the event type does not declare.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> free = book.branch("no refunds").edit(set={"amount": 0}, event_type="RefundIssued")
        >>> free.compare().totals.row(2)
        ('refunded', Decimal('67176.88'), Decimal('0.00'), Decimal('-67176.88'))
        """
        if not isinstance(set, Mapping) or not set:
            raise BranchError(
                f"edit(set={set!r}) sets nothing", hint='edit(event_type="RefundIssued", set={"amount": 0})'
            )
        choice = Choice(where, aggregate_id, event_type, version, since, until)
        rows = self._chosen(choice)
        new = None
        if len(rows):
            events = rewritten(self._events(rows, list(EVENTS)), set, self.aggregate, self.zone)
            new = Added(events, decoded(events, self.aggregate, "changed"))
        return self._edited(f"edit({choice}, set={', '.join(set)})", rows, new)

    def insert(self, frame: Any, *, shift: bool = False) -> Self:
        """Add events: a polars, pandas or arrow frame with the columns of EVENTS.

        Without a version (or all null) each is appended after its aggregate's last, in the order of rows.
        With one it takes a place that is free: the next, or one from which an event was left out; version 1
        begins a new aggregate. shift=True makes room in the middle: the event that holds the version and all
        that follow it in the aggregate move up by one; these are read from the store. Payloads are read as a
        store's are: without a schema_version in the metadata, as the oldest.

        Raises BranchError for a row that is no event, an aggregate nobody has, a version that is taken or
        would leave a gap, and a payload that does not fit its declaration; nothing is inserted then.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> refund = {"aggregate_id": "550e8400-e29b-41d4-a716-446655440000", "event_type": "RefundIssued",
        ...           "payload": '{"amount": 100}', "timestamp": "2025-03-01T00:00Z"}
        >>> book.branch().insert([refund]).compare().of("refunded").select("before", "after").row(0)
        (Decimal('79.90'), Decimal('179.90'))
        """
        room = room_for(frame, self.typed, self.zone, shift)
        events = room.events
        if len(room.moved):
            moved = self._events(room.moved, list(EVENTS))
            moved = moved.with_columns(version=pl.col("version") + pl.Series(room.by))
            events = pl.concat([events, moved]).sort("aggregate_id", "version")
        new = Added(events, decoded(events, self.aggregate, "inserted")) if len(events) else None
        return self._edited(f"insert({len(room.events):,} events)", room.moved, new)

    def refold(self, aggregate: type[Aggregate]) -> Self:
        """Fold the same history by another declaration. Everything is folded again.

        Where the two declare the same events, nothing is read or decoded again; else the store is read once
        more, and what does not fit is in `rejected`.

        >>> import titan_lab as tl
        >>> class Modest(tl.Order):
        ...     refunded = tl.largest(tl.RefundIssued, "amount")
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.branch("largest refund only").refold(Modest).compare().of("refunded").height
        373
        """
        declared(aggregate)
        step = Edit(f"refold({aggregate.__name__})", len(self.typed), len(self))
        gone, added, rejected = self.gone, self.added, self.rejected
        if _events_of(aggregate) != _events_of(self.aggregate):
            events = self._stored()
            columns, rejected = typed(events, aggregate.events, aggregate.chain)
            events = events.join(rejected, on=KEY, how="anti", maintain_order="left")
            gone, added = np.arange(len(self.base.typed)), Added(events, columns)
        return type(self)(
            self.base,
            self.name,
            aggregate=aggregate,
            gone=gone,
            added=added,
            steps=(*self.steps, step),
            rejected=rejected,
        )

    # ------------------------------------------------------------------ comparing

    def compare(self, book: Timeline | None = None, *, when: Instant | None = None) -> Comparison:
        """Compare with the book branched from, or with another: states, totals, and what became illegal.

        when: an instant (inclusive) at which both are looked at; without one, after their last events. The
        book branched from at an instant (`at=`) is its history until then. Another branch of the same book is
        compared on what either of them touched, any other book on all aggregates.

        Returns a Comparison: its frames are `orders` (every value that differs), `totals` (sums), `states`
        (counts), `illegal` (what became illegal by the machine's `allowed`), and ``of(column)`` (one column).

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.branch().without(event_type="PaymentAuthorized").compare()
        <Comparison of 'what-if' with its base: 460 touched, 460 changed, 406 became illegal>
        """
        moment = None if when is None else micros(when, self.zone)
        mine = f"{self.name!r}"
        if book is None or book is self.base:
            names = ("its base", mine)
            if not self.same_fold:
                same_declaration(self, self.base)
                return Comparison(self.base, None, self, names=names, moment=moment)
            columns = None if moment is not None else self._suspects
            return Comparison(
                self.base, self._touched, self._part, names=names, moment=moment, columns=columns
            )
        if not isinstance(book, Timeline):
            raise BranchError(
                f"a branch compares with a book, not with a {type(book).__name__}",
                hint="branch.compare(book), or branch.compare() for the book branched from",
            )
        same_declaration(self, book)
        names = (f"{book.name!r}" if isinstance(book, WhatIf) else book.basis.source, mine)
        ids = apart(self, book)
        if ids is None:
            return Comparison(book, None, self, names=names, moment=moment)
        here, there = places(self.typed.ids, ids), places(book.typed.ids, ids)
        part = Folded(self.aggregate, lives(self.typed, here.number[here.known])[0], self.zone)
        return Comparison(book, there.number[there.known], part, names=names, moment=moment)

    # ------------------------------------------------------------------ edits

    def _chosen(self, choice: Choice) -> np.ndarray:
        return choice.rows(self.typed, self.aggregate.events, self.zone, self._events)

    def _edited(self, told: str, rows: np.ndarray, new: Added | None = None) -> Self:
        """Give a branch without some rows of this one, and with new events."""
        old, ours = self._whole.parted(rows)
        added = self.added
        if len(ours) or new is not None:
            more = Added(EVENTS.to_frame(), nothing()) if new is None else new
            keep = np.ones(len(added.events), dtype=bool)
            keep[ours] = False
            events = pl.concat([added.events.filter(keep), more.events]).sort(KEY)
            added = Added(events, splice(added.typed, ours, more.typed).typed)
        if new is not None:
            step = Edit(told, len(new.events), len(new.typed.ids))
        else:
            owners = (
                self.base.rows.owners[rows] if self._whole.origin is None else self.typed.aggregate_of(rows)
            )
            step = Edit(told, len(rows), len(np.unique(owners)))
        return type(self)(
            self.base,
            self.name,
            aggregate=self.aggregate,
            gone=np.union1d(self.gone, old),
            added=added,
            steps=(*self.steps, step),
            rejected=self.rejected,
        )


def apart(one: Timeline, other: Timeline) -> pl.Series | None:
    """Give the ids, sorted, of the aggregates that can differ between two books; None where all can."""
    ours, theirs = lineage(one), lineage(other)
    shared = next((place for place, book in enumerate(ours) if book in theirs), None)
    if shared is None:
        return None
    steps = [*ours[:shared], *theirs[: theirs.index(ours[shared])]]
    branches = [step for step in steps if isinstance(step, WhatIf)]
    if not all(branch.same_fold for branch in branches):
        return None
    ids = [branch.touched_ids for branch in branches]
    return pl.concat([pl.Series([], dtype=pl.String), *ids]).unique().sort()


def lineage(book: Timeline) -> list[Timeline]:
    """List a book and what it was branched from, back to one that is no branch."""
    return [book, *lineage(book.base)] if isinstance(book, WhatIf) else [book]


def _events_of(aggregate: type[Aggregate]) -> tuple[object, list[str]]:
    """Give all that decides how a payload is decoded."""
    shapes = {name: repr(event.shape.slots) for name, event in aggregate.events.items()}
    return shapes, [step.fingerprint() for step in aggregate.chain.steps]
