"""Object-centric event logs: events, and all the things that they speak of, as OCEL 2.0 JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from titan_lab.errors import EventsError
from titan_lab.mining.flat import flat, stamp, text_of
from titan_lab.paths import written

KINDS: dict[type, str] = {str: "string", int: "integer", bool: "boolean", Decimal: "float"}
NUMBERS = {"integer", "float"}


def write_ocel(events: pl.DataFrame, path: str | Path, aggregate: str, objects: Mapping[str, str]) -> Path:
    """Write EVENTS as OCEL 2.0 JSON; ``EventLog.to_ocel`` tells how."""
    for name in (aggregate, *objects):
        if ":" in name or not name:
            raise EventsError(f"{name!r} cannot name a type of objects", hint="use a word without a colon")
    for name, field in objects.items():
        if not isinstance(field, str):
            raise EventsError(
                f"{field!r} is no field that holds the ids of {name!r}", hint="objects={'user': 'user_id'}"
            )
    if aggregate in objects:
        raise EventsError(
            f"{aggregate!r} names both the aggregate and what {objects[aggregate]} holds",
            hint="call one of them otherwise: to_ocel(path, aggregate='order')",
        )
    # Types and objects are known when the last event is written; a JSON object may tell them last.
    seen: dict[str, dict[str, None]] = {kind: {} for kind in (aggregate, *objects)}
    types: dict[str, dict[str, str]] = {}

    def told() -> Iterator[dict[str, Any]]:
        for event in flat(events):
            links = [(aggregate, event.aggregate_id, aggregate)]
            for kind, field in objects.items():
                links += [
                    (kind, id_, field) for id_ in dict.fromkeys(_found(event.payload, field.split(".")))
                ]
            for kind, id_, _ in links:
                seen[kind][id_] = None
            known = types.setdefault(event.event_type, {})
            for name, value in event.attributes.items():
                known[name] = _merged(known.get(name), KINDS[type(value)])
            yield {
                "id": f"{event.aggregate_id}:{event.version}",
                "type": event.event_type,
                "time": stamp(event.timestamp),
                "attributes": [
                    {"name": name, "value": text_of(value)} for name, value in event.attributes.items()
                ],
                "relationships": [
                    {"objectId": f"{kind}:{id_}", "qualifier": qualifier} for kind, id_, qualifier in links
                ],
            }

    with written(path) as file:
        file.write("{")
        _array(file, "events", told())
        file.write(",")
        _array(
            file,
            "objects",
            (
                {"id": f"{kind}:{id_}", "type": kind, "attributes": [], "relationships": []}
                for kind, ids in seen.items()
                for id_ in sorted(ids)
            ),
        )
        file.write(",")
        _array(
            file,
            "eventTypes",
            (
                {"name": name, "attributes": [{"name": n, "type": t} for n, t in sorted(types[name].items())]}
                for name in sorted(types)
            ),
        )
        file.write(",")
        _array(file, "objectTypes", ({"name": kind, "attributes": []} for kind in seen))
        file.write("\n}\n")
    return Path(path)


def _array(file: TextIO, name: str, ones: Iterable[dict[str, Any]]) -> None:
    file.write(f'\n"{name}": [')
    for number, one in enumerate(ones):
        file.write((",\n" if number else "\n") + json.dumps(one))
    file.write("\n]")


def _found(value: Any, path: list[str]) -> Iterator[str]:
    """Give the ids at a path of fields, in each of a list on the way; what is no id is passed over."""
    if isinstance(value, list):
        for one in value:
            if not isinstance(one, list):
                yield from _found(one, path)
    elif path:
        if isinstance(value, dict):
            yield from _found(value.get(path[0]), path[1:])
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield str(value)


def _merged(known: str | None, kind: str) -> str:
    """Give the type for values of both: whole numbers are numbers, and anything is text."""
    if known in (None, kind):
        return kind
    return "float" if {known, kind} == NUMBERS else "string"
