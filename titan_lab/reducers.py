"""Reducers: how one column of an aggregate's state follows from its events.

Each is a small class that is read two ways. `step` takes a value and one event and gives the next value: the
specification, and what commands and snapshots use. `track` takes all events as columns and gives a Track that
knows the value after every event at once. The two agree row for row; a property test holds them to it.
(A third reading, as SQL, will stand beside them.)

A field that is absent or null in an event leaves the value as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import polars as pl

from titan_lab import tracks
from titan_lab.errors import DeclarationError
from titan_lab.event import TIMESTAMP, Event
from titan_lab.functions import digest, told
from titan_lab.payload import EventType
from titan_lab.typed import Typed

ENVELOPE: dict[str, pl.DataType] = {
    "timestamp": TIMESTAMP,
    "version": pl.Int64(),
    "event_type": pl.String(),
    "aggregate_id": pl.String(),
}


class Reducer:
    """A column of the state. `sources` maps each event type it listens to onto the field it reads."""

    initial: Any = None

    def __init__(self, *listens: type[EventType] | str, **fields: str) -> None:
        self.listens = listens
        self.fields = fields
        self.sources: dict[str, str] = {}
        self.declared: dict[str, type[EventType]] = {}
        self.name = ""
        self.dtype: pl.DataType = pl.Null()

    def bind(self, name: str, known: dict[str, type[EventType]]) -> None:
        """Take the name it is declared under; find the event types named by keyword among `known`."""
        self.name = name
        field: str = name
        events: list[type[EventType]] = []
        for one in self.listens:
            if isinstance(one, str):
                field = one
            else:
                events.append(one)
        for event in events:
            self._listen(event, field)
        for class_name, field in self.fields.items():
            if class_name not in known:
                raise DeclarationError(
                    f"{name}: no event type {class_name!r} is known here",
                    hint="import or declare it above the aggregate",
                )
            self._listen(known[class_name], field)
        if not self.sources:
            raise DeclarationError(
                f"{name} listens to no event",
                hint="name at least one event type, by its class: latest(Opened)",
            )
        self.dtype = self.column_dtype()

    def column_dtype(self) -> pl.DataType:
        """Give the dtype of the column; all sources must agree on it."""
        dtypes = {event: self.field_dtype(event) for event in self.sources}
        if len(set(dtypes.values())) > 1:
            told = ", ".join(f"{event}.{self.sources[event]} is {dtype}" for event, dtype in dtypes.items())
            raise DeclarationError(f"{self.name} reads fields of different types: {told}")
        return next(iter(dtypes.values()))

    def field_dtype(self, event_type: str) -> pl.DataType:
        field = self.sources[event_type]
        slots = {slot.name: slot for slot in self.declared[event_type].shape.slots}
        return slots[field].kind.dtype if field in slots else ENVELOPE[field]

    def value_in(self, event: Event) -> Any:
        """Read this reducer's field of an event it listens to."""
        field = self.sources[event.event_type]
        return getattr(event.payload, field) if hasattr(event.payload, field) else getattr(event, field)

    def step(self, value: Any, event: Event) -> Any:
        """Give the value after one event that it listens to."""
        raise NotImplementedError

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        """Give the values after all events of a history."""
        raise NotImplementedError

    def describe(self) -> str:
        """Write the declaration down, for the fingerprint and for people."""
        return f"{type(self).__name__}({', '.join(f'{e}.{f}' for e, f in self.sources.items())})"

    def _listen(self, event: type[EventType], field: str) -> None:
        slots = {slot.name for slot in event.shape.slots}
        if field not in slots and field not in ENVELOPE:
            raise DeclarationError(
                f"{self.name}: {event.event_type} has no field {field!r} (but {', '.join(sorted(slots))})",
                hint=f"name the field: {type(self).__name__}({event.__name__}, 'field')",
            )
        self.sources[event.event_type] = field
        self.declared[event.event_type] = event


class latest(Reducer):
    """Keep the value most recently set."""

    def step(self, value: Any, event: Event) -> Any:
        found = self.value_in(event)
        return value if found is None else found

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Latest(typed, shared, self.sources, self.dtype)


class first(Reducer):
    """Keep the value that was set first."""

    def step(self, value: Any, event: Event) -> Any:
        return self.value_in(event) if value is None else value

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.First(typed, shared, self.sources, self.dtype)


class count(Reducer):
    """Count the events; it starts at 0."""

    initial = 0

    def bind(self, name: str, known: dict[str, type[EventType]]) -> None:
        self.listens = (*self.listens, "version")
        super().bind(name, known)

    def step(self, value: int, event: Event) -> int:
        return value + 1

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Count(typed, shared, self.sources, self.dtype)


class total_of(Reducer):
    """Add up a field of exact numbers, Decimal or int; it starts at 0."""

    def column_dtype(self) -> pl.DataType:
        dtype = super().column_dtype()
        if not (dtype == pl.Int64 or isinstance(dtype, pl.Decimal)):
            raise DeclarationError(
                f"{self.name} adds up {dtype}, whose sums are not exact",
                hint="declare the field as Decimal or int",
            )
        self.initial = pl.Series([0], dtype=pl.Int64).cast(dtype)[0]
        return dtype

    def step(self, value: Any, event: Event) -> Any:
        found = self.value_in(event)
        return value if found is None else value + found

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Total(typed, shared, self.sources, self.dtype)


