"""Promise: typed columns to the timeline in at most 2.5 s at 10 M events (4 M events a second or more).

`decode`: a frame of EVENTS in memory, payloads and metadata as JSON text, to typed columns; ours checks
every value and upcasts, polars only parses and fills what is missing. `fold`: typed columns to every state
of every order. Ours ends when nothing more has to be worked out before the first question; polars carries
every column forward within its order, the way it is done by hand. What is compared, outside the times, is
every column of every state that ever was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from benchmarks import peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "fold"
COLUMNS = peers.EVERYTHING


def measure(options: Options) -> Iterator[dict]:
    """Time decoding and folding apart."""
    import titan_lab as tl
    from titan_lab.timeline import Timeline
    from titan_lab.typed import typed as decode

    events = pl.read_parquet(events_file(options.events, cache=options.cache))

    def ours_decoded() -> Any:
        columns, rejected = decode(events, tl.Order.events, tl.Order.chain)
        assert rejected.is_empty(), rejected
        return columns

    def ours_folded(columns: Any) -> Timeline:
        book = Timeline(tl.Order, columns)
        book.rows.counted("prefix")  # put off until asked for, but no question goes without
        assert len(book.rows.owners) == len(columns)
        return book

    def states(book: Timeline) -> pl.DataFrame:
        return book.history(columns=COLUMNS).select("aggregate_id", "version", *COLUMNS)

    def theirs(frame: pl.DataFrame) -> pl.DataFrame:
        return in_one_form(peers.written_out(frame, COLUMNS))

    size = {"events": options.events, "orders": events["aggregate_id"].n_unique()}
    yield from compare(
        BENCH,
        "decode: events with JSON text to typed columns",
        [
            Engine(OURS, ours_decoded, lambda columns: in_one_form(states(ours_folded(columns)))),
            Engine("polars by hand", lambda: peers.completed(peers.decode(events.lazy())), theirs),
        ],
        options,
        **size,
    )
    columns, frame = ours_decoded(), peers.completed(peers.decode(events.lazy()))
    yield from compare(
        BENCH,
        "fold: typed columns to every state",
        [
            Engine(OURS, lambda: ours_folded(columns), lambda book: in_one_form(states(book))),
            Engine("polars forward_fill over order", lambda: peers.written_out(frame, COLUMNS), in_one_form),
        ],
        options,
        promise=promised(options, 2.5),
        **size,
    )


def in_one_form(states: pl.DataFrame) -> pl.DataFrame:
    return peers.plain(states, COLUMNS, sort=["aggregate_id", "version"])


if __name__ == "__main__":
    script(measure)
