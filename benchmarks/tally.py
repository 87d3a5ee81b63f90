"""Promise: count and sum of total by status at an instant, in at most 25 ms at 10 M events.

Ours is one point of the grid of `book.every`. Included: from the call to a frame of status, count and
total. Excluded as in `at_status_total`. Sums are exact (decimals) everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from benchmarks import at, peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "tally"
COLUMNS = ["status", "total"]
TALLY = (pl.len().alias("count"), pl.col("total").sum())


def measure(options: Options) -> Iterator[dict]:
    """Time count and sum of total by status at an instant."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    typed = peers.completed(peers.decode(pl.scan_parquet(file)))
    narrow = typed.select("order", "aggregate_id", "timestamp", "version", *COLUMNS).lazy()
    written_out = peers.intervals(typed, COLUMNS).lazy()
    con = peers.connect()
    peers.duckdb_load(con, typed)
    del typed

    for share in at.SHARES:
        when = peers.instant(share)
        engines = [
            Engine(OURS, lambda t=when: book.every("1d", t, t, by="status", measure="total")),
            Engine("polars group_by, integer key", lambda t=when: by_group(narrow, t)),
            Engine("polars, every state written out", lambda t=when: by_interval(written_out, t)),
            Engine("duckdb arg_max", lambda t=when: con.sql(by_sql(t)).to_arrow_table(), pl.DataFrame),
        ]
        yield from compare(
            BENCH,
            f"at an instant when {share:.0%} of the orders exist",
            [
                Engine(one.name, one.answer, lambda answer, one=one: plain(one.plain(answer)))
                for one in engines
            ],
            options,
            events=options.events,
            orders=len(book),
            promise=promised(options, 0.025) if share == at.HEADLINE else None,
        )


def by_group(typed: pl.LazyFrame, when: datetime) -> pl.DataFrame:
    last = [pl.col(name).last(ignore_nulls=True) for name in COLUMNS]
    states = typed.filter(pl.col("timestamp") <= when).group_by("order").agg(*last)
    return states.group_by("status").agg(*TALLY).collect(engine="streaming")


def by_interval(states: pl.LazyFrame, when: datetime) -> pl.DataFrame:
    open_then = (pl.col("until") > when) | pl.col("until").is_null()
    return states.filter((pl.col("timestamp") <= when) & open_then).group_by("status").agg(*TALLY).collect()


def by_sql(when: datetime) -> str:
    states = peers.duckdb_state("events", COLUMNS, when)
    return f"SELECT status, count(*) AS count, sum(total) AS total FROM ({states}) GROUP BY status"


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep the statuses that have orders, sorted: our grid is dense and names the empty ones, too."""
    told = frame.select(
        pl.col("status").cast(pl.String).cast(peers.STATUS),
        pl.col("count").cast(pl.Int64),
        pl.col("total").cast(peers.MONEY),
    )
    return told.filter(pl.col("count") > 0).sort("status")


if __name__ == "__main__":
    script(measure)
