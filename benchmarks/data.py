"""Generate the events every benchmark reads: believable order lives, the same bytes for the same arguments.

A life goes created, (modified), paid, shipped, delivered; some are cancelled before or after shipping, some
come back as returns, refunds and corrections. Payloads are JSON text as an application would have written
it: an older `OrderCreated` (no schema_version or 1) has items without a quantity, some totals are missing,
and some metadata is absent. Amounts have two decimals. Some neighbouring events share a timestamp. No event
is earlier than the one before it in its order, so that a peer's plain `timestamp <= T` asks the same
question as our default cut and results can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

CACHE = Path(__file__).parent / ".cache"
EDITION = 1  # part of the cached file's name: raise it whenever the generator's output changes
SEED = 20250101
GROUP = 262_144
CHUNK = 131_072  # orders drawn at a time: bounds memory whatever the size asked for
EVENTS_PER_ORDER = 4.08  # the mean of the lives below; a test holds it

SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_735_689_600 * SECOND  # 2025-01-01T00:00Z
SPAN = 90 * DAY

SCHEMA = pa.schema(
    [
        ("aggregate_id", pa.large_string()),
        ("version", pa.int64()),
        ("event_type", pa.large_string()),
        ("payload", pa.large_string()),
        ("metadata", pa.large_string()),
        ("timestamp", pa.timestamp("us", "UTC")),
    ]
)

# Every life is a subset of these places, in this order; the number is the largest gap before the event.
PLACES = (
    ("OrderCreated", 0),
    ("OrderModified", 600 * SECOND),
    ("OrderModified", 3_600 * SECOND),
    ("PaymentAuthorized", 1_800 * SECOND),
    ("OrderCorrected", 3_600 * SECOND),
    ("OrderCancelled", DAY),
    ("OrderShipped", 2 * DAY),
    ("OrderCancelled", DAY),
    ("OrderDelivered", 5 * DAY),
    ("OrderCorrected", 3 * DAY),
    ("ItemsReturned", 14 * DAY),
    ("RefundIssued", 4 * DAY),
    ("RefundIssued", 10 * DAY),
)
PAY, CANCEL, SHIP, CANCEL_LATE, DELIVER, RETURN, REFUND = 3, 5, 6, 7, 8, 10, 11
LINES = 3


def events_file(events: int, seed: int = SEED, cache: Path = CACHE) -> Path:
    """Return the Parquet file of `events` events sorted by (aggregate_id, version), made on first use."""
    path = cache / f"orders-{events}-{seed}-e{EDITION}.parquet"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        write(part, events, seed)
        part.replace(path)  # a killed run leaves no half file under the final name
    return path


def write(path: Path, events: int, seed: int = SEED) -> None:
    """Write `events` events to one zstd Parquet file in row groups of 262,144 rows."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=["event_type"]) as writer:
        kept = pl.DataFrame(schema=pl.from_arrow(SCHEMA.empty_table()).schema)
        for frame in chunks(events, seed):
            kept = pl.concat([kept, frame], rechunk=True)
            whole = kept.height // GROUP * GROUP
            if whole:
                writer.write_table(kept.head(whole).to_arrow().cast(SCHEMA), row_group_size=GROUP)
                kept = kept.slice(whole)
        if kept.height:
            writer.write_table(kept.to_arrow().cast(SCHEMA), row_group_size=GROUP)


def chunks(events: int, seed: int = SEED) -> Iterator[pl.DataFrame]:
    """Yield frames of whole orders in id order, `events` rows in all; the last order may be cut short."""
    # A few per cent more orders than the mean needs: the surplus is never drawn into lives.
    orders = int(events / EVENTS_PER_ORDER * 1.02) + 64
    ids = order_ids(orders, seed)
    left = events
    for number, start in enumerate(range(0, orders, CHUNK)):
        frame = lives(ids[start : start + CHUNK], np.random.default_rng([seed, 1, number]))
        yield frame.head(left)
        left -= min(left, frame.height)
        if not left:
            return
    raise AssertionError(f"{left} events short: EVENTS_PER_ORDER no longer is the mean of the lives")


def order_ids(count: int, seed: int = SEED) -> pl.Series:
    """Return `count` distinct random UUIDs (version 4) as text, ascending."""
    rng = np.random.default_rng([seed, 0])
    high = np.unique(rng.integers(0, 2**63, count + 1024, dtype=np.uint64) << np.uint64(1))
    high = np.unique(high & np.uint64(0xFFFF_FFFF_FFFF_0FFF) | np.uint64(0x4000))
    high = np.sort(rng.permutation(high)[:count])  # a plain head would leave out the largest ids
    low = rng.integers(0, 2**62, count, dtype=np.uint64) | np.uint64(2**63)
    digits = np.concatenate([hex_digits(high, 16), hex_digits(low, 16)], axis=1)
    dash = np.full((count, 1), ord("-"), np.uint8)
    cuts = [digits[:, a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))]
    return fixed_text(np.concatenate([x for cut in cuts for x in (dash, cut)][1:], axis=1))


