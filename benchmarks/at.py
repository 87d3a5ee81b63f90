"""What the `at_*` benchmarks share: the state of all orders at an instant, from memory, by every engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised

SHARES = (0.25, 0.5, 0.95)  # of the orders exist at the instants asked about
HEADLINE = 0.5  # the one the promises are about: half of the orders exist


def open_book(file: Path) -> Any:
    """Fold a Parquet file of events into our timeline."""
    import titan_lab as tl

    return tl.open(f"parquet://{file.resolve()}").fold(tl.Order)


def measure(bench: str, columns: list[str], options: Options, promise: float) -> Iterator[dict]:
    """Time the same columns of all orders at several instants."""
    file = events_file(options.events, cache=options.cache)
    book = open_book(file)
    typed = peers.completed(peers.decode(pl.scan_parquet(file)))
    narrow = typed.select("order", "aggregate_id", "version", "timestamp", *columns).lazy()
    written_out = peers.intervals(typed, columns).lazy()
    con = peers.connect()
    peers.duckdb_load(con, typed)
    orders = len(book)
    del typed

    for share in SHARES:
        when = peers.instant(share)
        engines = [
            Engine(OURS, lambda t=when: book.at(t, columns=columns)),
            Engine("polars group_by, integer key", lambda t=when: peers.polars_state(narrow, t, columns)),
            *by_text(narrow, when, columns),
            Engine(
                "polars, every state written out",
                lambda t=when: peers.polars_interval_state(written_out, t, columns),
            ),
            Engine(
                "duckdb arg_max",
                lambda t=when: con.sql(peers.duckdb_state("events", columns, t)).to_arrow_table(),
                peers.from_duckdb,
            ),
        ]
        yield from compare(
            bench,
            f"at an instant when {share:.0%} of the orders exist",
            [in_one_form(engine, columns) for engine in engines],
            options,
            events=options.events,
            orders=orders,
            promise=promised(options, promise) if share == HEADLINE else None,
        )


def by_text(typed: pl.LazyFrame, when: datetime, columns: list[str]) -> list[Engine]:
    """Group by the id as it is stored; left out for nested items, where polars takes 15 s."""
    if "items" in columns:
        return []
    return [
        Engine(
            "polars group_by, text key",
            lambda: peers.polars_state(typed, when, columns, key="aggregate_id"),
        )
    ]


def in_one_form(engine: Engine, columns: list[str]) -> Engine:
    """Compare the engine's answer as `peers.plain` writes it."""
    return Engine(engine.name, engine.answer, lambda answer: peers.plain(engine.plain(answer), columns))
