"""Promise: one order of 10,000 events from the store, no snapshot, in 20 ms; ten times faster than a library.

Ours reads `order_events` of a SQLite file and folds the one order; the peer is `eventsourcing` with its
SQLite recorder and its JSON transcoder, an aggregate of the same events with the same content, one row
each. Both stores also hold a thousand other orders, and are open already. Included: from the call to the
final state in hand. Excluded: opening, and writing the stores. In the peer's favour: amounts are stored as
text and made decimals when applied, which is faster than its own transcoding of decimals.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import polars as pl

from benchmarks.data import SEED, lives, order_ids
from benchmarks.harness import OURS, Engine, Options, compare, script

BENCH = "long_order"
LENGTH = 10_000
OTHERS = 1_000
LONG = "5eed0000-0000-4000-8000-000000010000"
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
LATER = datetime(2030, 1, 1, tzinfo=UTC)

# The event store's table as SQLite has it: no UUID, JSONB or TIMESTAMPTZ, rows lie in order of the key.
TABLE = """CREATE TABLE order_events (
    aggregate_id TEXT NOT NULL, version INTEGER NOT NULL, event_type TEXT NOT NULL, payload TEXT NOT NULL,
    metadata TEXT, timestamp TEXT NOT NULL, PRIMARY KEY (aggregate_id, version)) WITHOUT ROWID;
CREATE INDEX idx_timestamp ON order_events(timestamp);
CREATE INDEX idx_event_type ON order_events(event_type);"""


class Row(NamedTuple):
    """One event as the store holds it."""

    aggregate_id: str
    version: int
    event_type: str
    payload: str
    metadata: str | None
    timestamp: str


def measure(options: Options) -> Iterator[dict]:
    """Time one long order from the store to its final state."""
    import titan_lab as tl

    length = min(LENGTH, options.events)
    rows = [*others(), *long_life(length)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "orders.db"
        write_table(file, rows)
        log = tl.open(f"sqlite:///{file}")
        repository = Repository(in_sqlite(folder), rows)
        engines = [
            Engine(OURS, lambda: log.fold(tl.Order, aggregates=[LONG])[LONG].at(LATER), told),
            Engine("eventsourcing", lambda: repository.get(LONG), told),
        ]
        yield from compare(
            BENCH,
            f"one order of {length:,} events, from SQLite, no snapshot",
            engines,
            options,
            events=len(rows),
            orders=1 + OTHERS,
            promise=0.020 if length == LENGTH else None,
        )
        repository.close()


# --- the events -----------------------------------------------------------------------------------


def long_life(length: int) -> Iterator[Row]:
    """Make one order's life of `length` events: modified, returned, refunded and corrected over and over."""
    random = Random(SEED)
    for version in range(1, length + 1):
        event_type, payload = long_event(random, version)
        schema = {"schema_version": 2} if event_type == "OrderCreated" else {}
        metadata = {"correlation_id": f"req-{random.getrandbits(48):012x}", **schema}
        moment = BEGIN + timedelta(seconds=61 * version)
        yield Row(LONG, version, event_type, json.dumps(payload), json.dumps(metadata), iso(moment))


def long_event(random: Random, version: int) -> tuple[str, dict[str, Any]]:
    amount = random.randint(100, 99_999) / 100
    items = [
        {"product_id": f"sku-{random.randint(1, 5_000)}", "quantity": random.randint(1, 3), "price": amount}
        for _ in range(random.choice((1, 1, 1, 2, 3)))
    ]
    total = float(sum(Decimal(str(item["price"])) * item["quantity"] for item in items))
    start: dict[int, tuple[str, dict[str, Any]]] = {
        1: ("OrderCreated", {"order_id": LONG, "user_id": "user-1", "items": items, "total": total}),
        2: ("PaymentAuthorized", {"amount": total, "method": "card"}),
        3: ("OrderShipped", {"tracking": "TRK000001", "carrier": "post"}),
        4: ("OrderDelivered", {"signed_by": "customer"}),
    }
    if version in start:
        return start[version]
    return random.choice(
        [
            ("OrderModified", {"items": items, "total": total}),
            ("OrderCorrected", {"corrected_amount": amount, "reason": "price was wrong"}),
            ("ItemsReturned", {"items": [{"product_id": "sku-1", "quantity": 1}], "reason": "broken"}),
            ("RefundIssued", {"amount": amount, "reason": "goodwill"}),
        ]
    )


def others() -> Iterator[Row]:
    """Take a thousand ordinary lives to lie beside the long one."""
    import numpy as np

    frame = lives(order_ids(OTHERS), np.random.default_rng(SEED))
    stamps = pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return (Row(*row) for row in frame.with_columns(stamps).iter_rows())


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# --- ours -----------------------------------------------------------------------------------------


def write_table(file: Path, rows: list[Row]) -> None:
    """Fill a SQLite file by hand."""
    with sqlite3.connect(file) as db:
        db.executescript(TABLE)
        db.executemany("INSERT INTO order_events VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.close()


def as_frame(rows: list[Row]) -> pl.DataFrame:
    """Lay the events out as a frame of them."""
    frame = pl.DataFrame(rows, schema=list(Row._fields), orient="row")
    return frame.with_columns(pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC"))


def told(state: Any) -> dict[str, Any]:
    items = [{**item, "price": Decimal(item["price"])} for item in state.items]
    names = ("version", "user_id", "status", "total", "paid", "refunded", "tracking", "reason")
    return {**{name: getattr(state, name) for name in names}, "items": items}


# --- eventsourcing --------------------------------------------------------------------------------


def in_sqlite(folder: str) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": f"{folder}/eventsourcing.db"}


class Repository:
    """The same events in the library's own store, which `environment` names.

    snapshot_at: take a snapshot of the long order after this version, too.
    """

    def __init__(self, environment: dict[str, str], rows: list[Row], snapshot_at: int | None = None) -> None:
        from eventsourcing.application import Application

        from benchmarks.long_order_peer import Order

        snapshots = {} if snapshot_at is None else {"IS_SNAPSHOTTING_ENABLED": "y"}
        self.application: Any = Application(env=environment | snapshots)
        aggregates: dict[str, Any] = {}
        for row in rows:
            payload = json.loads(row.payload, parse_float=str)
            if row.event_type == "OrderCreated":
                aggregates[row.aggregate_id] = Order(**payload)
            else:
                getattr(aggregates[row.aggregate_id], METHODS[row.event_type])(**payload)
        for aggregate in aggregates.values():
            self.application.save(aggregate)
        if snapshot_at is not None:
            self.application.take_snapshot(UUID(LONG), version=snapshot_at)

    def get(self, aggregate_id: str) -> Any:
        """Rebuild the aggregate from its events, and its snapshot if there is one: there is no cache."""
        return self.application.repository.get(UUID(aggregate_id))

    def close(self) -> None:
        self.application.close()


METHODS = {
    "OrderModified": "modify",
    "PaymentAuthorized": "pay",
    "OrderShipped": "ship",
    "OrderDelivered": "deliver",
    "OrderCancelled": "cancel",
    "OrderCorrected": "correct",
    "ItemsReturned": "take_back",
    "RefundIssued": "refund",
}


if __name__ == "__main__":
    script(measure)
