"""Promise: the event behind one column of all orders, in at most 200 ms at 10 M events.

Included: from the call to a frame of every order's total with the version, type, timestamp and correlation_id
of the event that set it; ours also says through which upcast step. Excluded: making the timeline, and what
`setters` says of the peers. Ours reads all correlation_ids at the first such question and keeps them; what a
book's first question costs is a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from benchmarks import at, peers, setters
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "blame"


def measure(options: Options) -> Iterator[dict]:
    """Time who set the total of every order."""
    file = events_file(options.events, cache=options.cache)
    book = at.open_book(file)
    events = setters.events(file, ["total"])
    told = events.filter(pl.col("total").is_not_null()).lazy()
    states = setters.states(events, ["total"]).lazy()
    con = peers.connect()
    setters.load(con, "events", events)
    engines = [
        Engine(OURS, lambda: book.blame("total"), plain),
        Engine("polars group_by, integer key", lambda: told.group_by("order").last().collect(), plain),
        Engine("polars, every state written out", lambda: by_states(states), plain),
        Engine("duckdb arg_max", lambda: pl.DataFrame(con.sql(SQL).to_arrow_table()), plain),
    ]
    asked = {"events": options.events, "orders": len(book)}
    what = "the event behind the total of every order"
    yield from compare(BENCH, what, engines, options, promise=promised(options, 0.200), **asked)

    def first() -> pl.DataFrame:
        vars(book.typed).pop("correlations", None)
        return book.blame("total")

    yield from compare(
        BENCH, f"{what}, a book's first question", [Engine(OURS, first, plain)], options, **asked
    )


def by_states(states: pl.LazyFrame) -> pl.DataFrame:
    event = [pl.col(f"total_{one}").alias(one) for one in setters.EVENT]
    return states.filter(pl.col("until").is_null()).select("aggregate_id", "total", *event).collect()


SQL = """
    SELECT aggregate_id, arg_max(total, version) AS total, max(version) AS version,
        arg_max(event_type, version) AS event_type, arg_max(timestamp, version) AS timestamp,
        arg_max(coalesce(correlation_id, ''), version) AS correlation_id
    FROM events WHERE total IS NOT NULL GROUP BY aggregate_id"""


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    told = frame.rename({"value": "total"}, strict=False).select(
        pl.col("aggregate_id").cast(pl.String),
        pl.col("total").cast(peers.MONEY),
        pl.col("version").cast(pl.Int64),
        "event_type",
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        pl.col("correlation_id").replace("", None),
    )
    return told.sort("aggregate_id")


if __name__ == "__main__":
    script(measure)
