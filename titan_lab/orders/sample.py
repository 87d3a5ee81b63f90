"""Sample orders: lives such as a web shop sees in its first six weeks of a year, made up from a seed.

    python -m titan_lab.orders.sample data/samples

Most lives are drawn at random (see `lives`). Two are told in full:

- ``550e8400-e29b-41d4-a716-446655440000``: a phone, from purchase to a price that was corrected
  later on, with a refund stamped before the correction it follows (try the cuts at 2025-01-14T11:04Z).
- ``c0ffee00-1000-4000-8000-000000010000``: a café chain's standing order of coffee, 10,000 events long.

The same arguments give the same frame, and more orders only add to fewer: the first ones stay as they are.
Nobody in it is real: people are numbers, and cards show two digits.
"""

from __future__ import annotations

import gzip
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from titan_lab.connect import open_log
from titan_lab.event import EVENTS
from titan_lab.orders.life import Cents, Life, Line, Row, between, iso, json_text, total_of, written
from titan_lab.orders.lives import END, START, apply_kettle_offer, one_order

PHONE = "550e8400-e29b-41d4-a716-446655440000"
COFFEE = "c0ffee00-1000-4000-8000-000000010000"
ORDERS = 500  # as many as fit into 4 MB, three times over


def one_phone() -> Life:
    """Tell one order's three weeks, from the purchase to a corrected price, minute by minute."""
    phone, cable = Line("iphone-15", 1, Cents(99900)), Line("usb-c-cable", 1, Cents(1990))
    life = Life(Random(0), PHONE, "12345", START, "req-abc123", [phone])

    def tell(day: int, clock: str, event_type: str, payload: dict[str, Any], **metadata: Any) -> None:
        hour, minute, second = map(int, clock.split(":"))
        life.now = START + timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second)
        life.record(event_type, payload, **metadata)

    browser = {"user_ip": "192.168.1.1", "user_agent": "Mozilla/5.0"}
    created = {"order_id": PHONE, "user_id": "12345", "items": written([phone]), "total": total_of([phone])}
    tell(1, "10:00:00", "OrderCreated", created, causation_id="cmd-xyz789", schema_version=2, **browser)
    tell(
        1,
        "10:01:00",
        "PaymentAuthorized",
        {"amount": Cents(99900), "card": "**34"},
        causation_id=life.caused(),
    )
    life.request = "req-abc124"
    added = {"items": written([phone, cable]), "total": total_of([phone, cable])}
    tell(1, "10:42:00", "OrderModified", added, user_id="12345")
    tell(
        1,
        "10:42:30",
        "PaymentAuthorized",
        {"amount": Cents(1990), "card": "**34"},
        causation_id=life.caused(),
    )
    life.request = "run-ups-0101-1200"
    tell(1, "12:00:00", "OrderShipped", {"tracking": "ABC123", "carrier": "ups"})
    life.request = ""
    tell(3, "14:25:10", "OrderDelivered", {})
    life.request = "req-abc125"
    tell(9, "09:15:00", "ItemsReturned", {"items": written([cable]), "reason": "too short"}, user_id="dock-2")
    tell(9, "09:15:00", "RefundIssued", {"amount": Cents(1990)}, causation_id=life.caused())
    life.request = "req-abc126"
    fixed = {"corrected_amount": Cents(96890), "reason": "new year price of the phone was 949.00"}
    tell(14, "11:05:00", "OrderCorrected", fixed, user_id="desk-1", effective_at="2025-01-01T10:00:00Z")
    # Booked second, but from a form that was opened first: at 11:04 the three cuts differ on this order.
    tell(14, "11:03:10", "RefundIssued", {"amount": Cents(5000)}, causation_id=life.caused())
    life.request = "req-abc127"
    tell(20, "08:30:00", "RefundIssued", {"amount": Cents(1000), "reason": "goodwill"}, user_id="desk-1")
    return life


def standing_order(rng: Random, events: int) -> Life:
    """Tell a café chain's season: paid in advance, changed by its cafés all day long, on sale or return.

    What is ordered and what was refunded never exceed what was paid.
    """
    price, prepaid = Cents(1180), 20_000
    beans = Line("coffee-1kg", prepaid, price)
    life = Life(rng, COFFEE, "50007", START + timedelta(days=1, hours=6), "req-season25", [beans])
    created = {"order_id": COFFEE, "user_id": "50007", "items": written([beans]), "total": total_of([beans])}
    life.record("OrderCreated", created, causation_id="cmd-season25", schema_version=2)
    life.now += timedelta(minutes=42)
    life.record(
        "PaymentAuthorized",
        {"amount": total_of([beans]), "method": "bank_transfer"},
        causation_id=life.caused(),
    )
    life.now += timedelta(hours=5)
    life.record("OrderShipped", {"tracking": "UP10000000", "carrier": "ups"})
    visits: list[int] = []  # bags returned; 0 changes the order
    while (left := events - 4 - sum(2 if bags else 1 for bags in visits)) > 0:
        visits.append(0 if left == 1 or rng.random() < 0.62 else rng.choice((1, 1, 1, 2, 2, 3)))
    returned, quantity = 0, 12_500
    for bags, moment in zip(visits, open_moments(rng, len(visits), life.now), strict=True):
        life.now = moment
        life.request = life.name("req") if rng.random() < 0.1 else ""
        if bags:
            returned += bags
            life.record("ItemsReturned", {"items": [{"product_id": beans.product_id, "quantity": bags}]})
            life.refund(bags * price, odds=(80, 20, 0), told=bool(life.request))
        elif rng.random() < 0.004:
            since = life.now - between(rng, timedelta(hours=9), timedelta(days=2))
            life.correct(quantity * price - rng.randint(1, 90) * 100, "pallet discount", since)
        else:
            quantity = min(
                max(quantity + rng.choice((-6, -4, -2, -1, 1, 2, 3, 4, 6)), 10_000), prepaid - returned
            )
            who = {"user_id": f"cafe-{rng.randint(1, 120):03d}"} if rng.random() < 0.25 else {}
            life.record("OrderModified", {"items": written([beans._replace(quantity=quantity)])}, **who)
    life.now, life.request = END - timedelta(hours=5), ""
    life.record("OrderDelivered", {})
    return life


