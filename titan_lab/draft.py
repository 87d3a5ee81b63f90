"""Drafts: events before they are stored, from whatever a caller hands over."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from titan_lab.clock import EPOCH, Instant, instant, iso
from titan_lab.decoding import read_payload
from titan_lab.errors import EventsError, LargePayload, TitanError, nearest
from titan_lab.event import EVENTS, TIMESTAMP, Event, as_text, check, moments, parse_object
from titan_lab.frames import as_frame
from titan_lab.kinds import Misfit
from titan_lab.payload import EventType, Record

DRAFT = pl.Schema({name: EVENTS[name] for name in ("event_type", "payload", "metadata", "timestamp")})
LARGE = 64 * 1024  # bytes; what every reader of a history must read again and again
APART = r"event_id|schema_version|effective_at|\\"  # a name that may be written with an escape, too
NOTHING_SAID = r"^\{\s*$"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """Say of events that are to be appended who asked for them, and why.

    effective_at: when the fact holds, if that is not when it is recorded; an aware instant. event_id: what
    the ids of the events begin with; ``:1``, ``:2`` ... follow. One is made up where it is not given. more:
    what else is to be kept beside them, such as ``{"user_agent": ...}``.
    """

    correlation_id: str | None = None
    causation_id: str | None = None
    user_id: str | None = None
    schema_version: int | None = None
    effective_at: Instant | None = None
    event_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Give what is said, in the order in which it is written, without the event_id."""
        named = [one.name for one in fields(self) if one.name not in ("event_id", "more")]
        told = {name: getattr(self, name) for name in named}
        return {name: value for name, value in told.items() if value is not None} | dict(self.more)


class Draft(NamedTuple):
    """One event that has no place yet. A timestamp that is None will be told by the store's clock."""

    event_type: str
    payload: str
    metadata: str | None
    timestamp: datetime | None


def draft(
    aggregate_id: str,
    events: Any,
    expected_version: int,
    metadata: Metadata | None = None,
    zone: str | None = None,
    large: int = LARGE,
) -> pl.DataFrame:
    """Write events down as a frame of DRAFT, in their order, each with an event_id.

    See ``EventLog.append`` for what they may be. Raises EventsError for what is no event, or is another
    aggregate's or version's.
    """
    if not isinstance(aggregate_id, str) or not aggregate_id:
        raise EventsError(
            f"{aggregate_id!r} is no aggregate_id, which is text", hint="log.append('order-1', ...)"
        )
    said = metadata or Metadata()
    shared, stem = _spelled(said.as_dict(), zone), said.event_id or str(uuid.uuid4())
    if isinstance(events, EventType | Event | Mapping):
        events = [events]
    if isinstance(events, str) or not isinstance(events, Iterable) or hasattr(events, "columns"):
        frame = as_frame(events, "what is to be appended", EventsError)
        found = _of_frame(aggregate_id, frame, expected_version, zone)
        told, ids = _all_told(found["metadata"], shared, stem, zone)
    else:
        found = _of_several(aggregate_id, events, expected_version, zone)
        told, ids = _each_told(found["metadata"], range(len(found)), shared, stem, zone)
    if len(set(ids)) < len(ids):
        raise EventsError(
            "two of the events have the same event_id", hint="leave it out, and each gets its own"
        )
    _warn_if_large(aggregate_id, found, large)
    return found.with_columns(told.alias("metadata"))


def _each_told(
    texts: pl.Series, places: Iterable[int], shared: dict[str, Any], stem: str, zone: str | None
) -> tuple[pl.Series, list[Any]]:
    """Give what is to be told of some events, one by one: what all share, their own, and an event_id."""
    told: list[str] = []
    ids: list[Any] = []
    for place in places:
        text = texts[place]
        one = shared | (_spelled(parse_object(text), zone) if text else {})
        ids.append(one.setdefault("event_id", f"{stem}:{place + 1}"))
        told.append(as_written(one))
    return pl.Series("metadata", told, pl.String), ids


