"""Aggregate: the page that says how a state follows from events. It knows nothing of orders.

    class Ticket(Aggregate):
        subject = latest(Opened)
        agent = latest(Assigned)
        status = machine({Opened: "OPEN", Assigned: "IN WORK", Closed: "CLOSED"})
        closed_at = latest(Closed, "timestamp")

Read as steps, it folds one life event by event: ``Ticket.fold(events)``. Read as columns, it folds all lives
at once: ``log.fold(Ticket)``.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any, ClassVar

import polars as pl

from titan_lab.decoding import read_object
from titan_lab.errors import DeclarationError, NoSuchColumn, nearest
from titan_lab.event import Event
from titan_lab.kinds import Misfit
from titan_lab.notebook import html
from titan_lab.payload import EventType
from titan_lab.reducers import Reducer, key, step
from titan_lab.upcast import Chain, Upcast

ENGINE = 1  # raise it when the meaning of a reducer changes, so that what was folded before is folded again
ROW = ("aggregate_id", "version", "valid_from", "valid_to")  # what every frame of states begins with

OF_THE_EVENT = (
    "aggregate_id",
    "version",
    "event_type",
    "timestamp",
)  # what a check may read beside the state


class State:
    """What an aggregate looked like after an event: its declared columns, as attributes.

    aggregate_id, version (of the last event folded; 0 and falsy before the first), valid_from and valid_to
    (from when until when it held; None where that is not known) come with every state. provisional: it was
    asked about an instant beyond the frontier, and may still change.
    """

    __slots__ = ("_fields", "aggregate_id", "provisional", "valid_from", "valid_to", "version")

    def __init__(
        self,
        aggregate_id: str | None,
        version: int,
        fields: dict[str, Any],
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        provisional: bool = False,
    ) -> None:
        self.aggregate_id = aggregate_id
        self.version = version
        self.valid_from = valid_from
        self.valid_to = valid_to
        self.provisional = provisional
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_fields")[name]
        except KeyError:
            raise AttributeError(
                f"the state has no column {name!r}; it has {', '.join(self._fields)}"
            ) from None

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def __bool__(self) -> bool:
        return self.version > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        mine, theirs = (
            (self.aggregate_id, self.version, self._fields),
            (other.aggregate_id, other.version, other._fields),
        )
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]  # the fields may hold lists

    def as_dict(self) -> dict[str, Any]:
        """Give the columns as a plain dict, without the row's own four."""
        return dict(self._fields)

    def __repr__(self) -> str:
        if not self:
            return f"<no state: {html.line(self.aggregate_id, 'id')} had no event yet{self._caveat}>"
        return (
            f"<state of {html.line(self.aggregate_id, 'id')} at version {self.version}: {self}{self._caveat}>"
        )

    @property
    def _caveat(self) -> str:
        return " (provisional: events may still arrive)" if self.provisional else ""

    def __str__(self) -> str:
        told = {name: v for name, v in self._fields.items() if v not in (None, self.aggregate_id)}
        return ", ".join(f"{name}={html.line(v, name)}" for name, v in told.items() if not _is_table(v))

    def _repr_html_(self) -> str:
        if not self:
            return html.card(f"{self.aggregate_id}", {}, f"had no event yet{self._caveat}")
        until = f"until {html.shown(self.valid_to)}" if self.valid_to else "and holds still"
        facts = {name: value for name, value in self._fields.items() if value != self.aggregate_id}
        lists = {name: facts.pop(name) for name, value in self._fields.items() if _is_table(value)}
        return html.card(
            f"{self.aggregate_id} at version {self.version}",
            facts,
            f"held from {html.shown(self.valid_from)} {until}{self._caveat}",
            body="".join(html.table(rows, caption=name) for name, rows in lists.items()),
        )


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


@dataclass(frozen=True)
class Check:
    """A rule of an aggregate's own: ``conform`` looks at it after each event that sets what it reads.

    wrong: a polars expression, row by row, that is true of a state which breaks the rule; it reads columns of
    the state, and aggregate_id, version, event_type and timestamp of the event that led to it. detail: one
    that says what was found and what was expected.

        Check(pl.col("refunded") > pl.col("paid"), pl.format("refunded {} of {}", "refunded", "paid"))
    """

    wrong: pl.Expr
    detail: pl.Expr

    @property
    def reads(self) -> list[str]:
        """Name the columns that it reads."""
        return list(dict.fromkeys([*self.wrong.meta.root_names(), *self.detail.meta.root_names()]))


