"""Promise: what would differ had nobody cancelled (one order in eleven did), in at most 2 s at 10 M events.

Ours branches the book, leaves every `OrderCancelled` out, folds the touched orders again and compares: each
value that differs as a row of text, sums, counts by status, and transitions that became illegal. The peers
fold what is left of the touched orders anew, in their fastest form of `at_scalars`, and lay it beside the
states they had before, which they get for nothing; counts by status come with it. Excluded: opening and the
first fold. What is compared is every scalar value before and after, where they differ, and the counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl

from benchmarks import at, peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, difference, promised, script

BENCH = "branch"
COLUMNS = peers.SCALARS
END = datetime(2100, 1, 1, tzinfo=UTC)
CANCELLED = pl.col("status") == "CANCELLED"


def measure(options: Options) -> Iterator[dict]:
    """Time a branch without cancellations, and its comparison with what happened."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    typed = peers.completed(peers.decode(pl.scan_parquet(file)))
    narrow = typed.select("order", "aggregate_id", "version", "timestamp", *COLUMNS).lazy()
    before = peers.polars_state(narrow, END, COLUMNS)
    con = peers.connect()
    peers.duckdb_load(con, typed)
    con.execute(f"CREATE TABLE before AS {peers.duckdb_state('events', COLUMNS)}")
    orders = len(book)
    del typed

    def ours() -> Any:
        told = book.branch().without(event_type="OrderCancelled").compare()
        return told, told.orders, told.totals, told.states, told.illegal

    yield from compare(
        BENCH,
        "without cancellations: values that differ, sums and counts",
        [
            Engine(OURS, ours, lambda answer: of_ours(answer[0])),
            Engine("polars group_by, integer key", lambda: by_group(narrow, before), of_theirs),
            Engine("duckdb arg_max", lambda: by_sql(con), of_duckdb),
        ],
        options,
        events=options.events,
        orders=orders,
        promise=promised(options, 2.0),
        same=differing,
    )


def by_group(typed: pl.LazyFrame, before: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    touched = typed.filter(CANCELLED).select("order").unique().collect()
    kept = typed.join(touched.lazy(), on="order", how="semi").filter(CANCELLED.fill_null(False).not_())
    after = peers.polars_state(kept, END, COLUMNS)
    both = before.join(touched, on="order", how="semi").join(after, on="order", how="left", suffix="_after")
    return both, before.group_by("status").len("base")


def by_sql(con: Any) -> tuple[Any, Any]:
    kept = (
        "(SELECT * FROM events WHERE status IS DISTINCT FROM 'CANCELLED' AND aggregate_id IN"
        " (SELECT aggregate_id FROM events WHERE status = 'CANCELLED'))"
    )
    picked = ", ".join(f"b.{name} AS {name}, a.{name} AS {name}_after" for name in COLUMNS)
    after = peers.duckdb_state(kept, COLUMNS)
    both = con.sql(f"SELECT aggregate_id, {picked} FROM before b JOIN ({after}) a USING (aggregate_id)")
    counts = con.sql("SELECT status, count(*) AS base FROM before GROUP BY status")
    return both.to_arrow_table(), counts.to_arrow_table()


# --- one form ---------------------------------------------------------------------------------------


def of_ours(told: Any) -> dict[str, pl.DataFrame]:
    found = {name: in_one_form(told.of(name), name) for name in COLUMNS}
    counts = told.states.filter(pl.col("column") == "status")
    return found | {"counts": counted(counts.select(pl.col("state").alias("status"), "base", "branch"))}


def of_theirs(answer: tuple[pl.DataFrame, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    both, base = answer
    found = {}
    for name in COLUMNS:
        pair = both.select(
            "aggregate_id", pl.col(name).alias("before"), pl.col(f"{name}_after").alias("after")
        )
        found[name] = in_one_form(pair.filter(pl.col("before").ne_missing(pl.col("after"))), name)
    text = pl.col("status").cast(pl.String)
    gone = both.group_by(text).len("gone")
    new = both.group_by(pl.col("status_after").cast(pl.String).alias("status")).len("new")
    counts = base.with_columns(text).join(gone, on="status", how="left").join(new, on="status", how="left")
    branch = pl.col("base").cast(pl.Int64) - pl.col("gone").fill_null(0) + pl.col("new").fill_null(0)
    return found | {"counts": counted(counts.select("status", "base", branch=branch))}


def of_duckdb(answer: tuple[Any, Any]) -> dict[str, pl.DataFrame]:
    both, base = map(pl.DataFrame, answer)
    return of_theirs((both.with_columns(pl.col("aggregate_id").cast(pl.String)), base))


def in_one_form(pair: pl.DataFrame, name: str) -> pl.DataFrame:
    money = name in ("total", *peers.SUMS)
    dtype = peers.MONEY if money else pl.String if name == "status" else pair.schema["after"]
    return pair.with_columns(pl.col("before", "after").cast(dtype)).sort("aggregate_id")


def counted(counts: pl.DataFrame) -> pl.DataFrame:
    return counts.select("status", pl.col("base", "branch").cast(pl.Int64)).sort("status")


def differing(a: dict[str, pl.DataFrame], b: dict[str, pl.DataFrame]) -> str | None:
    """Say which column of the two differs, and how."""
    told = ((name, difference(a[name], b[name])) for name in a)
    return next((f"{name}: {how}" for name, how in told if how is not None), None)


if __name__ == "__main__":
    script(measure)
