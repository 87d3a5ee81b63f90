"""The book: every state of every order, and one look for each question about the past."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import titan_lab as tl
from titan_lab.clock import iso
from titan_lab.errors import DeclarationError, InstantError, NoSuchColumn, SpineError
from titan_lab.event import EVENTS

ROW = ["aggregate_id", "version", "valid_from", "valid_to"]


def life(aggregate_id: str, *told: tuple[str, str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Write one order's events, (time of day, type, payload) each, on the first of January 2025."""
    return [
        (aggregate_id, version, kind, json.dumps(payload), None, day(clock))
        for version, (clock, kind, payload) in enumerate(told, start=1)
    ]


def day(clock: str) -> datetime:
    return tl.instant(f"2025-01-01T{clock}Z")


def book_of(*lives: list[tuple[Any, ...]], zone: str | None = None) -> Any:
    frame = pl.DataFrame([row for one in lives for row in one], schema=EVENTS, orient="row")
    return tl.from_frame(frame, zone=zone).fold(tl.Order)


def created(clock: str, total: str, user: str = "ann") -> tuple[str, str, dict[str, Any]]:
    return (clock, "OrderCreated", {"user_id": user, "items": [], "total": total})


PHONE = life(
    "phone",
    created("10:00", "100.00"),
    ("10:01", "PaymentAuthorized", {"amount": "100.00"}),
    ("12:00", "OrderShipped", {"tracking": "T1"}),
)
TEA = life("tea", created("11:00", "20.00", "bob"), ("11:30", "OrderCancelled", {"reason": "cold"}))
# Paid in a transaction that began last and was written second: its version and its timestamp disagree.
RACE = life(
    "race",
    created("09:00:00", "5.00"),
    ("09:00:02", "PaymentAuthorized", {"amount": "5.00"}),
    ("09:00:01", "OrderShipped", {"tracking": "T2"}),
)


@pytest.fixture(scope="module")
def book() -> Any:
    return book_of(TEA, PHONE)


# --- at -----------------------------------------------------------------------------------------------------


def test_a_look_at_an_instant_gives_one_row_for_each_order_that_existed(book: Any) -> None:
    """Sorted by id; an order that was created later is not there."""
    assert book.at("2025-01-01T10:30Z", columns=["status", "paid"]).rows() == [
        ("phone", 2, "PAID", Decimal("100.00"))
    ]
    assert book.at("2025-01-01T11:45Z", columns=["status"]).rows() == [
        ("phone", 2, "PAID"),
        ("tea", 2, "CANCELLED"),
    ]


def test_an_instant_is_inclusive_to_the_microsecond(book: Any) -> None:
    """At the very moment of an event it has happened; a microsecond earlier it has not."""
    eleven = day("11:00")
    assert book.at(eleven)["aggregate_id"].to_list() == ["phone", "tea"]
    assert book.at(eleven - timedelta(microseconds=1))["aggregate_id"].to_list() == ["phone"]


def test_every_row_says_from_when_until_when_it_held(book: Any) -> None:
    """valid_to is the instant of the next event, and null for what holds still."""
    assert book.at("2025-01-01T11:00Z", columns=["valid_from", "valid_to"]).rows() == [
        ("phone", 2, day("10:01"), day("12:00")),
        ("tea", 1, day("11:00"), day("11:30")),
    ]
    assert book.at("2025-01-01T13:00Z")["valid_to"].to_list() == [None, None]


def test_all_columns_come_with_their_declared_types(book: Any) -> None:
    """Money is decimal, instants are aware, the state is an Enum; also when no order existed yet."""
    declared = {"aggregate_id": pl.String, "version": pl.Int64, "valid_from": EVENTS["timestamp"]}
    for moment in ("2025-01-01T13:00Z", "1999-01-01"):
        frame = book.at(moment)
        assert frame.columns == [*ROW, *tl.Order.reducers]
        assert {name: frame.schema[name] for name in declared} == declared
        assert {name: frame.schema[name] for name in tl.Order.schema()} == dict(tl.Order.schema())
    assert frame.is_empty()


