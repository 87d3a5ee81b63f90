"""One order's life: what it was, and what each event changed."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.errors import InstantError, NoSuchAggregate
from titan_lab.event import EVENTS, records

TOLD = [
    (
        "10:00:00",
        "OrderCreated",
        {"user_id": "ann", "items": [{"product_id": "tea", "price": 10}], "total": 10},
    ),
    ("10:00:05", "PaymentAuthorized", {"amount": "10.00", "card": "**34"}),
    ("10:00:03", "OrderShipped", {"tracking": "T1"}),  # stamped before the payment it followed
    ("10:00:09", "OrderArchived", {"by": "robot"}),
    ("10:00:10", "RefundIssued", {"amount": "2.50"}),
    ("10:00:11", "RefundIssued", {"amount": "0.05"}),
]


def clock(text: str) -> Any:
    return tl.instant(f"2025-01-01T{text}Z")


@pytest.fixture(scope="module")
def log() -> tl.EventLog:
    rows = [
        ("tea-order", version, kind, json.dumps(payload), '{"correlation_id": "req-1"}', clock(time))
        for version, (time, kind, payload) in enumerate(TOLD, start=1)
    ]
    other = ("tea-order-2", 1, "OrderCreated", '{"user_id": "bob", "items": []}', None, clock("09:00:00"))
    return tl.from_frame(pl.DataFrame([*rows, other], schema=EVENTS, orient="row"))


@pytest.fixture
def story(log: tl.EventLog) -> Any:
    return log.fold(tl.Order)["tea-order"]


def test_a_story_is_looked_at_by_instant(story: Any) -> None:
    """The state's columns are attributes; what they were before is a look at an earlier moment."""
    created, refunded = story.at("2025-01-01T10:00:00Z"), story.at("2025-01-01T10:00:10Z")
    assert (created.version, created.status, created.paid) == (1, "CREATED", Decimal(0))
    assert (refunded.version, refunded.status, refunded.refunded) == (5, "SHIPPED", Decimal("2.50"))
    assert story.now == story.at("2055-01-01")
    assert story.now["refunded"] == Decimal("2.55")


def test_a_story_is_looked_at_by_version(story: Any) -> None:
    """Version n is the state after n events; a version beyond the last is the last."""
    assert [story.at(version=n).status for n in range(1, 5)] == ["CREATED", "PAID", "SHIPPED", "SHIPPED"]
    assert story.at(version=99) == story.now


def test_before_its_first_event_an_order_is_nothing(story: Any) -> None:
    """The state is falsy, of version 0, with every column as it begins."""
    for nothing in (story.at("2024-12-31"), story.at(version=0)):
        assert not nothing
        assert (nothing.aggregate_id, nothing.version) == ("tea-order", 0)
        assert (nothing.status, nothing.paid) == (None, Decimal(0))
        assert "no event yet" in repr(nothing)


def test_the_same_moment_has_three_answers_where_clocks_disagree(story: Any) -> None:
    """At 10:00:03 the parcel is stamped as shipped, and the payment before it is not."""
    moment = "2025-01-01T10:00:03Z"
    told = {cut: story.at(moment, cut=cut) for cut in ("prefix", "filter", "latest")}
    assert {cut: (state.version, state.status, state.paid) for cut, state in told.items()} == {
        "prefix": (1, "CREATED", Decimal(0)),
        "filter": (3, "SHIPPED", Decimal(0)),
        "latest": (3, "SHIPPED", Decimal(10)),
    }


@pytest.mark.parametrize("cut", ["prefix", "filter", "latest"])
@pytest.mark.parametrize("second", range(-1, 13))
def test_a_story_and_the_book_agree_at_every_moment(story: Any, cut: Any, second: int) -> None:
    """One order's answer is its row among all orders', its span included."""
    moment = clock("10:00:00") + timedelta(seconds=second)
    state = story.at(moment, cut=cut)
    rows = story.book.at(moment, cut=cut).filter(aggregate_id="tea-order").to_dicts()
    assert len(rows) == bool(state)
    for row in rows:
        own = {"version": state.version, "valid_from": state.valid_from, "valid_to": state.valid_to}
        assert state.as_dict() | own | {"aggregate_id": "tea-order"} == row


