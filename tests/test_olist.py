"""The Olist importer: every trap on four small files written here, and the facts of the real ones."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.book import Book
from titan_lab.errors import InstantError, OpenError, ReadOnly, VersionConflict
from titan_lab.event import EVENTS, REJECTED
from titan_lab.orders.olist import OlistReport, import_olist, read_olist

ORDERS = """\
"order_id","customer_id","order_status","order_purchase_timestamp","order_approved_at",\
"order_delivered_carrier_date","order_delivered_customer_date","order_estimated_delivery_date"
plain,c1,delivered,2017-10-02 10:56:33,2017-10-02 11:07:15,2017-10-04 19:55:00,2017-10-10 21:25:13,
early,c2,shipped,2018-07-05 10:00:00,2018-07-05 16:00:00,2018-07-05 12:00:00,,2018-07-18 00:00:00
gone,c3,canceled,2018-01-05 11:00:00,2018-01-05 11:00:00,,,2018-01-18 00:00:00
both,c4,canceled,2018-01-05 10:00:00,2018-01-05 11:00:00,2018-01-07 11:00:00,2018-01-06 11:00:00,
unpaid,c5,delivered,2016-09-15 12:16:38,2016-09-15 12:16:38,2016-11-07 17:11:53,2016-11-09 07:47:38,
empty,c6,unavailable,2018-01-05 10:00:00,,,,2018-01-18 00:00:00
twice,c7,created,2018-02-17 23:30:00,,,,2018-03-18 00:00:00
never,c8,created,2017-10-15 00:30:00,,,,2017-11-18 00:00:00
"od""d,1",c1,created,2018-01-05 10:00:00,,,,2018-01-18 00:00:00
"""
ITEMS = """\
"order_id","order_item_id","product_id","seller_id","shipping_limit_date","price","freight_value"
plain,3,"po""t",s1,2017-10-06 11:07:15,29.99,8.72
plain,2,"cup",s1,2017-10-06 11:07:15,0.10,0.07
plain,1,"cup",s1,2017-10-06 11:07:15,0.10,0.05
early,1,cup,s1,2018-07-06 11:07:15,0.10,1.00
gone,1,cup,s1,2018-07-06 11:07:15,12,1.5
both,1,cup,s1,2018-07-06 11:07:15,12.00,1.50
unpaid,1,cup,s1,2018-07-06 11:07:15,134.97,8.49
"""
PAYMENTS = """\
"order_id","payment_sequential","payment_type","payment_installments","payment_value"
plain,2,voucher,1,18.59
plain,1,credit_card,1,20.44
early,1,boleto,1,1.10
gone,1,credit_card,1,13.50
both,1,credit_card,1,13.52
twice,1,boleto,1,7.00
"""
CUSTOMERS = """\
"customer_id","customer_unique_id","customer_zip_code_prefix","customer_city","customer_state"
""" + "".join(f'c{n},person{n % 7},0{n}000,são paulo,"SP"\n' for n in range(1, 10))

FILES = {
    "olist_orders_dataset": ORDERS,
    "olist_order_items_dataset": ITEMS,
    "olist_order_payments_dataset": PAYMENTS,
    "olist_customers_dataset": CUSTOMERS,
}


def write(folder: Path, file: str = "", lines: str = "") -> Path:
    """Write the four files, with some more lines at the end of one."""
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        more = lines if name == f"olist_{file}_dataset" else ""
        (folder / f"{name}.csv").write_text(content + more, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path)


def life(events: pl.DataFrame, order: str) -> list[tuple]:
    """One order's events as (event_type, payload, metadata, UTC time)."""
    return [
        (
            row["event_type"],
            json.loads(row["payload"], parse_float=Decimal),
            json.loads(row["metadata"] or "null"),
            f"{row['timestamp']:%Y-%m-%d %H:%M:%S}",
        )
        for row in events.filter(aggregate_id=order).sort("version").iter_rows(named=True)
    ]


# --- MAPPING ------------------------------------------------------------------------------------------------


