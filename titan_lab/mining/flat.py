"""Events for tools that know no nesting: a payload as attributes, exactly, whatever it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import polars as pl

from titan_lab.clock import iso
from titan_lab.event import parse_object

Value: TypeAlias = str | int | bool | Decimal
SLICE = 50_000  # events that stand in memory as Python objects
HALF = re.compile("[\ud800-\udfff]")
WHOLE = 2**63  # whole numbers from here on are text: no tool reads them as numbers


class Flat(NamedTuple):
    """One event: its place, its time, and the payload's fields that are not null."""

    aggregate_id: str
    version: int
    event_type: str
    timestamp: datetime
    attributes: dict[str, Value]
    payload: dict[str, Any]


def flat(events: pl.DataFrame) -> Iterator[Flat]:
    """Give EVENTS one by one. A payload nested too deeply to be read is one attribute, `payload`."""
    wanted = events.select("aggregate_id", "version", "event_type", "timestamp", "payload")
    for part in wanted.iter_slices(SLICE):
        for aggregate_id, version, event_type, timestamp, text in part.iter_rows():
            try:
                payload = parse_object(text)
                told = {name: payload[name] for name in reversed(payload)}  # in the order they were written
                fields = {name: _flat(value) for name, value in told.items() if value is not None}
            except (ValueError, RecursionError):
                payload, fields = {}, {"payload": text}
            if "\\u" in text:  # the only way in for half a character, which no file can hold
                fields = {_whole(name): _whole(value) for name, value in fields.items()}
            yield Flat(aggregate_id, version, event_type, timestamp, fields, payload)


def text_of(value: Value) -> str:
    """Write an attribute as text: numbers with all their digits, true and false as JSON has them."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def stamp(moment: datetime) -> str:
    """Write an instant as ISO-8601 in UTC with an offset, which more tools read than a ``Z``."""
    return iso(moment).replace("Z", "+00:00")


def _flat(value: Any) -> Value:
    if isinstance(value, list | dict):
        return _json(value)
    if (isinstance(value, Decimal) and not value.is_finite()) or (
        isinstance(value, int) and not -WHOLE <= value < WHOLE
    ):
        return str(value)
    return value


def _whole(value: Any) -> Any:
    return HALF.sub("\ufffd", value) if isinstance(value, str) else value


def _json(value: Any) -> str:
    # The library writes no exact decimals.
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(n)}: {_json(value[n])}" for n in reversed(value)) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else "null"
    return json.dumps(value, ensure_ascii=False)
