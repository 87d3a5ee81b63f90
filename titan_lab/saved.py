"""A saved state: how it is written as JSON, and whether it may be used.

The JSON object holds the state's columns under their own names, so that another program can read them, and
beside them, under a name that no column can have, what it takes to trust them: whose fold they are, and after
which event. Amounts and floats are text, instants ISO text: no JSON reader in between rounds them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from titan_lab.clock import iso
from titan_lab.errors import SnapshotError
from titan_lab.event import TIMESTAMP
from titan_lab.fold import Aggregate, State
from titan_lab.notebook import html

MARK = "$fold"


@dataclass(frozen=True, slots=True)
class Saved:
    """A state that was saved by this very fold.

    version, event_type and timestamp: of the event it was taken after. valid_from: the instant from which
    it counts, the latest timestamp up to that event.
    """

    version: int
    event_type: str
    timestamp: datetime
    valid_from: datetime
    fields: dict[str, Any]


def write(aggregate: type[Aggregate], state: State, event_type: str, timestamp: datetime) -> str:
    """Write a state down, with the type and timestamp of its last event.

    >>> from titan_lab.orders.order import Order
    >>> from titan_lab.clock import instant
    >>> moment = instant("2025-01-01T10:00Z")
    >>> state = Order.initial("a")
    >>> state.valid_from = moment
    >>> write(Order, state, "OrderCreated", moment)[-58:]
    '"shipped_at":null,"delivered_at":null,"cancelled_at":null}'
    """
    assert state.valid_from is not None, "a state after an event counts from an instant"
    told = {
        "aggregate": aggregate.__name__,
        "fingerprint": aggregate.fingerprint(),
        "event": event_type,
        "timestamp": iso(timestamp),
        "valid_from": iso(state.valid_from),
    }
    fields = state.as_dict()
    columns = {name: as_json(fields[name], dtype) for name, dtype in aggregate.schema().items()}
    return json.dumps({MARK: told} | columns, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def read(aggregate: type[Aggregate], version: int | None, text: str | None) -> Saved | str:
    """Read a saved state, or say why it is not to be used."""
    try:
        held = json.loads(text or "")
        told = held[MARK]
        whose, fingerprint = told["aggregate"], told["fingerprint"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return NO_FINGERPRINT
    mine = aggregate.__name__, aggregate.fingerprint()
    if (whose, fingerprint) != mine:
        return f"is of another fold: {html.line(f'{whose} {fingerprint}')}, this is {' '.join(mine)}"
    try:
        fields = {name: from_json(held[name], dtype) for name, dtype in aggregate.schema().items()}
        stamp, since = (from_json(told[name], TIMESTAMP) for name in ("timestamp", "valid_from"))
        return Saved(int(version), str(told["event"]), stamp, since, fields)  # type: ignore[arg-type]
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        return f"cannot be read: {type(error).__name__} {html.line(error)}"


NO_FINGERPRINT = "has no fingerprint: another program saved it"


def as_json(value: Any, dtype: pl.DataType) -> Any:
    """Turn a value of a column into what JSON holds exactly."""
    if value is None:
        return None
    if isinstance(dtype, pl.Decimal):
        return str(value)
    if isinstance(dtype, pl.Datetime):
        return value.isoformat()
    if dtype.is_float():
        return repr(value)
    if isinstance(dtype, pl.List):
        return [as_json(one, dtype.inner) for one in value]  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return {field.name: as_json(value[field.name], field.dtype) for field in dtype.fields}  # type: ignore[arg-type]
    return value


def from_json(value: Any, dtype: pl.DataType) -> Any:
    """Turn what ``as_json`` gave into the value again."""
    if value is None:
        return None
    if isinstance(dtype, pl.Decimal):
        return Decimal(value)
    if isinstance(dtype, pl.Datetime):
        moment = datetime.fromisoformat(value)
        return moment.astimezone(ZoneInfo(dtype.time_zone)) if dtype.time_zone else moment
    if dtype.is_float():
        return float(value)
    if isinstance(dtype, pl.List):
        return [from_json(one, dtype.inner) for one in value]  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return {field.name: from_json(value[field.name], field.dtype) for field in dtype.fields}  # type: ignore[arg-type]
    return value


def check_savable(aggregate: type[Aggregate]) -> None:
    """Refuse an aggregate with a column that JSON cannot hold exactly. Raises SnapshotError."""
    for name, dtype in aggregate.schema().items():
        if not _savable(dtype):
            raise SnapshotError(
                f"{aggregate.__name__}.{name} is {dtype}, which no snapshot can hold",
                hint="numbers, text, booleans, instants, and lists and structs of them can be saved",
                column=name,
            )


def _savable(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _savable(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return all(_savable(field.dtype) for field in dtype.fields)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Datetime):
        return dtype.time_unit != "ns"  # Python has no datetime for it
    return dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Enum, pl.Null)