def test_an_order_becomes_its_life_cycle(folder: Path) -> None:
    """Four columns of time become four events; items, payments and the person come from their own files."""
    events, _ = read_olist(folder)

    assert life(events, "plain") == [
        (
            "OrderCreated",
            {
                "order_id": "plain",
                "user_id": "person1",
                "items": [
                    {"product_id": "cup", "quantity": 2, "price": Decimal("0.10")},
                    {"product_id": 'po"t', "quantity": 1, "price": Decimal("29.99")},
                ],
                "total": Decimal("30.19"),
                "freight": Decimal("8.84"),
            },
            {"schema_version": 2, "olist_status": "delivered"},
            "2017-10-02 13:56:33",
        ),
        (
            "PaymentAuthorized",
            {"amount": Decimal("39.03"), "method": "credit_card+voucher"},
            None,
            "2017-10-02 14:07:15",
        ),
        ("OrderShipped", {}, None, "2017-10-04 22:55:00"),
        ("OrderDelivered", {}, None, "2017-10-11 00:25:13"),
    ]


def test_the_frame_is_events_in_order(folder: Path) -> None:
    """The declared dtypes, sorted by the key, versions without a gap."""
    events, _ = read_olist(folder)
    versions = events.group_by("aggregate_id", maintain_order=True).agg("version")["version"].to_list()

    assert events.schema == EVENTS
    assert events.equals(events.sort("aggregate_id", "version"))
    assert all(row == list(range(1, len(row) + 1)) for row in versions)


def test_versions_follow_the_life_cycle_and_times_stay_as_written(folder: Path) -> None:
    """A parcel that left before its payment was approved is shipped after it, and stamped before it."""
    events, _ = read_olist(folder)

    assert [(kind, when) for kind, _, _, when in life(events, "early")] == [
        ("OrderCreated", "2018-07-05 13:00:00"),
        ("PaymentAuthorized", "2018-07-05 19:00:00"),
        ("OrderShipped", "2018-07-05 15:00:00"),
    ]


def test_the_three_cuts_differ_on_real_disorder(folder: Path) -> None:
    """Between the parcel and the approval, the order is created, shipped, or all of it, by the cut."""
    book = tl.from_frame(read_olist(folder)[0]).fold(tl.Order, aggregates="early")

    def state(cut: str) -> tuple:
        return book.at("2018-07-05T16:00Z", cut=cut).select("status", "paid").row(0)

    assert state("prefix") == ("CREATED", Decimal(0))
    assert state("filter") == ("SHIPPED", Decimal(0))
    assert state("latest") == ("SHIPPED", Decimal("1.10"))


@pytest.mark.parametrize(
    ("order", "when", "source"),
    [
        ("gone", "2018-01-05 13:00:00", "order_approved_at"),
        ("both", "2018-01-07 13:00:00", "order_delivered_carrier_date"),
    ],
)
def test_a_cancellation_takes_the_latest_time_and_says_so(
    folder: Path, order: str, when: str, source: str
) -> None:
    """The files have no time of cancellation, so the metadata names the column it was taken from."""
    events, report = read_olist(folder)

    assert life(events, order)[-1] == ("OrderCancelled", {}, {"imputed": {"timestamp": source}}, when)
    assert report.imputed_times == 2


def test_an_approved_order_without_a_payment_is_paid_nothing(folder: Path) -> None:
    """No amount is on record, so none is made up; the metadata and the report say so."""
    events, report = read_olist(folder)

    kind, payload, metadata, _ = life(events, "unpaid")[1]
    assert (kind, payload) == ("PaymentAuthorized", {"amount": Decimal("0.00")})
    assert metadata == {"imputed": {"amount": "no payment row"}}
    assert report.imputed_amounts == 1


def test_an_order_without_items_has_an_empty_basket(folder: Path) -> None:
    """Its total is nothing, and the report counts it."""
    events, report = read_olist(folder)

    (created,) = life(events, "empty")
    assert created[1]["items"] == []
    assert (created[1]["total"], created[1]["freight"]) == (0, 0)
    assert created[2]["olist_status"] == "unavailable"
    assert report.without_items == 4


