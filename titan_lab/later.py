"""The few events of one aggregate after a saved state, read row by row: sooner than as columns.

What is read so must be what a fold of all would read. Where a row is such that the two could differ, nothing
is read, and the reason is told.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import polars as pl

from titan_lab.decoding import read_payload
from titan_lab.event import EVENTS, Event, check, parse_object
from titan_lab.fold import Aggregate, Misfit
from titan_lab.jsontext import FLAT, not_objects
from titan_lab.log import EventLog
from titan_lab.saved import Saved
from titan_lab.scope import Scope

Row: TypeAlias = tuple[Any, ...]  # version, event_type, payload, metadata, timestamp

STEPS = 1_000  # from so many events on, folding a whole life as columns is faster than the rest in steps
UTC = ZoneInfo("UTC")  # as moments in a frame have it
FLAT_OBJECT = re.compile(FLAT)
ODD = Misfit("$", "is no event as every way of folding reads it")
DOES_NOT_FIT = "is followed by an event that cannot be folded as it stands"  # folding all tells which


class PassedOver(Exception):
    """Why a snapshot is not used, as the end of a sentence about it."""


def later(log: EventLog, aggregate: type[Aggregate], aggregate_id: str, found: Saved) -> list[Event]:
    """Read the events after a saved state, checked as the aggregate declares them. Raises PassedOver."""
    try:
        rows = _rows(log, aggregate_id, found.version)
        if not rows or rows[0][:2] != (found.version, found.event_type):
            raise PassedOver("was not taken of this log: its event is another, or gone")
        if _moment(rows[0][4]) != found.timestamp:
            raise PassedOver("was not taken of this log: its event has another timestamp")
        if len(rows) > STEPS:
            raise PassedOver(f"is more than {STEPS:,} events back, which are folded faster with all others")
        return [_event(aggregate, aggregate_id, *row) for row in rows[1:]]
    except PassedOver:
        raise
    except Exception as error:
        raise PassedOver(DOES_NOT_FIT) from error


def _rows(log: EventLog, aggregate_id: str, version: int) -> list[Row]:
    """Read an aggregate's rows from a version on, that version's own first."""
    if hasattr(log.reader, "rows_from"):
        rows: list[Row] = log.reader.rows_from(aggregate_id, version, STEPS + 1)
    else:
        request = Scope(aggregates=(aggregate_id,), from_version=version)
        checked = [check(raw, log.zone) for raw in log.reader.frames(request, STEPS)]
        if any(len(bad) for _, bad in checked):
            raise ODD
        events = pl.concat([EVENTS.to_frame(), *(good for good, _ in checked)]).filter(request.predicate())
        rows = events.drop("aggregate_id").sort("version").head(STEPS + 1).rows()
    if any(type(row[0]) is not int for row in rows) or any(a[0] >= b[0] for a, b in pairwise(rows)):
        raise ODD
    return rows


def _event(
    aggregate: type[Aggregate],
    name: str,
    version: int,
    event_type: Any,
    payload: Any,
    metadata: Any,
    stamp: Any,
) -> Event:
    if not (isinstance(event_type, str) and event_type and isinstance(payload, str)):
        raise ODD
    told = {} if metadata is None else parse_object(metadata)
    stored = told.get("schema_version")
    if stored is not None and (type(stored) is not int or stored < 1):
        raise ODD
    if metadata is not None and not FLAT_OBJECT.match(metadata) and not_objects(pl.Series([metadata]))[0]:
        raise ODD
    known, read = aggregate.events.get(event_type), None
    if known is not None:
        read = read_payload(payload, known.shape, aggregate.chain.steps_for(event_type, stored or 1))
    elif not_objects(pl.Series([payload]))[0]:
        raise ODD
    return Event(name, version, event_type, read, told, _moment(stamp))


def _moment(stamp: Any) -> datetime:
    found = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    if found.tzinfo is None:
        raise ODD
    return found.astimezone(UTC)