def test_an_instant_far_ahead_is_the_present(book: Any) -> None:
    """Thirty years on, nothing more is known."""
    assert book.at("2055-01-01").equals(book.at("2025-01-01T12:00Z"))


def test_an_event_thirty_years_ahead_does_not_hide_the_present() -> None:
    """A clock that ran wild concerns its own order, from then on."""
    wild = [
        ("wild", 1, "OrderCreated", '{"user_id": "u", "items": []}', None, datetime(2055, 1, 1, tzinfo=UTC))
    ]
    book = book_of(PHONE, wild)
    assert book.at("2025-01-02")["aggregate_id"].to_list() == ["phone"]
    assert book.at("2055-01-01")["aggregate_id"].to_list() == ["phone", "wild"]


def test_a_look_at_a_version_gives_every_order_as_old_and_the_younger_ones_as_they_are(book: Any) -> None:
    """After its second event an order is paid or cancelled; tea never had a third."""
    assert book.at(version=2, columns="status").rows() == [("phone", 2, "PAID"), ("tea", 2, "CANCELLED")]
    assert book.at(version=3, columns="status").rows() == [("phone", 3, "SHIPPED"), ("tea", 2, "CANCELLED")]
    assert book.at(version=0).is_empty()


def test_events_of_the_same_microsecond_follow_their_versions() -> None:
    """One transaction wrote all three: at its instant, the last one holds."""
    book = book_of(
        life(
            "quick",
            created("10:00", "1.00"),
            ("10:00", "PaymentAuthorized", {"amount": 1}),
            ("10:00", "OrderShipped", {}),
        )
    )
    assert book.at("2025-01-01T10:00Z", columns="status").rows() == [("quick", 3, "SHIPPED")]


def test_neither_or_both_of_instant_and_version_is_an_error(book: Any) -> None:
    """The hint shows one of each."""
    for asked in ({}, {"when": "2025-01-01", "version": 1}):
        with pytest.raises(InstantError, match="needs an instant or a version") as caught:
            book.at(**asked)
        assert "at(version=3)" in str(caught.value.hint)


def test_a_column_that_is_not_there_is_answered_with_near_ones(book: Any) -> None:
    """The error lists all columns and suggests the one that was meant."""
    for ask in (book.at, book.history):
        with pytest.raises(NoSuchColumn, match=r"no column 'totl'.*refunded") as caught:
            ask("2025-01-01", columns=["totl"])
        assert "'total'" in str(caught.value.hint)


# --- the three cuts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "version", "status", "paid"),
    [("prefix", 1, "CREATED", "0.00"), ("filter", 3, "SHIPPED", "0.00"), ("latest", 3, "SHIPPED", "5.00")],
)
def test_one_moment_within_a_race_has_three_answers(cut: Any, version: int, status: str, paid: str) -> None:
    """At 09:00:01 version 3 is stamped and version 2 is not: wait for it, skip it, or take it along."""
    answer = book_of(RACE, PHONE).at("2025-01-01T09:00:01Z", cut=cut, columns=["status", "paid"])
    assert answer.rows() == [("race", version, status, Decimal(paid))]


def test_the_report_of_cuts_lists_the_orders_on_which_they_differ() -> None:
    """Before and after the race all agree; orders whose clocks never step back are never in it."""
    book = book_of(RACE, PHONE, TEA)
    assert book.cuts("2025-01-01T09:00:01Z").to_dicts() == [
        {
            "aggregate_id": "race",
            "prefix": 1,
            "prefix_events": 1,
            "filter": 3,
            "filter_events": 2,
            "latest": 3,
            "latest_events": 3,
        }
    ]
    assert book.cuts("2025-01-01T09:00:00Z").is_empty()
    assert book.cuts("2025-01-01T09:00:02Z").is_empty()