def test_sums_are_exact_and_payments_without_approval_are_told(folder: Path) -> None:
    """Item prices, freight and payments add up to the cent, in the events and in the report."""
    events, report = read_olist(folder)
    created = [
        json.loads(text, parse_float=Decimal) for text in events.filter(event_type="OrderCreated")["payload"]
    ]
    paid = [
        json.loads(text, parse_float=Decimal)
        for text in events.filter(event_type="PaymentAuthorized")["payload"]
    ]

    assert sum(payload["total"] for payload in created) == report.price == Decimal("189.26")
    assert sum(payload["freight"] for payload in created) == report.freight == Decimal("21.33")
    assert report.payments == Decimal("74.15")
    assert (report.unapproved, report.unapproved_orders) == (Decimal("7.00"), 1)
    assert sum(payload["amount"] for payload in paid) == report.payments - report.unapproved
    assert report.unbalanced == 1  # `both` is off by two cents, `plain` by none


def test_ids_are_untrusted_text(folder: Path) -> None:
    """A quote and a comma inside an id survive the way into JSON and into the fold."""
    events, _ = read_olist(folder)

    assert life(events, 'od"d,1')[0][1]["order_id"] == 'od"d,1'
    assert tl.from_frame(events).fold(tl.Order).rejected.is_empty()


# --- ZONES --------------------------------------------------------------------------------------------------


def test_of_an_ambiguous_local_time_the_earliest_is_taken(folder: Path) -> None:
    """At the end of summer time 23:30 happened twice; the report names the zone, the count and the rule."""
    events, report = read_olist(folder)

    assert life(events, "twice")[0][3] == "2018-02-18 01:30:00"
    assert report.ambiguous == 1
    assert "America/Sao_Paulo; 1 happened twice: the earliest was taken" in report.rule


def test_a_local_time_that_never_happened_is_read_as_if_clocks_had_not_jumped(folder: Path) -> None:
    """At the start of summer time 00:30 was skipped: it is half an hour after midnight of the old offset."""
    events, report = read_olist(folder)

    assert life(events, "never")[0][3] == "2017-10-15 03:30:00"
    assert report.missing == 1


def test_another_zone_gives_other_instants(folder: Path) -> None:
    """In UTC nothing is ambiguous, and local times are the instants."""
    events, report = read_olist(folder, zone="UTC")

    assert life(events, "plain")[0][3] == "2017-10-02 10:56:33"
    assert (report.ambiguous, report.missing) == (0, 0)


def test_an_unknown_zone_is_refused(folder: Path) -> None:
    """Before anything is read."""
    with pytest.raises(InstantError, match="Brasilia"):
        read_olist(folder, zone="America/Brasilia")


# --- REJECTS ------------------------------------------------------------------------------------------------

