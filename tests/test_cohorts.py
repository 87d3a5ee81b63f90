"""Retention: users by the period of their first order, in the calendar of a zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.book import Book
from titan_lab.errors import InstantError, NoSuchColumn
from titan_lab.event import EVENTS
from titan_lab.mining import cohorts
from titan_lab.testing import slow_mining

often = settings(derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck), database=None)
hunting = settings(often, max_examples=300, phases=[Phase.explicit, Phase.generate])


class Placed(tl.EventType):
    user: str | None = None


class Buy(tl.Aggregate):
    user = tl.latest(Placed)


def book_of(*orders: tuple[str | None, datetime], **also: Any) -> Book:
    rows = [(f"{n:04}", "Placed", moment, user) for n, (user, moment) in enumerate(orders)]
    schema = {
        "aggregate_id": pl.String,
        "event_type": pl.String,
        "timestamp": EVENTS["timestamp"],
        "user": pl.String,
    }
    return tl.from_frame(pl.DataFrame(rows, schema=schema, orient="row"), **also).fold(Buy)


orders = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", "é", None]),
        st.integers(0, 24 * 500).map(
            lambda hours: datetime(2024, 1, 20, tzinfo=UTC) + timedelta(hours=hours)
        ),
    ),
    max_size=8,
)
periods = st.sampled_from(["1w", "1mo", "1q", "1y"])
zones = st.sampled_from([None, "UTC", "America/Sao_Paulo", "Pacific/Auckland"])


def agrees(drawn: list[tuple[str | None, datetime]], by: str, zone: str | None) -> None:
    found = book_of(*drawn).retention(by, of="user", zone=zone)
    local = [(user, moment.astimezone(ZoneInfo(zone or "UTC")).date()) for user, moment in drawn]
    assert found.rows() == slow_mining.retention(local, by)


@often
@given(drawn=orders, by=periods, zone=zones)
def test_it_is_what_asking_for_every_cohort_and_period_finds(drawn: Any, by: str, zone: str | None) -> None:
    """Also where nobody came back, and where an order has no user."""
    agrees(drawn, by, zone)


# Hardly ever drawn: the only month that is shorter than thirty days, and a night that is of two months.
FEBRUARY = [("u", datetime(2024, 2, 10, tzinfo=UTC)), ("u", datetime(2024, 3, 10, tzinfo=UTC))]

NIGHT = [("u", datetime(2024, 3, 1, 1, tzinfo=UTC))]


def months_of_thirty_days(start: pl.Expr, end: pl.Expr, unit: str) -> pl.Expr:
    return (end - start).dt.total_days() // {"w": 7, "mo": 30, "q": 91, "y": 365}[unit]


@pytest.mark.parametrize(
    ("name", "bug"),
    [("_between", months_of_thirty_days), ("MONTHS", {"mo": 1, "q": 4, "y": 12}), ("zone_of", None)],
    ids=["months of thirty days", "quarters of four months", "the calendar of UTC"],
)
def test_a_planted_bug_is_noticed(name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a calendar gets wrong easily."""
    if bug is None:
        own = cohorts.retention
        monkeypatch.setattr(
            "titan_lab.verbs.mining.retention", lambda users, began, by, zone: own(users, began, by, None)
        )
    else:
        monkeypatch.setattr(cohorts, name, bug)

    @hunting
    @given(drawn=orders, by=periods, zone=zones)
    @example(drawn=FEBRUARY, by="1mo", zone=None)
    @example(drawn=NIGHT, by="1mo", zone="America/Sao_Paulo")
    def check(drawn: Any, by: str, zone: str | None) -> None:
        agrees(drawn, by, zone)

    with pytest.raises(AssertionError):
        check()


def test_a_month_begins_at_its_own_midnight() -> None:
    """One o'clock on the 1st in UTC is still the month before in São Paulo."""
    book = book_of(("u", datetime(2025, 3, 1, 1, tzinfo=UTC)), ("u", datetime(2025, 3, 9, tzinfo=UTC)))
    assert book.retention(of="user").rows() == [(date(2025, 3, 1), 0, 1, 1, 1.0)]
    assert book.retention(of="user", zone="America/Sao_Paulo").rows() == [
        (date(2025, 2, 1), 0, 1, 1, 1.0),
        (date(2025, 2, 1), 1, 1, 1, 1.0),
    ]


def test_the_zone_of_the_log_is_the_zone_of_its_calendar() -> None:
    """Unless another is named."""
    book = book_of(("u", datetime(2025, 3, 1, 1, tzinfo=UTC)), zone="America/Sao_Paulo")
    assert book.retention(of="user")["cohort"].to_list() == [date(2025, 2, 1)]
    assert book.retention(of="user", zone="UTC")["cohort"].to_list() == [date(2025, 3, 1)]


def test_periods_of_several_units_are_counted_as_one() -> None:
    """Six weeks later is the third period of two weeks."""
    first = datetime(2025, 1, 8, tzinfo=UTC)
    book = book_of(("u", first), ("u", first + timedelta(weeks=6)))
    assert book.retention("2w", of="user")["active"].to_list() == [1, 0, 0, 1]
    assert book.retention("2d", of="user").filter(pl.col("active") > 0)["period"].to_list() == [0, 21]


def test_later_events_of_an_order_are_no_new_order() -> None:
    """Only its first event counts, whenever the others come."""
    created = datetime(2025, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "aggregate_id": ["a", "a"],
            "event_type": ["Placed", "Placed"],
            "timestamp": [created, created + timedelta(days=60)],
            "user": ["u", "v"],
        }
    )
    assert tl.from_frame(frame).fold(Buy).retention(of="user").rows() == [(date(2025, 1, 1), 0, 1, 1, 1.0)]


def test_an_empty_book_gives_an_empty_frame_of_the_same_columns() -> None:
    """With the dtypes that a full one has."""
    full = book_of(("u", datetime(2025, 1, 1, tzinfo=UTC))).retention(of="user")
    assert book_of().retention(of="user").schema == full.schema
    assert book_of((None, datetime(2025, 1, 1, tzinfo=UTC))).retention(of="user").schema == full.schema


@pytest.mark.parametrize("by", ["month", "1h", "0mo", "-1mo", "1mo1d", "", None, 7])
def test_a_period_that_is_none_is_named(by: Any) -> None:
    """With what would be one."""
    with pytest.raises(InstantError, match=r"is no period of a calendar\n  hint: use '1d', '1w', '1mo'"):
        book_of().retention(by, of="user")


def test_a_zone_or_a_column_that_is_not_there_is_named() -> None:
    """With names that are near."""
    with pytest.raises(InstantError, match="'Mars' is no time zone"):
        book_of().retention(of="user", zone="Mars")
    with pytest.raises(NoSuchColumn, match="user"):
        book_of().retention(of="usr")
