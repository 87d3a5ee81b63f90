"""Snapshots: states that are saved, so that a long life is not folded from its beginning each time.

They never lie: one is used only if this very fold made it, if it was taken at or before the instant that is
asked about, and if the log still holds the event it was taken after; the answer is the same without it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import polars as pl

from titan_lab import saved
from titan_lab.advice import EVERY, Advice
from titan_lab.clock import Cut, Instant, check_cut, check_version, instant
from titan_lab.decoding import read_payload
from titan_lab.errors import InstantError, NoSuchAggregate
from titan_lab.event import EVENTS, Event, check, parse_object
from titan_lab.fold import Aggregate, Misfit, State, declared
from titan_lab.jsontext import FLAT, not_objects
from titan_lab.log import EventLog
from titan_lab.payload import Record
from titan_lab.reducers import step
from titan_lab.saved import Saved
from titan_lab.scope import Scope
from titan_lab.taking import Taken, advise, take

Row: TypeAlias = tuple[Any, ...]  # version, event_type, payload, metadata, timestamp

UTC = ZoneInfo("UTC")  # as moments in a frame have it
FLAT_OBJECT = re.compile(FLAT)
ODD = Misfit("$", "is no event as every way of folding reads it")
STEPS = 1_000  # from so many events on, folding a whole life as columns is faster than the rest in steps


class Loaded(State):
    """A state, and what it rests on: `rests_on` says which snapshot was used, or why none was."""

    __slots__ = ("rests_on",)

    def __init__(self, state: State, rests_on: str) -> None:
        own = (state.aggregate_id, state.version, state._fields, state.valid_from, state.valid_to)
        super().__init__(*own, state.provisional)
        self.rests_on = rests_on


class Snapshots:
    """The saved states of one aggregate's fold, in the log's own store.

    >>> import titan_lab as tl
    >>> log = tl.open("memory://")
    >>> log.append_many(tl.open("sqlite:///data/samples/orders.db").read()).added
    12123
    >>> snapshots = tl.Snapshots(log, tl.Order)
    >>> snapshots.take(every=10).saved
    2
    >>> snapshots.state("550e8400-e29b-41d4-a716-446655440000").rests_on
    'the snapshot of version 10, and 1 event after it'
    """

    def __init__(self, log: EventLog, aggregate: type[Aggregate]) -> None:
        declared(aggregate)
        self.log = log
        self.aggregate = aggregate

    # ------------------------------------------------------------------ reading

    def state(
        self,
        aggregate_id: str,
        at: Instant | None = None,
        *,
        version: int | None = None,
        cut: Cut = "prefix",
    ) -> Loaded:
        """Give the state now, at an instant (inclusive) or after version n, as ``book[id].at`` gives it.

        A snapshot serves the cut "prefix" alone; with another, all events are folded. `rests_on` of what is
        returned says which snapshot was used, and how many events after it, or why it was passed over.

        Raises NoSuchAggregate, InstantError, SchemaTooNew.

        >>> import titan_lab as tl
        >>> snapshots = tl.Snapshots(tl.open("sqlite:///data/samples/orders.db"), tl.Order)
        >>> state = snapshots.state("550e8400-e29b-41d4-a716-446655440000", "2025-01-01T11:00Z")
        >>> state.status, state.rests_on
        ('PAID', 'all events: there is no snapshot')
        """
        check_cut(cut)
        if at is not None and version is not None:
            raise InstantError("a state is asked for by an instant or a version, not by both")
        name = str(aggregate_id)
        moment = None if at is None else instant(at, self.log.zone)
        upto = None if version is None else check_version(version)
        frontier = (
            None if moment is None else self.log.frontier
        )  # first: what is read later may lie beyond it
        found = self._usable(name, moment, upto) if cut == "prefix" else f"the cut {cut!r} is no prefix"
        if isinstance(found, Saved):
            loaded = self._onto(found, name, moment, upto)
            if isinstance(loaded, Loaded):
                if moment is not None and frontier is not None and frontier.live:
                    loaded.provisional = frontier.instant is not None and moment >= frontier.instant
                return loaded
            found = f"the snapshot of version {found.version} {loaded}"
        book = self.log.fold(self.aggregate, aggregates=name)
        if name not in book:
            raise NoSuchAggregate(
                f"{self.log.url} has no event of {name!r} that can be read",
                hint="log.events(id) suggests ids that are near, log.rejected tells what could not be read",
                aggregate_id=name,
            )
        story = book[name]
        state = story.now if moment is None and upto is None else story.at(moment, version=upto, cut=cut)
        return Loaded(state, f"all events: {found}")

    def _usable(self, name: str, moment: datetime | None, upto: int | None) -> Saved | str:
        """Find the snapshot that an answer may rest on, or say why there is none."""
        if not hasattr(self.log.reader, "snapshot"):
            return f"{self.log.url} keeps no snapshots"
        row = self.log.reader.snapshot(name)
        if row is None:
            return "there is no snapshot"
        found = saved.read(self.aggregate, *row)
        if isinstance(found, str):
            return f"the snapshot of version {row[0]} {found}"
        if moment is not None and found.valid_from > moment:
            return f"the snapshot of version {row[0]} was taken after that instant"
        if upto is not None and found.version > upto:
            return f"the snapshot of version {row[0]} is a later one"
        return found

    def _onto(self, found: Saved, name: str, moment: datetime | None, upto: int | None) -> Loaded | str:
        """Fold the events after a snapshot onto it, or say why that cannot be done."""
        try:
            rest = self._rest(name, found.version)  # begins with the event that it was taken after
            if not rest or rest[0][:2] != (found.version, found.event_type):
                return "was not taken of this log: its event is another, or gone"
            if _moment(rest[0][4]) != found.timestamp:
                return "was not taken of this log: its event has another timestamp"
            if len(rest) > STEPS:
                return f"is more than {STEPS:,} events back, which are folded faster with all others"
            # All are read, also those that do not count: what one of them does to a fold it does here, too.
            events = [self._event(name, *row) for row in rest[1:]]
            state, valid_to, folded = found.state(name), None, 0
            for event in events:
                since = max(one for one in (event.timestamp, state.valid_from) if one is not None)
                if (moment is not None and since > moment) or (upto is not None and event.version > upto):
                    valid_to = since
                    break
                state = self.aggregate.evolve(state, event)
                folded += 1
        except Exception:
            return "is followed by an event that cannot be folded as it stands"  # folding all tells which
        fields = {column: self._as_folded(column, value) for column, value in state.as_dict().items()}
        whole = State(name, state.version, fields, state.valid_from, valid_to)
        after = "1 event" if folded == 1 else f"{folded:,} events"
        return Loaded(whole, f"the snapshot of version {found.version}, and {after} after it")

    def _rest(self, name: str, version: int) -> list[Row]:
        """Read an aggregate's events from a version on; raise Misfit where `log.fold` might refuse one."""
        if hasattr(self.log.reader, "rows_from"):
            rows = self.log.reader.rows_from(name, version, STEPS + 1)
        else:
            request = Scope(aggregates=(name,), from_version=version)
            checked = [check(raw, self.log.zone) for raw in self.log.reader.frames(request, STEPS)]
            if any(len(bad) for _, bad in checked):
                raise ODD
            events = pl.concat([EVENTS.to_frame(), *(good for good, _ in checked)]).filter(
                request.predicate()
            )
            rows = events.drop("aggregate_id").sort("version").head(STEPS + 1).rows()
        if any(type(row[0]) is not int for row in rows) or any(a[0] >= b[0] for a, b in pairwise(rows)):
            raise ODD
        return rows

    def _event(
        self, name: str, version: int, event_type: Any, payload: Any, metadata: Any, stamp: Any
    ) -> Event:
        """Read a row as the declaration says, or raise what is wrong with it."""
        if not (isinstance(event_type, str) and event_type and isinstance(payload, str)):
            raise ODD
        told = {} if metadata is None else parse_object(metadata)
        stored = told.get("schema_version")
        if stored is not None and (type(stored) is not int or stored < 1):
            raise ODD
        if metadata is not None and not FLAT_OBJECT.match(metadata) and not_objects(pl.Series([metadata]))[0]:
            raise ODD
        known, read = self.aggregate.events.get(event_type), None
        if known is not None:
            read = read_payload(payload, known.shape, self.aggregate.chain.steps_for(event_type, stored or 1))
        elif not_objects(pl.Series([payload]))[0]:
            raise ODD
        return Event(name, version, event_type, read, told, _moment(stamp))

    def _as_folded(self, column: str, value: Any) -> Any:
        """Give a value that steps led to as the frames of a fold have it: objects are dicts."""
        reducer = self.aggregate.reducers[column]
        if isinstance(reducer, step):
            return pl.Series([value], dtype=reducer.dtype).to_list()[0]
        return _plain(value)

    # ------------------------------------------------------------------ taking

    def take(self, every: int = 100) -> Taken:
        """Save the state of every aggregate that is long enough, at the last multiple of `every`.

        What is saved already and still right is left alone. A snapshot of another fold is replaced, by one of
        the same version or a later one; one that another program saved is left as it is. An aggregate with a
        gap in its versions, or a rejected event, gets one before that place only: what is missing may still
        come. All of one call's states are saved together, or none.

        Raises ReadOnly, SnapshotError, and what folding raises.

        >>> import titan_lab as tl
        >>> tl.Snapshots(tl.open("memory://"), tl.Order).take(every=100)
        Taken(saved=0, present=0, short=0, broken=0, foreign=0)
        """
        return take(self.log, self.aggregate, every)

    def advise(self, every: Sequence[int | None] = EVERY) -> Advice:
        """Say what snapshots would buy, read from how many events each aggregate has.

        Returns `table`, `conclusion` and `saved` (what the store holds already); the table's columns are
        every Int64 (events between two snapshots; null: without any), rows Int64 (aggregates that would have
        one), writes Int64 (snapshots taken over all lives), mean Float64, p99 and most Int64 (events that a
        load folds, if one is made before each event), in the order asked for.

        >>> import titan_lab as tl
        >>> advice = tl.Snapshots(tl.open("sqlite:///data/samples/orders.db"), tl.Order).advise()
        >>> advice.conclusion
        '99 % of the 500 aggregates of Order have at most 6 events: snapshots buy nothing but for 1'
        """
        return advise(self.log, self.aggregate, every)


def _moment(stamp: Any) -> datetime:
    found = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    if found.tzinfo is None:
        raise ODD
    return found.astimezone(UTC)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return dataclasses.asdict(value)  # type: ignore[call-overload]
    return [_plain(one) for one in value] if isinstance(value, list) else value
