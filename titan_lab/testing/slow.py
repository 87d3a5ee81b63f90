"""The oracle: what the columns must answer, as the plainest loop over events that could be right."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from titan_lab.clock import Cut
from titan_lab.event import Event, records
from titan_lab.fold import Aggregate, State
from titan_lab.payload import Record

START_OF_ALL = datetime(2025, 1, 1, tzinfo=UTC)  # where the random histories begin
Lives = dict[str, list[Event]]


def lives_of(events: pl.DataFrame) -> Lives:
    """Part a frame of EVENTS into one list of events per aggregate, in order of version."""
    lives: Lives = {}
    for event in sorted(records(events), key=lambda one: (one.aggregate_id, one.version)):
        lives.setdefault(event.aggregate_id, []).append(event)
    return lives


def counted(life: Sequence[Event], moment: datetime, cut: Cut) -> list[Event]:
    """Choose the events of one life that count at a moment."""
    if cut == "filter":
        return [event for event in life if _stamp(event) <= moment]
    upto = 0
    if cut == "latest":
        for place, event in enumerate(life, start=1):
            if _stamp(event) <= moment:
                upto = place
        return list(life[:upto])
    for event in life:
        if _stamp(event) > moment:
            break
        upto += 1
    return list(life[:upto])


def at(
    aggregate: type[Aggregate], lives: Lives, moment: datetime, cut: Cut = "prefix"
) -> list[dict[str, Any]]:
    """Fold every life up to a moment; one row for each that had an event by then."""
    rows = []
    for aggregate_id in sorted(lives, key=str.encode):
        events = counted(lives[aggregate_id], moment, cut)
        if events:
            rows.append(row(aggregate.fold(events)))
    return rows


def history(aggregate: type[Aggregate], lives: Lives) -> list[dict[str, Any]]:
    """Fold every life, and give the state after each event."""
    return [row(state) for one in sorted(lives, key=str.encode) for state in aggregate.states(lives[one])]


def asof(
    aggregate: type[Aggregate], lives: Lives, labels: Iterable[tuple[str | None, datetime]]
) -> list[dict[str, Any] | None]:
    """Give, for each label, the state of its aggregate at its moment, or None."""
    found: list[dict[str, Any] | None] = []
    for aggregate_id, moment in labels:
        events = counted(lives.get(aggregate_id or "", []), moment, "prefix")
        found.append(row(aggregate.fold(events)) if events else None)
    return found


def held(life: Sequence[Event]) -> list[tuple[datetime, datetime | None]]:
    """Give, for each state of one life, from when until when it holds; None where no event followed."""
    starts: list[datetime] = []
    for event in life:
        starts.append(max([_stamp(event), *starts[-1:]]))
    return list(zip(starts, [*starts[1:], None], strict=True))


def held_at(life: Sequence[Event], moment: datetime, cut: Cut) -> tuple[datetime, datetime | None]:
    """Give from when until when exactly those events count that count at a moment."""
    seen = counted(life, moment, cut)
    changes = [other for other in sorted(map(_stamp, life)) if counted(life, other, cut) == seen]
    later = [other for other in map(_stamp, life) if other > moment and counted(life, other, cut) != seen]
    return changes[0], min(later, default=None)


def row(state: State) -> dict[str, Any]:
    """Write a state as the frames of states do: aggregate_id, version, then the columns."""
    return {"aggregate_id": state.aggregate_id, "version": state.version} | plain(state.as_dict())


def plain(value: Any) -> Any:
    """Turn records into dicts, all the way down."""
    if isinstance(value, Record):
        return plain(dataclasses.asdict(value))  # type: ignore[call-overload]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def _stamp(event: Event) -> datetime:
    assert event.timestamp is not None
    return event.timestamp
