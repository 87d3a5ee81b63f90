"""Promise: what changed between two instants, and which events did it, in at most 500 ms at 10 M events.

Included: from the call to a frame with one row for each order and field that differs: before and after as
text, and the version, type, timestamp and correlation_id of the event behind it. Excluded as in `blame`.
The peers compare states that are written out; none of them could afford to do so for every column, and so
only ours answers for all of them, the nested items too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import polars as pl

from benchmarks import at, peers, setters
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "diff"
COLUMNS = ["status", "total"]
TOLD = ["aggregate_id", "field", "before", "after", *setters.EVENT]


def measure(options: Options) -> Iterator[dict]:
    """Time what changed within a day, and within most of the history."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    states = setters.states(setters.events(file, COLUMNS), COLUMNS)
    con = peers.connect()
    setters.load(con, "states", states)
    lazy = states.lazy()
    half = peers.instant(0.5)
    spans = {
        "a day": (half, half + timedelta(days=1)),
        "70% of the orders": (peers.instant(0.25), peers.instant(0.95)),
    }
    asked = {"events": options.events, "orders": len(book)}
    for name, (t0, t1) in spans.items():
        engines = [
            Engine(OURS, lambda t0=t0, t1=t1: book.diff(t0, t1, columns=COLUMNS), plain),
            Engine("polars, states written out", lambda t0=t0, t1=t1: by_states(lazy, t0, t1), plain),
            Engine(
                "duckdb, states written out",
                lambda t0=t0, t1=t1: con.sql(by_sql(t0, t1)).to_arrow_table(),
                lambda table: plain(pl.DataFrame(table)),
            ),
        ]
        what = f"status and total, {name} apart"
        yield from compare(BENCH, what, engines, options, promise=promised(options, 0.500), **asked)
    for name, (t0, t1) in spans.items():
        ours = Engine(OURS, lambda t0=t0, t1=t1: book.diff(t0, t1))
        promise = promised(options, 0.500) if name == "a day" else None
        yield from compare(BENCH, f"every column, {name} apart", [ours], options, promise=promise, **asked)


def by_states(states: pl.LazyFrame, t0: datetime, t1: datetime) -> pl.DataFrame:
    """Join the states of the two instants, and list what differs."""

    def then(when: datetime) -> pl.LazyFrame:
        open_then = (pl.col("until") > when) | pl.col("until").is_null()
        return states.filter((pl.col("timestamp") <= when) & open_then)

    old = then(t0).select("order", *(pl.col(name).alias(f"{name}_before") for name in COLUMNS))
    both = then(t1).join(old, on="order", how="left")
    changes = [
        both.filter(pl.col(name).ne_missing(pl.col(f"{name}_before"))).select(
            "aggregate_id",
            pl.lit(name).alias("field"),
            pl.col(f"{name}_before").cast(pl.String).alias("before"),
            pl.col(name).cast(pl.String).alias("after"),
            *(pl.col(f"{name}_{one}").alias(one) for one in setters.EVENT),
        )
        for name in COLUMNS
    ]
    return pl.concat(changes).collect()


def by_sql(t0: datetime, t1: datetime) -> str:
    def then(when: datetime) -> str:
        at = peers.literal(when)
        return f"SELECT * FROM states WHERE timestamp <= {at} AND (until > {at} OR until IS NULL)"

    changes = [
        f"SELECT n.aggregate_id, '{name}' AS field,"
        f' o.{name}::VARCHAR AS before, n.{name}::VARCHAR AS "after", '
        + ", ".join(f"n.{name}_{one} AS {one}" for one in setters.EVENT)
        + f' FROM n LEFT JOIN o USING ("order") WHERE n.{name} IS DISTINCT FROM o.{name}'
        for name in COLUMNS
    ]
    return f"WITH o AS ({then(t0)}), n AS ({then(t1)}) {' UNION ALL '.join(changes)}"


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    told = frame.select(TOLD).with_columns(
        pl.col("aggregate_id").cast(pl.String),
        pl.col("version").cast(pl.Int64),
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        pl.col("correlation_id").replace("", None),
    )
    return told.sort("aggregate_id", "field")


if __name__ == "__main__":
    script(measure)
