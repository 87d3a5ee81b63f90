"""Promise: one order of 10,000 events in 5 ms, with a snapshot 50 events back, from PostgreSQL.

The orders are those of `long_order`, which is asked for the same state without a snapshot. SQLite stands in
where no server is named; with TITAN_TEST_POSTGRES=postgresql://... the same is measured there too, in a
scratch database that is made and dropped. The peer is `eventsourcing` on SQLite with its own snapshot of the
same version. Included: from the call to the state in hand. Excluded: opening, writing, taking snapshots.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from benchmarks.harness import OURS, Engine, Options, compare, script
from benchmarks.long_order import LENGTH, LONG, OTHERS, Repository, long_life, others, told

BENCH = "long_order_saved"
BACK = 50  # events between the snapshot and the state that is asked for


def measure(options: Options) -> Iterator[dict]:
    """Time one long order from a snapshot and what follows it to its final state."""
    import titan_lab as tl

    length = min(LENGTH, options.events)
    rows = [*others(), *long_life(length)]
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        repository = Repository(Path(folder) / "eventsourcing.db", rows, snapshot_at=length - BACK)
        peer = Engine("eventsourcing", lambda: repository.get(LONG), told)
        urls = {"SQLite": f"sqlite:///{folder}/orders.db"} | ({"PostgreSQL": server} if server else {})
        for name, url in urls.items():
            with tl.open(url, writable=True) as log:
                log.append_many(pl.DataFrame(rows, orient="row"))
                snapshots = tl.Snapshots(log, tl.Order)
                snapshots.take(every=length - BACK)
                assert snapshots.state(LONG).rests_on.startswith("the snapshot"), "it is what is measured"
                engines = [
                    Engine(OURS, lambda snapshots=snapshots: snapshots.state(LONG), told),
                    Engine(
                        "without a snapshot",
                        lambda log=log: log.fold(tl.Order, aggregates=LONG)[LONG].now,
                        told,
                    ),
                ]
                yield from compare(
                    BENCH,
                    f"one order of {length:,} events, from {name}, a snapshot {BACK} events back",
                    [*engines, peer] if name == "SQLite" else engines,
                    options,
                    events=len(rows),
                    orders=1 + OTHERS,
                    promise=0.005 if (length, name) == (LENGTH, "PostgreSQL") else None,
                )
        repository.close()


@contextmanager
def postgres() -> Iterator[str | None]:
    """Give the URL of a scratch database on the server that is named, if one is."""
    server = os.environ.get("TITAN_TEST_POSTGRES")
    if not server:
        yield None
        return
    import psycopg

    name = f"titan_{uuid.uuid4().hex[:12]}"
    base, question, query = server.partition("?")
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{base.rpartition('/')[0]}/{name}{question}{query}"
        finally:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    script(measure)
