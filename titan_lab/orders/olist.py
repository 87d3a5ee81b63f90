"""Real orders: the Olist marketplace's files, as events.

    orders row      purchase  ──▶ OrderCreated        items and customer from their own files
                    approved  ──▶ PaymentAuthorized   the sum of the order's payments
                    carrier   ──▶ OrderShipped
                    delivered ──▶ OrderDelivered
                    canceled  ──▶ OrderCancelled      at the latest time known of the order

Versions follow this life cycle and never the clock: where the source says that a parcel left before its
payment was approved, the events keep both the order of things and the times as they were written down.

What the files do not say is not made up silently:

- A cancellation has no time of its own. It takes the latest time of its order, and `metadata.imputed` names
  the column that time came from: ``{"timestamp":"order_approved_at"}``.
- An approved order without any payment row gets ``"amount":0.00``, since no amount is on record, and
  ``"imputed":{"amount":"no payment row"}``.
- Payments of an order that was never approved make no event. The report says how many, and their sum.
- No zone is stated. Local times are read in one zone; see `OlistReport.rule`.

An order is imported whole or not at all: if one of its rows cannot be read, all of them come back as
rejected, and once the file is mended the next import adds the order as it should have been.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl

from titan_lab.clock import instant, zone_of
from titan_lab.event import EVENTS, REJECTED
from titan_lab.notebook import html
from titan_lab.orders.olist_csv import (
    CUSTOMERS,
    ITEMS,
    MONEY,
    ORDERS,
    PAYMENTS,
    Read,
    place,
    read_table,
    rejects,
)

ZONE = "America/Sao_Paulo"
BATCH = 50_000
TIMES = {
    "order_purchase_timestamp": "OrderCreated",
    "order_approved_at": "PaymentAuthorized",
    "order_delivered_carrier_date": "OrderShipped",
    "order_delivered_customer_date": "OrderDelivered",
}
NOTHING = Decimal("0.00")

Progress = Callable[[int, int], Any]


@dataclass(frozen=True, slots=True, repr=False)
class OlistReport:
    """What an import read, added and left out.

    orders, events: read from the files. added, present: events that are new in the log, and that it had.
    by_type: events per event type. by_status: orders per final status. by_length: orders per count of events.
    zone: in which local times were read. ambiguous, missing: local times that happened twice, or never.
    price, freight: sums over all item rows kept; payments: over all payment rows kept.
    unapproved: sum of the payments that make no event, since their order was never approved.
    imputed_times: cancellations; imputed_amounts: approved orders without a payment row.
    without_items: orders that name no item. unbalanced: orders whose payments differ from price and freight
    of their items by more than a cent, among those that have both.
    rejected: rows that make no event, with columns place (``file:line``), aggregate_id, version and
    event_type (both null), path (the column), reason, raw (the line); in the order of files and lines.
    """

    orders: int
    events: int
    by_type: dict[str, int]
    by_status: dict[str, int]
    by_length: dict[int, int]
    zone: str
    ambiguous: int
    missing: int
    price: Decimal
    freight: Decimal
    payments: Decimal
    unapproved: Decimal
    unapproved_orders: int
    imputed_times: int
    imputed_amounts: int
    without_items: int
    unbalanced: int
    rejected: pl.DataFrame
    added: int = 0
    present: int = 0
    seconds: float = 0.0

    @property
    def rule(self) -> str:
        """Say how local times became instants."""
        return (
            f"no zone is stated, so local times were read in {self.zone}; {self.ambiguous:,} happened twice: "
            f"the earliest was taken; {self.missing:,} never happened: read as if clocks had not jumped"
        )

    def facts(self) -> dict[str, object]:
        """Give the report as names and values, in reading order; `rejected` is counted."""
        return {
            "orders": self.orders,
            "events": self.events,
            **{f"  {event_type}": count for event_type, count in self.by_type.items()},
            "added": self.added,
            "already there": self.present,
            "rejected rows": self.rejected.height,
            "final status": ", ".join(f"{status} {count:,}" for status, count in self.by_status.items()),
            "events per order": ", ".join(f"{length}: {count:,}" for length, count in self.by_length.items()),
            "zone": self.rule,
            "cancellations with an imputed time": self.imputed_times,
            "approved without a payment (amount 0.00)": self.imputed_amounts,
            "without items": self.without_items,
            "payments unequal to items + freight": self.unbalanced,
            "price": self.price,
            "freight": self.freight,
            "payments": self.payments,
            "of these never approved": f"{self.unapproved:,} in {self.unapproved_orders:,} orders",
            "seconds": round(self.seconds, 1),
        }

    def __str__(self) -> str:
        facts = self.facts()
        width = max(map(len, facts))
        return "\n".join(f"{name:<{width}}  {html.shown(value)}" for name, value in facts.items())

    def __repr__(self) -> str:
        return (
            f"OlistReport(orders={self.orders:,}, events={self.events:,}, added={self.added:,}, "
            f"present={self.present:,}, rejected={self.rejected.height:,})"
        )

    def _repr_html_(self) -> str:
        facts = self.facts()
        del facts["seconds"]  # the same import shows the same bytes
        return html.card("Olist import", facts)


def import_olist(
    folder: str | PathLike[str], log: Any, zone: str = ZONE, progress: Progress | None = None
) -> OlistReport:
    """Append the orders in an Olist folder to a log.

    folder: holds the four files, each as ``.csv`` or ``.csv.gz``. log: opened with ``writable=True``.
    zone: IANA name of the zone local times are read in. progress: called with (events done, events in all)
    before the first batch and after each one.

    Running it again adds nothing; after an interruption it adds what is missing.

    Raises OpenError (a file or column is missing), InstantError (no such zone), ReadOnly, and VersionConflict
    when the log already holds other events of these orders, as after an import with another zone.
    """
    started = time.perf_counter()
    events, report = read_olist(folder, zone)
    added = present = 0
    if progress:
        progress(0, events.height)
    for batch in events.iter_slices(BATCH):
        appended = log.append_many(batch)
        added += appended.added
        present += appended.present
        if progress:
            progress(added + present, events.height)
    return replace(report, added=added, present=present, seconds=time.perf_counter() - started)


def read_olist(folder: str | PathLike[str], zone: str = ZONE) -> tuple[pl.DataFrame, OlistReport]:
    """Read an Olist folder as EVENTS sorted by (aggregate_id, version), and report on it, without a log.

    Raises OpenError and InstantError as `import_olist` does.
    """
    zone_of(zone)
    orders, items, payments, rejected = _whole_orders(
        *(read_table(Path(folder), table) for table in (ORDERS, ITEMS, PAYMENTS, CUSTOMERS))
    )
    instants, ambiguous, missing = _instants(orders, zone)
    lives = (
        orders.with_columns(instants)
        .join(_baskets(items), on="order_id", how="left", maintain_order="left")
        .join(_sums(payments), on="order_id", how="left", maintain_order="left")
    )
    events = _events(lives)
    unapproved = lives.filter(pl.col("order_approved_at").is_null() & pl.col("paid").is_not_null())
    due = pl.col("total") + pl.col("freight")
    report = OlistReport(
        orders=lives.height,
        events=events.height,
        by_type=_counts(events["event_type"], [*TIMES.values(), "OrderCancelled"]),
        by_status=_counts(lives["order_status"]),
        by_length=dict(sorted(_counts(events.group_by("aggregate_id").len()["len"]).items())),
        zone=zone,
        ambiguous=ambiguous,
        missing=missing,
        price=_sum(items["price"]),
        freight=_sum(items["freight_value"]),
        payments=_sum(payments["payment_value"]),
        unapproved=_sum(unapproved["paid"]),
        unapproved_orders=unapproved.height,
        imputed_times=int((lives["order_status"] == "canceled").sum()),
        imputed_amounts=lives.filter(
            pl.col("order_approved_at").is_not_null() & pl.col("paid").is_null()
        ).height,
        without_items=int(lives["items"].is_null().sum()),
        unbalanced=lives.filter((pl.col("paid") - due).abs() > Decimal("0.01")).height,
        rejected=rejected,
    )
    return events, report


def _whole_orders(
    orders: Read, items: Read, payments: Read, customers: Read
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Keep the orders of which every row was read, and hold back all rows of the others."""
    known = orders.rows.join(
        customers.rows.drop("row", "raw"), on="customer_id", how="left", maintain_order="left"
    )
    stray = known.filter(pl.col("customer_unique_id").is_null())
    held = pl.concat(
        [
            *(read.unreadable.select("id", "place") for read in (orders, items, payments)),
            stray.select(id="order_id", place=place(orders.file)),
        ]
    ).unique("id", keep="first", maintain_order=True)

    rejected = [read.rejected for read in (orders, items, payments)]
    # The first column of a customers row names a customer, not an order.
    rejected.append(customers.rejected.with_columns(aggregate_id=pl.lit(None, pl.String)))
    nobody = stray.with_columns(
        id="order_id",
        path=pl.lit("customer_id"),
        reason=pl.format("no row of {} has the customer {}", pl.lit(customers.file), "customer_id"),
    )
    rejected[0] = pl.concat([rejected[0], rejects(orders.file, nobody)])
    kept = []
    known = known.filter(pl.col("customer_unique_id").is_not_null())
    ids = pl.concat([orders.rows["order_id"], orders.unreadable["id"]]).unique()
    for number, (read, rows) in enumerate([(orders, known), (items, items.rows), (payments, payments.rows)]):
        marked = rows.join(
            held, left_on="order_id", right_on="id", how="left", maintain_order="left"
        ).with_columns(
            id="order_id",
            path=pl.lit("order_id"),
            reason=pl.when(~pl.col("order_id").is_in(ids.implode()))
            .then(pl.format("no row of {} has this order", pl.lit(orders.file)))
            .when(pl.col("place").is_not_null())
            .then(pl.format("its order is held back: see {}", "place")),
        )
        rejected[number] = pl.concat(
            [rejected[number], rejects(read.file, marked.filter(pl.col("reason").is_not_null()))]
        )
        kept.append(marked.filter(pl.col("reason").is_null()).select(rows.columns))
    rejected = [frame.sort(pl.col("place").str.extract(r":(\d+)$").cast(pl.Int64)) for frame in rejected]
    return kept[0], kept[1], kept[2], pl.concat(rejected).match_to_schema(REJECTED)


