"""Given events, when a command, then events: how decisions are told, without a store.

given = scenarios(OrderInHand, DECIDERS)
given(created, paid).when(ShipOrder(order_id="order-1")).then(OrderShipped())
given(created).when(ShipOrder(order_id="order-1")).then_refused("allowed: PAID, CANCELLED")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from titan_lab.command import Command, Deciders, decide
from titan_lab.decoding import read_payload
from titan_lab.draft import as_written
from titan_lab.errors import Refused
from titan_lab.event import Event
from titan_lab.fold import Aggregate, State
from titan_lab.payload import EventType

START = datetime(2025, 1, 1, tzinfo=UTC)  # the first event comes a minute later, each next one a minute more


def scenarios(aggregate: type[Aggregate], deciders: Deciders) -> Callable[..., Given]:
    """Make the `given` of an aggregate and those who decide on it."""
    return lambda *events: Given(aggregate, deciders, events)


@dataclass(frozen=True)
class Given:
    """What has happened so far."""

    aggregate: type[Aggregate]
    deciders: Deciders
    events: tuple[EventType, ...]

    def when(self, command: Command) -> When:
        """Ask for something now."""
        return When(self, command)

    def state(self, aggregate_id: str) -> State:
        """Fold what has happened, as a store would give it back."""
        life = [
            Event(aggregate_id, n, one.event_type, as_read(one), {}, START + timedelta(minutes=n))
            for n, one in enumerate(self.events, start=1)
        ]
        return self.aggregate.fold(life, start=self.aggregate.initial(aggregate_id))


@dataclass(frozen=True)
class When:
    """What is asked."""

    given: Given
    command: Command

    def decided(self) -> list[EventType]:
        """Decide it. Raises Refused."""
        state = self.given.state(self.command.whose())
        return [
            as_read(one) for one in decide(self.given.aggregate, self.given.deciders, state, self.command)
        ]

    def then(self, *events: EventType) -> None:
        """Expect exactly these events, in this order."""
        found = self.decided()
        expected = [as_read(one) for one in events]
        assert found == expected, f"{self.command} led to {found}, and not to {expected}"

    def then_refused(self, *says: str) -> None:
        """Expect a refusal whose message holds all of these texts."""
        refusal = self._refusal()
        for text in says:
            assert text in refusal, f"the refusal says {refusal!r}, and not {text!r}"

    def _refusal(self) -> str:
        try:
            found = self.decided()
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"{self.command} led to {found}, and was to be refused")


def as_read(event: EventType) -> EventType:
    """Give an event as it is once it was stored and read: "9.00" and 9 are the same amount."""
    return read_payload(as_written(event), event.shape, [])