def _all_told(
    texts: pl.Series, shared: dict[str, Any], stem: str, zone: str | None
) -> tuple[pl.Series, list[Any]]:
    """Give what ``_each_told`` gives, of all events at once where a text need only be added to."""
    apart = (texts.is_not_null() & (bool(shared) | texts.str.contains(APART))).arg_true()
    begun = texts.str.strip_chars().str.head(-1).fill_null(as_written(shared)[:-1])
    comma = pl.when(begun.str.contains(NOTHING_SAID)).then(pl.lit("")).otherwise(pl.lit(", "))
    numbers = pl.int_range(1, len(texts) + 1, eager=True).cast(pl.String)
    added = pl.select(begun + comma + f'"event_id": {json.dumps(stem)[:-1]}:' + numbers + '"}').to_series()
    told, own = _each_told(texts, apart, shared, stem, zone)
    ids: list[Any] = (f"{stem}:" + numbers).to_list() if own else []
    for place, one in zip(apart, own, strict=True):
        ids[place] = one
    return (added.scatter(apart, told) if own else added), ids


def as_written(value: Any, error: type[TitanError] = EventsError) -> str:
    """Write a value as JSON, decimals with all their digits; ``event.parse_object`` reads it back.

    A field of a Record that is None is left out. Raises `error` for what JSON cannot hold.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except TypeError:  # what the library does not know may stand deep inside
        pass
    except (ValueError, RecursionError) as reason:
        raise error(
            f"{value!r} cannot be written as JSON: {reason}", hint="give what JSON can hold"
        ) from reason
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, datetime):
        return json.dumps(iso(instant(value)))
    if isinstance(value, uuid.UUID):
        return f'"{value}"'
    if isinstance(value, Record):
        there = {slot.name: getattr(value, slot.name) for slot in value.shape.slots}
        value = {name: one for name, one in there.items() if one is not None}
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{json.dumps(str(k))}: {as_written(v, error)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, list | tuple | pl.Series):
        return "[" + ", ".join(as_written(one, error) for one in value) + "]"
    raise error(f"{value!r} cannot be written as JSON", hint="give what JSON can hold")


def _of_several(aggregate_id: str, events: Iterable[Any], expected: int, zone: str | None) -> pl.DataFrame:
    found = []
    for number, one in enumerate(events, start=1):
        try:
            found.append(_of_one(aggregate_id, one, expected + number, zone))
        except TitanError as error:
            error.message = (
                f"event {number} is none that can be appended: {error.message}; nothing was written"
            )
            raise
    columns = zip(*found, strict=True) if found else [[]] * len(DRAFT)
    return pl.DataFrame(dict(zip(DRAFT, columns, strict=True)), schema=DRAFT)


def _of_one(aggregate_id: str, one: Any, version: int, zone: str | None) -> Draft:
    if isinstance(one, EventType):
        return Draft(one.event_type, _checked(one), None, None)
    if isinstance(one, Event):
        one = {name: getattr(one, name) for name in EVENTS}
    if not isinstance(one, Mapping):
        raise EventsError(
            f"it is of type {type(one).__name__}",
            hint="an event is tl.OrderShipped(...), a dict, a tl.Event or a row",
        )
    unknown = [name for name in one if name not in EVENTS]
    if unknown:
        raise EventsError(
            f"it has {', '.join(map(repr, unknown))}, and an event has {', '.join(EVENTS)}",
            hint=nearest(str(unknown[0]), EVENTS) or "put what happened into 'payload'",
        )
    if one.get("aggregate_id", aggregate_id) != aggregate_id:
        raise _elsewhere("aggregate_id", one["aggregate_id"], aggregate_id)
    if one.get("version") not in (None, version):
        raise _elsewhere("version", one["version"], version)
    payload, metadata, stamp = one.get("payload"), one.get("metadata"), one.get("timestamp")
    event_type = one.get("event_type", payload.event_type if isinstance(payload, EventType) else None)
    if not isinstance(event_type, str) or not event_type:
        raise EventsError(
            f"{event_type!r} is no event_type, which is text", hint='{"event_type": "OrderShipped"}'
        )
    text = _checked(payload) if isinstance(payload, EventType) else _object_text(payload, "payload")
    told = None if metadata is None else _object_text(metadata, "metadata")
    return Draft(event_type, text, told, None if stamp is None else instant(stamp, zone))


def _of_frame(aggregate_id: str, frame: pl.DataFrame, expected: int, zone: str | None) -> pl.DataFrame:
    count = len(frame)
    places = {
        "aggregate_id": pl.Series([aggregate_id] * count, dtype=pl.String),
        "version": pl.int_range(expected + 1, expected + 1 + count, eager=True),
    }
    for name, due in places.items():
        if name in frame.columns:
            wrong = (as_text(frame[name]) != as_text(due)).fill_null(False).arg_true()
            if len(wrong):
                raise _elsewhere(name, frame[name][wrong[0]], due[wrong[0]])
    given = frame["timestamp"] if "timestamp" in frame.columns else pl.Series([None] * count, dtype=TIMESTAMP)
    untold = given.is_null()
    stamps = moments(given if given.dtype != pl.Null else given.cast(TIMESTAMP), zone).set(untold, EPOCH)
    good, rejected = check(frame.with_columns(**places, timestamp=stamps), zone)
    if len(rejected):
        first = rejected.row(0, named=True)
        raise EventsError(
            f"{len(rejected)} of the rows to append are no events; nothing was written."
            f" First: {first['reason']} at {first['path']} in {first['raw']}",
            rejected=rejected,
        )
    return good.with_columns(timestamp=good["timestamp"].set(untold, None)).select(list(DRAFT))


def _checked(one: EventType) -> str:
    """Write the payload of a declared event, if it is what its declaration says."""
    text = as_written(one)
    try:
        read_payload(text, one.shape, [])
    except Misfit as misfit:
        raise EventsError(f"{one.event_type}: {misfit}", hint="see the fields that it declares") from misfit
    return text


def _object_text(value: Any, name: str) -> str:
    """Give a JSON object as text; what is text already stays as it is."""
    text = value if isinstance(value, str) else as_written(value)
    try:
        if isinstance(parse_object(text), dict):
            return text
    except (ValueError, RecursionError):
        pass
    raise EventsError(f"its {name} is {value!r}, which is no JSON object", hint="give a dict, or its text")


def _spelled(told: Mapping[str, Any], zone: str | None) -> dict[str, Any]:
    """Spell metadata as it is stored: instants in UTC, and nothing that says nothing."""
    said = {name: one for name, one in told.items() if one is not None}
    if "effective_at" in said:
        said["effective_at"] = iso(instant(said["effective_at"], zone))
    schema_version = said.get("schema_version", 1)
    if not isinstance(schema_version, int) or isinstance(schema_version, bool) or schema_version < 1:
        raise EventsError(f"{schema_version!r} is no schema_version", hint="a whole number from 1 on")
    return said


def _elsewhere(name: str, found: Any, due: Any) -> EventsError:
    return EventsError(
        f"an event says {name} {found!r}, and would be appended as {due!r}",
        hint=f"leave {name} out, or append it where it belongs; append_many(frame) keeps both",
    )


def _warn_if_large(aggregate_id: str, found: pl.DataFrame, large: int) -> None:
    sizes = found["payload"].str.len_bytes()
    beyond = (sizes > large).arg_true()
    if len(beyond):
        size, event_type = max(zip(sizes.gather(beyond), found["event_type"].gather(beyond), strict=True))
        more = f", the largest of {len(beyond)} such payloads" if len(beyond) > 1 else ""
        warnings.warn(
            f"{event_type} of {aggregate_id} holds {size:,} bytes{more}; events should be small: keep what"
            f" is large elsewhere, and name it. (More than {large:,} warn: that is log.large.)",
            LargePayload,
            stacklevel=4,  # where log.append was called
        )
