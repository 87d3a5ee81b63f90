"""Promise: the orders in each status, hour by hour over half a year, in at most 0.3 s at 10 M events.

Included: from the call to a frame of instant, status and count, 4,345 instants by 5 statuses. Excluded as in
`at_status_total`. Nobody looks at each hour by itself, which would be 4,345 times the work: the peers, too,
count what enters and what leaves in each hour, and add that up. DuckDB and one polars look for each order's
next status themselves; the other polars has that written down beforehand, for every event.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from benchmarks import at, peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "grid"
SINCE, UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CELLS = (UNTIL - SINCE) // HOUR + 1
MICROS = HOUR // timedelta(microseconds=1)


def measure(options: Options) -> Iterator[dict]:
    """Time the hourly counts of orders by status over half a year."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    typed = peers.decode(pl.scan_parquet(file))
    narrow = typed.select("order", "aggregate_id", "timestamp", "version", "status")
    written_out = peers.intervals(typed, ["status"]).select("timestamp", "until", "status").lazy()
    con = peers.connect()
    peers.duckdb_load(con, typed)
    del typed

    engines = [
        Engine(OURS, lambda: book.every("1h", SINCE, UNTIL, by="status"), plain),
        Engine("polars, changes of status", lambda: added_up(changes(narrow.lazy())), plain),
        Engine("polars, every state written out", lambda: added_up(written_out), plain),
        Engine(
            "duckdb, changes of status",
            lambda: con.sql(SQL).to_arrow_table(),
            lambda t: plain(pl.DataFrame(t)),
        ),
    ]
    yield from compare(
        BENCH,
        "hourly over half a year, by status",
        engines,
        options,
        events=options.events,
        orders=len(book),
        promise=promised(options, 0.3),
    )


def changes(typed: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the events that set the status, each with the moment of the order's next one."""
    follows = pl.col("order") == pl.col("order").shift(-1)
    until = pl.when(follows).then(pl.col("timestamp").shift(-1)).alias("until")
    return typed.filter(pl.col("status").is_not_null()).select("timestamp", until, "status")


def added_up(states: pl.LazyFrame) -> pl.DataFrame:
    """Count what enters and what leaves in each hour, and add up from the first hour on."""
    came = states.group_by(cell("timestamp"), "status").agg(pl.len().cast(pl.Int64).alias("count"))
    ended = states.filter(pl.col("until").is_not_null())
    went = ended.group_by(cell("until"), "status").agg(-pl.len().cast(pl.Int64).alias("count"))
    dense = (
        pl.select(pl.int_range(CELLS).alias("cell"))
        .lazy()
        .join(pl.select(pl.Series("status", peers.STATUS.categories, dtype=peers.STATUS)).lazy(), how="cross")
    )
    turnover = pl.concat([came, went]).group_by("cell", "status").agg(pl.col("count").sum())
    return (
        dense.join(turnover, on=["cell", "status"], how="left")
        .sort("cell", "status")
        .select(
            (pl.lit(SINCE) + pl.col("cell") * HOUR).alias("instant"),
            "status",
            pl.col("count").fill_null(0).cum_sum().over("status"),
        )
        .collect(engine="streaming")
    )


def cell(column: str) -> pl.Expr:
    """Number the first full hour that is not before a moment."""
    since = (pl.col(column) - pl.lit(SINCE)).dt.total_microseconds()
    return ((since + MICROS - 1) // MICROS).alias("cell")


def in_cell(column: str) -> str:
    return f"(epoch_us({column}) - {int(SINCE.timestamp())}000000 + {MICROS - 1}) // {MICROS}"


SQL = f"""
    WITH changes AS (
        SELECT timestamp, status, lead(timestamp) OVER (PARTITION BY aggregate_id ORDER BY version) AS until
        FROM events WHERE status IS NOT NULL),
    turnover AS (
        SELECT cell, status, sum(change) AS change FROM (
            SELECT {in_cell("timestamp")} AS cell, status, count(*) AS change FROM changes GROUP BY ALL
            UNION ALL
            SELECT {in_cell("until")}, status, -count(*) FROM changes WHERE until IS NOT NULL GROUP BY ALL)
        GROUP BY ALL),
    dense AS (
        SELECT range AS cell, name::order_status AS status
        FROM range({CELLS}), (SELECT unnest(enum_range(NULL::order_status)) AS name))
    SELECT to_timestamp({int(SINCE.timestamp())} + cell * 3600) AS instant, status,
        sum(coalesce(change, 0)) OVER (PARTITION BY status ORDER BY cell) AS count
    FROM dense LEFT JOIN turnover USING (cell, status) ORDER BY instant, status"""


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Bring the counts into the one form in which they are compared."""
    return frame.select(
        pl.col("instant").cast(pl.Datetime("us", "UTC")),
        pl.col("status").cast(pl.String).cast(peers.STATUS),
        pl.col("count").cast(pl.Int64),
    ).sort("instant", "status")


if __name__ == "__main__":
    script(measure)
