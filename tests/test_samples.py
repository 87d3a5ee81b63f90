"""The sample orders: what they promise to contain, and that the committed files hold just that."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import titan_lab as tl
from titan_lab.event import EVENTS
from titan_lab.orders import sample
from titan_lab.orders.lives import KETTLE_OFFER

SAMPLES = Path(__file__).parents[1] / "data" / "samples"


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return sample.sample_events()


@pytest.fixture(scope="module")
def told(events: pl.DataFrame) -> pl.DataFrame:
    """The events with what the tests look at inside payload and metadata, and the clock step before each."""
    text = {
        name: pl.col("metadata").str.json_path_match(f"$.{name}")
        for name in ("correlation_id", "causation_id", "schema_version", "effective_at")
    }
    return events.with_columns(
        **text,
        user_id=pl.col("payload").str.json_path_match("$.user_id"),
        has_total=pl.col("payload").str.contains('"total":'),
        has_quantity=pl.col("payload").str.contains('"quantity":'),
        step=(pl.col("timestamp") - pl.col("timestamp").shift(1)).over("aggregate_id"),
        before=pl.col("event_type").shift(1).over("aggregate_id"),
    )


def money(events: pl.DataFrame, event_type: str, field: str = "amount") -> dict[str, Decimal]:
    """Sum a field of an event type per order, exactly, with Python's own JSON."""
    sums: dict[str, Decimal] = {}
    for order, payload in events.filter(event_type=event_type).select("aggregate_id", "payload").iter_rows():
        sums[order] = sums.get(order, Decimal(0)) + json.loads(payload, parse_float=Decimal)[field]
    return sums


# --- FILES --------------------------------------------------------------------------------------------------


def test_the_sqlite_file_holds_the_generated_events(events: pl.DataFrame) -> None:
    """Read with plain sqlite3, the rows are the generator's, timestamps as ISO-8601 text in UTC."""
    query = "SELECT * FROM order_events ORDER BY aggregate_id, version"
    with closing(sqlite3.connect(SAMPLES / "orders.db")) as database:
        rows = database.execute(query).fetchall()

    expected = events.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")).rows()

    assert rows == expected


def test_the_parquet_file_holds_the_generated_events(events: pl.DataFrame) -> None:
    """Read with polars, the file is the generator's frame, dtypes included."""
    assert_frame_equal(pl.read_parquet(SAMPLES / "orders.parquet"), events)