# fault: file, the line added to it, its number, what the reason says, and the order that is held back for it
BROKEN = {
    "an order's purchase time": (
        "orders",
        "bad,c9,created,2018-13-05 10:00:00,,,,x",
        11,
        "'2018-13-05 10:00:00'",
        "bad",
    ),
    "a time with a zone": (
        "orders",
        "bad,c9,created,2018-01-05 10:00:00,2018-01-05T10:00:00Z,,,x",
        11,
        "local time",
        "bad",
    ),
    "an order without a status": ("orders", "bad,c9,,2018-01-05 10:00:00,,,,x", 11, "found nothing", "bad"),
    "an order of nobody": (
        "orders",
        "bad,nobody,created,2018-01-05 10:00:00,,,,x",
        11,
        "has the customer nobody",
        "bad",
    ),
    "an order with a field too few": ("orders", "bad,c9,created", 11, "is no CSV row of 8 fields", "bad"),
    "an order with a field too many": (
        "orders",
        "bad,c9,created,2018-01-05 10:00:00,,,,x,y",
        11,
        "is no CSV row of 8",
        "bad",
    ),
    "a quote that never closes": (
        "orders",
        '"bad,c9,created,2018-01-05 10:00:00,,,,x',
        11,
        "is no CSV row of 8",
        "bad",
    ),
    "an order again": ("orders", "plain,c9,created,2018-01-05 10:00:00,,,,x", 11, "repeats the key", None),
    "an item's price": (
        "order_items",
        "plain,4,cup,s,d,1e3,0.10",
        9,
        "an amount such as 58.90, found '1e3'",
        "plain",
    ),
    "an item's third decimal": ("order_items", "plain,4,cup,s,d,1.005,0.10", 9, "found '1.005'", "plain"),
    "an item with a field too few": ("order_items", "plain,4,cup,s,d,1.00", 9, "is no CSV row of 7", "plain"),
    "an item of no order": ("order_items", "stray,1,cup,s,d,1.00,0.10", 9, "has this order", None),
    "an item that names no order": ("order_items", ",1,cup,s,d,1.00,0.10", 9, "found nothing", None),
    "a payment's amount": ("order_payments", "plain,3,voucher,1,R$ 5", 8, "found 'R$ 5'", "plain"),
    "a payment again": ("order_payments", "gone,1,credit_card,1,13.50", 8, "repeats the key", None),
    "a customer who is no person": ("customers", "c99,,1,x,SP", 11, "found nothing", None),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_row_that_cannot_be_read_is_rejected_with_its_place(fault: str, tmp_path: Path) -> None:
    """It is listed once, with file, line, reason and text; of the other orders nothing is lost."""
    file, line, number, reason, held = BROKEN[fault]
    whole, _ = read_olist(write(tmp_path / "whole"))
    events, report = read_olist(write(tmp_path / "broken", file, line + "\n"))

    (told,) = report.rejected.filter(place=f"olist_{file}_dataset.csv:{number}").iter_rows(named=True)
    assert report.rejected.schema == REJECTED
    assert reason in told["reason"]
    assert told["raw"] == line
    assert told["aggregate_id"] == (None if file == "customers" else line.split(",")[0].strip('"') or None)
    assert events.equals(whole.filter(pl.col("aggregate_id") != (held or "")))


def test_an_order_is_imported_whole_or_not_at_all(tmp_path: Path) -> None:
    """One unreadable item holds back all rows of its order, and each says where the fault is."""
    _, report = read_olist(write(tmp_path, "order_items", "plain,4,cup,s,d,1e3,0.10\n"))

    assert report.rejected.select("place", "aggregate_id", "path").rows() == [
        ("olist_orders_dataset.csv:2", "plain", "order_id"),
        ("olist_order_items_dataset.csv:2", "plain", "order_id"),
        ("olist_order_items_dataset.csv:3", "plain", "order_id"),
        ("olist_order_items_dataset.csv:4", "plain", "order_id"),
        ("olist_order_items_dataset.csv:9", "plain", "price"),
        ("olist_order_payments_dataset.csv:2", "plain", "order_id"),
        ("olist_order_payments_dataset.csv:3", "plain", "order_id"),
    ]
    held = report.rejected.filter(path="order_id")["reason"].unique().to_list()
    assert held == ["its order is held back: see olist_order_items_dataset.csv:9"]


def test_a_mended_file_adds_what_was_held_back(tmp_path: Path) -> None:
    """After the fault is mended, the next import adds just that order, as it should have been."""
    log = tl.open("memory://", writable=True)
    import_olist(write(tmp_path, "order_items", "plain,4,cup,s,d,1e3,0.10\n"), log)
    again = import_olist(write(tmp_path, "order_items", "plain,4,cup,s,d,1.30,0.10\n"), log)

    assert (again.added, again.present) == (4, 19)
    assert life(log.read(), "plain")[0][1]["total"] == Decimal("31.49")


# --- FILES --------------------------------------------------------------------------------------------------


def test_gzipped_files_and_those_of_another_editor_read_the_same(folder: Path, tmp_path: Path) -> None:
    """As .csv.gz, with a byte order mark, carriage returns, empty lines, or no end of the last line."""
    other = tmp_path / "other"
    other.mkdir()
    for name, content in FILES.items():
        lines = content.replace("\n", "\r\n")
        text = "\ufeff" + lines.rstrip() if "orders" in name else lines + "\r\n\r\n"
        (other / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    events, report = read_olist(other)

    assert events.equals(read_olist(folder)[0])
    assert report.rejected.is_empty()


def test_a_missing_file_is_named(folder: Path) -> None:
    """With both names it could have, and the folder."""
    (folder / "olist_order_items_dataset.csv").unlink()

    with pytest.raises(
        OpenError, match=r"has no olist_order_items_dataset\.csv and no olist_order_items_dataset\.csv\.gz"
    ):
        read_olist(folder)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """And the hint says which four files are wanted."""
    with pytest.raises(OpenError, match="nowhere is no folder") as raised:
        read_olist(tmp_path / "nowhere")
    assert "olist_{orders,order_items,order_payments,customers}_dataset.csv" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "lacks the columns order_id, customer_id"),
        (b"order_id,customer_id,order_status\n", "lacks the columns order_purchase_timestamp"),
        (b"\x1f\x8b broken", "cannot be read"),
    ],
)
def test_a_file_of_another_kind_is_refused(folder: Path, content: bytes, says: str) -> None:
    """An empty file, one without the columns, and one that is damaged: the error names it."""
    (folder / "olist_orders_dataset.csv").unlink()
    gzipped = content if content.startswith(b"\x1f") else gzip.compress(content)
    (folder / "olist_orders_dataset.csv.gz").write_bytes(gzipped)

    with pytest.raises(OpenError, match=says) as raised:
        read_olist(folder)
    assert "olist_orders_dataset.csv.gz" in str(raised.value)


