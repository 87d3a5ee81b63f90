"""What the morning report counts, on a handful of orders that can be counted by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.backends.contract import Frontier
from titan_lab.orders import daily

NOW = datetime(2025, 1, 15, tzinfo=UTC)
DAY = timedelta(days=1)
ITEMS = [{"product_id": "p", "quantity": 1, "price": 10}]


@pytest.fixture
def book():
    lives = {
        # id: (days before NOW, what happened, payload)
        "waits": [(9, "OrderCreated", {"user_id": "u", "items": ITEMS, "total": 10})],
        "paid": [
            (2, "OrderCreated", {"user_id": "u", "items": ITEMS * 2, "total": 20}),
            (1, "PaymentAuthorized", {"amount": "20.10"}),
            (0, "RefundIssued", {"amount": "0.10"}),
        ],
        "shipped": [
            (20, "OrderCreated", {"user_id": "u", "items": ITEMS, "total": 10}),
            (8, "PaymentAuthorized", {"amount": 10}),
            (0.5, "OrderShipped", {}),
        ],
        "done": [
            (20, "OrderCreated", {"user_id": "u", "items": ITEMS, "total": 10}),
            (19, "PaymentAuthorized", {"amount": 10}),
            (18, "OrderShipped", {}),
            (3, "OrderDelivered", {}),
            (2, "RefundIssued", {"amount": 4}),
        ],
        "cancelled": [
            (1, "OrderCreated", {"user_id": "u", "items": ITEMS, "total": 10}),
            (0.9, "OrderCancelled", {}),
        ],
        "tomorrow": [(-1, "OrderCreated", {"user_id": "u", "items": ITEMS, "total": 10})],
    }
    rows = [
        {"case": key, "what": kind, "time": NOW - days * DAY, "data": json.dumps(payload)}
        for key, life in lives.items()
        for days, kind, payload in life
    ]
    log = tl.from_frame(
        pl.DataFrame(rows),
        aggregate_id="case",
        event_type="what",
        timestamp="time",
        payload="data",
    )
    assert log.rejected.is_empty()
    return log.fold(tl.Order)


def test_open_orders_are_counted_by_status(book):
    """Delivered and cancelled ones are not open; a status nobody has is 0, not missing."""
    assert daily.open_orders(book.at(NOW)) == {"CREATED": 1, "PAID": 1, "SHIPPED": 1}
    assert daily.open_orders(book.at(NOW - 30 * DAY)) == {"CREATED": 0, "PAID": 0, "SHIPPED": 0}


def test_money_in_flight_is_what_was_paid_less_refunds_until_it_is_delivered(book):
    """20.10 - 0.10 of the paid one and 10 of the shipped one; exactly."""
    assert daily.money_in_flight(book.at(NOW)) == Decimal("30.00")
    assert daily.money_in_flight(book.at(NOW - 30 * DAY)) == Decimal("0.00")


def test_refunds_of_a_window_begin_exclusive_and_end_inclusive(book):
    """The one issued at this very instant counts; a window that begins at a refund leaves that one out."""
    assert daily.refunded_between(book, NOW - DAY, NOW) == Decimal("0.10")
    assert daily.refunded_between(book, NOW - 7 * DAY, NOW) == Decimal("4.10")
    assert daily.refunded_between(book, NOW - 2 * DAY, NOW) == Decimal("0.10")


def test_moves_count_each_window_once(book):
    """An order created exactly a day ago belongs to the day before, and never to both."""
    moved = daily.moves(book.at(NOW), NOW)

    assert moved.columns == ["moved", "last_24h", "day_before", "last_7d", "week_before"]
    assert dict(zip(moved["moved"], moved.drop("moved").rows(), strict=True)) == {
        "created": (0, 1, 2, 1),
        "paid": (0, 1, 1, 1),
        "shipped": (1, 0, 1, 0),
        "delivered": (0, 0, 1, 0),
        "cancelled": (1, 0, 1, 0),
    }


def test_the_longest_wait_is_measured_in_the_present_status(book):
    """An old order that was shipped this noon has waited half a day."""
    oldest = daily.oldest_open(book.at(NOW), NOW, 2)

    assert oldest["aggregate_id"].to_list() == ["waits", "paid"]
    every = daily.oldest_open(book.at(NOW), NOW, 99)
    assert every["waiting"].to_list() == [9 * DAY, DAY, DAY / 2]
    assert every["age"].to_list() == [9 * DAY, 2 * DAY, 20 * DAY]
    assert every["lines"].to_list() == [1, 2, 1]


def test_flat_states_can_be_written_as_csv(book):
    """One row per order, no nested column left."""
    states = book.at(NOW)

    text = daily.flat(states).write_csv()

    assert len(text.splitlines()) == len(states) + 1
    assert "lines" in text.splitlines()[0]


def test_freshness_says_when_the_question_goes_beyond_the_store():
    """An early, a late and an empty store."""
    known = Frontier(NOW, "the end of the file")

    assert daily.freshness(known, NOW) == "Complete: the store reaches beyond this moment."
    assert "not in here" in daily.freshness(known, NOW + DAY)
    assert daily.freshness(Frontier(None, ""), NOW) == "The store holds no event."
