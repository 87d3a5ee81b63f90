"""Promise: a funnel of five steps over 10 M events in at most 0.3 s.

How many orders came to each step, and the median time since the step before; once without a window, once
within seven days. Included: from the call to the frame of steps. Excluded, in the peers' favour: loading,
event types as an Enum, a running integer for each order (polars), ids as UUIDs (DuckDB), and the search for
the best of several windows: these orders have one first step each, and only ours does not count on it.
Where chDB is installed, ClickHouse's own ``windowFunnel`` takes part. It knows no version, so that equal
timestamps are told apart for it beforehand; and it gives no times between steps, so it is asked for none.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import polars as pl

from benchmarks import at, trails
from benchmarks.data import DAY, events_file
from benchmarks.harness import OURS, THREADS, Engine, Options, compare, difference, promised, script

BENCH = "funnel"
STEPS = ["OrderCreated", "PaymentAuthorized", "OrderShipped", "OrderDelivered", "RefundIssued"]
WINDOWS = {"of any length": None, "within 7 days": 7}
ROOM = 64  # versions that one microsecond has room for, where time and version become one number


def measure(options: Options) -> Iterator[dict]:
    """Time a funnel of five steps, with and without a window."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    events = trails.columns(file)
    con = trails.duckdb(events)
    session = clickhouse(events) if find_spec("chdb") else None

    for what, days in WINDOWS.items():
        within = None if days is None else f"{days}d"
        engines = [
            Engine(OURS, lambda within=within: book.funnel(STEPS, within).steps, plain),
            Engine("polars, a join for each step", lambda days=days: by_joins(events, days), plain),
            Engine(
                "duckdb, a join for each step",
                lambda days=days: con.sql(by_sql(days)).to_arrow_table(),
                lambda table: plain(pl.DataFrame(table)),
            ),
        ]
        if session is not None:
            query = window_funnel(events.schema["event_type"], days)
            engines.append(
                Engine("clickhouse windowFunnel, in chDB", lambda q=query: ask(session, q), counts)
            )
        yield from compare(
            BENCH,
            f"five steps, {what}",
            engines,
            options,
            events=options.events,
            orders=len(book),
            promise=promised(options, 0.300),
            same=same,
        )


def by_joins(events: pl.DataFrame, days: int | None) -> pl.DataFrame:
    """Take each step at the first event of its type after the step before, by version."""
    told = []
    kind = pl.col("event_type")
    took = events.filter(kind == STEPS[0]).unique("order", keep="first", maintain_order=True)
    took = took.select("order", "version", "timestamp", begin="timestamp", wait=pl.lit(None, pl.Int64))
    for place, step in enumerate(STEPS):
        if place:
            here = events.lazy().filter(kind == step).select("order", "version", "timestamp")
            after = here.join(took.lazy(), on="order", suffix="_before", maintain_order="left")
            after = after.filter(pl.col("version") > pl.col("version_before"))
            if days is not None:
                after = after.filter(pl.col("timestamp") - pl.col("begin") <= pl.duration(days=days))
            first = after.unique("order", keep="first", maintain_order=True)
            wait = (pl.col("timestamp") - pl.col("timestamp_before")).cast(pl.Int64).alias("wait")
            took = first.select("order", "version", "timestamp", "begin", wait).collect()
        told.append((place + 1, len(took), took["wait"].median()))
    return pl.DataFrame(told, schema=["step", "count", "median_wait"], orient="row")


def by_sql(days: int | None) -> str:
    """Return the SQL of the same joins; of all events after the step before, the first by version."""
    took = [
        f"""s1 AS MATERIALIZED (
            SELECT aggregate_id, min(version) AS version, arg_min(timestamp, version) AS timestamp,
                   arg_min(timestamp, version) AS begin, NULL::BIGINT AS wait
            FROM events WHERE event_type = '{STEPS[0]}' GROUP BY aggregate_id)"""
    ]
    window = "" if days is None else f"AND e.timestamp <= s.begin + INTERVAL {days} DAY"
    for place, step in enumerate(STEPS[1:], start=2):
        took.append(
            f"""s{place} AS MATERIALIZED (
            SELECT aggregate_id, min(e.version) AS version, arg_min(e.timestamp, e.version) AS timestamp,
                   any_value(s.begin) AS begin,
                   epoch_us(arg_min(e.timestamp, e.version)) - epoch_us(any_value(s.timestamp)) AS wait
            FROM events e JOIN s{place - 1} s USING (aggregate_id)
            WHERE e.event_type = '{step}' AND e.version > s.version {window} GROUP BY aggregate_id)"""
        )
    told = [
        f"SELECT {n} AS step, count(*) AS count, floor(median(wait))::BIGINT AS median_wait FROM s{n}"
        for n in range(1, len(STEPS) + 1)
    ]
    return f"WITH {', '.join(took)} {' UNION ALL '.join(told)}"


def clickhouse(events: pl.DataFrame) -> Any:
    """Load the events into ClickHouse's engine inside of this process."""
    from chdb.session import Session

    time = pl.col("timestamp").cast(pl.Int64) * ROOM + pl.col("version")
    arrow = events.select(
        "order", time=time.cast(pl.UInt64), kind=pl.col("event_type").to_physical()
    ).to_arrow()
    session = Session()
    session.query("CREATE DATABASE bench ENGINE = Atomic")
    session.query("CREATE TABLE bench.events (`order` UInt32, time UInt64, kind UInt8) ENGINE = Memory")
    session.query("INSERT INTO bench.events SELECT * FROM Python(arrow)")
    del arrow
    return session


def window_funnel(kinds: Any, days: int | None) -> str:
    window = 2**62 if days is None else days * DAY * ROOM + ROOM - 1
    codes = list(kinds.categories)
    steps = ", ".join(f"kind = {codes.index(step)}" for step in STEPS)
    return f"""SELECT level, count() AS orders FROM (
        SELECT windowFunnel({window})(time, {steps}) AS level FROM bench.events GROUP BY `order`)
        GROUP BY level SETTINGS max_threads = {THREADS}"""


def ask(session: Any, query: str) -> dict[int, int]:
    lines = str(session.query(query, "CSV")).split()
    return {int(level): int(orders) for level, orders in (line.split(",") for line in lines)}


def counts(levels: dict[int, int]) -> list[int]:
    """Add up how many came to each step, or past it."""
    return [sum(n for level, n in levels.items() if level >= step) for step in range(1, len(STEPS) + 1)]


def same(ours: pl.DataFrame, theirs: Any) -> str | None:
    """Compare the counts alone where an engine gives no more."""
    return difference(ours["count"].to_list() if isinstance(theirs, list) else ours, theirs)


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep what everybody gives; polars' median of an even number is half a microsecond more precise."""
    return frame.select(
        pl.col("step", "count").cast(pl.Int64),
        pl.col("median_wait").cast(pl.Float64, strict=False).floor().cast(pl.Int64),
    ).sort("step")


if __name__ == "__main__":
    script(measure)
