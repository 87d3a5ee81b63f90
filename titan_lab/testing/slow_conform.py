"""The oracle of conformance: one life after the other, one event after the other."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from titan_lab.fold import Aggregate
from titan_lab.testing.slow import Lives

Place = tuple[str, int]  # aggregate_id, version


def illegal(aggregate: type[Aggregate], lives: Lives, column: str = "status") -> list[Place]:
    """Follow each life through the machine, and note each step that it does not allow."""
    declared: Any = aggregate.reducers[column]
    found = []
    for aggregate_id in sorted(lives, key=str.encode):
        before = None
        for event in lives[aggregate_id]:
            if event.event_type in declared.states:
                after = declared.states[event.event_type]
                if after not in declared.allowed.get(before, ()):
                    found.append((aggregate_id, event.version))
                before = after
    return found


def gaps(lives: Lives) -> list[Place]:
    """Count along each life's versions."""
    found = []
    for aggregate_id in sorted(lives, key=str.encode):
        expected = 1
        for event in lives[aggregate_id]:
            if event.version != expected:
                found.append((aggregate_id, event.version))
            expected = event.version + 1
    return found


def totals(aggregate: type[Aggregate], lives: Lives) -> list[Place]:
    """Add up the items of each order that an event tells anew, and hold its total to them."""
    found = []
    for aggregate_id in sorted(lives, key=str.encode):
        for event, state in zip(lives[aggregate_id], aggregate.states(lives[aggregate_id]), strict=True):
            if event.event_type in ("OrderCreated", "OrderModified"):
                lines = sum((line.quantity * line.price for line in state.items or []), Decimal(0))
                if state.total is not None and state.total != lines:
                    found.append((aggregate_id, event.version))
    return found