def _instants(orders: pl.DataFrame, zone: str) -> tuple[list[pl.Series], int, int]:
    """Read the local times in a zone; count those that happened twice and those that never did."""
    read, ambiguous, missing = [], 0, 0
    for name in TIMES:
        local = orders[name]
        first, last = (
            local.dt.replace_time_zone(zone, ambiguous=which, non_existent="null").dt.convert_time_zone("UTC")
            for which in ("earliest", "latest")
        )
        ambiguous += int((first != last).sum())
        never = first.is_null() & local.is_not_null()
        if never.any():
            missing += int(never.sum())
            first = first.scatter(never.arg_true(), [instant(moment, zone) for moment in local.filter(never)])
        read.append(first)
    return read, ambiguous, missing


def _baskets(items: pl.DataFrame) -> pl.DataFrame:
    """Give per order: items as JSON text (equal products of equal price as one line), total, freight."""
    return (
        items.sort("order_id", "order_item_id")
        .group_by("order_id", "product_id", "price", maintain_order=True)
        .agg(quantity=pl.len().cast(pl.Int64), freight=pl.col("freight_value").sum())
        .with_columns(
            line=_text(
                '{"product_id":', _quoted("product_id"), ',"quantity":', "quantity", ',"price":', "price", "}"
            ),
            amount=(pl.col("price") * pl.col("quantity")).cast(MONEY),
        )
        .group_by("order_id", maintain_order=True)
        .agg(
            pl.col("line").str.join(",").alias("items"),
            total=pl.col("amount").sum(),
            freight=pl.col("freight").sum(),
        )
    )


