"""The EVENTS frame, the checks every row must pass, and the Event record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from titan_lab.clock import instant, micros, zone_of
from titan_lab.errors import EventsError, InstantError
from titan_lab.jsontext import PIECE, not_objects
from titan_lab.marks import marks, nulls
from titan_lab.parallel import each, joined, spans
from titan_lab.stamps import microseconds

TIMESTAMP: pl.DataType = pl.Datetime("us", "UTC")

EVENTS = pl.Schema(
    {
        "aggregate_id": pl.String(),  # the stream's key
        "version": pl.Int64(),  # the event's place in its aggregate: 1, 2, 3 ...
        "event_type": pl.String(),
        "payload": pl.String(),  # the text of one JSON object
        "metadata": pl.String(),  # the text of one JSON object, or null
        "timestamp": TIMESTAMP,  # when the store says it wrote the event
    }
)

CONTENT = ("aggregate_id", "version", "timestamp", "event_type", "payload", "metadata")  # an order of its own

REJECTED = pl.Schema(
    {
        "place": pl.String,  # where in the source the row stands
        "aggregate_id": pl.String,
        "version": pl.Int64,
        "event_type": pl.String,
        "path": pl.String,  # the column, or the JSON path inside the payload
        "reason": pl.String,
        "raw": pl.String,  # the whole row as JSON, so that nothing is lost
    }
)

SAME_TWICE = "the same event twice; one was kept"
TAKEN = "another event has the same aggregate_id and version; the one stamped first was kept"
NO_OBJECT = "is not the text of one JSON object"
ISO_WITH_ZONE = "%Y-%m-%dT%H:%M:%S%.f%#z"
# Beyond these polars goes on counting, and Python has no datetime for it.
EARLIEST, LATEST = micros(datetime.min.replace(tzinfo=UTC)), micros(datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Event:
    """One recorded fact, in the order of the store's columns.

    payload: the declared EventType once an aggregate has read it, a plain dict before.
    timestamp: when the store says it wrote the event, aware UTC.
    """

    aggregate_id: str
    version: int
    event_type: str
    payload: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None

    @property
    def schema_version(self) -> int:
        """The payload's shape; 1 when the metadata does not say."""
        return int(self.metadata.get("schema_version") or 1)


def records(events: pl.DataFrame) -> list[Event]:
    """Turn rows of EVENTS into Event records with parsed payload and metadata, in the frame's order."""
    return [
        Event(
            aggregate_id=row["aggregate_id"],
            version=row["version"],
            event_type=row["event_type"],
            payload=parse_object(row["payload"]),
            metadata=parse_object(row["metadata"]) if row["metadata"] else {},
            timestamp=row["timestamp"],
        )
        for row in events.iter_rows(named=True)
    ]


def parse_object(text: str) -> Any:
    """Parse JSON with exact decimals; of a key written twice the first counts, as in the columnar decoder."""
    return json.loads(
        text,
        parse_float=_number,
        parse_constant=_no_constant,
        object_pairs_hook=lambda pairs: dict(reversed(pairs)),
    )


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits: nothing, or beyond all numbers
        return Decimal(float(text))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")  # Python alone would read NaN and Infinity