def open_moments(rng: Random, count: int, earliest: datetime) -> list[datetime]:
    """Draw moments in working hours, Monday to Saturday, from the day after `earliest` on; sorted."""
    days = [START + timedelta(days=n) for n in range((END - START).days)]
    days = [day for day in days if day.weekday() < 6 and day > earliest]
    return sorted(
        rng.choice(days) + timedelta(hours=6, microseconds=rng.randrange(12 * 3600 * 10**6))
        for _ in range(count)
    )


# --- FRAME AND FILES ----------------------------------------------------------------------------------------


def lives(orders: int, seed: int, long_order: int) -> Iterator[Life]:
    """Tell all lives, in no particular order."""
    yield one_phone()
    if long_order:
        yield standing_order(Random(f"{seed}/coffee"), long_order)
    for number in range(1, orders - bool(long_order)):
        life = one_order(seed, number)
        apply_kettle_offer(life, number)
        yield life


def happened(rows: list[Row]) -> Iterator[Row]:
    """Give the events up to the end of the span: a prefix of the life, whatever the stamps do."""
    for row in rows:
        if row.timestamp >= END:
            return
        yield row


def sample_events(orders: int = ORDERS, seed: int = 7, long_order: int = 10_000) -> pl.DataFrame:
    """Make up the events of so many orders.

    orders: how many in all, the two told in full among them; at least 2. seed: another seed, other orders.
    long_order: events of the standing order, at least 5; 0 leaves it out.

    Returns EVENTS sorted by (aggregate_id, version), from 2025-01-01 to before 2025-02-11 UTC. An order that
    is open on the last day has no further event yet.
    """
    columns: dict[str, list[Any]] = {name: [] for name in EVENTS}
    for life in lives(orders, seed, long_order):
        for version, row in enumerate(happened(life.rows), start=1):
            columns["aggregate_id"].append(life.order_id)
            columns["version"].append(version)
            columns["event_type"].append(row.event_type)
            columns["payload"].append(json_text(row.payload))
            columns["metadata"].append(json_text(row.metadata) if row.metadata else None)
            columns["timestamp"].append(row.timestamp)
    return pl.DataFrame(columns, schema=EVENTS).sort("aggregate_id", "version")


def write_samples(
    folder: str | PathLike[str], orders: int = ORDERS, seed: int = 7, long_order: int = 10_000
) -> dict[str, int]:
    """Write the same events three times: ``orders.db`` (SQLite), ``orders.parquet`` and ``orders.jsonl.gz``.

    Files that are there are replaced. Returns each file's name and its size in bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    events = sample_events(orders, seed, long_order)
    write_sqlite(events, folder / "orders.db")
    events.write_parquet(folder / "orders.parquet", compression="zstd", compression_level=19)
    write_json_lines(events, folder / "orders.jsonl.gz")
    return {path.name: path.stat().st_size for path in sorted(folder.glob("orders.*"))}


def write_sqlite(events: pl.DataFrame, path: Path) -> None:
    """Write events through the package itself, then close the gaps between the pages."""
    path.unlink(missing_ok=True)
    with open_log(f"sqlite:///{path}", writable=True) as log:
        log.append_many(events)
    with closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM")


def write_json_lines(events: pl.DataFrame, path: Path) -> None:
    """Write one object a line, payload and metadata as objects, money digit by digit as it was written."""
    # No name and no time in the gzip header: equal events give equal bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for aggregate_id, version, event_type, payload, metadata, timestamp in events.iter_rows():
            key = f'"aggregate_id":"{aggregate_id}","version":{version},"event_type":"{event_type}"'
            fact = f'"payload":{payload},"metadata":{metadata or "null"},"timestamp":"{iso(timestamp)}"'
            file.write(f"{{{key},{fact}}}\n".encode())


def main(folder: str = "data/samples") -> None:
    """Write the sample files and say how large they are."""
    for name, size in write_samples(folder).items():
        print(f"{size:>10,} bytes  {folder}/{name}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
