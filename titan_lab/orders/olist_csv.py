"""The four Olist files as typed frames: every row is read, or comes back with the reason it was not.

A file is taken as lines first. A line that is no well-formed CSV row (too few or too many fields, a quote
that never closes) is set aside by itself, so that it can neither swallow its neighbours nor shift their
fields; the other lines are parsed as text, and then every field that is used is checked.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from titan_lab.errors import OpenError, nearest
from titan_lab.event import REJECTED

MONEY = pl.Decimal(38, 2)
LOCAL = "%Y-%m-%d %H:%M:%S"
FIELD = r'(?:"(?:[^"]|"")*"|[^",]*)'


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field must look like: the words for an error, a test and a conversion over its text."""

    expected: str
    fits: Callable[[pl.Expr], pl.Expr]
    read: Callable[[pl.Expr], pl.Expr] = lambda text: text
    optional: bool = False


def _local_time(text: pl.Expr) -> pl.Expr:
    return text.str.to_datetime(LOCAL, time_unit="us", strict=False)


# A cast to decimal would round a third decimal away without a word, so the text is checked, not the cast.
AMOUNT = Kind(
    "an amount such as 58.90",
    lambda text: text.str.contains(r"^\d{1,15}(\.\d{1,2})?$"),
    lambda text: text.cast(MONEY),
)
NUMBER = Kind(
    "a whole number", lambda text: text.str.contains(r"^\d{1,9}$"), lambda text: text.cast(pl.Int64)
)
TEXT = Kind("text in UTF-8", lambda text: ~text.str.contains("\ufffd", literal=True))
TIME = Kind(
    "a local time such as 2017-10-02 10:56:33", lambda text: _local_time(text).is_not_null(), _local_time
)
TIME_OR_NOTHING = Kind(TIME.expected + ", or nothing", TIME.fits, TIME.read, optional=True)