def test_files_without_rows_are_no_orders(tmp_path: Path) -> None:
    """Only headers: nothing to import, and nothing wrong."""
    for name, content in FILES.items():
        (tmp_path / f"{name}.csv").write_text(content.splitlines()[0] + "\n", encoding="utf-8")
    events, report = read_olist(tmp_path)

    assert events.schema == EVENTS
    assert (report.orders, report.events, report.rejected.height) == (0, 0, 0)
    assert (report.price, report.payments) == (Decimal(0), Decimal(0))


# --- IMPORT -------------------------------------------------------------------------------------------------


def test_importing_twice_adds_nothing(folder: Path) -> None:
    """The second report says that every event was there already."""
    log = tl.open("memory://", writable=True)
    first, second = import_olist(folder, log), import_olist(folder, log)

    assert (first.added, first.present) == (23, 0)
    assert (second.added, second.present) == (0, 23)
    assert len(log) == 23


def test_an_interrupted_import_is_taken_up_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two batches, the next run adds the rest; progress counts all events."""
    monkeypatch.setattr("titan_lab.orders.olist.BATCH", 5)
    log = tl.open("memory://", writable=True)

    def stop(done: int, _: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_olist(folder, log, progress=stop)
    steps: list[tuple[int, int]] = []
    report = import_olist(folder, log, progress=lambda done, of: steps.append((done, of)))

    assert (report.added, report.present) == (13, 10)
    assert steps == [(0, 23), (5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]


def test_another_zone_over_the_same_log_is_a_conflict(folder: Path) -> None:
    """The events would be others, so the log keeps what it has."""
    log = tl.open("memory://", writable=True)
    import_olist(folder, log)

    with pytest.raises(VersionConflict):
        import_olist(folder, log, zone="UTC")
    assert len(log) == 23


def test_a_log_opened_for_reading_takes_nothing(folder: Path, tmp_path: Path) -> None:
    """The importer needs writable=True, as every writer does."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    tl.open(url, writable=True)

    with pytest.raises(ReadOnly):
        import_olist(folder, tl.open(url))


def test_the_report_can_be_read_by_people(tmp_path: Path) -> None:
    """As text and in a notebook: what was added, what was imputed, which rule was used; and no raw markup."""
    line = "odd,c9,<b>new</b>,2018-01-05 10:00:00,,,,x\n"
    report = import_olist(write(tmp_path, "orders", line), tl.open("memory://", writable=True))

    assert repr(report) == "OlistReport(orders=10, events=24, added=24, present=0, rejected=0)"
    assert "  OrderCreated                            10\n" in str(report)
    assert "the earliest was taken" in str(report)
    assert "<b>new</b>" in str(report)
    assert "&lt;b&gt;new&lt;/b&gt;" in report._repr_html_()


# --- THE REAL FILES -----------------------------------------------------------------------------------------


