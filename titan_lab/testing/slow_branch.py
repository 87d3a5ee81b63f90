"""The oracle of branches: edits of a list of rows, and the comparison of two folds, one event at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import polars as pl

from titan_lab.event import EVENTS, Event, parse_object
from titan_lab.fold import Aggregate
from titan_lab.reducers import machine
from titan_lab.testing import slow

Row = dict[str, Any]
Chosen = Callable[[Row], bool]


def rows_of(events: pl.DataFrame) -> list[Row]:
    """Take a frame of EVENTS apart, in order of aggregate and version."""
    return sorted(events.to_dicts(), key=_key)


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Put rows together to a frame of EVENTS."""
    return pl.DataFrame(sorted(rows, key=_key), schema=EVENTS, orient="row")


def without(rows: list[Row], chosen: Chosen) -> list[Row]:
    """Leave rows out."""
    return [row for row in rows if not chosen(row)]


def until(rows: list[Row], moment: Any) -> list[Row]:
    """Keep, of each life, the events before the first that is stamped later than a moment."""
    kept, over = [], set()
    for row in rows:
        if row["timestamp"] > moment:
            over.add(row["aggregate_id"])
        if row["aggregate_id"] not in over:
            kept.append(row)
    return kept


def insert(rows: list[Row], new: list[Row], shift: bool = False) -> list[Row]:
    """Put rows in one by one; without a version after the last, with `shift` before what has it."""
    rows = [dict(row) for row in rows]
    for row in new:
        life = [one for one in rows if one["aggregate_id"] == row["aggregate_id"]]
        version = row.get("version") or max(one["version"] for one in life) + 1
        if shift:
            for one in life:
                one["version"] += one["version"] >= version
        rows.append({**row, "version": version})
    return sorted(rows, key=_key)


def edit(rows: list[Row], chosen: Chosen, values: dict[str, Any], aggregate: type[Aggregate]) -> list[Row]:
    """Set fields of rows, the payload's in its current shape."""
    return [_set(row, values, aggregate) if chosen(row) else row for row in rows]


def _set(row: Row, values: dict[str, Any], aggregate: type[Aggregate]) -> Row:
    fields = {name: value for name, value in values.items() if name not in EVENTS}
    row = row | {name: value for name, value in values.items() if name in ("timestamp", "event_type")}
    if not fields and "event_type" not in values:
        return row
    metadata = json.loads(row["metadata"] or "{}")
    kind = row["event_type"]
    payload = row["payload"]
    if "event_type" not in values:
        old = aggregate.chain(kind, parse_object(payload), metadata.get("schema_version", 1))
        payload = json.dumps(old | fields, default=str)
    current = aggregate.chain.current(kind)
    if current > 1 or "schema_version" in metadata:
        metadata["schema_version"] = current
    return row | {"payload": payload, "metadata": json.dumps(metadata) if metadata else None}


def differences(
    aggregate: type[Aggregate], before: slow.Lives, after: slow.Lives
) -> list[tuple[str, str, Any, Any]]:
    """List every column of every aggregate whose last value differs."""
    told = []
    for name in sorted(before.keys() | after.keys(), key=str.encode):
        ours, theirs = (_last(aggregate, lives.get(name)) for lives in (before, after))
        told += [(name, c, ours[c], theirs[c]) for c in aggregate.reducers if ours[c] != theirs[c]]
    return told


def totals(aggregate: type[Aggregate], lives: slow.Lives, column: str) -> Decimal:
    """Add up a column's last values."""
    return sum((_last(aggregate, life)[column] or Decimal(0) for life in lives.values()), Decimal(0))


def illegal(
    aggregate: type[Aggregate], lives: slow.Lives, column: str
) -> dict[str, list[tuple[int, str | None, str]]]:
    """List, by aggregate, the transitions of a machine that it does not allow."""
    reducer = aggregate.reducers[column]
    assert isinstance(reducer, machine)
    assert reducer.allowed is not None
    found: dict[str, list[tuple[int, str | None, str]]] = {}
    for name, life in lives.items():
        state: str | None = None
        for event in life:
            if event.event_type in reducer.states:
                following = reducer.states[event.event_type]
                if following not in reducer.allowed[state]:
                    found.setdefault(name, []).append((event.version, state, following))
                state = following
    return found


def _last(aggregate: type[Aggregate], life: list[Event] | None) -> dict[str, Any]:
    if not life:
        return dict.fromkeys(aggregate.reducers)
    return slow.plain(aggregate.fold(life).as_dict())


def _key(row: Row) -> tuple[bytes, int]:
    return row["aggregate_id"].encode(), row["version"]