class smallest(Reducer):
    """Keep the smallest value seen."""

    def column_dtype(self) -> pl.DataType:
        dtype = super().column_dtype()
        if dtype.is_nested():
            raise DeclarationError(f"{self.name} compares {dtype}, which has no order")
        return dtype

    def step(self, value: Any, event: Event) -> Any:
        found = self.value_in(event)
        return found if value is None else value if found is None else min(value, found)

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Extreme(typed, shared, self.sources, self.dtype, largest=False)


class largest(smallest):
    """Keep the largest value seen."""

    def step(self, value: Any, event: Event) -> Any:
        found = self.value_in(event)
        return found if value is None else value if found is None else max(value, found)

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Extreme(typed, shared, self.sources, self.dtype, largest=True)


class collect(Reducer):
    """Keep every value in order, as a list; it starts empty."""

    @property
    def initial(self) -> list:
        return []

    def column_dtype(self) -> pl.DataType:
        return pl.List(super().column_dtype())

    def step(self, value: list, event: Event) -> list:
        found = self.value_in(event)
        return value if found is None else [*value, found]

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Collected(typed, shared, self.sources, self.dtype)


class machine(Reducer):
    """Name the state that each event type leads to.

    states: event type -> state. allowed: state -> the states that may follow it (None: any). Nothing may
    follow a state that `allowed` leaves out; where it leaves out the start, None, any may be the first. The
    fold records what happened even where it was not allowed; what was not, `conform` and commands tell.
    """

    def __init__(
        self,
        states: dict[type[EventType], str],
        allowed: dict[str | None, tuple[str, ...] | set[str] | list[str]] | None = None,
    ) -> None:
        super().__init__(*states)
        self.states = {event.event_type: state for event, state in states.items()}
        self.names = list(dict.fromkeys(self.states.values()))
        self.allowed = None if allowed is None else {state: tuple(nexts) for state, nexts in allowed.items()}
        stray = {s for state, nexts in (self.allowed or {}).items() for s in (state, *nexts)} - {
            *self.names,
            None,
        }
        if stray:
            raise DeclarationError(
                f"allowed names states that no event leads to: {', '.join(sorted(map(str, stray)))}"
            )

    def nexts(self, state: str | None) -> tuple[str, ...]:
        """Give the states that may follow one, or, for None, be the first."""
        if self.allowed is None or (state is None and None not in self.allowed):
            return tuple(self.names)
        return self.allowed.get(state, ())

    def bind(self, name: str, known: dict[str, type[EventType]]) -> None:
        self.listens = (*self.listens, "version")  # the event is all that counts; no field of it is read
        super().bind(name, known)

    def column_dtype(self) -> pl.DataType:
        return pl.Enum(self.names)

    def step(self, value: Any, event: Event) -> str:
        return self.states[event.event_type]

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.States(typed, shared, self.sources, pl.Enum(self.names), self.states)

    def describe(self) -> str:
        return f"machine({self.states}, allowed={self.allowed})"


class key(Reducer):
    """Show the aggregate's own id as a column of its state."""

    def bind(self, name: str, known: dict[str, type[EventType]]) -> None:
        self.name = name
        self.dtype = pl.String()

    def step(self, value: Any, event: Event) -> str:
        return event.aggregate_id

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Key(typed, shared, {}, self.dtype)


class step(Reducer):
    """Run a function of your own, event by event: for what no other reducer says.

    function(value, event) gives the next value; event.payload is the declared EventType. It is called for
    the events named, or for all that the aggregate declares. dtype: the column's. It cannot be pushed down
    to SQL, and is slower than the others by orders of magnitude.
    """

    def __init__(
        self,
        function: Callable[[Any, Event], Any],
        initial: Any = None,
        *listens: type[EventType],
        dtype: Any = None,
    ) -> None:
        super().__init__(*listens)
        self.function = function
        self._initial = initial
        self._dtype = dtype

    @property
    def initial(self) -> Any:
        return copy.deepcopy(
            self._initial
        )  # a function that changes a list in place must not change the next life's

    def bind(self, name: str, known: dict[str, type[EventType]]) -> None:
        self.listens = (*(self.listens or known.values()), "version")
        super().bind(name, known)

    def column_dtype(self) -> pl.DataType:
        if self._dtype is not None:
            return pl.Series([], dtype=self._dtype).dtype
        if self._initial is not None:
            return pl.Series([self._initial]).dtype
        raise DeclarationError(
            f"{self.name}: a step that starts at None needs a dtype", hint="step(fn, None, dtype=pl.String)"
        )

    def step(self, value: Any, event: Event) -> Any:
        return self.function(value, event)

    def track(self, typed: Typed, shared: tracks.Shared) -> tracks.Track:
        return tracks.Stepped(
            typed, shared, self.sources, self.dtype, self.declared, lambda: self.initial, self.step
        )

    def describe(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        code, start = digest(told(self.function)), told(self._initial)
        return f"step({name}, {code}, {start}, {sorted(self.sources)})"