def real_folder() -> Path | None:
    """Find the reader's own copy: where TITAN_OLIST points, or beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "olist"
    named = os.environ.get("TITAN_OLIST")
    return Path(named) if named else beside if beside.is_dir() else None


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OlistReport, str]:
    """Import the real files once: their folder, the report, and the URL of the log."""
    folder = real_folder()
    if folder is None:
        pytest.skip("set TITAN_OLIST to a folder with the four Olist CSV files to check the facts about them")
    url = f"sqlite:///{tmp_path_factory.mktemp('olist') / 'olist.db'}"
    return folder, import_olist(folder, tl.open(url, writable=True)), url


@pytest.fixture(scope="module")
def events(real: tuple[Path, OlistReport, str]) -> pl.DataFrame:
    return tl.open(real[2]).read()


def test_the_real_files_make_393481_events(real: tuple[Path, OlistReport, str], events: pl.DataFrame) -> None:
    """One event per known time and one per cancellation, nothing rejected, all of them in the log."""
    _, report, _ = real

    assert events.height == report.added == report.events == 393_481
    assert report.orders == events["aggregate_id"].n_unique() == 99_441
    assert dict(events["event_type"].value_counts().iter_rows()) == report.by_type
    assert report.by_type == {
        "OrderCreated": 99_441,
        "PaymentAuthorized": 99_281,
        "OrderShipped": 97_658,
        "OrderDelivered": 96_476,
        "OrderCancelled": 625,
    }
    assert report.rejected.is_empty()


def test_the_real_orders_end_as_their_status_says(
    real: tuple[Path, OlistReport, str], events: pl.DataFrame
) -> None:
    """The files' own status is kept in the first event's metadata, and counted."""
    status = events.filter(version=1)["metadata"].str.json_path_match("$.olist_status").alias("status")

    assert dict(status.value_counts().iter_rows()) == real[1].by_status
    assert real[1].by_status == {
        "delivered": 96_478,
        "shipped": 1_107,
        "canceled": 625,
        "unavailable": 609,
        "invoiced": 314,
        "processing": 301,
        "created": 5,
        "approved": 2,
    }


def test_the_real_orders_have_one_to_five_events(
    real: tuple[Path, OlistReport, str], events: pl.DataFrame
) -> None:
    """Four in nearly all of them."""
    lengths = events.group_by("aggregate_id").agg(pl.len().cast(pl.Int64).alias("n"))["n"].value_counts()

    assert dict(lengths.sort("n").iter_rows()) == real[1].by_length
    assert real[1].by_length == {1: 5, 2: 1_368, 3: 1_538, 4: 96_524, 5: 6}


def test_the_real_disorder_is_kept(events: pl.DataFrame) -> None:
    """Times that contradict the life cycle stay as they are; so many orders have each kind."""
    at = events.pivot("event_type", index="aggregate_id", values="timestamp")
    back = (pl.col("timestamp") < pl.col("timestamp").shift(1)).over("aggregate_id")
    cancelled = at.filter(pl.col("OrderCancelled").is_not_null() & pl.col("OrderDelivered").is_not_null())

    def earlier(one: str, other: str) -> int:
        return at.filter(pl.col(one) < pl.col(other)).height

    assert earlier("OrderShipped", "PaymentAuthorized") == 1_359
    assert earlier("OrderShipped", "OrderCreated") == 166
    assert earlier("OrderDelivered", "OrderShipped") == 23
    assert earlier("OrderDelivered", "PaymentAuthorized") == 61
    assert events.filter(back)["aggregate_id"].n_unique() == 1_382
    assert cancelled.height == 6


def test_what_the_real_files_do_not_say_is_told(
    real: tuple[Path, OlistReport, str], events: pl.DataFrame
) -> None:
    """Imputed times and amounts carry a note, and the report counts them."""
    _, report, _ = real
    imputed = events.filter(pl.col("metadata").str.contains('"imputed"'))

    assert imputed.filter(event_type="OrderCancelled").height == report.imputed_times == 625
    assert imputed.filter(event_type="PaymentAuthorized").height == report.imputed_amounts == 1
    assert report.without_items == 775
    assert report.unbalanced == 303
    assert (report.ambiguous, report.missing) == (22, 0)


def test_the_real_sums_agree_to_the_cent(real: tuple[Path, OlistReport, str], events: pl.DataFrame) -> None:
    """Prices, freight and payments as in the files; payments never approved make up the difference."""
    _, report, _ = real
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for text in events.filter(pl.col("event_type").is_in(["OrderCreated", "PaymentAuthorized"]))["payload"]:
        for field, value in json.loads(text, parse_float=Decimal).items():
            if isinstance(value, Decimal):
                sums[field] += value

    assert sums["total"] == report.price == Decimal("13591643.70")
    assert sums["freight"] == report.freight == Decimal("2251909.54")
    assert sums["amount"] + report.unapproved == report.payments == Decimal("16008872.12")


def test_importing_the_real_files_twice_adds_nothing(real: tuple[Path, OlistReport, str]) -> None:
    """Into the same file, in a second run."""
    folder, _, url = real
    again = import_olist(folder, tl.open(url, writable=True))

    assert (again.added, again.present) == (0, 393_481)


def rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    path = folder / f"olist_{name}_dataset.csv"
    text = (
        path.read_text("utf-8")
        if path.exists()
        else gzip.decompress(Path(f"{path}.gz").read_bytes()).decode()
    )
    yield from csv.DictReader(text.splitlines())


@pytest.fixture(scope="module")
def by_hand(real: tuple[Path, OlistReport, str]) -> list[tuple]:
    """Every order's events read off the CSV rows with nothing but the standard library."""
    folder, zone = real[0], ZoneInfo("America/Sao_Paulo")
    price, paid = defaultdict(Decimal), defaultdict(Decimal)
    for row in rows(folder, "order_items"):
        price[row["order_id"]] += Decimal(row["price"])
    for row in rows(folder, "order_payments"):
        paid[row["order_id"]] += Decimal(row["payment_value"])
    orders = []
    for row in rows(folder, "orders"):
        times = [
            (status, datetime.fromisoformat(row[column]).replace(tzinfo=zone).astimezone(UTC))
            for status, column in (
                ("CREATED", "order_purchase_timestamp"),
                ("PAID", "order_approved_at"),
                ("SHIPPED", "order_delivered_carrier_date"),
                ("DELIVERED", "order_delivered_customer_date"),
            )
            if row[column]
        ]
        if row["order_status"] == "canceled":
            times.append(("CANCELLED", max(time for _, time in times)))
        orders.append((row["order_id"], times, price[row["order_id"]], paid[row["order_id"]]))
    return orders