def _sums(payments: pl.DataFrame) -> pl.DataFrame:
    """Give per order: the sum of its payments, and their kinds, such as ``credit_card+voucher``."""
    return (
        payments.sort("order_id", "payment_sequential")
        .group_by("order_id", maintain_order=True)
        .agg(
            paid=pl.col("payment_value").sum(),
            method=pl.col("payment_type").unique(maintain_order=True).str.join("+"),
        )
    )


def _events(lives: pl.DataFrame) -> pl.DataFrame:
    """Turn one row per order into its events, up to five, in the order of the life cycle."""
    basket = (
        _text('{"order_id":', _quoted("order_id"), ',"user_id":', _quoted("customer_unique_id"))
        + _text(',"items":[', pl.col("items").fill_null(""), '],"total":', _amount("total"))
        + _text(',"freight":', _amount("freight"), "}")
    )
    payment = (
        pl.when(pl.col("paid").is_null())
        .then(pl.lit('{"amount":0.00}'))
        .otherwise(_text('{"amount":', "paid", ',"method":', _quoted("method"), "}"))
    )
    unpaid = pl.when(pl.col("paid").is_null()).then(pl.lit('{"imputed":{"amount":"no payment row"}}'))
    origin = _text('{"schema_version":2,"olist_status":', _quoted("order_status"), "}")
    # Of equal times the later step names the imputed one: the cancellation came after all of them.
    latest = pl.max_horizontal(*TIMES)
    source = pl.coalesce(pl.when(pl.col(name) == latest).then(pl.lit(name)) for name in reversed(TIMES))
    nothing = pl.lit("{}")
    steps = [
        ("order_purchase_timestamp", basket, origin),
        ("order_approved_at", payment, unpaid),
        ("order_delivered_carrier_date", nothing, pl.lit(None)),
        ("order_delivered_customer_date", nothing, pl.lit(None)),
        ("cancelled", nothing, _text('{"imputed":{"timestamp":"', source, '"}}')),
    ]
    lives = lives.with_columns(cancelled=pl.when(pl.col("order_status") == "canceled").then(latest))
    version = pl.lit(0, pl.Int64)
    events = []
    for column, payload, metadata in steps:
        version = version + pl.col(column).is_not_null().cast(pl.Int64)
        events.append(
            lives.filter(pl.col(column).is_not_null()).select(
                aggregate_id="order_id",
                version=version,
                event_type=pl.lit(TIMES.get(column, "OrderCancelled")),
                payload=payload,
                metadata=metadata.cast(pl.String),
                timestamp=pl.col(column),
            )
        )
    return pl.concat(events).match_to_schema(EVENTS).sort("aggregate_id", "version")


def _text(*pieces: str | pl.Expr) -> pl.Expr:
    """Join pieces to one text; a bare name is a column, any other text stands for itself."""
    return pl.concat_str(
        pl.lit(piece) if isinstance(piece, str) and not piece.isidentifier() else piece for piece in pieces
    )


def _quoted(name: str) -> pl.Expr:
    """Write a column of text as JSON strings, whatever characters it holds."""
    return (
        pl.struct(pl.col(name).alias("x"))
        .struct.json_encode()
        .str.strip_prefix('{"x":')
        .str.strip_suffix("}")
    )


def _amount(name: str) -> pl.Expr:
    return pl.col(name).fill_null(NOTHING).cast(pl.String)


def _sum(amounts: pl.Series) -> Decimal:
    return Decimal(str(amounts.sum())) if len(amounts) else NOTHING


def _counts(values: pl.Series, order: list[str] | None = None) -> dict[Any, int]:
    """Count equal values: in a given order, or the most frequent first."""
    counts = {
        row[0]: row[1]
        for row in values.alias("value")
        .value_counts(sort=True)
        .sort("count", "value", descending=[True, False])
        .iter_rows()
    }
    return {value: counts.get(value, 0) for value in order} if order else counts