def check(
    raw: pl.DataFrame, zone: str | None = None, parse_json: bool = True
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part raw rows into good EVENTS and REJECTED ones; every row is in exactly one of the two.

    raw: the columns of EVENTS in any order and any sensible type, and optionally `place`: where each row
    stands, as text or as a struct of a file's name and a row number. Naive timestamps
    are read in `zone`; without one they are rejected. parse_json=False leaves the payload's syntax to
    whoever decodes it next. Rows keep their order.

    Raises EventsError when a column is missing.
    """
    missing = [name for name in EVENTS if name not in raw.columns and name != "metadata"]
    if missing:
        raise EventsError(
            f"events lack the column {', '.join(missing)}; found {', '.join(raw.columns) or 'none'}",
            hint=f"events need {', '.join(EVENTS)}; tl.from_frame(frame, aggregate_id=..., ...) names yours",
            missing=missing,
        )
    if "metadata" not in raw.columns:
        raw = raw.with_columns(metadata=pl.lit(None, pl.String))
    good = raw.select(
        aggregate_id=as_text(raw["aggregate_id"]),
        version=whole(raw["version"]),
        event_type=as_text(raw["event_type"]),
        payload=as_json(raw["payload"]),
        metadata=as_json(raw["metadata"]),
        timestamp=moments(raw["timestamp"], zone),
    )
    faults = _faults(good, raw, zone, parse_json)
    if not faults:
        return good, REJECTED.to_frame()
    bad = np.zeros(len(raw), dtype=bool)
    rejects = []
    for path, reason, rows in faults:
        fresh = rows & ~bad  # the first fault found is the one reported
        bad |= rows
        if fresh.any():
            rejects.append(reject(raw.filter(fresh), good.filter(fresh), path, reason))
    return good.filter(~bad), pl.concat(rejects)


def reject(
    raw: pl.DataFrame, good: pl.DataFrame, path: str | pl.Series, reason: str | pl.Series
) -> pl.DataFrame:
    """Write rows down as REJECTED, each with its path, its reason and the whole raw row."""
    columns = [name for name in raw.columns if name in EVENTS]
    return good.select(
        place=_place(raw),
        aggregate_id="aggregate_id",
        version="version",
        event_type="event_type",
        path=path if isinstance(path, pl.Series) else pl.lit(path),
        reason=reason if isinstance(reason, pl.Series) else pl.lit(reason),
        raw=pl.Series(
            [json.dumps(row, default=str) for row in raw.select(columns).iter_rows(named=True)],
            dtype=pl.String,
        ),
    ).match_to_schema(REJECTED)


def _place(raw: pl.DataFrame) -> pl.Series:
    if "place" not in raw.columns:
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(raw))
    if isinstance(raw.schema["place"], pl.Struct):
        file, row = raw["place"].struct.fields
        parts = raw["place"].struct
        return pl.select(
            pl.format("{} row {}", parts.field(file).cast(pl.String), parts.field(row))
        ).to_series()
    return as_text(raw["place"])


class InOrder(NamedTuple):
    """Events by (aggregate_id, version); which rows begin an aggregate, which repeat the key before."""

    events: pl.DataFrame
    first: np.ndarray
    again: np.ndarray


def in_order(events: pl.DataFrame) -> InOrder:
    """Sort by (aggregate_id, version); a frame that is in order already is taken as it is.

    Rows of equal key are put in an order of their own content, so that which of them counts does not depend
    on where they stood.
    """
    found = _keys(events) if events["aggregate_id"].is_sorted() else None
    if found is None:
        found = _keys(events.sort("aggregate_id", "version", maintain_order=True))
    if found is not None and found.again.any():
        found = _keys(events.sort(list(CONTENT)))
    assert found is not None, "sorted by version, no version steps back"
    return found


def _keys(events: pl.DataFrame) -> InOrder | None:
    """Compare each row's key with the one before; None where a version steps back."""
    ids, versions = events["aggregate_id"], events["version"].to_numpy()
    first, again, back = np.zeros((3, len(ids)), dtype=bool)
    first[:1] = True
    pairs = spans(max(len(ids) - 1, 0), PIECE)
    changes = each(lambda rows: ids[rows] != ids[rows.start + 1 : rows.stop + 1], pairs, len(ids))
    first[1:] = joined([change.to_numpy() for change in changes], bool)
    np.equal(versions[1:], versions[:-1], out=again[1:])
    np.less(versions[1:], versions[:-1], out=back[1:])
    return None if (back & ~first).any() else InOrder(events, first, again & ~first)


def part_duplicates(found: InOrder) -> tuple[InOrder, pl.DataFrame]:
    """Keep the first event of each (aggregate_id, version), and reject the others."""
    if not found.again.any():
        return found, REJECTED.to_frame()
    extra, first = found.events.filter(found.again), found.events.filter(~found.again)
    same = extra.join(first, on=list(EVENTS), how="semi", nulls_equal=True).with_columns(same=pl.lit(True))
    told = extra.join(same.unique(), on=list(EVENTS), how="left", nulls_equal=True, maintain_order="left")[
        "same"
    ]
    reason = pl.select(
        pl.when(told.fill_null(False)).then(pl.lit(SAME_TWICE)).otherwise(pl.lit(TAKEN))
    ).to_series()
    kept = InOrder(first, found.first[~found.again], np.zeros(len(first), dtype=bool))
    return kept, reject(extra, extra, "version", reason)


def moments(column: pl.Series, zone: str | None = None) -> pl.Series:
    """Read a column of moments as Datetime('us', 'UTC'); null where a value is none.

    Accepts any Datetime and Date dtype, and ISO-8601 text with ``Z``, a space or any offset. What has no zone
    is read in `zone` as ``clock.instant`` reads it, and is null without one.
    """
    found = _moments(column, zone)
    stamps = found.to_physical()
    first, last = stamps.min(), stamps.max()
    if first is not None and (first < EARLIEST or last > LATEST):  # type: ignore[operator]
        found = found.set(~stamps.is_between(EARLIEST, LATEST), None)
    return found


def _moments(column: pl.Series, zone: str | None) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return column.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    if isinstance(dtype, pl.Datetime | pl.Date):
        if zone is None:
            return (
                pl.Series(column.name, [None], TIMESTAMP).extend_constant(None, len(column) - 1)
                if len(column)
                else column.cast(TIMESTAMP)
            )
        zone_of(zone)
        local = column.cast(pl.Datetime("us")).dt.replace_time_zone(
            zone, ambiguous="earliest", non_existent="null"
        )
        found = local.dt.convert_time_zone("UTC")
        skipped = (found.is_null() & column.is_not_null()).arg_true()
        # A time that clocks skipped, as midnight was in São Paulo, is no less a moment than its text is.
        return found.scatter(skipped, [instant(one, zone) for one in column.gather(skipped)])
    if dtype == pl.Null:
        return column.cast(TIMESTAMP)
    if dtype != pl.String:
        column = as_text(column)
    written = microseconds(column)
    if written is not None:
        return pl.Series(column.name, written).cast(TIMESTAMP)
    parsed = column.str.replace(" ", "T", literal=True).str.to_datetime(
        ISO_WITH_ZONE, time_unit="us", strict=False
    )
    parsed = parsed.dt.convert_time_zone("UTC")
    unread = parsed.is_null() & column.is_not_null()
    if unread.any():
        parsed = parsed.scatter(
            unread.arg_true(), [_one_moment(text, zone) for text in column.filter(unread)]
        )
    return parsed


def as_text(column: pl.Series) -> pl.Series:
    """Read a column as text: binary as UTF-8, numbers and UUIDs as they are written."""
    if column.dtype == pl.String:
        return column
    if column.dtype == pl.Binary:
        return pl.Series(
            column.name,
            [None if b is None else bytes(b).decode("utf-8", "replace") for b in column],
            pl.String,
        )
    if column.dtype == pl.Object:
        return pl.Series(column.name, [None if value is None else str(value) for value in column], pl.String)
    return column.cast(pl.String)


def as_json(column: pl.Series) -> pl.Series:
    """Read a column as JSON text: structs and Python objects are written out, text stays as it is."""
    if isinstance(column.dtype, pl.Struct):
        return column.struct.json_encode().set(column.is_null(), None)
    if column.dtype == pl.Object:
        texts = [
            value if value is None or isinstance(value, str) else json.dumps(value, default=str)
            for value in column
        ]
        return pl.Series(column.name, texts, pl.String)
    return as_text(column)


def whole(column: pl.Series) -> pl.Series:
    """Read a column as whole numbers; null where a value is none."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        return whole.set(whole.cast(column.dtype) != column, None)
    return as_text(column).cast(pl.Int64, strict=False)


def _faults(
    good: pl.DataFrame, raw: pl.DataFrame, zone: str | None, parse_json: bool
) -> list[tuple[str, str, np.ndarray]]:
    no_moment = "no instant: expected ISO-8601 with a zone, such as 2025-01-01T10:00:00Z"
    if zone is None:
        no_moment += (
            "; if they are local times, say of which zone: zone='Europe/Berlin' beside the URL or frame"
        )
    faults: list[tuple[str, str, np.ndarray]] = []
    for column, reason in (
        ("aggregate_id", "aggregate_id is missing"),
        ("version", "version is not a whole number from 1 on"),
        ("event_type", "event_type is missing"),
        ("timestamp", no_moment),
        ("payload", "payload is missing"),
    ):
        values = good[column]
        if column == "version":
            wrong = marks(values < 1)
        elif column in ("aggregate_id", "event_type"):
            wrong = marks(values == "")
        else:
            wrong = np.zeros(len(values), dtype=bool)
        wrong = wrong | nulls(values)
        if wrong.any():
            faults.append((column, reason, wrong))
    if parse_json:
        for column, path in (("payload", "$"), ("metadata", "metadata")):
            wrong = not_objects(good[column]) & ~nulls(good[column])
            if wrong.any():
                faults.append((path, f"{column} {NO_OBJECT}", wrong))
    return faults


def _one_moment(text: str, zone: str | None) -> datetime | None:
    try:
        # Without a zone a day is no moment that an event can have happened at.
        return instant(text, zone) if zone or len(text) > len("2025-01-01") else None
    except InstantError:
        return None