@pytest.fixture(scope="module")
def book(real: tuple[Path, OlistReport, str]) -> Book:
    return tl.open(real[2]).fold(tl.Order)


@pytest.mark.parametrize("instant", ["2017-11-24T15:00:00Z", "2018-07-05T18:00:00Z", "2018-08-20T18:00:00Z"])
@pytest.mark.parametrize("cut", ["prefix", "filter", "latest"])
def test_an_instant_agrees_with_a_plain_loop_over_the_rows(
    book: Book, by_hand: list[tuple], instant: str, cut: str
) -> None:
    """Status, total and money paid of every order, on a busy Friday and on two days of real disorder."""
    moment, expected = datetime.fromisoformat(instant), []
    for order, times, total, paid in by_hand:
        inside = [place for place, (_, time) in enumerate(times) if time <= moment]
        if cut == "prefix":
            while inside and inside != list(range(len(inside))):
                inside.pop()
        if cut == "latest" and inside:
            inside = list(range(inside[-1] + 1))
        if inside:
            names = [times[place][0] for place in inside]
            created, approved = "CREATED" in names, "PAID" in names
            expected.append(
                (order, inside[-1] + 1, names[-1], total if created else None, paid if approved else 0)
            )

    states = book.at(instant, cut=cut, columns=["status", "total", "paid"])

    assert states.select("aggregate_id", "version", "status", "total", "paid").rows() == sorted(expected)
    assert len(expected) > 30_000


def test_the_cuts_differ_on_hundreds_of_real_orders(book: Book) -> None:
    """On the evening of 2018-07-05, 413 orders were in disorder at once."""
    assert book.cuts("2018-07-05T18:00Z").height == 413


def test_the_notebook_about_real_orders_holds_on_the_real_files(
    real: tuple[Path, OlistReport, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asserts is asserted of all 99,441; beside them, the samples stand in."""
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", str(root))
    asked = {"olist": str(real[0]), "step": "1w", "period": "1mo"}

    run = tl.run_job(root / "notebooks" / "06_real_orders.ipynb", asked, out=tmp_path, timeout="5m")

    assert run.status == "ok", run.error
    assert run.results["orders"] == 99_441