class Aggregate:
    """Declare an aggregate: each attribute that is a reducer is a column of its state, in this order.

    upcasts: the steps that bring old payloads to the current shape. also: event types that belong to it and
    change no column; their payloads are checked like the others'. checks: rules beside the transitions of its
    machines, by the name of what breaks them. objects: what else its events speak of, such as users: the kind
    of thing and the payload's field that names it ("items.product_id" for one in each of a list). Neither of
    the two changes what a fold gives, so they are no part of the fingerprint.
    """

    upcasts: ClassVar[tuple[Upcast, ...]] = ()
    also: ClassVar[tuple[type[EventType], ...]] = ()
    checks: ClassVar[Mapping[str, Check]] = {}
    objects: ClassVar[Mapping[str, str]] = {}

    reducers: ClassVar[dict[str, Reducer]] = {}
    events: ClassVar[dict[str, type[EventType]]] = {}  # by their name in the store
    chain: ClassVar[Chain] = Chain()
    _fingerprint: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Reducer)}
        cls.reducers = {**cls.reducers, **own}
        in_sight = _event_types_in_sight(own.values(), sys._getframe(1))
        # A `step` that names no events listens to all that the other columns listen to, so it is bound last.
        for name, reducer in sorted(own.items(), key=lambda one: isinstance(one[1], step)):
            if name in ROW:
                raise DeclarationError(
                    f"{cls.__name__}.{name}: every state has its {name} already", hint="rename the column"
                )
            reducer.bind(name, cls._declared() if isinstance(reducer, step) else in_sight)
        cls.events = cls._declared() | {event.event_type: event for event in cls.also}
        cls.chain = Chain(cls.upcasts)
        for kind, check in cls.checks.items():
            unknown = [name for name in check.reads if name not in (*cls.reducers, *OF_THE_EVENT)]
            if unknown:
                raise DeclarationError(
                    f"{cls.__name__}: the check {kind!r} reads {', '.join(unknown)}, which no state has",
                    hint=nearest(unknown[0], cls.reducers),
                )

    @classmethod
    def _declared(cls) -> dict[str, type[EventType]]:
        return {name: event for reducer in cls.reducers.values() for name, event in reducer.declared.items()}

    @classmethod
    def schema(cls) -> pl.Schema:
        """Give the columns of the state and their dtypes."""
        return pl.Schema({name: reducer.dtype for name, reducer in cls.reducers.items()})

    @classmethod
    def columns(cls, wanted: Iterable[str] | None = None) -> list[str]:
        """Check names of columns; None means all. Raises NoSuchColumn."""
        if wanted is None:
            return list(cls.reducers)
        if not isinstance(wanted, Iterable):
            raise NoSuchColumn(f"{wanted!r} names no columns", hint='columns=["status", "total"]')
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        for name in wanted:
            if name not in cls.reducers and name not in ROW:
                known = [*cls.reducers, *ROW]
                raise NoSuchColumn(
                    f"{cls.__name__} has no column {name!r}; it has {', '.join(known)}",
                    hint=nearest(name, known) or f"name one of its own: {', '.join(map(repr, cls.reducers))}",
                    column=name,
                )
        return wanted

    @classmethod
    def column(cls, wanted: str) -> str:
        """Check the name of one column of the state itself. Raises NoSuchColumn."""
        if not isinstance(wanted, str):
            raise NoSuchColumn(
                f"{wanted!r} is not the name of one column", hint=f"use {', '.join(cls.reducers)}"
            )
        cls.columns(wanted)
        if wanted not in cls.reducers:
            raise NoSuchColumn(
                f"{wanted} is no column of the state", hint=f"use {', '.join(cls.reducers)}", column=wanted
            )
        return wanted

    @classmethod
    def fingerprint(cls) -> str:
        """Hash the declaration, its event shapes, its upcasters and the engine: another one means refold."""
        if "_fingerprint" in vars(cls):
            return cls._fingerprint
        told = "\n".join(f"{name} = {text}" for name, text in cls.described().items())
        cls._fingerprint = hashlib.sha256(told.encode()).hexdigest()[:12]
        return cls._fingerprint

    @classmethod
    def described(cls) -> dict[str, str]:
        """Write down all that the fold depends on, by name: what the fingerprint is made of."""
        told = {"the engine": str(ENGINE), "the name": cls.__name__}
        told |= {f"column {name}": f"{r.describe()}, {r.dtype}" for name, r in cls.reducers.items()}
        told |= {f"event {name}": repr(event.shape.slots) for name, event in sorted(cls.events.items())}
        steps = enumerate(cls.chain.steps, start=1)
        return told | {f"upcast {n} ({step.name})": f"{step!r} {step.fingerprint()}" for n, step in steps}

    @classmethod
    def initial(cls, aggregate_id: str | None = None) -> State:
        """Give the state before the first event."""
        return State(aggregate_id, 0, {name: reducer.initial for name, reducer in cls.reducers.items()})

    @classmethod
    def evolve(cls, state: State, event: Event) -> State:
        """Give the state after one more event; the state handed over is left alone.

        The payload may be a dict as stored (it is upcast and checked; raises Misfit or SchemaTooNew) or an
        EventType. An event type that is not declared changes nothing but the version.
        """
        event = cls.read(event)
        fields = dict(state._fields)
        for name, reducer in cls.reducers.items():
            if event.event_type in reducer.sources or isinstance(reducer, key):
                fields[name] = reducer.step(fields[name], event)
        since = event.timestamp
        if since is not None and state.valid_from is not None:
            since = max(since, state.valid_from)
        return State(event.aggregate_id, event.version, fields, valid_from=since)

    @classmethod
    def states(cls, events: Iterable[Event], start: State | None = None) -> Iterator[State]:
        """Give the state after each event of one aggregate, which must come in order of version."""
        state = cls.initial() if start is None else start
        for event in events:
            state = cls.evolve(state, event)
            yield state

    @classmethod
    def fold(cls, events: Iterable[Event], start: State | None = None) -> State:
        """Fold events of one aggregate, one by one, onto `start` or onto nothing.

        The specification of what ``log.fold`` computes for all aggregates at once.
        """
        state = cls.initial() if start is None else start
        for event in events:
            state = cls.evolve(state, event)
        return state

    @classmethod
    def read(cls, event: Event) -> Event:
        """Upcast and check an event's payload, if its type is declared and it is still a dict.

        Raises Misfit, which names the path and the reason, and SchemaTooNew.
        """
        declared = cls.events.get(event.event_type)
        if declared is None or not isinstance(event.payload, Mapping):
            return event
        steps = cls.chain.steps_for(event.event_type, event.schema_version)
        return Event(
            event.aggregate_id,
            event.version,
            event.event_type,
            read_object(copy.deepcopy(dict(event.payload)), declared.shape, steps),
            event.metadata,
            event.timestamp,
        )


def declared(aggregate: object) -> None:
    """Refuse what is no aggregate. Raises DeclarationError."""
    if not (isinstance(aggregate, type) and issubclass(aggregate, Aggregate)):
        raise DeclarationError(
            f"{aggregate!r} is no aggregate",
            hint="tl.Order, or a class of your own: class Ticket(tl.Aggregate)",
        )


def _event_types_in_sight(reducers: Iterable[Reducer], frame: FrameType) -> dict[str, type[EventType]]:
    """Find the event types that a keyword can name: those beside the class, and beside the events it lists.

    The second lets ``latest(OrderCreated, OrderCorrected="corrected_amount")`` do without an import.
    """
    listed = [event for reducer in reducers for event in reducer.listens if isinstance(event, type)]
    beside = [vars(sys.modules[event.__module__]) for event in listed if event.__module__ in sys.modules]
    seen = [one for names in (*beside, frame.f_globals, frame.f_locals) for one in names.values()]
    found = [one for one in (*seen, *listed) if isinstance(one, type) and issubclass(one, EventType)]
    return {event.__name__: event for event in found if event is not EventType}


__all__ = ["ENGINE", "ROW", "Aggregate", "Check", "Misfit", "State"]
