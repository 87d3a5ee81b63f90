"""How long aggregates stay in each state: against a slow loop, and where stays are cut off."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.errors import DeclarationError, InstantError, NoSuchColumn
from titan_lab.event import EVENTS
from titan_lab.mining import dwell as dwells
from titan_lab.testing import slow, slow_dwell
from titan_lab.testing.histories import histories, moments

often = settings(derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck), database=None)
MICROSECOND = timedelta(microseconds=1)
hunting = settings(often, max_examples=400, phases=[Phase.generate])
CREATED = '{"user_id": "u1", "items": [], "total": 1}'
AMOUNT = '{"amount": 1}'
PAYLOADS = {"OrderCreated": CREATED, "PaymentAuthorized": AMOUNT, "RefundIssued": AMOUNT}


def fold(*events: tuple[str, int, str, str]) -> Any:
    """Fold events given as id, version, type and time of 1 January 2025."""
    rows = [
        (who, n, kind, PAYLOADS.get(kind, "{}"), None, f"2025-01-01T{time}Z") for who, n, kind, time in events
    ]
    return tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row")).fold(tl.Order)


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


def stays_are_what_a_walk_finds(events: pl.DataFrame, column: str, until: datetime | None) -> None:
    book, lives = tl.from_frame(events).fold(tl.Order), slow.lives_of(events)
    horizon = until or max(events["timestamp"], default=slow.START_OF_ALL)
    expected = slow_dwell.stays(tl.Order, lives, column, horizon)
    assert book.stays(column, until).to_dicts() == expected
    told = book.dwell(column, until)
    assert len(told) == told["state"].n_unique() == len({one["state"] for one in expected})
    for row in told.iter_rows(named=True):
        slowly = slow_dwell.dwell(expected, row["state"])
        mean, exact = row.pop("mean"), slowly.pop("mean")
        assert abs(Fraction(mean // MICROSECOND) - exact) <= 1
        assert row == slowly


law = given(
    events=histories(),
    column=st.sampled_from(["status", "user_id", "total"]),
    until=st.none() | moments,
)


def test_stays_are_what_a_walk_through_every_life_finds() -> None:
    """Ties, clocks that step back, open and finished stays, any column, any horizon."""
    often(law(stays_are_what_a_walk_finds))()


@pytest.mark.parametrize("bug", ["open stays are dropped", "open stays are over", "nothing is open"])
def test_the_walk_notices(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs: three ways to be wrong about what is cut off."""
    honest, nobody = dwells.survival, np.zeros(0, dtype=np.int64)
    if bug == "open stays are dropped":
        monkeypatch.setattr(dwells, "survival", lambda done, _: honest(done, nobody))
    elif bug == "open stays are over":
        monkeypatch.setattr(dwells, "survival", lambda done, cut: honest(np.append(done, cut), nobody))
    else:
        find = dwells.find

        def closed(*asked: Any) -> dwells.Stays:
            found = find(*asked)
            return replace(found, open=np.zeros_like(found.open))

        monkeypatch.setattr(dwells, "find", closed)
    with pytest.raises(AssertionError):
        hunting(law(stays_are_what_a_walk_finds))()


def test_what_is_not_over_counts_as_at_least_that_long() -> None:
    """Dropping the two that still wait would say that half are paid within 10 minutes."""
    book = fold(
        ("a", 1, "OrderCreated", "10:00"),
        ("a", 2, "PaymentAuthorized", "10:10"),
        ("b", 1, "OrderCreated", "10:00"),
        ("b", 2, "PaymentAuthorized", "10:20"),
        ("c", 1, "OrderCreated", "10:00"),
        ("d", 1, "OrderCreated", "10:15"),
    )
    created = book.dwell(until="2025-01-01T10:30Z").row(0, named=True)
    assert (created["entered"], created["finished"], created["open"]) == (4, 2, 2)
    # 3/4 are longer than 10 minutes; one of 15 is cut off, so of the two at risk at 20 one ends: 3/8.
    assert created["median"] == minutes(20)
    assert created["mean"] == minutes(10 + 0.75 * 10 + 0.375 * 10)
    assert created["p90"] is None
    assert created["total"] == minutes(10 + 20 + 30 + 15)


