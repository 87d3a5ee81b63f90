"""Grids of instants: mean ages, steps of a calendar, and grids that nobody could hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import grid as grids
from titan_lab import parallel
from titan_lab.errors import EventsError, InstantError
from titan_lab.event import EVENTS
from titan_lab.testing import slow
from titan_lab.testing.histories import histories

often = settings(derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck), database=None)
hunting = settings(often, max_examples=300, phases=[Phase.generate])
MICROSECOND = timedelta(microseconds=1)
CREATED = '{"user_id": "u1", "items": [], "total": 1}'


def fold(*events: tuple[str, int, str, str], zone: str | None = None) -> Any:
    """Fold events given as id, version, type and instant."""
    rows = [(who, n, kind, CREATED, None, when) for who, n, kind, when in events]
    return tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row"), zone=zone).fold(tl.Order)


def slowly(lives: slow.Lives, moment: datetime, by: str | None) -> dict[Any, tuple[int, Decimal, int]]:
    """Count, add up what is paid, and take the mean age, life by life."""
    found: dict[Any, list[tuple[Decimal, int]]] = {}
    for life in lives.values():
        if events := slow.counted(life, moment, "prefix"):
            state, born = tl.Order.fold(events), life[0].timestamp
            assert born is not None
            value = None if by is None else state[by]
            found.setdefault(value, []).append((state.paid, (moment - born) // MICROSECOND))
    return {
        value: (
            len(those),
            sum((paid for paid, _ in those), Decimal(0)),
            round(Fraction(sum(age for _, age in those), len(those))),
        )
        for value, those in found.items()
    }


def cells_are_what_a_loop_finds(events: pl.DataFrame, by: str | None, step: timedelta, width: int) -> None:
    lives, start = slow.lives_of(events), slow.START_OF_ALL
    grid = (
        tl.from_frame(events)
        .fold(tl.Order)
        .every(step, start, start + step * width, by=by, measure="paid", age=True)
    )
    for n in range(width + 1):
        moment = start + n * step
        here = grid.filter(instant=moment)
        told = {
            row[by] if by else None: (row["count"], row["paid"], row["mean_age"] // MICROSECOND)
            for row in here.iter_rows(named=True)
            if row["count"]
        }
        assert told == slowly(lives, moment, by)
        assert here.filter(count=0)["mean_age"].null_count() == len(here.filter(count=0))


law = given(
    events=histories(),
    by=st.sampled_from(["status", "user_id", None]),
    step=st.sampled_from([timedelta(seconds=1), timedelta(microseconds=400_000), timedelta(seconds=7)]),
    width=st.integers(0, 6),
)


def test_a_grid_is_what_a_loop_over_lives_finds() -> None:
    """Counts, sums and mean ages at once, on clocks that tie and step back, also in the smallest pieces."""
    often(law(cells_are_what_a_loop_finds))()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grids, "PIECE", 1)
        patch.setattr(parallel, "MANY", 1)
        often(law(cells_are_what_a_loop_finds))()


@pytest.mark.parametrize("bug", ["ages are rounded down", "negative amounts are left out", "pieces overlap"])
def test_the_loop_notices(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs."""
    if bug == "ages are rounded down":

        def down(stamps: Any, counts: Any, high: Any, low: Any) -> np.ndarray:
            return (stamps - stamps[0])[:, None] - ((high << grids.LOW) + low) // np.maximum(counts, 1)

        monkeypatch.setattr(grids, "_mean_ages", down)
    elif bug == "negative amounts are left out":
        honest = grids.exact_sums

        def once(keys: Any, weights: Any, size: int) -> np.ndarray:
            return honest(keys, weights if weights is None or (weights >= 0).all() else weights * 0, size)

        monkeypatch.setattr(grids, "exact_sums", once)
    else:
        monkeypatch.setattr(grids, "PIECE", 2)
        turnover = grids._turnover
        monkeypatch.setattr(grids, "_turnover", lambda *given: turnover(*given[:4], True, *given[5:]))
    with pytest.raises(AssertionError):
        hunting(law(cells_are_what_a_loop_finds))()


