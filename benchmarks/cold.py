"""Promise: Parquet with raw JSON payloads to the timeline of all instants in at most 8 s at 10 M events.

Ours opens the file, decodes and checks every payload and metadata, upcasts, folds all instants, and then
gives every column of all orders at one instant. The peers only answer for that one instant, and read no
later event; they check nothing and read no metadata. What older payloads leave out (a quantity, a total)
each fills in. Included: everything from the file's path to the frame. Excluded: the disk, since the file is
in the page cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from benchmarks import at, peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "cold"
COLUMNS = peers.EVERYTHING


def measure(options: Options) -> Iterator[dict]:
    """Time the way from raw Parquet to the state of all orders."""
    file = events_file(options.events, cache=options.cache)
    orders = pl.scan_parquet(file).select(pl.col("aggregate_id").n_unique()).collect().item()
    con = peers.connect()
    for share in (at.HEADLINE,):
        when = peers.instant(share)
        engines = [
            Engine(OURS, lambda t=when: at.open_book(file).at(t, columns=COLUMNS)),
            Engine("polars by hand, this instant only", lambda t=when: by_polars(file, t)),
            Engine(
                "duckdb, this instant only",
                lambda t=when: con.sql(by_duckdb(file, t)).to_arrow_table(),
                peers.from_duckdb,
            ),
        ]
        yield from compare(
            BENCH,
            f"raw Parquet to all columns at an instant when {share:.0%} of the orders exist",
            [at.in_one_form(engine, COLUMNS) for engine in engines],
            options,
            events=options.events,
            orders=orders,
            promise=promised(options, 8.0),
        )


def by_polars(file: Path, when: datetime) -> pl.DataFrame:
    typed = peers.decode(pl.scan_parquet(file).filter(pl.col("timestamp") <= when))
    return peers.completed(peers.polars_state(typed.lazy(), when, COLUMNS))


def by_duckdb(file: Path, when: datetime) -> str:
    state = peers.duckdb_state(f"({peers.duckdb_decode(file, when)})", COLUMNS)
    return peers.duckdb_completed(state, COLUMNS)


if __name__ == "__main__":
    script(measure)