def test_a_cut_that_does_not_exist_is_an_error_that_names_the_three(book: Any) -> None:
    """prefix, filter, latest."""
    with pytest.raises(InstantError, match="'now' is no cut") as caught:
        book.at("2025-01-01", cut="now")
    assert str(caught.value.hint) == "the cuts are prefix, filter, latest"


# --- history ------------------------------------------------------------------------------------------------


def test_the_history_has_a_row_for_every_event(book: Any) -> None:
    """Sorted by (aggregate_id, version), each with the span in which it held."""
    history = book.history(columns=["status", "valid_to"])
    assert history.rows() == [
        ("phone", 1, "CREATED", day("10:01")),
        ("phone", 2, "PAID", day("12:00")),
        ("phone", 3, "SHIPPED", None),
        ("tea", 1, "CREATED", day("11:30")),
        ("tea", 2, "CANCELLED", None),
    ]


def test_a_window_keeps_what_held_at_some_moment_in_it(book: Any) -> None:
    """From noon on: what was shipped at noon, and the cancelled tea; what ended at noon is not in it."""
    window = book.history(since="2025-01-01T12:00Z", columns="status")
    assert window.rows() == [("phone", 3, "SHIPPED"), ("tea", 2, "CANCELLED")]
    window = book.history(since="2025-01-01T10:30Z", until="2025-01-01T11:00Z", columns="status")
    assert window.rows() == [("phone", 2, "PAID"), ("tea", 1, "CREATED")]


def test_a_state_that_was_overtaken_by_an_earlier_stamp_held_for_no_time() -> None:
    """Version 3 of the race counts as soon as version 2 does, so version 2 is never seen."""
    spans = book_of(RACE).history(columns=["valid_from", "valid_to"])
    assert spans["valid_from"].to_list() == [day("09:00"), day("09:00:02"), day("09:00:02")]
    assert spans["valid_to"].to_list() == [day("09:00:02"), day("09:00:02"), None]


# --- as of --------------------------------------------------------------------------------------------------


def spine(*labels: tuple[str | None, str | None]) -> pl.DataFrame:
    rows = [(name, None if clock is None else day(clock)) for name, clock in labels]
    return pl.DataFrame(
        rows, schema={"aggregate_id": pl.String, "ts": EVENTS["timestamp"]}, orient="row"
    ).with_row_index("label")


def test_a_point_in_time_join_keeps_every_row_of_the_spine_in_its_order(book: Any) -> None:
    """Twice the same label, an id nobody has, a moment too early, no id and no moment: all come back."""
    labels = spine(
        ("tea", "11:30"),
        ("phone", "10:00"),
        ("phone", "10:00"),
        ("nobody", "12:00"),
        ("tea", "10:59:59"),
        (None, "12:00"),
        ("phone", None),
    )
    answer = book.asof(labels, columns=["status"])
    assert answer.drop("status", "version", "state_age").equals(labels)
    assert answer["status"].to_list() == ["CANCELLED", "CREATED", "CREATED", None, None, None, None]
    assert answer["version"].to_list() == [2, 1, 1, None, None, None, None]


def test_a_label_at_the_moment_of_an_event_sees_it_and_one_just_before_does_not(book: Any) -> None:
    """As everywhere, an instant is inclusive."""
    answer = book.asof(spine(("phone", "12:00"), ("phone", "11:59:59.999999")), columns="status")
    assert answer["status"].to_list() == ["SHIPPED", "PAID"]
    assert answer["state_age"].to_list() == [
        timedelta(0),
        timedelta(hours=1, minutes=58, seconds=59, microseconds=999999),
    ]


def test_a_state_older_than_the_ttl_is_no_answer(book: Any) -> None:
    """Exactly as old as the ttl is young enough."""
    labels = spine(("tea", "11:45"), ("tea", "11:45:00.000001"))
    assert book.asof(labels, ttl="15m")["status"].to_list() == ["CANCELLED", None]
    assert book.asof(labels, ttl=timedelta(days=1))["status"].null_count() == 0


