"""Commands: what is asked of an aggregate, decided by a pure function, and appended behind what was seen.

    class Close(Command):
        aggregate_id: str
        answer: str

    def close(state, command):
        return [Closed(answer=command.answer)]

    desk = Desk(log, Ticket, {Close: close})
    desk.handle(Close(aggregate_id="T-1", answer="switched it on"))

Nothing is published here: to append and then to publish are two writes, of which one can fail alone. Whoever
wants to hear of events reads the log.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import numpy as np

from titan_lab.backends.contract import out_of_step
from titan_lab.clock import Instant, instant, iso
from titan_lab.decoding import read_payload
from titan_lab.draft import Metadata, as_written
from titan_lab.errors import (
    CommandError,
    DeclarationError,
    EventsError,
    NoSuchAggregate,
    Refused,
    VersionConflict,
    nearest,
)
from titan_lab.event import Event, records
from titan_lab.fold import Aggregate, State
from titan_lab.kinds import Misfit
from titan_lab.log import EventLog
from titan_lab.notebook.html import card, line
from titan_lab.payload import EventType, Record
from titan_lab.reducers import machine

ATTEMPTS = 30  # that a command is decided anew when others were faster
PAUSE, LONGEST = 0.002, 0.25  # seconds between them: the first, and the most


class Command(Record):
    """Declare what may be asked, field by field as an event's payload is, one of them the aggregate's id.

    key: the field that names the aggregate. Values are checked when a command is made, and taken for what
    they say: an amount is a Decimal, a whole number, text, or a float by its shortest text, so that 19.99 is
    exact and 0.1 + 0.2 is refused. Raises CommandError.
    """

    key: ClassVar[str] = "aggregate_id"

    def __post_init__(self) -> None:
        for slot in self.shape.slots:
            given = getattr(self, slot.name)
            if given is None and not slot.required:
                continue
            try:
                object.__setattr__(self, slot.name, slot.kind.read(_plain(given), slot.name))
            except Misfit as misfit:
                raise CommandError(
                    f"{type(self).__name__}: {misfit}",
                    hint="see the fields that it declares",
                    path=misfit.path,
                ) from misfit

    def whose(self) -> str:
        """Give the id of the aggregate that is asked."""
        return getattr(self, self.key)


Decider = Callable[[State, Any], Sequence[EventType]]
Deciders = Mapping[type[Command], Decider]


def refuse(state: State, command: Command, why: str, hint: str | None = None) -> NoReturn:
    """Refuse a command, and say why: for a decider to call. Raises Refused."""
    raise Refused(
        f"{type(command).__name__} of {command.whose()} is refused: {why}",
        hint=hint,
        state=state,
        command=command,
    )


def allow(aggregate: type[Aggregate], state: State, event: type[EventType], command: Command) -> None:
    """Refuse a command whose event the aggregate's machines do not allow in this state.

    Raises Refused, which names the transition and those that are allowed.
    """
    for name, reducer in aggregate.reducers.items():
        if isinstance(reducer, machine) and event.event_type in reducer.states:
            before, after = state[name], reducer.states[event.event_type]
            nexts = reducer.nexts(before)
            if after not in nexts:
                is_now = f"from {before} to {after}" if before else f"to {after} from nothing"
                rest = f"allowed: {', '.join(nexts)}" if nexts else f"nothing may follow {before}"
                refuse(state, command, f"{name} may not go {is_now}; {rest}")


def decide(aggregate: type[Aggregate], deciders: Deciders, state: State, command: Command) -> list[EventType]:
    """Decide a command: the events that follow from it in a state. Pure: it reads and writes nothing.

    Raises Refused where it is not allowed, CommandError where nobody decides such commands.
    """
    decider = deciders.get(type(command))
    if decider is None:
        known = [kind.__name__ for kind in deciders]
        raise CommandError(
            f"nobody decides {type(command).__name__}; the commands are {', '.join(known)}",
            hint=nearest(type(command).__name__, known),
        )
    decided, after = list(decider(state, command)), state
    for event in decided:
        if event.event_type not in aggregate.events:
            raise DeclarationError(
                f"{type(command).__name__} leads to {event.event_type},"
                f" which {aggregate.__name__} does not declare",
                hint=nearest(event.event_type, aggregate.events),
            )
        try:
            read_payload(as_written(event), event.shape, [])
        except Misfit as misfit:
            refuse(state, command, f"{event.event_type} would not be readable: {misfit}")
        allow(aggregate, after, type(event), command)
        after = aggregate.evolve(after, Event(command.whose(), after.version + 1, event.event_type, event))
    return decided


@dataclass(frozen=True)
class Handled:
    """What became of a command: the events that it led to, and the aggregate's version after them.

    command_id: the events' causation_id. events: none where there was nothing to do.
    """

    aggregate_id: str
    version: int
    events: tuple[EventType, ...]
    command_id: str
    look: Callable[[], State] = field(repr=False, compare=False)

    @cached_property
    def state(self) -> State:
        """Give the state after the last of the events; reads it from the store when it is first asked for."""
        return self.look()

    def __repr__(self) -> str:
        told = ", ".join(event.event_type for event in self.events) or "nothing to do"
        return f"<Handled: {told}; {line(self.aggregate_id, 'id')} is at version {self.version}>"

    def _repr_html_(self) -> str:
        told = ", ".join(event.event_type for event in self.events) or "nothing to do"
        return card("Handled", {"aggregate_id": self.aggregate_id, "version": self.version, "events": told})


class Desk:
    """Where commands of one aggregate are handled.

    deciders: command class -> a pure function of state and command, which gives events or refuses. load: how
    a state is found, by the aggregate's id, such as ``tl.Snapshots(log, aggregate).state``; by default all
    its events are read and folded one by one.
    attempts: how often a command is tried when others are faster.
    """

    def __init__(
        self,
        log: EventLog,
        aggregate: type[Aggregate],
        deciders: Deciders,
        *,
        load: Callable[[str], State] | None = None,
        attempts: int = ATTEMPTS,
    ) -> None:
        for kind in deciders:
            fields = [slot.name for slot in kind.shape.slots]
            if kind.key not in fields:
                raise DeclarationError(
                    f"{kind.__name__} has no field {kind.key!r} to name its aggregate;"
                    f" it has {', '.join(fields)}",
                    hint="declare aggregate_id: str, or name the field: key = 'order_id'",
                )
        if attempts < 1:
            raise DeclarationError(f"{attempts} attempts are none", hint="attempts=1 never tries again")
        self.log = log
        self.aggregate = aggregate
        self.deciders = deciders
        self.attempts = attempts
        self._load = load

    def load(self, aggregate_id: str) -> State:
        """Give the state that an aggregate is in; falsy, with version 0, where nobody has this id.

        Raises EventsError where its history cannot be read to the end: nothing is decided on half of it.

        >>> import titan_lab as tl
        >>> desk = tl.OrderDesk(tl.open("sqlite:///data/samples/orders.db"))
        >>> desk.load("550e8400-e29b-41d4-a716-446655440000").status
        'DELIVERED'
        """
        return self._state(aggregate_id, [] if self._load else self._life(aggregate_id))

    def decide(self, state: State, command: Command) -> list[EventType]:
        """Decide a command in a state, without the log, as `titan_lab.command.decide` does.

        >>> import titan_lab as tl
        >>> desk = tl.OrderDesk(tl.open("sqlite:///data/samples/orders.db"))
        >>> phone = "550e8400-e29b-41d4-a716-446655440000"
        >>> desk.decide(desk.load(phone), tl.IssueRefund(order_id=phone, amount=5))
        [RefundIssued(amount=Decimal('5.00'), reason=None)]
        """
        return decide(self.aggregate, self.deciders, state, command)

    def handle(
        self,
        command: Command,
        *,
        expected_version: int | None = None,
        command_id: str | None = None,
        correlation_id: str | None = None,
        user_id: str | None = None,
        effective_at: Instant | None = None,
    ) -> Handled:
        """Load, decide and append. Where another was faster, all of it is done again, on what is there then.

        expected_version: the version that the caller saw; then nothing is done on any other. command_id: of a
        command that may be asked again because no answer came; its events are appended once. It becomes their
        causation_id, and their correlation_id where none is given.

        Raises Refused; VersionConflict where the version is not the expected one, or others were always
        faster; CommandError; ReadOnly.
        """
        if not isinstance(command, Command):
            raise CommandError(f"{command!r} is no command", hint="such as tl.ShipOrder(order_id='...')")
        aggregate_id, asked = command.whose(), command_id or str(uuid.uuid4())
        said = Metadata(
            correlation_id=correlation_id or asked,
            causation_id=asked,
            user_id=user_id,
            effective_at=effective_at,
            event_id=asked,
        )
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(random.uniform(0, min(PAUSE * 2 ** min(attempt, 10), LONGEST)))
            life = self._life(aggregate_id) if self._load is None or command_id is not None else []
            done = [event for event in life if _caused(event, asked)]
            if done:
                self._refuse_another(command, asked, life, done)
                return self._handled(aggregate_id, done[-1].version, [one.payload for one in done], asked)
            state = self._state(aggregate_id, life)
            if expected_version is not None and state.version != expected_version:
                raise out_of_step(aggregate_id, expected_version, state.version)
            decided = self.decide(state, command)
            if not decided:
                return self._handled(aggregate_id, state.version, [], asked)
            rows = [self._row(event) for event in decided]
            try:
                self.log.append(aggregate_id, rows, state.version, metadata=said)
            except VersionConflict as conflict:
                if expected_version is not None:
                    raise
                last = conflict
            else:
                return self._handled(aggregate_id, state.version + len(rows), decided, asked)
        raise last

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.aggregate.__name__} on {self.log.url}>"

    def _repr_html_(self) -> str:
        named = ", ".join(kind.__name__ for kind in self.deciders)
        return card(
            type(self).__name__, {"of": self.aggregate.__name__, "commands": named, "on": self.log.url}
        )

    def _refuse_another(
        self, command: Command, command_id: str, life: list[Event], done: list[Event]
    ) -> None:
        """Refuse a command whose id belongs to another: one that led to other events when it was asked."""
        then = self._fold(command.whose(), life[: done[0].version - 1])
        try:
            same = self.decide(then, command) == [event.payload for event in done]
        except Refused:
            same = False
        if not same:
            raise CommandError(
                f"the command_id {command_id!r} belongs to another command, which led to"
                f" {', '.join(event.event_type for event in done)} of {command.whose()}",
                hint="ask the same thing again by its id, and another thing by another",
            )

    def _row(self, event: EventType) -> dict[str, Any]:
        current = self.aggregate.chain.current(event.event_type)
        return {"payload": event, "metadata": {"schema_version": current} if current > 1 else None}

    def _handled(
        self, aggregate_id: str, version: int, events: Sequence[EventType], command_id: str
    ) -> Handled:
        def look() -> State:
            return self._fold(aggregate_id, self._life(aggregate_id)[:version])

        return Handled(aggregate_id, version, tuple(events), command_id, look)

    def _state(self, aggregate_id: str, life: list[Event]) -> State:
        if self._load is None:
            return self._fold(aggregate_id, life)
        try:
            return self._load(aggregate_id)
        except NoSuchAggregate:
            return self.aggregate.initial(aggregate_id)

    def _fold(self, aggregate_id: str, life: list[Event]) -> State:
        return self.aggregate.fold(life, start=self.aggregate.initial(aggregate_id))

    def _life(self, aggregate_id: str) -> list[Event]:
        """Read an aggregate's events, payloads and all, and be sure that none is missing between them."""
        found = records(self.log.read(aggregates=aggregate_id))
        for version, event in enumerate(found, start=1):
            if event.version != version:
                raise _unreadable(aggregate_id, version, "it is missing, or was rejected")
            try:
                found[version - 1] = self.aggregate.read(event)
            except Misfit as misfit:
                raise _unreadable(aggregate_id, version, str(misfit)) from misfit
        return found


def _caused(event: Event, command_id: str) -> bool:
    told = event.metadata
    return told.get("causation_id") == command_id and str(told.get("event_id")).startswith(f"{command_id}:")


def _unreadable(aggregate_id: str, version: int, why: str) -> EventsError:
    return EventsError(
        f"version {version} of {aggregate_id} cannot be read ({why}), so nothing is decided on it",
        hint="log.rejected lists what could not be read, and log.audit() what is missing",
        aggregate_id=aggregate_id,
        version=version,
    )


def _plain(value: Any) -> Any:
    """Give a Python value as what JSON would hold, decimals as their text, which is exact."""
    if isinstance(value, float):
        return Decimal(repr(float(value)))  # the shortest text that means this float; numpy's are floats, too
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, datetime):
        return iso(instant(value))
    if isinstance(value, Record):
        return {slot.name: _plain(getattr(value, slot.name)) for slot in value.shape.slots}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
