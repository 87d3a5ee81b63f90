"""What a notebook shows of a log, a book, a story and a state."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.story import SHOWN

NASTY = "<script>alert('x')</script>"
START = datetime(2025, 1, 1, 10, tzinfo=UTC)


def text(made: str) -> str:
    """Take off the markup, as a reader does."""
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", made, flags=re.DOTALL).split())


def book_of(*events: tuple[str, dict], stamps: list[datetime] | None = None):
    rows = [
        {
            "aggregate_id": "a-1",
            "event_type": kind,
            "payload": json.dumps(payload),
            "timestamp": START + timedelta(minutes=n),
        }
        for n, (kind, payload) in enumerate(events)
    ]
    frame = pl.DataFrame(rows)
    if stamps:
        frame = frame.with_columns(timestamp=pl.Series(stamps))
    return tl.from_frame(frame).fold(tl.Order)


def created(**also) -> tuple[str, dict]:
    items = [
        {"product_id": "cup", "quantity": 2, "price": "3.50"},
        {"product_id": "pot", "quantity": 1, "price": "19.00"},
    ]
    return "OrderCreated", {"user_id": "u-7", "items": items, "total": "26.00", **also}


PAID = ("PaymentAuthorized", {"amount": "26.00"})


def test_a_state_is_one_line_of_what_it_holds():
    """Money plain, moments in UTC, neither what is not there nor the id twice."""
    state = book_of(created(), PAID)["a-1"].now

    assert repr(state) == (
        "<state of a-1 at version 2: user_id=u-7, status=PAID, total=26.00, paid=26.00, refunded=0.00,"
        " created_at=2025-01-01 10:00:00Z, paid_at=2025-01-01 10:01:00Z>"
    )


def test_a_state_draws_every_record_of_its_lists():
    """Two lines of an order are two rows, not '2 x' the first."""
    shown = text(book_of(created())["a-1"].now._repr_html_())

    assert "a-1 at version 1" in shown
    assert "items product_id quantity price cup 2 3.50 pot 1 19.00" in shown
    assert "held from 2025-01-01 10:00:00Z and holds still" in shown


def test_a_state_says_until_when_it_held():
    """The moment at which the next event took over."""
    shown = text(book_of(created(), PAID)["a-1"].at(version=1)._repr_html_())

    assert "held from 2025-01-01 10:00:00Z until 2025-01-01 10:01:00Z" in shown


def test_no_state_says_so():
    """Before the first event there is nothing to draw."""
    state = book_of(created())["a-1"].at("2024-12-31")

    assert repr(state) == "<no state: a-1 had no event yet>"
    assert text(state._repr_html_()) == "a-1 had no event yet"


def test_a_story_tells_what_each_event_changed_and_to_what():
    """A moment that is the event's own is only named; an event that changes nothing says that."""
    story = book_of(created(), PAID, ("ItemsReturned", {"items": []}))["a-1"]

    shown = text(story._repr_html_())

    assert "user_id u-7, items (2), status CREATED, total 26.00, created_at" in shown
    assert "2 PaymentAuthorized 2025-01-01 10:01:00Z status PAID, paid 26.00, paid_at" in shown
    assert "3 ItemsReturned 2025-01-01 10:02:00Z nothing" in shown
    assert "counts from" not in shown
    assert repr(story).startswith("<Story of Order a-1: 3 events, now user_id=u-7, status=PAID,")


def test_a_story_tells_where_a_clock_stepped_back():
    """The second event is stamped before the first, and counts from the first's moment."""
    story = book_of(created(), PAID, stamps=[START, START - timedelta(seconds=5)])["a-1"]

    assert "paid 26.00, paid_at (counts from 2025-01-01 10:00:00Z on)" in text(story._repr_html_())


def test_a_long_story_shows_its_end_and_counts_the_rest():
    """Also the first event that is shown tells only what it changed."""
    story = book_of(created(), *[PAID] * (SHOWN + 6))["a-1"]

    shown = text(story._repr_html_())

    assert "7 earlier events are not shown; .log() has them all" in shown
    assert f"what it changed 8 PaymentAuthorized 2025-01-01 10:07:00Z paid {26 * 7}.00 9 " in shown
    assert shown.count("PaymentAuthorized") == SHOWN


@pytest.mark.parametrize("draw", [lambda book: book, lambda book: book["a-1"], lambda book: book["a-1"].now])
def test_a_payload_stays_text(draw):
    """An application wrote it, perhaps for somebody who hoped that it is shown."""
    made = draw(
        book_of(created(user_id=NASTY), ("OrderShipped", {"tracking": NASTY}), (NASTY, {}))
    )._repr_html_()

    assert "<script" not in made