def hex_digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Return the last `width` hexadecimal digits of each number as a (count, width) matrix of ASCII codes."""
    text = numbers.astype(">u8").tobytes().hex().encode()
    return np.frombuffer(text, np.uint8).reshape(-1, 16)[:, 16 - width :]


def fixed_text(letters: np.ndarray) -> pl.Series:
    """Return one text per row of a matrix of ASCII codes."""
    count, width = letters.shape
    offsets = np.arange(count + 1, dtype=np.int64) * width
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(letters))]
    return pl.from_arrow(pa.Array.from_buffers(pa.large_string(), count, buffers))


def draw_places(rng: np.random.Generator, m: int) -> np.ndarray:
    """Return which of `PLACES` each of `m` lives contains, as a boolean matrix."""
    chance = rng.random((m, len(PLACES)))
    has = np.zeros((m, len(PLACES)), bool)
    has[:, 0] = True
    has[:, 1] = chance[:, 1] < 0.08
    has[:, 2] = has[:, 1] & (chance[:, 2] < 0.2)
    has[:, PAY] = chance[:, PAY] < 0.96
    paid = has[:, PAY]
    has[:, 4] = chance[:, 4] < 0.01
    has[:, CANCEL] = chance[:, CANCEL] < np.where(paid, 0.05, 0.8)
    has[:, SHIP] = paid & ~has[:, CANCEL] & (chance[:, SHIP] < 0.97)
    has[:, CANCEL_LATE] = has[:, SHIP] & (chance[:, CANCEL_LATE] < 0.015)
    has[:, DELIVER] = has[:, SHIP] & ~has[:, CANCEL_LATE] & (chance[:, DELIVER] < 0.95)
    has[:, 9] = has[:, SHIP] & (chance[:, 9] < 0.02)
    has[:, RETURN] = has[:, DELIVER] & (chance[:, RETURN] < 0.08)
    owed = has[:, RETURN] | (paid & (has[:, CANCEL] | has[:, CANCEL_LATE]))
    has[:, REFUND] = owed & (chance[:, REFUND] < 0.9)
    has[:, 12] = has[:, REFUND] & (chance[:, 12] < 0.1)
    return has


def lives(ids: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    """Return the EVENTS of the given orders, sorted by (aggregate_id, version)."""
    m = len(ids)
    has = draw_places(rng, m)
    gaps = (rng.random(has.shape) * [most for _, most in PLACES]).astype(np.int64)
    gaps[rng.random(has.shape) < 0.01] = 0
    born = START + (np.sqrt(rng.random(m)) * SPAN).astype(np.int64)  # a shop that grows
    times = born[:, None] + np.cumsum(np.where(has, gaps, 0), axis=1)
    versions = np.cumsum(has, axis=1)
    row = np.cumsum(has.sum(axis=1)) - has.sum(axis=1)

    old = rng.random(m) < 0.15
    base = orders_frame(ids, old, rng)
    parts, rows = [], []
    for place, (event_type, _) in enumerate(PLACES):
        mask = has[:, place]
        frame = base.filter(pl.Series(mask))
        if place in (1, 2):  # a modification has its own basket
            frame = frame.drop("items", "total").hstack(
                basket(rng, frame.height, np.zeros(frame.height, bool))
            )
        parts.append(
            frame.select(
                "aggregate_id",
                version=pl.Series(versions[mask, place], dtype=pl.Int64),
                event_type=pl.lit(event_type),
                payload=payload(event_type, place),
                metadata=metadata(place),
                timestamp=pl.Series(times[mask, place]).cast(pl.Datetime("us", "UTC")),
            )
        )
        rows.append(row[mask] + versions[mask, place] - 1)
    return pl.concat(parts)[np.argsort(np.concatenate(rows))]


def orders_frame(ids: pl.Series, old: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    m = len(ids)
    number = rng.integers(0, 2**63, m, dtype=np.uint64)
    frame = pl.DataFrame(
        {
            "aggregate_id": ids,
            "user": rng.integers(1, max(m // 3, 2), m),
            "number": number % np.uint64(1_000_000),
            "request": fixed_text(hex_digits(number, 12)),
            "silent": rng.random(m) < 0.03,  # metadata absent altogether
            "untold": rng.random(m) < 0.08,  # no total in OrderCreated
            "old": old,
        }
    )
    return frame.hstack(basket(rng, m, old))


def basket(rng: np.random.Generator, m: int, old: np.ndarray) -> pl.DataFrame:
    """Return `items` (JSON text; no quantity where `old`) and their `total` in cents."""
    lines = rng.choice([1, 2, 3], m, p=[0.6, 0.3, 0.1])
    texts, total = [], np.zeros(m, np.int64)
    for line in range(LINES):
        quantity = np.where(old, 1, rng.integers(1, 4, m))
        cents = rng.integers(99, 49_999, m)
        total += np.where(lines > line, quantity * cents, 0)
        frame = pl.DataFrame(
            {"sku": rng.integers(1, 5_000, m), "q": quantity, "c": cents, "old": old, "there": lines > line}
        )
        counted = pl.when(~pl.col("old")).then(joined(',"quantity":', "q")).otherwise(pl.lit(""))
        text = joined('{"product_id":"sku-', "sku", '"', counted, ',"price":', money("c"), "}")
        texts.append(frame.select(pl.when("there").then(text).alias(f"line{line}")).to_series())
    items = pl.DataFrame(texts).select(
        items=joined("[", pl.concat_str(pl.all(), separator=",", ignore_nulls=True), "]")
    )
    return items.with_columns(total=pl.Series(total))


def payload(event_type: str, place: int) -> pl.Expr:
    """Return the payload's JSON text for the rows of `orders_frame`."""
    whole, part = money("total"), money(pl.col("total") // 3)
    if event_type == "OrderCreated":
        total = pl.when("untold").then(pl.lit("")).otherwise(joined(',"total":', whole))
        return joined(
            '{"order_id":"', "aggregate_id", '","user_id":"user-', "user", '","items":', "items", total, "}"
        )
    if event_type == "OrderModified":
        return joined('{"items":', "items", ',"total":', whole, "}")
    if event_type == "PaymentAuthorized":
        return joined('{"amount":', whole, ',"method":"card","card":"**', pl.col("number") % 90 + 10, '"}')
    if event_type == "OrderShipped":
        return joined('{"tracking":"TRK', "number", '","carrier":"', pick("ups", "dhl", "post"), '"}')
    if event_type == "OrderDelivered":
        return joined('{"signed_by":"', pick("customer", "neighbour", "safe place"), '"}')
    if event_type == "OrderCancelled":
        return joined('{"reason":"', pick("changed mind", "payment failed", "out of stock"), '"}')
    if event_type == "ItemsReturned":
        return joined(
            '{"items":[{"product_id":"sku-',
            pl.col("number") % 5_000,
            '","quantity":1}],"reason":"',
            pick("too small", "broken"),
            '"}',
        )
    if event_type == "RefundIssued":
        return joined(
            '{"amount":', part if place == 12 else whole, ',"reason":"', pick("returned", "goodwill"), '"}'
        )
    return joined(
        '{"corrected_amount":', money(pl.col("total") - pl.col("total") // 10), ',"reason":"price was wrong"}'
    )


def metadata(place: int) -> pl.Expr:
    """Return the metadata's JSON text: a new OrderCreated is of schema 2, an old one says 1 or nothing."""
    schema = (
        pl.when("old")
        .then(pl.when(pl.col("number") % 2 == 0).then(pl.lit(',"schema_version":1')).otherwise(pl.lit("")))
        .otherwise(pl.lit(',"schema_version":2'))
        if place == 0
        else pl.lit("")
    )
    text = joined(
        '{"correlation_id":"req-', "request", '","causation_id":"cmd-', "request", f'-{place}"', schema, "}"
    )
    return pl.when(pl.col("silent") & (pl.col("old") | pl.lit(place > 0))).then(None).otherwise(text)


def joined(*pieces: str | pl.Expr) -> pl.Expr:
    """Return one text of the pieces; a bare name is a column, any other text stands for itself."""
    return pl.concat_str([pl.lit(x) if isinstance(x, str) and not x.isidentifier() else x for x in pieces])


def money(cents: str | pl.Expr) -> pl.Expr:
    """Return whole cents as text with two decimals."""
    c = pl.col(cents) if isinstance(cents, str) else cents
    return pl.concat_str(c // 100, pl.lit("."), (c % 100).cast(pl.String).str.zfill(2))


def pick(*words: str) -> pl.Expr:
    choice = pl.col("number") % len(words)
    return choice.replace_strict(range(len(words)), words, return_dtype=pl.String)