def test_a_day_of_23_and_one_of_25_hours_age_as_long_as_they_last() -> None:
    """Berlin's clocks go forward on 30 March and back on 26 October 2025."""
    spring = fold(("a", 1, "OrderCreated", "2025-03-29T00:00+01:00"), zone="Europe/Berlin")
    days = spring.every("1d", "2025-03-29", "2025-04-01", by=None, age=True)
    assert days["mean_age"].dt.total_hours().to_list() == [0, 24, 47, 71]
    autumn = fold(("a", 1, "OrderCreated", "2025-10-25T00:00+02:00"), zone="Europe/Berlin")
    days = autumn.every("1d", "2025-10-25", "2025-10-28", by=None, age=True)
    assert days["mean_age"].dt.total_hours().to_list() == [0, 24, 49, 73]


def test_an_event_of_the_hour_that_comes_twice_is_in_the_day_it_belongs_to() -> None:
    """02:30 local time twice on 26 October; both are before the next midnight, 23:00Z."""
    book = fold(
        ("a", 1, "OrderCreated", "2025-10-26T00:30Z"),
        ("b", 1, "OrderCreated", "2025-10-26T01:30Z"),
        ("c", 1, "OrderCreated", "2025-10-26T23:00:00.000001Z"),
        zone="Europe/Berlin",
    )
    days = book.every("1d", "2025-10-26", "2025-10-28", by=None, age=True)
    assert days["count"].to_list() == [0, 2, 3]
    assert days["mean_age"].to_list()[:2] == [None, timedelta(hours=22)]


def test_a_month_of_the_grid_is_a_month_of_the_zone() -> None:
    """From one first to the next, across both changes of the clocks; no day is added to make months equal."""
    book = fold(("a", 1, "OrderCreated", "2025-01-01T00:00+01:00"), zone="Europe/Berlin")
    grid = book.every("1mo", "2025-01-01", "2025-12-01", by=None, age=True)
    firsts = [tl.instant(f"2025-{month:02}-01", "Europe/Berlin") for month in range(1, 13)]
    assert grid["instant"].to_list() == firsts
    assert grid["mean_age"].to_list() == [first - firsts[0] for first in firsts]


def test_instants_that_lie_unevenly_are_found_as_those_that_lie_evenly() -> None:
    """Months, weeks and hours: the table leads to the same cell as a search."""
    rng = np.random.default_rng(1)
    for step, until in (
        ("1mo", "2031-01-01"),
        ("1w", "2026-01-01"),
        ("1h", "2025-04-01"),
        ("1d", "2025-12-01"),
    ):
        stamps = grids.instants(step, "2025-01-01", until, "Europe/Berlin").to_physical().to_numpy()
        moments = np.concatenate(
            [stamps, stamps - 1, stamps + 1, rng.integers(stamps[0] - 10**12, stamps[-1] + 10**12, 5000)]
        )
        cells = grids.Cells(stamps)
        assert cells.table is not None
        assert cells.of(moments).tolist() == np.searchsorted(stamps, moments).tolist()


def test_instants_too_uneven_for_a_table_are_searched() -> None:
    """Two that are one microsecond apart, and a year to the next."""
    stamps = np.array([0, 1, 31_536_000_000_000])
    cells = grids.Cells(stamps)
    assert cells.table is None
    assert cells.of(np.array([-5, 0, 1, 2, 31_536_000_000_001])).tolist() == [0, 0, 1, 2, 3]


def test_ages_of_centuries_are_exact() -> None:
    """Births are added up in two parts, so that they may lie far from the grid."""
    book = fold(*((f"a{n}", 1, "OrderCreated", f"1700-01-01T00:00:00.00000{n}Z") for n in range(4)))
    age = book.every("1d", "2025-01-01", "2025-01-02", by=None, age=True)["mean_age"]
    sure = [datetime(2025, 1, day, tzinfo=UTC) - datetime(1700, 1, 1, tzinfo=UTC) for day in (1, 2)]
    assert age.to_list() == [one - 2 * MICROSECOND for one in sure]  # 1.5 less: half to even


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("0s", "does not go forward"),
        ("0d", "does not go forward"),
        ("0d0h", "does not go forward"),
        ("-1h", "does not go forward"),
        ("-1mo", "does not go forward"),
        (timedelta(0), "does not go forward"),
        (timedelta(hours=-1), "does not go forward"),
        ("", "cannot be read"),
        ("1 fortnight", "cannot be read"),
        ("1", "cannot be read"),
        (3600, "cannot be read"),
    ],
)
def test_a_step_that_never_arrives_is_refused(step: Any, why: str) -> None:
    """Before a grid is laid out."""
    book = fold(("a", 1, "OrderCreated", "2025-01-01T00:00Z"))
    with pytest.raises(InstantError, match="is no step: it") as caught:
        book.every(step, "2025-01-01", "2025-01-02")
    assert why in caught.value.message
    assert "'1mo'" in str(caught.value.hint)