@dataclass(frozen=True, slots=True)
class Table:
    """One file: its name without ending, the columns that are used, and those that name a row."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Kind]


ORDERS = Table(
    "olist_orders_dataset",
    ("order_id",),
    {
        "order_id": TEXT,
        "customer_id": TEXT,
        "order_status": TEXT,
        "order_purchase_timestamp": TIME,
        "order_approved_at": TIME_OR_NOTHING,
        "order_delivered_carrier_date": TIME_OR_NOTHING,
        "order_delivered_customer_date": TIME_OR_NOTHING,
    },
)
ITEMS = Table(
    "olist_order_items_dataset",
    ("order_id", "order_item_id"),
    {"order_id": TEXT, "order_item_id": NUMBER, "product_id": TEXT, "price": AMOUNT, "freight_value": AMOUNT},
)
PAYMENTS = Table(
    "olist_order_payments_dataset",
    ("order_id", "payment_sequential"),
    {"order_id": TEXT, "payment_sequential": NUMBER, "payment_type": TEXT, "payment_value": AMOUNT},
)
CUSTOMERS = Table(
    "olist_customers_dataset", ("customer_id",), {"customer_id": TEXT, "customer_unique_id": TEXT}
)


@dataclass(frozen=True, slots=True)
class Read:
    """A file's good rows, and its bad ones as REJECTED.

    rows: `row` (line of the file, the header is 1), `raw` (the line) and the table's columns, in file order.
    unreadable: ids (the file's first column) of rejected rows that could not be read; a row that only repeats
    an earlier one is rejected, but not unreadable.
    """

    file: str
    rows: pl.DataFrame
    rejected: pl.DataFrame
    unreadable: pl.DataFrame


def read_table(folder: Path, table: Table) -> Read:
    """Read one file, `NAME.csv` or `NAME.csv.gz`, into typed columns.

    Raises OpenError when the file is missing, is no text, or lacks a column.
    """
    path = _find(folder, table)
    lines = _lines(path)
    header = pl.read_csv(lines[0].encode(), infer_schema=False).columns if lines[0].strip() else []
    _check_header(path, header, table)

    numbered = pl.DataFrame({"raw": lines[1:]}, schema={"raw": pl.String}).with_row_index("row", offset=2)
    numbered = numbered.cast({"row": pl.Int64}).filter(pl.col("raw") != "")
    whole = numbered["raw"].str.contains(f"^{FIELD}(?:,{FIELD}){{{len(header) - 1}}}$")
    torn = numbered.filter(~whole).with_columns(
        id=pl.col("raw").str.extract(r'^"?([^",]*)'),
        path=pl.lit(None, pl.String),
        reason=pl.lit(f"is no CSV row of {len(header)} fields"),
    )
    good = numbered.filter(whole)
    fields = pl.read_csv(
        "\n".join([lines[0], *good["raw"]]).encode(), infer_schema=False, columns=list(table.columns)
    )
    good = good.hstack(fields.select(table.columns.keys()))

    wrong = [
        pl.when(pl.col(name).is_null()).then(not kind.optional).otherwise(~kind.fits(pl.col(name)))
        for name, kind in table.columns.items()
    ]
    good = good.with_columns(
        path=pl.coalesce(pl.when(w).then(pl.lit(name)) for w, name in zip(wrong, table.columns, strict=True)),
        reason=pl.coalesce(
            pl.when(w).then(pl.format("expected {}, found {}", pl.lit(kind.expected), _shown(name)))
            for w, (name, kind) in zip(wrong, table.columns.items(), strict=True)
        ),
        id=pl.col(next(iter(table.columns))),
    )
    unreadable = pl.concat([torn, good.filter(pl.col("path").is_not_null()).select(torn.columns)])
    rows = good.filter(pl.col("path").is_null()).select(
        "row", "raw", *(kind.read(pl.col(name)).alias(name) for name, kind in table.columns.items())
    )
    again = rows.select((~pl.struct(table.key).is_first_distinct()).alias("again"))["again"]
    repeats = rows.filter(again).select(
        "raw",
        "row",
        id=table.key[0],
        path=pl.lit(", ".join(table.key)),
        reason=pl.lit("repeats the key of an earlier row, which was kept"),
    )
    return Read(
        path.name,
        rows.filter(~again),
        rejects(path.name, pl.concat([unreadable, repeats.select(torn.columns)])),
        unreadable.with_columns(place=place(path.name)),
    )


def rejects(file: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Write rows (`row`, `raw`, `id`, `path`, `reason`) of a file down as REJECTED, in the file's order."""
    return (
        rows.sort("row")
        .select(
            place=place(file),
            aggregate_id="id",
            version=pl.lit(None, pl.Int64),
            event_type=pl.lit(None, pl.String),
            path="path",
            reason="reason",
            raw="raw",
        )
        .match_to_schema(REJECTED)
    )


def place(file: str) -> pl.Expr:
    """Name a row of a file by its line, as editors and compilers do: ``file.csv:17``."""
    return pl.format("{}:{}", pl.lit(file), pl.col("row"))


def check_folder(folder: Path) -> None:
    """Make sure that all four files are there. Raises OpenError, which names the first that is not."""
    for table in (ORDERS, ITEMS, PAYMENTS, CUSTOMERS):
        _find(folder, table)


def _find(folder: Path, table: Table) -> Path:
    for ending in (".csv", ".csv.gz"):
        if (path := folder / (table.name + ending)).is_file():
            return path
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise OpenError(
        f"{folder} has no {table.name}.csv and no {table.name}.csv.gz"
        if folder.is_dir()
        else f"{folder} is no folder",
        hint=nearest(f"{table.name}.csv", there, f"{folder} has")
        or "give the folder with the files olist_{orders,order_items,order_payments,customers}_dataset.csv",
        folder=str(folder),
        missing=table.name,
    )


def _lines(path: Path) -> list[str]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise OpenError(
            f"{path} cannot be read: {error}", hint="download the file again", path=str(path)
        ) from error
    text = content.decode(errors="replace")
    return text.replace("\r\n", "\n").split("\n")


def _check_header(path: Path, header: list[str], table: Table) -> None:
    if missing := [name for name in table.columns if name not in header]:
        raise OpenError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}",
            hint=f"its first line names {', '.join(header) or 'nothing'}",
            path=str(path),
            missing=missing,
        )


def _shown(name: str) -> pl.Expr:
    return pl.format("'{}'", pl.col(name)).fill_null("nothing")