@pytest.mark.parametrize(
    "make", [lambda frame: frame, pl.DataFrame.to_pandas, pl.DataFrame.to_arrow, pl.DataFrame.lazy]
)
def test_any_frame_can_be_the_spine_under_any_names(book: Any, make: Any) -> None:
    """Columns are named by the caller; a prefix keeps the state's apart."""
    labels = spine(("tea", "11:30")).rename({"aggregate_id": "who", "ts": "when"})
    answer = book.asof(make(labels), on="when", by="who", columns=["status"], prefix="was_")
    assert answer.columns == ["label", "who", "when", "was_version", "was_status", "was_state_age"]
    assert answer["was_status"].to_list() == ["CANCELLED"]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_moments_of_any_zone_and_unit_are_compared_as_instants(book: Any, unit: Any) -> None:
    """06:01 in New York's winter minus an hour is 10:01Z: the payment is seen."""
    local = pl.Series([day("10:01")]).dt.convert_time_zone("Atlantic/Bermuda").dt.cast_time_unit(unit)
    assert str(local[0].utcoffset()) == "-1 day, 20:00:00"
    answer = book.asof(pl.DataFrame({"aggregate_id": ["phone"], "ts": local}), columns="status")
    assert answer["status"].to_list() == ["PAID"]
    assert answer["ts"].to_list() == [day("10:01")]


def test_ids_that_would_collide_when_glued_together_stay_apart() -> None:
    """("1", 23) and ("12", 3) are two places."""
    lives = [
        life(name, *[created("10:00", f"{n}.00") for n in range(1, size + 1)])
        for name, size in (("1", 23), ("12", 3))
    ]
    answer = book_of(*lives).asof(spine(("1", "10:00"), ("12", "10:00"), ("123", "10:00")), columns="total")
    assert answer["total"].to_list() == [Decimal(23), Decimal(3), None]


@pytest.mark.parametrize(
    ("bad", "message", "hint"),
    [
        (pl.DataFrame({"aggregate_id": ["a"]}), "has no column 'ts'; it has aggregate_id", "on="),
        (pl.DataFrame({"ts": [day("10:00")]}), "has no column 'aggregate_id'", "by="),
        (pl.DataFrame({"aggregate_id": ["a"], "tss": [day("10:00")]}), "has no column 'ts'", "'tss'"),
        (pl.DataFrame({"aggregate_id": ["a"], "ts": [datetime(2025, 1, 1)]}), "naive", "replace_time_zone"),
        (pl.DataFrame({"aggregate_id": ["a"], "ts": ["2025-01-01T00:00Z"]}), "no datetime", "to_datetime"),
        (spine(("a", "10:00")).with_columns(status=pl.lit(1)), "same name already: status", "prefix="),
        (7, "no frame", ""),
    ],
)
def test_a_spine_that_cannot_be_joined_is_an_error_that_says_how(
    book: Any, bad: Any, message: str, hint: str
) -> None:
    """Missing columns, naive times and names that collide."""
    with pytest.raises(SpineError, match=message) as caught:
        book.asof(bad)
    assert hint in str(caught.value)


def test_an_empty_spine_gives_an_empty_frame_with_all_columns(book: Any) -> None:
    """So that a pipeline on a quiet day does not break."""
    answer = book.asof(spine())
    assert answer.is_empty()
    assert answer.columns == ["label", "aggregate_id", "ts", "version", *tl.Order.reducers, "state_age"]


# --- every --------------------------------------------------------------------------------------------------


