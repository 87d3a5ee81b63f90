"""Snapshots: states that are saved, so that a long life is not folded from its beginning each time.

They never lie: one is used only if this very fold made it, if it was taken at or before the instant that is
asked about, and if the log still holds the event it was taken after; the answer is the same without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from titan_lab import saved
from titan_lab.advice import EVERY, Advice
from titan_lab.clock import Cut, Instant, check_cut, check_version, instant
from titan_lab.command import Desk
from titan_lab.errors import InstantError, NoSuchAggregate
from titan_lab.event import Event
from titan_lab.fold import Aggregate, State, declared
from titan_lab.kinds import Kind
from titan_lab.later import DOES_NOT_FIT, PassedOver, later
from titan_lab.log import EventLog
from titan_lab.notebook import html
from titan_lab.payload import Record
from titan_lab.reducers import Reducer, collect, step
from titan_lab.saved import Saved
from titan_lab.taking import Taken, advise, take, told


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
        # First: what is read later may lie beyond it.
        frontier = None if moment is None else self.log.frontier
        try:
            if cut != "prefix":
                raise PassedOver(f"the cut {cut!r} is no prefix")
            loaded = self._onto(self._usable(name, moment, upto), name, moment, upto)
        except PassedOver as why:
            reason = str(why)
        else:
            if moment is not None and frontier is not None and frontier.live:
                loaded.provisional = frontier.instant is not None and moment >= frontier.instant
            return loaded
        book = self.log.fold(self.aggregate, aggregates=name)
        if name not in book:
            raise NoSuchAggregate(
                f"{self.log.url} has no event of {name!r} that can be read",
                hint="log.events(id) suggests ids that are near, log.rejected tells what could not be read",
                aggregate_id=name,
            )
        story = book[name]
        state = story.now if moment is None and upto is None else story.at(moment, version=upto, cut=cut)
        return Loaded(state, f"all events: {reason}")

    def load(self, aggregate_id: str) -> State:
        """Give the state now as a desk of commands wants it; see ``titan_lab.command.Desk``, and its `load`.

        Its objects are Records, as steps leave them. An aggregate that nobody has is falsy, with version 0.
        Raises EventsError where an event cannot be read: nothing is decided on half a life.

        >>> import titan_lab as tl
        >>> from titan_lab.orders.commands import OrderInHand
        >>> log = tl.open("memory://")
        >>> desk = tl.OrderDesk(log, load=tl.Snapshots(log, OrderInHand).load)
        >>> items = [{"product_id": "tea", "quantity": 2, "price": "4.50"}]
        >>> desk.handle(tl.CreateOrder(order_id="order-1", user_id="7", items=items))
        <Handled: OrderCreated; order-1 is at version 1>
        """
        name = str(aggregate_id)
        try:
            found = self._usable(name, None, None)
            events = later(self.log, self.aggregate, name, found)
            if [event.version for event in events] != list(
                range(found.version + 1, found.version + 1 + len(events))
            ):
                raise PassedOver("is followed by a gap")
            fields = {
                name: _built(self.aggregate.reducers[name], value) for name, value in found.fields.items()
            }
            return self.aggregate.fold(events, start=State(name, found.version, fields, found.valid_from))
        except PassedOver:
            return Desk(self.log, self.aggregate, {}).load(name)

    def _usable(self, name: str, moment: datetime | None, upto: int | None) -> Saved:
        """Find the snapshot that an answer may rest on. Raises PassedOver."""
        if not hasattr(self.log.reader, "snapshot"):
            raise PassedOver(f"{self.log.url} keeps no snapshots")
        row = self.log.reader.snapshot(name)
        if row is None:
            raise PassedOver("there is no snapshot")
        found = saved.read(self.aggregate, *row)
        if isinstance(found, str):
            raise PassedOver(f"the snapshot of version {row[0]} {found}")
        if moment is not None and found.valid_from > moment:
            raise PassedOver(f"the snapshot of version {row[0]} was taken after that instant")
        if upto is not None and found.version > upto:
            raise PassedOver(f"the snapshot of version {row[0]} is a later one")
        return found

    def _onto(self, found: Saved, name: str, moment: datetime | None, upto: int | None) -> Loaded:
        """Fold the events after a snapshot onto it. Raises PassedOver."""
        state, valid_to, folded = State(name, found.version, found.fields, found.valid_from), None, 0
        try:
            # All are read, also those that do not count: what one of them does to a fold it does here, too.
            for event in later(self.log, self.aggregate, name, found):
                since = max(one for one in (event.timestamp, state.valid_from) if one is not None)
                if (moment is not None and since > moment) or (upto is not None and event.version > upto):
                    valid_to = since
                    break
                state = self._step(state, event)
                folded += 1
        except PassedOver as why:
            raise PassedOver(f"the snapshot of version {found.version} {why}") from why
        fields = {column: self._as_folded(column, value) for column, value in state.as_dict().items()}
        whole = State(name, state.version, fields, state.valid_from, valid_to)
        after = "1 event" if folded == 1 else f"{folded:,} events"
        return Loaded(whole, f"the snapshot of version {found.version}, and {after} after it")

    def _step(self, state: State, event: Event) -> State:
        try:
            return self.aggregate.evolve(state, event)
        except Exception as error:  # of a step's function; folding all tells it as it tells such errors
            raise PassedOver(DOES_NOT_FIT) from error

    def _as_folded(self, column: str, value: Any) -> Any:
        """Give a value that steps led to as the frames of a fold have it: objects are dicts."""
        reducer = self.aggregate.reducers[column]
        if isinstance(reducer, step):
            return pl.Series([value], dtype=reducer.dtype).to_list()[0]
        return _plain(value)

    def __repr__(self) -> str:
        return f"<Snapshots of {self.aggregate.__name__} in {self.log.url}>"

    def _repr_html_(self) -> str:
        return html.card(repr(self)[1:-1], {"saved": told(self.log, self.aggregate)})

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


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return dataclasses.asdict(value)  # type: ignore[call-overload]
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _built(reducer: Reducer, value: Any) -> Any:
    """Make the Records again that a value held. Raises PassedOver where they could be of two kinds."""
    kinds = list(_kinds(reducer))
    if value is None or not kinds or isinstance(reducer, step):
        return value
    if any(kind != kinds[0] for kind in kinds):
        raise PassedOver("holds objects that may be of two kinds")
    return [kinds[0].build(one) for one in value] if isinstance(reducer, collect) else kinds[0].build(value)


def _kinds(reducer: Reducer) -> Iterator[Kind]:
    for event_type, field in reducer.sources.items():
        slots = reducer.declared[event_type].shape.slots
        yield from (slot.kind for slot in slots if slot.name == field and slot.kind.dtype.is_nested())
