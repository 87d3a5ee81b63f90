"""The peers' side: typed columns decoded by hand, and the state at an instant in polars and in DuckDB.

Nothing here uses titan_lab, so that equal results mean something. Both peers are written as somebody would
who knows the tool and cares: one pass, each in its fastest form we found.

- polars: `decode` parses every payload once, into typed columns that are null where an event says nothing.
  The state is then the last value that is not null, per order. Grouping by a running integer is three times
  faster than by the id's text, so it gets that integer (`order`) as part of its input.
- DuckDB: `from_json` once per payload, `arg_max(column, version)` (which passes over nulls) per order,
  UUIDs in its UUID type, amounts as DECIMAL(18,2) (a 64-bit integer inside), results fetched as Arrow.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.data import SPAN, START
from benchmarks.harness import THREADS

MONEY = pl.Decimal(38, 2)
STATUS = pl.Enum(["CREATED", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"])
ITEM = pl.Struct({"product_id": pl.String, "quantity": pl.Int64, "price": MONEY})
PAYLOAD = pl.Struct(
    {
        "user_id": pl.String,
        "items": pl.List(ITEM),
        "total": MONEY,
        "amount": MONEY,
        "corrected_amount": MONEY,
        "tracking": pl.String,
        "reason": pl.String,
    }
)

CREATED, MODIFIED, PAID, SHIPPED = "OrderCreated", "OrderModified", "PaymentAuthorized", "OrderShipped"
DELIVERED, CANCELLED, REFUND = "OrderDelivered", "OrderCancelled", "RefundIssued"
STATES = dict(zip((CREATED, PAID, SHIPPED, DELIVERED, CANCELLED), STATUS.categories, strict=True))
MOMENTS = {
    "created_at": CREATED,
    "paid_at": PAID,
    "shipped_at": SHIPPED,
    "delivered_at": DELIVERED,
    "cancelled_at": CANCELLED,
}
SUMS = ("paid", "refunded")
# Every life's first event sets these, so carrying them forward never crosses into the next order.
FIRST_SETS = ("user_id", "status", "total", "items", "created_at")
SCALARS = ["user_id", "status", "total", *SUMS, "tracking", "reason", *MOMENTS]
EVERYTHING = [*SCALARS, "items"]


def instant(share: float) -> datetime:
    """Return the moment by which this share of the orders was created."""
    return datetime.fromtimestamp(START / 1e6, UTC) + timedelta(microseconds=int(SPAN * share**0.5))


def plain(frame: pl.DataFrame, columns: list[str], sort: list[str] | str = "aggregate_id") -> pl.DataFrame:
    """Bring a state frame into the one form in which results are compared."""
    casts = {"total": MONEY, "paid": MONEY, "refunded": MONEY, "status": STATUS}
    told = frame.select(
        pl.col("aggregate_id").cast(pl.String),
        pl.col("version").cast(pl.Int64),
        *(
            pl.col(name).cast(casts[name]) if name in casts else pl.col(name)
            for name in columns
            if name != "items"
        ),
        *([pl.col("items").cast(pl.List(ITEM))] if "items" in columns else []),
    )
    return told.sort(sort)


# --- polars ---------------------------------------------------------------------------------------


def decode(events: pl.LazyFrame) -> pl.DataFrame:
    """Parse all payloads into one column per field of the state, null where an event does not set it.

    A created order's `total` and its quantities may still be missing; `completed` fills them.
    """
    kind = pl.col("event_type")
    return (
        events.select(
            "aggregate_id",
            "version",
            "event_type",
            "timestamp",
            pl.col("payload").str.json_decode(PAYLOAD).alias("p"),
        )
        .unnest("p")
        .select(
            "aggregate_id",
            "version",
            "timestamp",
            "user_id",
            "tracking",
            kind.replace_strict(STATES, default=None, return_dtype=STATUS).alias("status"),
            pl.coalesce("total", "corrected_amount").alias("total"),
            pl.when(kind == PAID).then("amount").alias("paid"),
            pl.when(kind == REFUND).then("amount").alias("refunded"),
            pl.when(kind == CANCELLED).then("reason").alias("reason"),
            pl.when((kind == CREATED) | (kind == MODIFIED)).then("items").alias("items"),
            *(pl.when(kind == event).then("timestamp").alias(name) for name, event in MOMENTS.items()),
        )
        .collect(engine="streaming")
        # The file is sorted by id, so a running number stands for it.
        .with_columns(pl.col("aggregate_id").rle_id().set_sorted().alias("order"))
    )


def completed(frame: pl.DataFrame) -> pl.DataFrame:
    """Fill what older payloads leave out: a quantity is 1, a total the sum of its lines."""
    element = pl.element().struct
    whole = frame.with_columns(
        pl.col("items").list.eval(element.with_fields(pl.field("quantity").fill_null(1))).alias("items")
    )
    lines = (
        pl.col("items").list.eval(element.field("quantity").cast(MONEY) * element.field("price")).list.sum()
    )
    untold = whole.filter(pl.col("total").is_null() & pl.col("items").is_not_null())
    told = untold.select("aggregate_id", "version", lines.cast(MONEY).alias("#"))
    joined = whole.join(told, on=["aggregate_id", "version"], how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("total", "#").alias("total")).drop("#")


def polars_state(typed: pl.LazyFrame, when: datetime, columns: list[str], key: str = "order") -> pl.DataFrame:
    """Return the state of all orders at an instant: the last known value per column and order."""
    named = [] if key == "aggregate_id" else [pl.col("aggregate_id").first()]
    last = [pl.col(name).last(ignore_nulls=True) for name in columns if name not in SUMS]
    sums = [pl.col(name).sum() for name in columns if name in SUMS]
    return (
        typed.filter(pl.col("timestamp") <= when)
        .group_by(key)
        .agg(*named, pl.col("version").last(), *last, *sums)
        .collect(engine="streaming")
    )


def written_out(typed: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Write every state out by hand: carry each value forward to the order's next event that sets it."""
    ever = [pl.col(name).forward_fill() for name in columns if name in FIRST_SETS]
    some = [pl.col(name).forward_fill().over("order") for name in columns if name not in (*FIRST_SETS, *SUMS)]
    sums = [pl.col(name).fill_null(0).cum_sum().over("order") for name in columns if name in SUMS]
    return typed.select("aggregate_id", "version", "timestamp", *ever, *some, *sums)


