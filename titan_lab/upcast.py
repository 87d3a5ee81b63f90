"""Old payload shapes to new: a chain of small steps, validated where it is declared.

    @upcaster(OrderCreated, since=1, to=2,
            before={"items": [{"price": 5}]}, after={"items": [{"price": 5, "quantity": 1}]})
    def one_of_each(payload):
        ...

A step is a plain function from payload to payload. `before` and `after` are its example, and its proof: the
function must turn the one into the other, and leave the other alone. ``@one_of_each.columns`` gives the same
step over a frame of decoded fields; without it the step runs row by row, slower and equal.
A `fill` has no versions: it computes a field wherever it is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl

from titan_lab.errors import DeclarationError, SchemaTooNew
from titan_lab.functions import digest, told
from titan_lab.payload import EventType

Payload = dict[str, Any]


class Upcast:
    """One step: which events, from which schema_version to which, and the function that does it."""

    def __init__(
        self,
        events: tuple[type[EventType], ...],
        versions: tuple[int, int] | None,
        function: Callable[[Payload], Payload],
        before: Payload,
        after: Payload,
    ) -> None:
        self.events = events
        self.versions = versions
        self.function = function
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self.twin: Callable[[pl.DataFrame], pl.DataFrame] | None = None
        self.writes = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        self._prove(before, after)

    def __call__(self, payload: Payload) -> Payload:
        return self.function(payload)

    def __repr__(self) -> str:
        since, to = self.versions or ("any", "same")
        return f"<upcast {self.name}: {', '.join(e.event_type for e in self.events)} {since} -> {to}>"

    def columns(self, twin: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[pl.DataFrame], pl.DataFrame]:
        """Register the same step over a frame with one column for each declared field, nulls where absent."""
        self.twin = twin
        return twin

    def fingerprint(self) -> str:
        """Hash what the step does, so that a changed step means a refold."""
        return digest(f"{self!r}{told(self.function)}{told(self.twin)}")

    def _prove(self, before: Payload, after: Payload) -> None:
        if self.versions is not None and self.versions[1] != self.versions[0] + 1:
            raise DeclarationError(
                f"{self!r} must go up by one", hint="write one step for each schema_version"
            )
        if before == after:
            raise DeclarationError(
                f"{self!r} changes nothing in its own example", hint="give a `before` that it changes"
            )
        once = self.function(copy.deepcopy(before))
        if once != after:
            raise DeclarationError(f"{self!r} turns its example into {once!r}, not into {after!r}")
        twice = self.function(copy.deepcopy(after))
        if twice != after:
            raise DeclarationError(f"{self!r} is not stable: applied again it gives {twice!r}")


def upcaster(
    event: type[EventType], *, since: int, to: int, before: Payload, after: Payload
) -> Callable[[Callable[[Payload], Payload]], Upcast]:
    """Declare the step from one schema_version of an event's payload to the next.

    Raises DeclarationError at import when the example disproves the function, or when it changes nothing.
    """
    return lambda function: Upcast((event,), (since, to), function, before, after)


def fill(
    *events: type[EventType], before: Payload, after: Payload
) -> Callable[[Callable[[Payload], Payload]], Upcast]:
    """Declare how a missing field is computed, whatever the payload's schema_version."""
    return lambda function: Upcast(events, None, function, before, after)


class Chain:
    """All steps of an aggregate, in order, checked as a whole."""

    def __init__(self, steps: Iterable[Upcast] = ()) -> None:
        self.steps = tuple(steps)
        self._current: dict[str, int] = {}
        for step in self.steps:
            if step.versions is None:
                continue
            since, to = step.versions
            name = step.events[0].event_type
            reached = self._current.get(name, 1)
            if since != reached:
                fault = "leaves a gap" if since > reached else "repeats or reverses an earlier step"
                raise DeclarationError(
                    f"{step!r} {fault}: the chain of {name} has reached schema_version {reached}",
                    hint=f"the next step of {name} must be since={reached}, to={reached + 1}",
                )
            self._current[name] = to

    def current(self, event_type: str) -> int:
        """Give the newest schema_version of an event type that this code knows."""
        return self._current.get(event_type, 1)

    def steps_for(self, event_type: str, schema_version: int) -> list[Upcast]:
        """List the steps that a payload of this type and schema_version goes through, in order.

        Raises SchemaTooNew when the payload is newer than the code.
        """
        if schema_version > self.current(event_type):
            raise SchemaTooNew(
                f"{event_type} is stored with schema_version {schema_version},"
                f" which is newer than the {self.current(event_type)} this code knows",
                hint=f"declare the upcast of {event_type} to {schema_version}, or update the code",
                event_type=event_type,
                found=schema_version,
                known=self.current(event_type),
            )
        return [
            step
            for step in self.steps
            if event_type in {event.event_type for event in step.events}
            and (step.versions is None or step.versions[0] >= schema_version)
        ]

    def __call__(self, event_type: str, payload: Payload, schema_version: int = 1) -> Payload:
        """Bring one payload to the current shape; the one handed over is left alone."""
        payload = copy.deepcopy(payload)
        for step in self.steps_for(event_type, schema_version):
            payload = step(payload)
        return payload
