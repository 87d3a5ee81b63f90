"""Promise: at least 400,000 events a second from PostgreSQL into a mirror, with less than 2 GiB of memory.

A PostgreSQL is started for this run and filled. `mirror`: the first sync into an empty folder, from an open
log: read, checked, rejected where that is due, and on disk as Parquet. Beside it what the server can be made
to give without looking at any of it: Arrow by ADBC, and a binary COPY. `eventsourcing`: the same number of
events, at most 100,000, read from its own tables by its recorder, which gives objects that are not decoded.
Included: everything up to the last row. Excluded: opening, and filling the server.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.data import events_file
from benchmarks.harness import OURS, Engine, Options, compare, promised, script
from benchmarks.postgres import Recorder, server

BENCH = "mirror"
RATE = 400_000  # events a second that are promised
SLICE = 500_000
FEW, BATCH = 100_000, 10_000
INDEXES = (
    "ALTER TABLE order_events ADD PRIMARY KEY (aggregate_id, version)",
    "CREATE INDEX idx_timestamp ON order_events(timestamp)",
    "CREATE INDEX idx_event_type ON order_events(event_type)",
)


def measure(options: Options) -> Iterator[dict]:
    """Time the first sync of a mirror."""
    import titan_lab as tl

    events = pl.read_parquet(events_file(options.events, cache=options.cache), n_rows=options.events)
    orders = events["aggregate_id"].n_unique()
    few = events.head(FEW)
    recorded = few.select("event_type", "payload", "metadata").to_dicts()
    with server() as url, TemporaryDirectory(dir=options.cache) as folder:
        with tl.open(url, writable=True):
            fill(url, events)
        del events
        log, place = tl.open(url), Path(folder) / "mirror"

        def mirrored() -> int:
            shutil.rmtree(place, ignore_errors=True)
            return log.mirror(place).sync().added

        yield from compare(
            BENCH,
            "a server's events into an empty mirror",
            [
                Engine(OURS, mirrored),
                Engine("ADBC to Arrow, nothing looked at", lambda: by_adbc(url)),
                Engine("binary COPY, nothing looked at", lambda: by_copy(url), lambda answer: options.events),
            ],
            options,
            events=options.events,
            orders=orders,
            promise=promised(options, options.events / RATE),
        )
        log.close()
    with server() as url, TemporaryDirectory(dir=options.cache) as folder:
        with tl.open(url, writable=True):
            fill(url, few)
        log, place = tl.open(url), Path(folder) / "mirror"
        recorder = Recorder(url, recorded)
        for start in range(0, len(few), BATCH):
            recorder.insert(min(BATCH, len(few) - start))
        yield from compare(
            BENCH,
            f"{len(few):,} events into an empty mirror",
            [Engine(OURS, mirrored), Engine("eventsourcing, not decoded", recorder.read)],
            options,
            events=len(few),
            orders=few["aggregate_id"].n_unique(),
        )
        recorder.close()
        log.close()


def fill(url: str, events: pl.DataFrame) -> None:
    """Fill the store's own table with COPY, and index it afterwards, which is faster."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as db:
        db.execute("ALTER TABLE order_events DROP CONSTRAINT order_events_pkey")
        db.execute("DROP INDEX idx_timestamp, idx_event_type")
        with db.cursor().copy("COPY order_events FROM STDIN (FORMAT csv)") as copy:
            for part in events.iter_slices(SLICE):
                copy.write(part.write_csv(include_header=False, quote_style="non_numeric").encode())
        for statement in INDEXES:
            db.execute(statement)
        db.execute("VACUUM ANALYZE order_events")


def by_adbc(url: str) -> int:
    from adbc_driver_postgresql import dbapi

    chosen = "aggregate_id::text, version::bigint, event_type, payload::text, metadata::text, timestamp"
    with dbapi.connect(url) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT {chosen} FROM order_events")
        return sum(batch.num_rows for batch in cursor.fetch_record_batch())


def by_copy(url: str) -> int:
    import psycopg

    with psycopg.connect(url) as db, db.cursor().copy("COPY order_events TO STDOUT (FORMAT binary)") as copy:
        return sum(len(block) for block in copy)


if __name__ == "__main__":
    script(measure)