def test_a_grid_counts_the_orders_in_each_state_at_each_instant(book: Any) -> None:
    """Dense: a state that occurs at all has a row at every instant, with 0 where nobody is in it."""
    grid = book.every("1h", "2025-01-01T10:00Z", "2025-01-01T12:00Z", measure="total")
    assert grid.rows() == [
        (day("10:00"), "CREATED", 1, Decimal("100.00")),
        (day("10:00"), "PAID", 0, Decimal("0.00")),
        (day("10:00"), "SHIPPED", 0, Decimal("0.00")),
        (day("10:00"), "CANCELLED", 0, Decimal("0.00")),
        (day("11:00"), "CREATED", 1, Decimal("20.00")),
        (day("11:00"), "PAID", 1, Decimal("100.00")),
        (day("11:00"), "SHIPPED", 0, Decimal("0.00")),
        (day("11:00"), "CANCELLED", 0, Decimal("0.00")),
        (day("12:00"), "CREATED", 0, Decimal("0.00")),
        (day("12:00"), "PAID", 0, Decimal("0.00")),
        (day("12:00"), "SHIPPED", 1, Decimal("100.00")),
        (day("12:00"), "CANCELLED", 1, Decimal("20.00")),
    ]


def test_a_grid_by_any_column_or_by_none(book: Any) -> None:
    """Values are sorted as their column sorts; by=None counts all orders together."""
    noon, early = "2025-01-01T12:00Z", "2024-01-01T12:00Z"
    assert book.every("1h", early, early, by=None).rows() == [(tl.instant(early), 0)]
    assert tl.open("memory://").fold(tl.Order).every("1h", early, early, by=None).height == 1
    assert book.every("1h", noon, noon, by="user_id").rows() == [
        (day("12:00"), "ann", 1),
        (day("12:00"), "bob", 1),
    ]
    assert book.every("1h", noon, noon, by=None).rows() == [(day("12:00"), 2)]


def test_a_day_of_the_grid_is_a_day_of_the_zone(book: Any) -> None:
    """When Berlin's clocks go forward, on 30 March 2025, a day has 23 hours."""
    grid = book.every("1d", "2025-03-29", "2025-04-01", by=None, zone="Europe/Berlin")
    hours = grid["instant"].diff().drop_nulls().dt.total_hours().to_list()
    assert hours == [24, 23, 24]
    assert grid["instant"][0] == tl.instant("2025-03-28T23:00Z")


def test_a_day_whose_midnight_was_skipped_begins_when_the_clocks_went_on(book: Any) -> None:
    """In São Paulo, 15 October 2017 began at 01:00, which is 03:00Z: the same as the bare date means."""
    grid = book.every("1d", "2017-10-14", "2017-10-16", by=None, zone="America/Sao_Paulo")
    days = [tl.instant(f"2017-10-{day}", "America/Sao_Paulo") for day in (14, 15, 16)]
    assert grid["instant"].to_list() == days
    assert [iso(day) for day in days] == [
        "2017-10-14T03:00:00Z",
        "2017-10-15T03:00:00Z",
        "2017-10-16T02:00:00Z",
    ]


def test_hours_are_hours_whatever_the_clocks_do(book: Any) -> None:
    """Only days and longer steps follow the calendar; an hour that is skipped or doubled is still an hour."""
    for day in ("2025-03-30", "2025-10-26"):
        grid = book.every("1h", day, day + "T12:00:00Z", by=None, zone="Europe/Berlin")
        assert set(grid["instant"].diff().drop_nulls()) == {timedelta(hours=1)}


