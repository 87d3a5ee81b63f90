"""Promise: a point-in-time join of 1 M labels with the states of 10 M events in at most 0.15 s.

Each label is an order's id and a moment; the answer is that order's status and total as of the moment, null
where it did not exist, one row per label. Some labels fall on an event's very microsecond, some on ids
nobody has. Ours takes the labels as they come: ids as text, in no order, and gives them back in their
order. Included: from the call to the joined frame. Excluded, in the peers' favour: carrying states forward,
leaving out all but the last of the states of one microsecond (an ASOF join may take any of them), loading,
sorting both sides by time where the engine wants that, writing ids as UUIDs (DuckDB) or as integers (pandas
and polars, where it says so), and bringing the rows back into the labels' order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from benchmarks import at, peers
from benchmarks.data import DAY, SEED, SPAN, START, events_file, order_ids
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "pit_join"
COLUMNS = ["status", "total"]
MOST_LABELS = 1_000_000


def measure(options: Options) -> Iterator[dict]:
    """Time the point-in-time join of labels."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    typed = peers.completed(peers.decode(pl.scan_parquet(file)))
    states = peers.intervals(typed, COLUMNS).with_columns(typed["order"])
    states = states.unique(["order", "timestamp"], keep="last", maintain_order=True)
    del typed
    spine = labels(states, min(MOST_LABELS, options.events // 5))
    orders = states.select("aggregate_id", "order").unique("order")
    keyed = spine.join(orders, on="aggregate_id", how="left", maintain_order="left")

    engines = [
        Engine(OURS, lambda: book.asof(spine, on="ts", by="aggregate_id", columns=COLUMNS), plain),
        *polars_engines(keyed, states),
        duckdb_engine(keyed, states),
        pandas_engine(keyed, states),
    ]
    yield from compare(
        BENCH,
        f"{len(spine):,} labels",
        engines,
        options,
        events=options.events,
        orders=len(book),
        promise=promised(options, 0.150),
    )


def labels(states: pl.DataFrame, count: int) -> pl.DataFrame:
    """Draw labels: mostly at any moment, a tenth at an event's own, one in fifty with an id nobody has."""
    rng = np.random.default_rng([SEED, 2])
    picked = states[rng.integers(0, len(states), count)]
    moments = rng.integers(START - DAY, START + SPAN + 30 * DAY, count)
    strangers = order_ids(count, SEED + 1).gather(rng.permutation(count))
    return pl.DataFrame(
        {
            "label": np.arange(count),
            "aggregate_id": pl.select(
                pl.when(pl.Series(rng.random(count) < 0.02)).then(strangers).otherwise(picked["aggregate_id"])
            ).to_series(),
            "ts": pl.select(
                pl.when(pl.Series(rng.random(count) < 0.1))
                .then(picked["timestamp"])
                .otherwise(pl.Series(moments).cast(pl.Datetime("us", "UTC")))
            ).to_series(),
        }
    )


def plain(joined: pl.DataFrame) -> pl.DataFrame:
    return joined.select(
        pl.col("label").cast(pl.Int64),
        pl.col("status").cast(pl.String).cast(peers.STATUS),
        pl.col("total").cast(peers.MONEY),
    ).sort("label")


def polars_engines(keyed: pl.DataFrame, states: pl.DataFrame) -> Iterator[Engine]:
    left = keyed.sort("ts")
    right = states.select("order", "aggregate_id", "timestamp", *COLUMNS).sort("timestamp")
    for key, name in (("order", "integer"), ("aggregate_id", "text")):
        narrow, wide = left.select("label", "ts", key), right.select("timestamp", key, *COLUMNS)
        yield Engine(
            f"polars join_asof, {name} key",
            lambda narrow=narrow, wide=wide, key=key: narrow.join_asof(
                wide, left_on="ts", right_on="timestamp", by=key, strategy="backward", check_sortedness=False
            ),
            plain,
        )


def duckdb_engine(keyed: pl.DataFrame, states: pl.DataFrame) -> Engine:
    con = peers.connect()
    con.register("labels_arrow", keyed.to_arrow())
    con.register("states_arrow", states.with_columns(pl.col("status").cast(pl.String)).to_arrow())
    con.execute(
        "CREATE TABLE labels AS SELECT label, aggregate_id::UUID AS aggregate_id, ts FROM labels_arrow"
    )
    con.execute(
        "CREATE TABLE states AS SELECT aggregate_id::UUID AS aggregate_id, timestamp,"
        " status::order_status AS status, total::DECIMAL(18,2) AS total FROM states_arrow"
    )
    con.unregister("labels_arrow")
    con.unregister("states_arrow")
    query = """SELECT label, status, total FROM labels ASOF LEFT JOIN states
               ON labels.aggregate_id = states.aggregate_id AND labels.ts >= states.timestamp"""
    return Engine(
        "duckdb ASOF JOIN", lambda: con.sql(query).to_arrow_table(), lambda table: plain(pl.DataFrame(table))
    )


def pandas_engine(keyed: pl.DataFrame, states: pl.DataFrame) -> Engine:
    import pandas as pd

    # Amounts go in as whole cents: Python decimals would slow pandas down for nothing.
    cents = (pl.col("total") * 100).cast(pl.Int64)
    nobody = np.uint32(2**32 - 1)
    left = keyed.select("label", "ts", pl.col("order").fill_null(nobody)).sort("ts").to_pandas()
    right = (
        states.select("order", "timestamp", pl.col("status").to_physical(), cents)
        .sort("timestamp")
        .to_pandas()
    )

    def join() -> Any:
        return pd.merge_asof(left, right, left_on="ts", right_on="timestamp", by="order")

    def named(joined: Any) -> pl.DataFrame:
        codes = pl.from_pandas(joined[["label", "status", "total"]], nan_to_null=True)
        names = pl.Series(peers.STATUS.categories)
        return plain(
            codes.with_columns(
                status=names.gather(codes["status"].cast(pl.UInt32)),
                total=codes["total"].cast(pl.Int64).cast(pl.Decimal(38, 0)) / pl.lit(100, pl.Decimal(38, 2)),
            )
        )

    return Engine("pandas merge_asof, integer key, presorted", join, named)


if __name__ == "__main__":
    script(measure)
