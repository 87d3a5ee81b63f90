"""Promise: what was folded before is open again in at most 0.5 s at 10 M events, and answers from disk.

`keep`: raw Parquet to a folded history on disk, in one piece and in four; `reopen`: from the file's path to
the Book that reads it, its source looked at and found unchanged; `at`: status and total of all orders at an
instant from a Book that was opened for this one question, and from one in memory. The files are in the page
cache. The peer is the same history in memory, and their answers are compared; nobody else keeps all instants.
The peak of memory is that of the whole process, with the pages of the files it looked at.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import peers
from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script

BENCH = "reopen"
COLUMNS = ["status", "total"]
PIECES = 4


def measure(options: Options) -> Iterator[dict]:
    """Time keeping, opening again, and the first answer."""
    import titan_lab as tl

    file = events_file(options.events, cache=options.cache)
    log = tl.open(f"parquet://{file.resolve()}")
    when = peers.instant(0.5)

    def answer(book: Any) -> Any:
        return peers.plain(book.at(when, columns=COLUMNS), COLUMNS)

    with TemporaryDirectory(dir=options.cache) as folder:
        kept = Path(folder) / "kept"

        def kept_in(pieces: int) -> Any:
            shutil.rmtree(kept, ignore_errors=True)
            return log.fold(tl.Order, keep=kept, pieces=pieces)

        def opened() -> Any:
            return log.fold(tl.Order, keep=kept)

        size = {"events": options.events, "orders": len(kept_in(PIECES))}
        yield from compare(
            BENCH,
            "raw Parquet to a folded history",
            [
                Engine(OURS, lambda: kept_in(PIECES), answer),
                Engine(f"{OURS} in one piece", lambda: kept_in(1), answer),
                Engine(f"{OURS} in memory alone", lambda: log.fold(tl.Order), answer),
            ],
            options,
            **size,
        )
        yield from compare(
            BENCH,
            "open what was folded before",
            [Engine(OURS, opened, answer)],
            options,
            promise=promised(options, 0.5),
            **size,
        )
        book, in_memory = opened(), log.fold(tl.Order)
        yield from compare(
            BENCH,
            "status and total at an instant when 50% of the orders exist",
            [
                Engine(OURS, lambda: opened().at(when, columns=COLUMNS)),
                Engine(f"{OURS}, opened before", lambda: book.at(when, columns=COLUMNS)),
                Engine(f"{OURS} in memory", lambda: in_memory.at(when, columns=COLUMNS)),
            ],
            options,
            promise=promised(options, 0.5),
            **size,
        )


if __name__ == "__main__":
    script(measure)