def test_a_story_ends_where_the_fold_event_by_event_ends(log: tl.EventLog, story: Any) -> None:
    """The columns' answer is the specification's, records and all."""
    folded = tl.Order.fold(records(log.events("tea-order")))
    assert folded.version == story.now.version
    assert folded.items[0].price == story.now.items[0]["price"] == Decimal(10)
    assert {**folded.as_dict(), "items": None} == {**story.now.as_dict(), "items": None}


def test_the_log_tells_what_each_event_changed(story: Any) -> None:
    """One row for each event; a second refund changes the sum, a robot's archiving nothing."""
    told = story.log()
    assert told.select("version", "event_type", "changed").rows() == [
        (1, "OrderCreated", ["id", "user_id", "items", "status", "total", "created_at"]),
        (2, "PaymentAuthorized", ["status", "paid", "paid_at"]),
        (3, "OrderShipped", ["status", "tracking", "shipped_at"]),
        (4, "OrderArchived", []),
        (5, "RefundIssued", ["refunded"]),
        (6, "RefundIssued", ["refunded"]),
    ]


def test_the_log_shows_payloads_as_they_are_stored_and_from_when_they_count(story: Any) -> None:
    """The parcel, stamped at :03, counts from :05 on, with the payment it followed."""
    told = story.log()
    assert told["payload"].to_list() == [json.dumps(payload) for _, _, payload in TOLD]
    assert set(told["metadata"]) == {'{"correlation_id": "req-1"}'}
    assert told["timestamp"].to_list() == [clock(time) for time, _, _ in TOLD]
    late = told.filter(pl.col("counted_from") != pl.col("timestamp"))
    assert late.select("version", "counted_from").rows() == [(3, clock("10:00:05"))]


def test_a_storys_history_is_its_part_of_the_books(story: Any) -> None:
    """Row for row, with the columns that were asked for."""
    whole = story.book.history().filter(aggregate_id="tea-order")
    assert story.history().equals(whole)
    assert story.history("total").columns == ["aggregate_id", "version", "total"]
    assert len(story) == 6


def test_an_id_nobody_has_is_answered_with_near_ones(log: tl.EventLog) -> None:
    """By the book, and by the log; ids that begin alike come first."""
    book = log.fold(tl.Order)
    for ask in (book.__getitem__, log.events):
        with pytest.raises(NoSuchAggregate, match="no aggregate 'tea-ordre'") as caught:
            ask("tea-ordre")
        assert "'tea-order'" in str(caught.value.hint)
    with pytest.raises(NoSuchAggregate) as caught:
        book["tea"]
    assert str(caught.value.hint) == "did you mean 'tea-order' or 'tea-order-2'?"
    assert ("tea-order" in book, "tea" in book, None in book) == (True, False, False)


def test_an_id_in_an_empty_book_is_answered_plainly() -> None:
    """There is nothing to suggest."""
    book = tl.open("memory://").fold(tl.Order)
    with pytest.raises(NoSuchAggregate) as caught:
        book["order-1"]
    assert "no events" in str(caught.value.hint)


@pytest.mark.parametrize("asked", [{}, {"when": "2025-01-01", "version": 1}, {"when": 3}])
def test_a_story_asked_for_no_moment_shows_how_to_ask(story: Any, asked: dict) -> None:
    """A bare number could be a version or a time; it is neither until it is named."""
    with pytest.raises(InstantError) as caught:
        story.at(**asked)
    assert ".at(version=3)" in str(caught.value.hint)


def test_a_misspelt_column_of_a_state_is_answered_with_the_columns(story: Any) -> None:
    """As attributes of objects are."""
    with pytest.raises(AttributeError, match=r"no column 'totl'; it has .*total"):
        story.now.totl  # noqa: B018


def test_a_state_that_was_handed_out_cannot_change_the_book(story: Any) -> None:
    """Whoever appends to its list changes a list of their own."""
    story.now.items.append("junk")
    story.now.as_dict()["status"] = "LOST"
    assert (len(story.now.items), story.now.status) == (1, "SHIPPED")


def test_a_payload_is_untrusted_text_in_every_notebook_view() -> None:
    """What a customer typed is shown, never run."""
    evil = "<script>alert(1)</script>"
    row = (evil, 1, "OrderCreated", json.dumps({"user_id": evil, "items": []}), None, clock("10:00:00"))
    log = tl.from_frame(pl.DataFrame([row], schema=EVENTS, orient="row"))
    book = log.fold(tl.Order)
    for shown in (log, book, book[evil], book[evil].now):
        assert "<script>" not in shown._repr_html_()
