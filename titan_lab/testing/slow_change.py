"""The oracle for what changed and why: plain loops over one life after the other."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from titan_lab.clock import Cut
from titan_lab.event import Event
from titan_lab.fold import Aggregate, State
from titan_lab.payload import Record
from titan_lab.reducers import Reducer, count, first, key, largest, machine, smallest, step
from titan_lab.testing.slow import Lives, counted, held, plain

# --- whose value it is --------------------------------------------------------------------------------------


def setter(aggregate: type[Aggregate], name: str, events: Sequence[Event]) -> Event | None:
    """Find the event that set a column's value, among the events of one life that count."""
    reducer, value, found = aggregate.reducers[name], aggregate.reducers[name].initial, None
    if isinstance(reducer, key):
        return events[0]
    for event in map(aggregate.read, events):
        if event.event_type not in reducer.sources:
            continue
        before, value = value, reducer.step(value, event)
        if _sets(reducer, event, before, value):
            found = event
    return found


def _sets(reducer: Reducer, event: Event, before: Any, value: Any) -> bool:
    if isinstance(reducer, count | machine):
        return True
    if isinstance(reducer, first):
        return before is None and value is not None
    if isinstance(reducer, smallest | largest | step):
        return bool(before != value)
    return reducer.value_in(event) is not None


def upcasts(aggregate: type[Aggregate], name: str, stored: Event) -> str | None:
    """Name the steps that wrote the field that a column reads of an event, by looking at each in turn."""
    reducer = aggregate.reducers[name]
    field = None if isinstance(reducer, step) else reducer.sources.get(stored.event_type)
    payload, names = copy.deepcopy(stored.payload), []
    for one in aggregate.chain.steps_for(stored.event_type, stored.schema_version) if field else []:
        before, payload = copy.deepcopy(payload), one(payload)
        if field in one.writes and (one.versions is not None or before.get(field) != payload.get(field)):
            names.append(one.name)
    return " > ".join(names) or None


def correlation(event: Event) -> str | None:
    """Read who asked for an event."""
    return text_in(event, "correlation_id")


def text_in(event: Event, name: str) -> str | None:
    """Read a field of the metadata as text."""
    found = event.metadata.get(name)
    if isinstance(found, dict | list):
        return None
    return found if isinstance(found, str) or found is None else json.dumps(found)


# --- blame and diff ---------------------------------------------------------------------------------------


def blame(
    aggregate: type[Aggregate], lives: Lives, name: str, moment: datetime, cut: Cut = "prefix"
) -> list[dict[str, Any]]:
    """Fold every life up to a moment, and find the event behind one column."""
    rows = []
    for aggregate_id in sorted(lives, key=str.encode):
        events = counted(lives[aggregate_id], moment, cut)
        if events:
            value, event = aggregate.fold(events)[name], setter(aggregate, name, events)
            stored = next((one for one in events if event and one.version == event.version), None)
            upcast = upcasts(aggregate, name, stored) if stored else None
            rows.append(
                {"aggregate_id": aggregate_id, "value": plain(value), **told(event), "upcast": upcast}
            )
    return rows


def told(event: Event | None) -> dict[str, Any]:
    """Write an event as blame and diff do."""
    if event is None:
        return dict.fromkeys(("version", "event_type", "timestamp", "correlation_id"))
    return {
        "version": event.version,
        "event_type": event.event_type,
        "timestamp": event.timestamp,
        "correlation_id": correlation(event),
    }


Chosen = dict[str, list[Event]]  # the events of each life that count


def diff(
    aggregate: type[Aggregate], before: Chosen, after: Chosen, names: Iterable[str], as_text: bool
) -> list[dict[str, Any]]:
    """Compare every life as two choices of events leave it, field by field."""
    rows = []
    for aggregate_id in sorted({*before, *after}, key=str.encode):
        old, new = (aggregate.fold(side.get(aggregate_id, [])) for side in (before, after))
        for name in aggregate.reducers:
            if name in names and name_changed(aggregate, old, new, name):
                write = as_written if as_text else plain
                event = setter(aggregate, name, after[aggregate_id]) if after.get(aggregate_id) else None
                values = {"before": write(old[name]), "after": write(new[name])}
                rows.append({"aggregate_id": aggregate_id, "field": name, **values, **told(event)})
    return rows


def name_changed(aggregate: type[Aggregate], old: State, new: State, name: str) -> bool:
    """Tell whether a column that shows no id differs."""
    return not isinstance(aggregate.reducers[name], key) and old[name] != new[name]


