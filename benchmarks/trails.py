"""What the mining benchmarks share: event types and moments in the peers' own form, decoded beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import peers


def columns(file: Path) -> pl.DataFrame:
    """Read a Parquet file of events, sorted by id and version, with a running number for each order."""
    events = pl.read_parquet(file, columns=["aggregate_id", "version", "event_type", "timestamp"])
    kinds = pl.Enum(events["event_type"].unique().sort())
    return events.with_columns(
        pl.col("aggregate_id").rle_id().set_sorted().alias("order"), pl.col("event_type").cast(kinds)
    )


def duckdb(events: pl.DataFrame) -> Any:
    """Load them into DuckDB, ids as UUIDs and types as an ENUM."""
    con = peers.connect()
    kinds = ", ".join(repr(kind) for kind in events.schema["event_type"].categories)  # type: ignore[attr-defined]
    con.execute(f"CREATE TYPE kind AS ENUM ({kinds})")
    con.register("arrow", events.with_columns(pl.col("event_type").cast(pl.String)).to_arrow())
    con.execute(
        "CREATE TABLE events AS SELECT aggregate_id::UUID AS aggregate_id, version::INTEGER AS version,"
        " event_type::kind AS event_type, timestamp FROM arrow"
    )
    con.unregister("arrow")
    return con
