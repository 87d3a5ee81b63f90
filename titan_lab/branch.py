"""A what-if: a history with events left out, put in or changed, beside the one that happened.

A branch keeps which events of its base are gone and which are new, nothing else. A comparison is worked out
from the touched aggregates alone; the whole history is only put together, and folded column by column, when a
verb asks for it. Events that stay are never decoded again, and the columns of their payloads are shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from titan_lab.clock import Instant, from_micros, iso, micros
from titan_lab.compare import Comparison, same_declaration
from titan_lab.edits import Choice, decoded, rewritten
from titan_lab.errors import BranchError
from titan_lab.event import EVENTS
from titan_lab.fold import Aggregate
from titan_lab.insertion import room_for
from titan_lab.lazily import Folded, Tracks
from titan_lab.notebook import html
from titan_lab.recorded import KEY, events_at
from titan_lab.rows import Rows
from titan_lab.splice import NO_ROWS, Places, Spliced, lives, nothing, places, splice
from titan_lab.timeline import Basis, Timeline
from titan_lab.tracks import Track
from titan_lab.typed import Typed, typed

SHOWN = 3  # edits that a repr tells


class Edit(NamedTuple):
    """One step of a branch: what was asked for, and how many events and aggregates it met."""

    told: str
    events: int
    aggregates: int


class Added(NamedTuple):
    """The events that are new in a branch: as they would be stored, and decoded; both in order."""

    events: pl.DataFrame
    typed: Typed


class Edited(Timeline):
    """A Timeline as it would be with other events. Every edit gives a new one; the base is never changed."""

    def __init__(
        self,
        base: Timeline,
        name: str,
        *,
        aggregate: type[Aggregate] | None = None,
        gone: np.ndarray = NO_ROWS,
        added: Added | None = None,
        steps: tuple[Edit, ...] = (),
        rejected: pl.DataFrame | None = None,
    ) -> None:
        self.base = base
        self.name = name
        self.aggregate = base.aggregate if aggregate is None else aggregate
        self.zone = base.zone
        self.rejected = base.rejected if rejected is None else rejected
        self.gone = gone  # rows of the base, ascending
        self.added = Added(EVENTS.to_frame(), nothing()) if added is None else added
        self.steps = steps
        self.read_snapshots = None  # the store's are of what happened
        self.read_events = None if base.read_events is None else self._stored

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
        if not set:
            raise BranchError("edit sets nothing", hint='edit(event_type="RefundIssued", set={"amount": 0})')
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
        book branched from at an instant (`at=`) is its history until then.

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
            if not self._same_fold:
                same_declaration(self, self.base)
                return Comparison(self.base, None, self, names=names, moment=moment)
            columns = None if moment is not None else self._suspects
            return Comparison(
                self.base, self._touched, self._part, names=names, moment=moment, columns=columns
            )
        same_declaration(self, book)
        other = f"{book.name!r}" if isinstance(book, Edited) else book.basis.source
        return Comparison(book, None, self, names=(other, mine), moment=moment)

    # ------------------------------------------------------------------ what it knows of itself

    @property
    def touched(self) -> int:
        """Count the aggregates that were folded again, and those that are new; 0 where no edit met any."""
        known = self._touched if self._same_fold else self.base.typed.ids
        return len(known) + int((~self._found.known).sum())

    @property
    def edits(self) -> pl.DataFrame:
        """List the edits in the order they were made: edit String, events and aggregates Int64.

        events counts those that were left out, changed, or inserted together with those that made room.
        """
        schema = {"edit": pl.String, "events": pl.Int64, "aggregates": pl.Int64}
        return pl.DataFrame(self.steps, schema=schema, orient="row")

    @cached_property
    def basis(self) -> Basis:  # type: ignore[override]
        """Tell what an answer rests on: the base, the edits and a digest of the events they made."""
        under = self.base.basis
        made = hashlib.sha256(self.gone.astype(np.int64).tobytes())
        made.update(self.added.events.write_csv().encode())
        edits = "; ".join(step.told for step in self.steps) or "no edits"
        source = f"{under.source}, branch {self.name!r} ({made.hexdigest()[:12]}): {edits}"
        events = under.events - len(self.gone) + len(self.added.events)
        return Basis(source, under.frontier, self.aggregate.fingerprint(), events)

    def __repr__(self) -> str:
        edits = "no edits" if not self.steps else "; ".join(step.told for step in self.steps[-SHOWN:])
        more = f"{len(self.steps) - SHOWN} edits; " if len(self.steps) > SHOWN else ""
        under = f" on {self.base.name!r}" if isinstance(self.base, Edited) else ""
        return (
            f"<Branch {self.name!r} of {self.aggregate.__name__}{under}: {more}{edits}; {len(self.gone):,}"
            f" events gone, {len(self.added.events):,} new, {self.touched:,} aggregates touched>"
        )

    def _repr_html_(self) -> str:
        facts = {
            "branched from": self.base.basis.source,
            "events gone": len(self.gone),
            "events new": len(self.added.events),
            "aggregates touched": self.touched,
        }
        note = "" if self.touched else "no edit met any event: it answers as what it was branched from"
        title = f"Branch {self.name!r} of {self.aggregate.__name__}"
        return html.card(title, facts, note, body=html.table(self.edits))

    # ------------------------------------------------------------------ the whole, when it is asked for

    @cached_property
    def _whole(self) -> Spliced:
        return splice(self.base.typed, self.gone, self.added.typed)

    @cached_property
    def typed(self) -> Typed:  # type: ignore[override]
        return self._whole.typed

    @cached_property
    def rows(self) -> Rows:  # type: ignore[override]
        return Rows(self.typed)

    @cached_property
    def tracks(self) -> Mapping[str, Track]:  # type: ignore[override]
        return Tracks(self.aggregate, self.typed)

    # ------------------------------------------------------------------ the touched ones

    @cached_property
    def _found(self) -> Places:
        """Tell where the aggregates of the new events stand in the base."""
        return places(self.base.typed.ids, self.added.typed.ids)

    @cached_property
    def _touched(self) -> np.ndarray:
        """Number the base's aggregates that have other events here."""
        owners = self.base.rows.owners[self.gone]
        return np.unique(np.concatenate([owners, self._found.number[self._found.known]]))

    @cached_property
    def _part(self) -> Timeline:
        """Fold the touched aggregates alone."""
        before, rows = lives(self.base.typed, self._touched)
        after = splice(before, np.searchsorted(rows, self.gone), self.added.typed)
        return Folded(self.aggregate, after.typed, self.zone)

    @property
    def _same_fold(self) -> bool:
        return self.aggregate is self.base.aggregate

    @property
    def _suspects(self) -> list[str] | None:
        """List the columns whose last value can differ: those that listen to what was left out or added."""
        if len(self._part) != len(self._touched) or not self._found.known.all():
            return None  # an aggregate that begins or vanishes differs in all
        base, new = self.base.typed, self.added.typed
        kinds = {base.kinds[code] for code in np.unique(base.kind[self.gone])}
        kinds |= {new.kinds[code] for code in np.unique(new.kind)}
        return [name for name, reducer in self.aggregate.reducers.items() if kinds & reducer.sources.keys()]

    # ------------------------------------------------------------------ edits, and the events they need

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

    def _events(self, rows: np.ndarray, names: list[str]) -> pl.DataFrame:
        return events_at(self.typed, rows, names, self._stored)

    def _stored(self, ids: Iterable[str] | None = None) -> pl.DataFrame:
        """Read the events of some aggregates, or of all, as a store of this history would hold them."""
        if self.base.read_events is None:
            raise BranchError(
                "the payloads are not kept, and this book does not know its store",
                hint="branch a book that was made by log.fold(...)",
            )
        # An event that was refused may still be stored where a new one has its place.
        taken = pl.concat([events_at(self.base.typed, self.gone, KEY), self.added.events.select(KEY)])
        events = self.base.read_events(ids).join(taken, on=KEY, how="anti", maintain_order="left")
        own = self.added.events
        if ids is not None:
            own = own.filter(pl.col("aggregate_id").is_in(list(ids)))
        return pl.concat([events, own]).sort(KEY)


def _events_of(aggregate: type[Aggregate]) -> tuple[object, list[str]]:
    """Give all that decides how a payload is decoded."""
    shapes = {name: repr(event.shape.slots) for name, event in aggregate.events.items()}
    return shapes, [step.fingerprint() for step in aggregate.chain.steps]
