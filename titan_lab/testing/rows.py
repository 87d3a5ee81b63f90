"""Rows to put into a store, with its plain driver or through a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from titan_lab.connect import from_frame

Row = dict[str, Any]  # one row of EVENTS, all as the store would hold it; timestamps are ISO text

TEN = "2025-01-01T10:00:00.000000Z"


def row(aggregate_id: str = "order-1", version: int = 1, **changes: Any) -> Row:
    """Write one good row, with changes."""
    good = {
        "aggregate_id": aggregate_id,
        "version": version,
        "event_type": "OrderShipped",
        "payload": f'{{"tracking": "T{version}"}}',
        "metadata": '{"correlation_id": "req-1"}',
        "timestamp": TEN,
    }
    return good | changes


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    """Lay good rows out as EVENTS."""
    return from_frame(pl.DataFrame(rows)).read()
