"""Promise: all ways that the orders took, with how many took each, in at most 0.2 s at 10 M events.

Beside it, which event type directly follows which, with mean and median wait; nothing is promised for that.
Included: from the call to the frame. Excluded, in the peers' favour: loading, event types as an Enum, a
running integer for each order (polars), ids as UUIDs (DuckDB). Ours also gives an example of each way, and
the flow's shares and 90 % quantiles, which the peers are not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from benchmarks import at, trails
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "variants"
MICROS = pl.Duration("us")


def measure(options: Options) -> Iterator[dict]:
    """Time the variants, and what follows what."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    events = trails.columns(file)
    con = trails.duckdb(events)

    ways = [
        Engine(OURS, book.variants, plain_ways),
        Engine("polars, ways as lists", lambda: by_lists(events), plain_ways),
        Engine("polars, ways as texts", lambda: by_texts(events), plain_ways),
        Engine(
            "duckdb", lambda: con.sql(WAYS).to_arrow_table(), lambda table: plain_ways(pl.DataFrame(table))
        ),
    ]
    yield from compare(
        BENCH,
        "all ways",
        ways,
        options,
        events=options.events,
        orders=len(book),
        promise=promised(options, 0.200),
    )
    moves = [
        Engine(OURS, book.flow, plain_moves),
        Engine("polars shift", lambda: by_shift(events), plain_moves),
        Engine(
            "duckdb lead", lambda: con.sql(MOVES).to_arrow_table(), lambda t: plain_moves(pl.DataFrame(t))
        ),
    ]
    yield from compare(BENCH, "what follows what", moves, options, events=options.events, orders=len(book))


def by_lists(events: pl.DataFrame) -> pl.DataFrame:
    lasted = pl.col("timestamp").last() - pl.col("timestamp").first()
    lives = (
        events.lazy().group_by("order").agg(pl.col("event_type").to_physical().alias("way"), lasted=lasted)
    )
    ways = lives.group_by("way").agg(count=pl.len(), median_duration=pl.col("lasted").median()).collect()
    names = events.schema["event_type"].categories  # type: ignore[attr-defined]
    return ways.with_columns(variant=pl.Series([[names[code] for code in way] for way in ways["way"]]))


def by_texts(events: pl.DataFrame) -> pl.DataFrame:
    lasted = pl.col("timestamp").last() - pl.col("timestamp").first()
    way = pl.col("event_type").cast(pl.String).str.join(",")
    lives = events.lazy().group_by("order").agg(way.alias("way"), lasted=lasted)
    ways = lives.group_by("way").agg(count=pl.len(), median_duration=pl.col("lasted").median()).collect()
    return ways.with_columns(variant=pl.col("way").str.split(","))


WAYS = """
    SELECT way AS variant, count(*) AS count, floor(median(lasted))::BIGINT AS median_duration
    FROM (SELECT list(event_type ORDER BY version) AS way,
                 epoch_us(max(timestamp)) - epoch_us(min(timestamp)) AS lasted
          FROM events GROUP BY aggregate_id)
    GROUP BY way"""


def by_shift(events: pl.DataFrame) -> pl.DataFrame:
    follows = pl.col("order") == pl.col("order").shift(-1)
    return (
        events.lazy()
        .select(
            follows,
            from_type="event_type",
            to_type=pl.col("event_type").shift(-1),
            wait=(pl.col("timestamp").shift(-1) - pl.col("timestamp")).cast(pl.Int64),
        )
        .filter("order")
        .group_by("from_type", "to_type")
        .agg(count=pl.len(), mean_wait=pl.col("wait").sum() // pl.len(), median_wait=pl.col("wait").median())
        .collect()
    )


MOVES = """
    SELECT from_type, to_type, count(*) AS count, (sum(wait) // count(*))::BIGINT AS mean_wait,
           floor(median(wait))::BIGINT AS median_wait
    FROM (SELECT event_type AS from_type, lead(event_type) OVER life AS to_type,
                 epoch_us(lead(timestamp) OVER life) - epoch_us(timestamp) AS wait
          FROM events WINDOW life AS (PARTITION BY aggregate_id ORDER BY version))
    WHERE to_type IS NOT NULL
    GROUP BY from_type, to_type"""


def plain_ways(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col("variant").cast(pl.List(pl.String)).list.join(","),
        pl.col("count").cast(pl.Int64),
        pl.col("median_duration").cast(pl.Int64).cast(MICROS),
    ).sort("variant")


def plain_moves(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep the moves between two events: the peers were not asked where lives begin and end."""
    return (
        frame.drop_nulls(["from_type", "to_type"])
        .select(
            pl.col("from_type", "to_type").cast(pl.String),
            pl.col("count").cast(pl.Int64),
            pl.col("mean_wait").cast(pl.Int64).cast(MICROS),
            pl.col("median_wait").cast(pl.Int64).cast(MICROS),
        )
        .sort("from_type", "to_type")
    )


if __name__ == "__main__":
    script(measure)