def test_the_json_lines_hold_the_generated_events(events: pl.DataFrame) -> None:
    """Read with json, each line is one event; payload and metadata are objects, not text."""
    with gzip.open(SAMPLES / "orders.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line, parse_float=Decimal) for line in lines]

    def parsed(text: str | None) -> object:
        return None if text is None else json.loads(text, parse_float=Decimal)

    assert rows == [
        {
            **row,
            "payload": parsed(row["payload"]),
            "metadata": parsed(row["metadata"]),
            "timestamp": row["timestamp"].isoformat().replace("+00:00", "Z"),
        }
        for row in events.iter_rows(named=True)
    ]


def test_the_files_stay_under_four_megabytes() -> None:
    """All three together, so that a clone stays quick."""
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 4_000_000


def test_writing_the_samples_twice_gives_equal_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says what it wrote; a second run over existing files changes none of their bytes."""
    sample.main(str(tmp_path))
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sample.main(str(tmp_path))
    second = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert sorted(first) == ["orders.db", "orders.jsonl.gz", "orders.parquet"]
    assert first == second
    printed = capsys.readouterr().out
    assert all(f"{len(content):,} bytes  {tmp_path}/{name}\n" in printed for name, content in first.items())


# --- GENERATOR ----------------------------------------------------------------------------------------------


def test_the_frame_is_events_in_order_and_without_gaps(events: pl.DataFrame) -> None:
    """The declared dtypes, sorted by the key, versions 1, 2, 3 ... in every order."""
    versions = events.group_by("aggregate_id", maintain_order=True).agg("version")

    assert events.schema == EVENTS
    assert_frame_equal(events, events.sort("aggregate_id", "version"))
    assert all(row == list(range(1, len(row) + 1)) for row in versions["version"].to_list())


def test_the_core_reads_every_sample_event() -> None:
    """Nothing in the samples is rejected, neither as an event nor by the declared payloads."""
    log = tl.open(f"sqlite:///{SAMPLES / 'orders.db'}")
    book = log.fold(tl.Order)

    assert log.rejected.is_empty()
    assert book.rejected.is_empty()


def test_one_seed_gives_one_history() -> None:
    """The same arguments give the same frame, another seed another one."""
    assert_frame_equal(sample.sample_events(60, long_order=0), sample.sample_events(60, long_order=0))
    assert not sample.sample_events(60, 7, 0).equals(sample.sample_events(60, 8, 0))


def test_more_orders_only_add_to_fewer() -> None:
    """An order depends on the seed and its number, not on how many are asked for."""
    few, many = sample.sample_events(60, long_order=0), sample.sample_events(90, long_order=0)

    assert few["aggregate_id"].n_unique() == 60
    assert_frame_equal(many.filter(pl.col("aggregate_id").is_in(few["aggregate_id"].implode())), few)


@pytest.mark.parametrize("length", [5, 6, 7, 1_000])
def test_the_standing_order_is_as_long_as_asked(length: int) -> None:
    """Also where a return and its refund would overshoot by one."""
    long = sample.sample_events(2, long_order=length).filter(aggregate_id=sample.COFFEE)

    assert long.height == length
    assert long["event_type"][-1] == "OrderDelivered"


# --- WHAT IT PROMISES ---------------------------------------------------------------------------------------

T = pl.col("event_type")
FEATURES = {
    "orders of schema 1, without a quantity": (T == "OrderCreated")
    & pl.col("schema_version").is_null()
    & ~pl.col("has_quantity"),
    "orders of schema 2, with quantities": (T == "OrderCreated")
    & (pl.col("schema_version") == "2")
    & pl.col("has_quantity"),
    "schema 1 with a total": (T == "OrderCreated") & pl.col("schema_version").is_null() & pl.col("has_total"),
    "schema 1 without a total": (T == "OrderCreated")
    & pl.col("schema_version").is_null()
    & ~pl.col("has_total"),
    "schema 2 without a total": (T == "OrderCreated")
    & (pl.col("schema_version") == "2")
    & ~pl.col("has_total"),
    "modifications with a total": (T == "OrderModified") & pl.col("has_total"),
    "modifications without one": (T == "OrderModified") & ~pl.col("has_total"),
    "cancellations before payment": (T == "OrderCancelled") & (pl.col("before") == "OrderCreated"),
    "cancellations before shipping": (T == "OrderCancelled") & (pl.col("before") == "PaymentAuthorized"),
    "cancellations after shipping": (T == "OrderCancelled") & (pl.col("before") == "OrderShipped"),
    "cancellations that raced the parcel": (T == "OrderCancelled")
    & (pl.col("before") == "OrderShipped")
    & (pl.col("step") < timedelta(0)),
    "deliveries of what was cancelled": (T == "OrderDelivered") & (pl.col("before") == "OrderCancelled"),
    "returns": T == "ItemsReturned",
    "corrections": T == "OrderCorrected",
    "backdated corrections": (T == "OrderCorrected") & pl.col("effective_at").is_not_null(),
    "corrections that hold from now on": (T == "OrderCorrected") & pl.col("effective_at").is_null(),
    "payments in two parts": (T == "PaymentAuthorized") & (pl.col("before") == "PaymentAuthorized"),
    "refunds in two parts": (T == "RefundIssued") & (pl.col("before") == "RefundIssued"),
    "clock inversions of milliseconds": pl.col("step").is_between(
        timedelta(seconds=-1), timedelta(0), closed="none"
    ),
    "clock inversions of minutes": pl.col("step") < timedelta(minutes=-1),
    "equal timestamps": pl.col("step") == timedelta(0),
    "events caused by events": pl.col("causation_id").str.contains("/"),
    "events caused by commands": pl.col("causation_id").str.starts_with("cmd-"),
    "events without metadata": pl.col("metadata").is_null(),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_small_orders_show(feature: str, told: pl.DataFrame) -> None:
    """Each feature occurs at least twice among the orders that are not told in full."""
    drawn = told.filter(~pl.col("aggregate_id").is_in([sample.PHONE, sample.COFFEE]))

    assert drawn.filter(FEATURES[feature]).height >= 2


def test_a_version_is_stamped_at_most_minutes_before_its_predecessor(told: pl.DataFrame) -> None:
    """Transactions last milliseconds to a few minutes, so timestamps step back by no more than that."""
    assert told["step"].min() > timedelta(minutes=-7)


def test_an_order_that_has_not_left_is_cancelled_after_its_last_step(told: pl.DataFrame) -> None:
    """Only a parcel on its way can be raced; nobody cancels what was never ordered."""
    resting = told.filter((T == "OrderCancelled") & (pl.col("before") != "OrderShipped"))

    assert resting.height > 20
    assert resting["step"].min() > timedelta(minutes=3)


def test_requests_correlate_events_within_and_across_orders(told: pl.DataFrame) -> None:
    """Pick-up runs, split carts and one mass correction span orders; most requests stay within one."""
    requests = (
        told.filter(pl.col("correlation_id").is_not_null())
        .group_by("correlation_id")
        .agg(orders=pl.col("aggregate_id").n_unique(), types=pl.col("event_type").unique())
    )
    across = requests.filter(pl.col("orders") > 1)

    assert across.filter(pl.col("correlation_id").str.starts_with("run-")).height > 10
    assert across.filter(pl.col("types").list.contains("OrderCreated")).height > 5
    assert across.filter(pl.col("types").list.contains("OrderCorrected"))["correlation_id"].to_list() == [
        "req-kettle-offer"
    ]
    assert requests.filter((pl.col("orders") == 1) & (pl.col("types").list.len() > 1)).height > 100


def test_the_kettle_offer_was_applied_late_and_backdated(told: pl.DataFrame) -> None:
    """One request corrects several orders, each as of its purchase, and pays the difference back."""
    fixes = told.filter(correlation_id="req-kettle-offer", event_type="OrderCorrected")
    bought = told.filter(event_type="OrderCreated").select("aggregate_id", "payload", bought="timestamp")
    joined = fixes.join(bought, on="aggregate_id", suffix="_created")

    assert joined.height > 5
    assert (joined["effective_at"].str.to_datetime(time_zone="UTC", time_unit="us") == joined["bought"]).all()
    assert joined["payload_created"].str.contains("kettle-1.7l").all()
    refunds = money(told.filter(correlation_id="req-kettle-offer"), "RefundIssued").values()
    assert {refund % (Decimal("39.90") - Decimal(KETTLE_OFFER) / 100) for refund in refunds} == {
        Decimal("0.00")
    }


def test_every_total_is_the_sum_of_its_items(events: pl.DataFrame) -> None:
    """To the cent, in each payload that states a total."""
    seen = 0
    for text in events.filter(pl.col("payload").str.contains('"total":'))["payload"]:
        payload = json.loads(text, parse_float=Decimal)
        assert payload["total"] == sum(item.get("quantity", 1) * item["price"] for item in payload["items"])
        seen += 1
    assert seen > 400


def test_refunds_never_exceed_payments(events: pl.DataFrame) -> None:
    """Partial refunds leave money with the shop, full ones leave none, and none leaves less."""
    paid, refunded = money(events, "PaymentAuthorized"), money(events, "RefundIssued")
    kept = {order: paid[order] - back for order, back in refunded.items()}

    assert min(kept.values()) == 0
    assert sum(left == 0 for left in kept.values()) > 20
    assert sum(left > 0 for left in kept.values()) > 20


def test_an_order_that_ran_smoothly_is_paid_in_full() -> None:
    """What was paid and not refunded is the total, for each delivered order without returns and goodwill."""
    events = sample.sample_events(long_order=0)
    states = tl.from_frame(events).fold(tl.Order).at("2025-02-11")
    special = events.filter(
        T.is_in(["ItemsReturned"])
        | (T == "RefundIssued") & pl.col("payload").str.contains("late delivery|goodwill")
    )
    smooth = states.filter(status="DELIVERED").join(special, on="aggregate_id", how="anti")

    assert smooth.height > 250
    assert (
        smooth.filter(pl.col("paid") - pl.col("refunded") != pl.col("total"))["aggregate_id"].to_list() == []
    )


def test_people_come_back(told: pl.DataFrame) -> None:
    """Several users have several orders, and one has many."""
    per_user = told.filter(event_type="OrderCreated")["user_id"].value_counts()["count"]

    assert (per_user > 1).sum() > 50
    assert per_user.max() >= 5


def test_nobody_is_named(events: pl.DataFrame) -> None:
    """Users are numbers, staff are roles, and a card shows two digits."""
    users = events["metadata"].str.json_path_match("$.user_id").drop_nulls().unique()
    cards = events["payload"].str.json_path_match("$.card").drop_nulls().unique()

    assert users.str.contains(r"^(\d{5}|(desk|dock)-\d|cafe-\d{3})$").all()
    assert cards.str.contains(r"^\*\*\d\d$").all()
    assert len(cards) > 20


def test_orders_follow_the_day_and_the_week(events: pl.DataFrame) -> None:
    """Few orders by night, fewer on a weekend day than on a weekday; the warehouse rests on Sundays."""
    created = events.filter(event_type="OrderCreated")["timestamp"]
    by_day = created.dt.weekday().value_counts().sort("timestamp")["count"].to_list()
    night = created.dt.hour().is_between(0, 5).sum()

    assert night < len(created) / 15
    assert sum(by_day[5:]) / 2 < sum(by_day[:5]) / 5
    assert (
        events.filter(T.is_in(["OrderShipped"]) & (pl.col("aggregate_id") != sample.COFFEE))["timestamp"]
        .dt.weekday()
        .max()
        == 5
    )


def test_the_history_ends_where_it_says(events: pl.DataFrame) -> None:
    """From 2025-01-01 to before 2025-02-11, with orders still open at the end."""
    assert events["timestamp"].min() >= datetime(2025, 1, 1, tzinfo=UTC)
    assert datetime(2025, 2, 10, tzinfo=UTC) < events["timestamp"].max() < datetime(2025, 2, 11, tzinfo=UTC)
    assert events.group_by("aggregate_id").agg(T.last()).filter(event_type="OrderShipped").height > 10


# --- TOLD IN FULL -------------------------------------------------------------------------------------------


def test_the_phone_order_can_be_followed_step_by_step() -> None:
    """Bought, paid, changed, shipped, delivered, partly returned, refunded, corrected."""
    story = tl.open(f"sqlite:///{SAMPLES / 'orders.db'}").fold(tl.Order)[sample.PHONE]

    def state(instant: str) -> tuple:
        now = story.at(instant)
        return now.version, now.status, now.total, now.paid, now.refunded

    assert not story.at("2025-01-01T09:59:59Z")
    assert state("2025-01-01T10:00Z") == (1, "CREATED", Decimal("999.00"), 0, 0)
    assert state("2025-01-01T10:01Z") == (2, "PAID", Decimal("999.00"), Decimal("999.00"), 0)
    assert state("2025-01-01T14:00Z") == (5, "SHIPPED", Decimal("1018.90"), Decimal("1018.90"), 0)
    assert state("2025-01-05") == (6, "DELIVERED", Decimal("1018.90"), Decimal("1018.90"), 0)
    assert state("2025-01-10") == (8, "DELIVERED", Decimal("1018.90"), Decimal("1018.90"), Decimal("19.90"))
    assert state("2025-01-21") == (11, "DELIVERED", Decimal("968.90"), Decimal("1018.90"), Decimal("79.90"))


def test_the_three_cuts_differ_on_the_phone_order_while_its_correction_is_booked() -> None:
    """A refund stamped before the correction it follows: what counts at 11:04 depends on the cut."""
    book = tl.open(f"sqlite:///{SAMPLES / 'orders.db'}").fold(tl.Order, aggregates=sample.PHONE)

    def state(cut: str) -> tuple:
        return book.at("2025-01-14T11:04Z", cut=cut).select("version", "total", "refunded").row(0)

    assert state("prefix") == (8, Decimal("1018.90"), Decimal("19.90"))
    assert state("filter") == (10, Decimal("1018.90"), Decimal("69.90"))
    assert state("latest") == (10, Decimal("968.90"), Decimal("69.90"))


def test_the_standing_order_has_ten_thousand_believable_events(told: pl.DataFrame) -> None:
    """Changes, returns and refunds, none beyond what was paid, from January to February."""
    coffee = told.filter(aggregate_id=sample.COFFEE)
    counts = dict(coffee["event_type"].value_counts().iter_rows())
    returned = coffee.filter(event_type="ItemsReturned")["payload"].str.json_path_match("$.items[0].quantity")

    assert coffee.height == 10_000
    assert counts["OrderModified"] > counts["RefundIssued"] == counts["ItemsReturned"] > 2_000
    assert money(coffee, "RefundIssued")[sample.COFFEE] == returned.cast(pl.Int64).sum() * Decimal("11.80")
    assert coffee["timestamp"].max() - coffee["timestamp"].min() > timedelta(days=38)
    assert coffee.filter((pl.col("step") == timedelta(0)) | (pl.col("step") < timedelta(0))).height > 2_000