def test_the_published_example_comes_out() -> None:
    """Weeks of remission under 6-MP: Freireich and others 1963, as in Klein and Moeschberger, table 4.1B."""
    relapsed = np.array([6, 6, 6, 7, 10, 13, 16, 22, 23])
    cut_off = np.array([6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35])
    median, mean, p90 = dwells.survival(relapsed * 10**6, cut_off * 10**6)
    assert (median, p90) == (23 * 10**6, None)
    assert round(mean / 10**6, 3) == 23.287  # weeks, of the 35 that somebody was followed


def test_without_open_stays_the_mean_is_the_mean() -> None:
    """And the median the smallest length that half of the stays do not exceed."""
    lengths = np.array([5, 1, 4, 1], dtype=np.int64)
    assert dwells.survival(lengths, np.zeros(0, dtype=np.int64)) == (1, round(11 / 4), 5)


def test_a_product_of_shares_that_should_be_a_half_is_one() -> None:
    """Doubles make 0.5 of it plus a hair; the median must not slip to the next length."""
    for n in range(2, 400, 2):
        median, _, _ = dwells.survival(np.arange(1, n + 1), np.array([0] * 3))
        assert median == n // 2


def test_a_stay_of_no_time_at_all_is_a_stay() -> None:
    """Created and paid in the same microsecond."""
    book = fold(("a", 1, "OrderCreated", "10:00"), ("a", 2, "PaymentAuthorized", "10:00"))
    assert book.stays()["duration"].to_list() == [timedelta(0), timedelta(0)]
    assert book.dwell()["median"].to_list() == [timedelta(0), None]


def test_a_state_that_is_come_back_to_is_stayed_in_twice() -> None:
    """Events that change nothing do not end a stay."""
    book = fold(
        ("a", 1, "OrderCreated", "10:00"),
        ("a", 2, "OrderCreated", "10:01"),
        ("a", 3, "OrderShipped", "10:02"),
        ("a", 4, "RefundIssued", "10:03"),
        ("a", 5, "OrderCreated", "10:04"),
    )
    assert book.stays().select("version", "state").rows() == [(1, "CREATED"), (3, "SHIPPED"), (5, "CREATED")]


def test_states_come_in_the_machines_order_and_having_none_comes_last() -> None:
    """Not in that of the alphabet."""
    book = fold(
        ("a", 1, "RefundIssued", "10:00"),
        ("a", 2, "OrderShipped", "10:01"),
        ("b", 1, "OrderCreated", "10:00"),
    )
    assert book.dwell()["state"].to_list() == ["CREATED", "SHIPPED", None]


def test_the_time_of_many_orders_together_does_not_overflow() -> None:
    """64 bits of microseconds are 292,000 years, and 3 million orders of a tenth of a year come near."""
    lengths = np.full(4, 2**62, dtype=np.int64)
    assert dwells._milliseconds(lengths) == round(Fraction(2**64, 1000))


def test_nothing_stays_in_an_empty_log_or_before_its_beginning() -> None:
    """Frames of the same columns as ever."""
    empty, early = tl.open("memory://").fold(tl.Order), fold(("a", 1, "OrderCreated", "10:00"))
    for stays, dwell in (
        (empty.stays(), empty.dwell()),
        (early.stays(until="2024-01-01"), early.dwell(until="2024-01-01")),
    ):
        assert (len(stays), stays.schema) == (0, early.stays().schema)
        assert (len(dwell), dwell.schema) == (0, early.dwell().schema)


def test_a_column_that_cannot_be_stayed_in_is_named() -> None:
    """One nobody has, one of lists, and one of the row itself."""
    book = fold(("a", 1, "OrderCreated", "10:00"))
    with pytest.raises(NoSuchColumn, match="statsu") as caught:
        book.dwell("statsu")
    assert "'status'" in str(caught.value.hint)
    with pytest.raises(DeclarationError, match="a list is no state"):
        book.dwell("items")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dwells, "FEW", 1)
        two = fold(("a", 1, "OrderCreated", "10:00"), ("b", 1, "OrderCreated", "10:00"))
        assert len(two.dwell("user_id")) == 1
        with pytest.raises(DeclarationError, match="id has 2 values, and dwell is for a column of up to 1 "):
            two.dwell("id")
        assert len(two.stays("id")) == 2
    with pytest.raises(NoSuchColumn, match="valid_from"):
        book.stays("valid_from")
    with pytest.raises(InstantError, match="no time zone"):
        book.dwell(until="2025-01-01T00:00")
