"""What two questions in SQL must answer, counted event by event."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal

from titan_lab.fold import Aggregate
from titan_lab.testing.slow import Lives, counted


def events_by_type(lives: Lives, moment: datetime) -> list[tuple[str, int]]:
    """Count the events that count at a moment, by type, sorted by type."""
    seen = Counter(event.event_type for life in lives.values() for event in counted(life, moment, "prefix"))
    return sorted(seen.items(), key=lambda one: one[0].encode())


def paid_above(
    aggregate: type[Aggregate], lives: Lives, moment: datetime, least: Decimal
) -> list[tuple[str, int, Decimal]]:
    """List who has paid more than `least` at a moment: id, version and amount, sorted by id."""
    found = []
    for aggregate_id in sorted(lives, key=str.encode):
        state = aggregate.fold(counted(lives[aggregate_id], moment, "prefix"))
        if state.version and state.as_dict()["paid"] > least:
            found.append((aggregate_id, state.version, state.as_dict()["paid"]))
    return found