def intervals(typed: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Write every state out, with the instant `until` which it held."""
    follows = pl.col("order") == pl.col("order").shift(-1)
    until = typed.select(pl.when(follows).then(pl.col("timestamp").shift(-1)).alias("until"))
    return written_out(typed, columns).hstack(until)


def polars_interval_state(states: pl.LazyFrame, when: datetime, columns: list[str]) -> pl.DataFrame:
    """Return the state of all orders at an instant from `intervals`."""
    open_then = (pl.col("until") > when) | pl.col("until").is_null()
    wanted = states.filter((pl.col("timestamp") <= when) & open_then).select(
        "aggregate_id", "version", *columns
    )
    return wanted.collect()


# --- DuckDB ---------------------------------------------------------------------------------------

JSON_SHAPE = """{"user_id":"VARCHAR",
 "items":[{"product_id":"VARCHAR","quantity":"BIGINT","price":"DECIMAL(18,2)"}],"total":"DECIMAL(18,2)","amount":"DECIMAL(18,2)","corrected_amount":"DECIMAL(18,2)","tracking":"VARCHAR",
 "reason":"VARCHAR"}"""

LINES = (
    "[struct_pack(product_id := i.product_id, quantity := coalesce(i.quantity, 1), price := i.price)"
    " for i in {}]"
)
SUM_OF_LINES = "list_sum([coalesce(i.quantity, 1) * i.price for i in {}])"


def connect() -> Any:
    """Open an in-memory DuckDB with two threads and the type of the status."""
    import duckdb

    con = duckdb.connect(config={"threads": THREADS})
    con.execute("SET TimeZone = 'UTC'")
    con.execute(f"CREATE TYPE order_status AS ENUM ({', '.join(repr(state) for state in STATUS.categories)})")
    return con


def duckdb_load(con: Any, typed: pl.DataFrame) -> None:
    """Load typed columns as the table `events`, ids as UUID."""
    arrow = typed.with_columns(pl.col("status").cast(pl.String)).to_arrow()
    con.register("arrow", arrow)
    rest = ", ".join(name for name in EVERYTHING if name not in ("status", "total", *SUMS))
    money = ", ".join(f"{name}::DECIMAL(18,2) AS {name}" for name in ("total", *SUMS))
    con.execute(
        f"CREATE TABLE events AS SELECT aggregate_id::UUID AS aggregate_id, version::INTEGER AS version,"
        f" timestamp, status::order_status AS status, {money}, {rest} FROM arrow"
    )
    con.unregister("arrow")


def duckdb_decode(file: Path, when: datetime) -> str:
    """Return the SQL that parses a Parquet file, up to an instant, into the columns of `events`."""
    states = " ".join(f"WHEN '{event}' THEN '{state}'" for event, state in STATES.items())
    moments = ", ".join(
        f"CASE WHEN event_type = '{event}' THEN timestamp END AS {n}" for n, event in MOMENTS.items()
    )
    return f"""
        SELECT aggregate_id, version, timestamp, p.user_id AS user_id, p.tracking AS tracking,
            (CASE event_type {states} END)::order_status AS status,
            coalesce(p.total, p.corrected_amount) AS total,
            CASE WHEN event_type = '{PAID}' THEN p.amount END AS paid,
            CASE WHEN event_type = '{REFUND}' THEN p.amount END AS refunded,
            CASE WHEN event_type = '{CANCELLED}' THEN p.reason END AS reason,
            CASE WHEN event_type IN ('{CREATED}', '{MODIFIED}') THEN p.items END AS items,
            {moments}
        FROM (SELECT *, from_json(payload, '{JSON_SHAPE}') AS p
              FROM read_parquet('{file}') WHERE timestamp <= {literal(when)})"""


def duckdb_state(source: str, columns: list[str], when: datetime | None = None) -> str:
    """Return the SQL for the state of all orders, of the whole source or of what it held at an instant."""
    picked = ", ".join(
        f"coalesce(sum({name}), 0) AS {name}" if name in SUMS
        else f"max({name}) AS {name}" if name in MOMENTS
        else f"arg_max({name}, version) AS {name}"
        for name in columns
    )  # fmt: skip
    where = f"WHERE timestamp <= {literal(when)}" if when else ""
    return (
        f"SELECT aggregate_id, max(version) AS version, {picked} FROM {source} {where} GROUP BY aggregate_id"
    )


def duckdb_completed(state: str, columns: list[str]) -> str:
    """Return the SQL that fills what older payloads leave out of a state, as `completed` does."""
    fills = {"items": LINES.format("items"), "total": f"coalesce(total, {SUM_OF_LINES.format('items')})"}
    picked = ", ".join(f"{fills.get(name, name)} AS {name}" for name in columns)
    return f"SELECT aggregate_id, version, {picked} FROM ({state})"


def literal(when: datetime) -> str:
    return f"TIMESTAMPTZ '{when.isoformat()}'"


def from_duckdb(table: Any) -> pl.DataFrame:
    """Turn DuckDB's Arrow result into a frame with ids as text."""
    frame = pl.DataFrame(table)
    return (
        frame.with_columns(pl.col("aggregate_id").cast(pl.String), pl.col("status").cast(pl.String))
        if "status" in frame.columns
        else frame
    )