def test_a_grid_spans_the_history_when_nobody_says_otherwise(book: Any) -> None:
    """From the first event to the last."""
    assert book.every("1h", by=None)["instant"].to_list() == [day("10:00"), day("11:00"), day("12:00")]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"step": "often"}, InstantError, "is no step"),
        ({"step": "1h", "since": "2025-01-02", "until": "2025-01-01"}, InstantError, "before it begins"),
        ({"step": "1h", "by": "stauts"}, NoSuchColumn, "stauts"),
        ({"step": "1h", "by": "version"}, NoSuchColumn, "version"),
        ({"step": "1h", "measure": "tracking"}, DeclarationError, "cannot be added up"),
        ({"step": "1h", "since": datetime(2025, 1, 1)}, InstantError, "no time zone"),
        ({"step": "0h"}, InstantError, "is no step"),
        ({"step": "-1h"}, InstantError, "is no step"),
    ],
)
def test_a_grid_that_makes_no_sense_is_an_error(book: Any, asked: dict, error: Any, message: str) -> None:
    """A step that is none, an end before its beginning, a column that is none or cannot be added up."""
    with pytest.raises(error, match=message):
        book.every(**asked)


# --- what a book knows of itself ----------------------------------------------------------------------------


def test_an_empty_log_folds_to_an_empty_book_that_answers_everything() -> None:
    """No special cases for whoever runs the job on the first day."""
    book = tl.open("memory://").fold(tl.Order)
    assert len(book) == 0
    assert book.at("2025-01-01").columns == [*ROW, *tl.Order.reducers]
    assert book.at(version=1, cut="filter").is_empty()
    assert book.at("2025-01-01", cut="filter").is_empty()
    assert book.history().is_empty()
    assert book.history("2025-01-01", "2025-01-02").is_empty()
    assert book.cuts("2025-01-01").is_empty()
    assert book.every("1d", "2025-01-01", "2025-01-02").is_empty()
    assert book.asof(spine(("a", "10:00")))["status"].to_list() == [None]
    assert "no events" in repr(book)


def test_types_nobody_declared_are_kept_counted_and_change_nothing_but_the_version() -> None:
    """An order that was archived is as it was, one version on."""
    archived = [*PHONE, ("phone", 4, "OrderArchived", '{"by": "robot"}', None, day("13:00"))]
    book = book_of(archived)
    before, after = book.at("2025-01-01T12:00Z"), book.at("2025-01-01T13:00Z")
    assert after.drop("version", "valid_from", "valid_to").equals(
        before.drop("version", "valid_from", "valid_to")
    )
    assert after["version"].to_list() == [4]
    assert book.undeclared == {"OrderArchived": 1}
    assert book.rejected.is_empty()


def test_the_basis_says_what_an_answer_rests_on(book: Any) -> None:
    """The source, up to when it is complete, the declaration's fingerprint, and how many events."""
    assert book.basis.source == "memory://frame"
    assert book.basis.frontier.startswith("2025-01-01T12:00:00Z")
    assert (book.basis.fingerprint, book.basis.events) == (tl.Order.fingerprint(), 5)


def test_a_book_read_in_the_logs_zone_takes_naive_moments() -> None:
    """13:00 in Berlin is noon in UTC."""
    book = book_of(PHONE, zone="Europe/Berlin")
    assert book.at("2025-01-01T13:00:00", columns="status")["status"].to_list() == ["SHIPPED"]
    assert book.at(datetime(2025, 1, 1, 12, 59), columns="status")["status"].to_list() == ["PAID"]


def test_an_order_of_ten_thousand_events_is_read_to_its_end() -> None:
    """No page, batch or limit cuts a long life short."""
    paid = [("10:00:01", "PaymentAuthorized", {"amount": "0.01"})] * 10_000
    book = book_of(PHONE, life("long", created("10:00:00", "1.00"), *paid), TEA)
    assert book["long"].now.paid == Decimal("100.00")
    assert book.at(version=5_001, columns="paid").row(0) == ("long", 5_001, Decimal("50.00"))
    assert len(book.history()) == 10_006


def test_frames_go_on_to_pandas_and_arrow(book: Any) -> None:
    """One call away, decimals and zones included."""
    frame = book.at("2025-01-01T12:00Z")
    assert isinstance(frame.to_arrow(), pa.Table)
    assert isinstance(frame.to_pandas(), pd.DataFrame)
    assert str(frame.to_pandas()["valid_from"].dtype) == "datetime64[us, UTC]"
