"""What `blame` and `diff` share: every state written out by hand, each value beside the event that set it.

The peers get, for each column asked about, the value after every event and the version, event type, timestamp
and correlation_id of the event that set it, carried forward; that, and reading the metadata, is outside their
time. Ours starts from the timeline and its metadata as JSON text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import peers

EVENT = ["version", "event_type", "timestamp", "correlation_id"]
CORRELATION = r'"correlation_id":"([^"]*)"'


def events(file: Path, columns: list[str]) -> pl.DataFrame:
    """Read events as a peer would keep them: typed columns, and what is told of the event itself."""
    typed = peers.completed(peers.decode(pl.scan_parquet(file)))
    told = pl.scan_parquet(file).select(
        "event_type", correlation_id=pl.col("metadata").str.extract(CORRELATION, 1)
    )
    return typed.select("order", "aggregate_id", "version", "timestamp", *columns).hstack(told.collect())


def states(events: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Write every state out, with the instant `until` which it held and the event behind each column."""
    behind = [_behind(name, one) for name in columns for one in EVENT]
    carried = events.select("order", "aggregate_id", "timestamp", *columns, *behind)
    filled = [pl.col(name).forward_fill() for name in carried.columns[3:]]
    return carried.with_columns(filled).hstack([peers.intervals(events, [])["until"]])


def _behind(name: str, one: str) -> pl.Expr:
    # An event without a correlation_id must not show an earlier one's: "" stands for none.
    value = pl.col(one).fill_null("") if one == "correlation_id" else pl.col(one)
    return pl.when(pl.col(name).is_not_null()).then(value).alias(f"{name}_{one}")


def load(con: Any, name: str, frame: pl.DataFrame) -> None:
    """Load a frame into DuckDB, ids as UUID and amounts in 64 bits."""
    arrow = frame.with_columns(pl.col(pl.Enum).cast(pl.String)).to_arrow()
    con.register("arrow", arrow)
    casts = ", ".join(
        f"{one}::DECIMAL(18,2) AS {one}" for one, kind in frame.schema.items() if isinstance(kind, pl.Decimal)
    )
    con.execute(
        f"CREATE TABLE {name} AS SELECT * REPLACE (aggregate_id::UUID AS aggregate_id, {casts}) FROM arrow"
    )
    con.unregister("arrow")
