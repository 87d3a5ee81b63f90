"""Promise: one order of 10,000 events in 5 ms, with a snapshot 50 events back, from PostgreSQL.

The orders are those of `long_order`, which is asked for the same state without a snapshot; SQLite and a
PostgreSQL started for this run hold them. The peer is `eventsourcing` in the same database, with its own
snapshot of the same version. Included: from the call to the state in hand. Excluded: opening, writing, taking
snapshots.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from benchmarks.harness import OURS, Engine, Options, compare, script
from benchmarks.long_order import (
    LENGTH,
    LONG,
    OTHERS,
    Repository,
    as_frame,
    in_sqlite,
    long_life,
    others,
    told,
)
from benchmarks.postgres import environment, server

BENCH = "long_order_saved"
BACK = 50  # events between the snapshot and the state that is asked for


def measure(options: Options) -> Iterator[dict]:
    """Time one long order from a snapshot and what follows it to its final state."""
    import titan_lab as tl

    length = min(LENGTH, options.events)
    rows = [*others(), *long_life(length)]
    with tempfile.TemporaryDirectory() as folder, server() as url:
        places = [
            ("SQLite", f"sqlite:///{folder}/orders.db", in_sqlite(folder)),
            ("PostgreSQL", url, environment(url)),
        ]
        for name, where, theirs in places:
            repository = Repository(theirs, rows, snapshot_at=length - BACK)
            with tl.open(where, writable=True) as log:
                log.append_many(as_frame(rows))
                snapshots = tl.Snapshots(log, tl.Order)
                snapshots.take(every=length - BACK)
                assert snapshots.state(LONG).rests_on.startswith("the snapshot"), "it is what is measured"
                yield from compare(
                    BENCH,
                    f"one order of {length:,} events, from {name}, a snapshot {BACK} events back",
                    [
                        Engine(OURS, lambda snapshots=snapshots: snapshots.state(LONG), told),
                        Engine(
                            "without a snapshot",
                            lambda log=log: log.fold(tl.Order, aggregates=LONG)[LONG].now,
                            told,
                        ),
                        Engine("eventsourcing", lambda theirs=repository: theirs.get(LONG), told),
                    ],
                    options,
                    events=len(rows),
                    orders=1 + OTHERS,
                    promise=0.005 if (length, name) == (LENGTH, "PostgreSQL") else None,
                )
            repository.close()


if __name__ == "__main__":
    script(measure)