def as_written(value: Any) -> str | None:
    """Write a value as text the way diff does."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return as_json(value)


def as_json(value: Any) -> str:
    """Write a value as JSON without spaces, amounts as numbers with their decimals."""
    if isinstance(value, Record | dict):
        fields = plain(value).items()
        return "{" + ",".join(f"{json.dumps(name)}:{as_json(one)}" for name, one in fields) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_json, value)) + "]"
    if isinstance(value, Decimal):
        return f"{value:.2f}"
    if isinstance(value, float):
        return pl.Series([value]).cast(pl.String).item()
    if isinstance(value, datetime):
        return f'"{as_written(value)}"'
    return json.dumps(value, ensure_ascii=False)


# --- explain and bisect -----------------------------------------------------------------------------------


def explain(
    aggregate: type[Aggregate],
    lives: Lives,
    measure: str,
    t0: datetime,
    t1: datetime,
    by: str,
    zone: str = "UTC",
) -> dict[Any, tuple[Any, int]]:
    """Add up, by group, how far each event between two moments moved a measure, and count those that did."""
    found: dict[Any, tuple[Any, int]] = {}
    for life in lives.values():
        states = [aggregate.initial(), *aggregate.states(life)]
        for event, old, new, (since, _) in zip(life, states[:-1], states[1:], held(life), strict=True):
            moved = (new[measure] or 0) - ((old[measure] or 0) if old else 0)
            if t0 < since <= t1 and moved:
                day = since.astimezone(ZoneInfo(zone)).date()
                group = (
                    {"event_type": event.event_type, "day": day}[by] if by not in new.as_dict() else new[by]
                )
                change, events = found.get(group, (0, 0))
                found[group] = change + moved, events + 1
    return found


def bisect(aggregate: type[Aggregate], lives: Lives, holds: Callable[[list[State]], bool]) -> datetime | None:
    """Look at the states at every instant in turn."""
    for moment in sorted({since for life in lives.values() for since, _ in held(life)}):
        chosen = [counted(life, moment, "prefix") for life in lives.values()]
        if holds([aggregate.fold(events) for events in chosen if events]):
            return moment
    return None


# --- trace ------------------------------------------------------------------------------------------------


def trace(lives: Lives, aggregate_id: str, version: int | None) -> list[tuple[int, str, Any, Any, bool]]:
    """Walk from cause to effect: depth, name, aggregate_id, version, and whether a circle was cut there."""
    events = sorted(
        (event for life in lives.values() for event in life),
        key=lambda event: (event.timestamp, event.aggregate_id, event.version),
    )
    asked = [e for e in events if e.aggregate_id == aggregate_id and version in (None, e.version)]
    groups = {correlation(event) for event in asked} - {None, ""}
    members = [event for event in events if event in asked or correlation(event) in groups]
    names: set[str] = set()
    while True:
        size = len(names), len(members)
        names |= {name for event in members for name in (*names_of(event), _cause(event)) if name}
        members = [e for e in events if e in members or names & {*names_of(e), _cause(e)}]
        if size == (len(names), len(members)):
            break
    by_name: dict[str, Event] = {}
    for event in members:
        by_name.setdefault(names_of(event)[0], event)
    for event in members:
        by_name.setdefault(names_of(event)[-1], event)
    effects = defaultdict(list)
    for event in members:
        cause = by_name.get(_cause(event) or "")
        effects[names_and_place(cause) if cause else _cause(event)].append(event)
    rows: list[tuple[int, str, Any, Any, bool]] = []
    done: set[Any] = set()

    def walk(event: Event, depth: int, cut: bool = False) -> None:
        if names_and_place(event) in done:
            return
        done.add(names_and_place(event))
        rows.append((depth, names_of(event)[0], event.aggregate_id, event.version, cut))
        for effect in effects[names_and_place(event)]:
            walk(effect, depth + 1)

    for event in members:
        outside = _cause(event)
        if outside is None:
            walk(event, 0)
        elif outside not in by_name and outside not in done:
            done.add(outside)
            rows.append((0, outside, None, None, False))
            for effect in effects[outside]:
                walk(effect, 1)
    for event in members:
        if names_and_place(event) not in done and _leads_to_itself(event, by_name):
            walk(event, 0, cut=True)
    return rows


def names_of(event: Event) -> list[str]:
    """List how an event may be called: by its event_id first, and by its place."""
    return [*filter(None, [text_in(event, "event_id")]), f"{event.aggregate_id}/{event.version}"]


def names_and_place(event: Event) -> tuple[str, int]:
    """Give what tells an event from all others."""
    return event.aggregate_id, event.version


def _cause(event: Event) -> str | None:
    return text_in(event, "causation_id") or None


def _leads_to_itself(event: Event, by_name: dict[str, Event]) -> bool:
    cause = event
    for _ in by_name:
        cause = by_name[_cause(cause)]  # type: ignore[index]
        if cause is event:
            return True
    return False