def test_a_grid_of_too_many_cells_says_how_many_and_what_to_do() -> None:
    """A microsecond's step over a year is found out before anything is laid out."""
    book = fold(("a", 1, "OrderCreated", "2025-01-01T00:00Z"))
    with pytest.raises(
        InstantError, match="31,536,000,000,001 instants has 31,536,000,000,001 cells"
    ) as caught:
        book.every("1us", "2025-01-01", "2026-01-01")
    assert "31,535,990,000,001 more than the 10,000,000" in caught.value.message
    assert "a step 3,153,601 times as long" in str(caught.value.hint)
    assert caught.value.data["cells"] == 31_536_000_000_001


def test_the_values_of_by_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """11 instants by 2 orders are 22 cells."""
    monkeypatch.setattr(grids, "MOST", 21)
    book = fold(*((one, 1, "OrderCreated", "2025-01-01T00:00Z") for one in "ab"))
    assert len(book.every("1h", "2025-01-01", "2025-01-01T10:00Z", by=None)) == 11
    with pytest.raises(
        InstantError, match="11 instants x 2 values has 22 cells, 1 more than the 21"
    ) as caught:
        book.every("1h", "2025-01-01", "2025-01-01T10:00Z", by="id")
    assert "a `by` of fewer values" in str(caught.value.hint)


def test_lists_that_several_event_types_set_are_told_apart_by_their_own_row() -> None:
    """Lists stay part by part, so that the n-th by row need not be the n-th that lies there."""
    made = '{"user_id": "u1", "total": 1, "items": [{"product_id": "%s", "quantity": 1, "price": 1}]}'
    rows = [
        ("a", 1, "OrderCreated", made % "old", None, "2025-01-01T00:00Z"),
        ("a", 2, "OrderModified", made % "new", None, "2025-01-01T01:00Z"),
        ("b", 1, "OrderCreated", made % "other", None, "2025-01-01T00:00Z"),
    ]
    book = tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row")).fold(tl.Order)
    counted = book.every("1h", "2025-01-01T00:00Z", "2025-01-01T01:00Z", by="items").filter(
        pl.col("count") > 0
    )
    first = pl.col("items").list.first().struct.field("product_id")
    assert counted.select(pl.col("instant").dt.hour(), first).rows() == [
        (0, "old"),
        (0, "other"),
        (1, "new"),
        (1, "other"),
    ]


def test_sums_that_64_bits_do_not_hold_are_refused() -> None:
    """By the day, at one instant, and where they are explained; a large amount that they hold is counted."""
    large = '{"user_id": "u1", "items": [], "total": 999999999999999.99}'
    small = '{"user_id": "u1", "items": [], "total": 1}'

    def orders(how_many: int, payload: str) -> list[tuple]:
        named = (f"{payload}{number}" for number in range(how_many))
        return [(who, 1, "OrderCreated", payload, None, "2025-01-01T00:00Z") for who in named]

    def book(rows: list[tuple]) -> Any:
        return tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row")).fold(tl.Order)

    many, few = book(orders(93, large)), book(orders(92, large) + orders(1000, small))
    for until in ("2025-01-01", "2025-01-02"):
        with pytest.raises(EventsError, match="add up to more than 64 bits"):
            many.every("1d", "2025-01-01", until, by=None, measure="total")
        held = few.every("1d", "2025-01-01", until, by=None, measure="total")
        assert held["total"][-1] == 92 * Decimal("999999999999999.99") + 1000
    with pytest.raises(EventsError, match="add up to more than 64 bits"):
        many.explain("total", "2024-12-31", "2025-01-02")
    assert few.explain("total", "2024-12-31", "2025-01-02")["change"].item() == held["total"][-1]
