"""Two clocks: what held at an instant, as it was known at another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given

import titan_lab as tl
from tests.test_laws import both, fold, hunting, often, told
from titan_lab.clock import CUTS, MICROSECOND
from titan_lab.errors import InstantError
from titan_lab.testing import slow
from titan_lab.testing.histories import START, moments, order_payloads
from titan_lab.testing.slow_known import at_known, backdated, effective_at
from titan_lab.why import known


def what_was_known_is_the_loop(aggregate: Any, events: pl.DataFrame, moment: Any, since: Any) -> None:
    book, lives = fold(aggregate, events), slow.lives_of(events)
    for cut in CUTS:
        found = book.at(moment, known_at=since, cut=cut)
        assert told(found) == at_known(aggregate, lives, moment, since, cut), cut


@both
def test_what_held_as_it_was_known_is_a_fold_in_effective_order(aggregate: Any, payloads: Any) -> None:
    """Row for row, under each cut, on histories with backdated events, inversions and ties."""

    @often
    @given(events=backdated(payloads), moment=moments, since=moments)
    def check(events: pl.DataFrame, moment: Any, since: Any) -> None:
        what_was_known_is_the_loop(aggregate, events, moment, since)

    check()


@pytest.mark.parametrize("bug", ["recorded order", "all that is known today"])
def test_the_law_of_two_clocks_notices(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Planted bugs: moved aggregates stay in the order of versions; what came later is known already."""
    if bug == "recorded order":
        monkeypatch.setattr(np, "lexsort", lambda keys: np.arange(len(keys[0])))
    else:
        honest = known._moved_as_known
        monkeypatch.setattr(
            known, "_moved_as_known", lambda book, effective, _, cut: honest(book, effective, 2**62, cut)
        )

    @hunting
    @given(events=backdated(order_payloads()), moment=moments, since=moments)
    def check(events: pl.DataFrame, moment: Any, since: Any) -> None:
        what_was_known_is_the_loop(tl.Order, events, moment, since)

    with pytest.raises(AssertionError):
        check()


@often
@given(events=backdated(order_payloads()), moment=moments, since=moments)
def test_nothing_recorded_later_changes_what_was_known(events: pl.DataFrame, moment: Any, since: Any) -> None:
    """Law 7: a history cut off at k answers the same, to the last byte, valid_to included."""
    whole = fold(tl.Order, events).at(moment, known_at=since)
    kept = {
        (event.aggregate_id, event.version)
        for life in slow.lives_of(events).values()
        for event in slow.counted(life, since, "prefix")
    }
    keep = [key in kept for key in events.select("aggregate_id", "version").iter_rows()]
    cut_off = fold(tl.Order, events.filter(pl.Series(keep, dtype=pl.Boolean)))
    assert whole.equals(cut_off.at(moment, known_at=since))


@often
@given(events=backdated(order_payloads()), moment=moments)
def test_a_state_holds_from_and_until_effective_instants(events: pl.DataFrame, moment: Any) -> None:
    """valid_from and valid_to frame the moment, and right before valid_to the state is still the same."""
    book = fold(tl.Order, events)
    later = START + timedelta(days=1)
    for row in book.at(moment, known_at=later).iter_rows(named=True):
        assert row["valid_from"] <= moment
        if row["valid_to"] is not None:
            assert row["valid_to"] > moment
            same = book.at(row["valid_to"] - MICROSECOND, known_at=later)
            assert same.filter(aggregate_id=row["aggregate_id"])["version"].item() == row["version"]


def history() -> pl.DataFrame:
    """Give one order that is paid on Thursday, and corrected on Friday as of Monday; and one that is not."""
    created, paid = '{"user_id":"u","items":[],"total":"5.00"}', '{"amount":"5.00"}'
    fixed, since = (
        '{"corrected_amount":"4.00"}',
        '{"effective_at":"2025-01-06T12:00:00Z","correlation_id":"fix"}',
    )
    rows = [
        ("a", 1, "OrderCreated", created, None, "2025-01-06T10:00:00Z"),
        ("a", 2, "PaymentAuthorized", paid, None, "2025-01-09T10:00:00Z"),
        ("a", 3, "OrderCorrected", fixed, since, "2025-01-10T10:00:00Z"),
        ("b", 1, "OrderCreated", created, None, "2025-01-06T10:00:00Z"),
    ]
    names = ["aggregate_id", "version", "event_type", "payload", "metadata", "timestamp"]
    return pl.DataFrame(rows, schema=names, orient="row")


def totals(book: Any, known_at: str) -> list[str]:
    return [str(total) for total in book.at("2025-01-07", known_at=known_at, columns="total")["total"]]


def test_a_correction_rewrites_the_past_only_as_seen_from_after_it() -> None:
    """Tuesday's total is 5.00 as known on Wednesday, and 4.00 as known on Saturday."""
    book = tl.from_frame(history()).fold(tl.Order)
    assert totals(book, "2025-01-08") == ["5.00", "5.00"]
    assert totals(book, "2025-01-11") == ["4.00", "5.00"]
    story = book["a"]
    seen = [str(story.at("2025-01-07", known_at=f"2025-01-{day}").total) for day in ("08", "11")]
    assert seen == ["5.00", "4.00"]
    assert not story.at("2025-01-07", known_at="2025-01-01")


def test_what_was_believed_stands_beside_what_the_log_says() -> None:
    """One frame holds both answers, and says where they differ."""
    book = tl.from_frame(history()).fold(tl.Order)
    found = book.believed("2025-01-07", "2025-01-11", columns=["status", "total"])
    assert ",".join(found.columns) == (
        "aggregate_id,version,version_believed,status,status_believed,total,total_believed,differs"
    )
    assert found["differs"].to_list() == [True, False]
    assert [str(total) for total in found["total_believed"]] == ["4.00", "5.00"]
    assert not book.believed("2025-01-07", "2025-01-08")["differs"].any()


def test_backdated_events_are_listed_with_how_far_they_reach_back() -> None:
    """The report names the event, both its instants, and the correlation."""
    found = tl.from_frame(history()).fold(tl.Order).backdated()
    assert found.select("aggregate_id", "version", "correlation_id").rows() == [("a", 3, "fix")]
    assert found["by"].item() == timedelta(days=3, hours=22)


@pytest.mark.parametrize("said", ['"yesterday"', '"2025-01-06T12:00:00"', "5", '""'])
def test_an_effective_at_that_is_no_instant_counts_from_its_timestamp_and_is_listed(said: str) -> None:
    """The event is not lost, and neither is the fault."""
    events = history().with_columns(
        pl.col("metadata").str.replace('"2025-01-06T12:00:00Z"', said, literal=True)
    )
    book = tl.from_frame(events).fold(tl.Order)
    assert totals(book, "2025-01-11") == ["5.00", "5.00"]
    assert str(book.at("2025-01-12", known_at="2025-01-12")["total"][0]) == "4.00"
    assert book.backdated()["effective_at"].to_list() == [None]


def test_a_naive_effective_at_is_read_in_the_zone_that_the_log_was_opened_with() -> None:
    """Noon in São Paulo is three o'clock in UTC."""
    events = history().with_columns(pl.col("metadata").str.replace("12:00:00Z", "12:00:00", literal=True))
    book = tl.from_frame(events, zone="America/Sao_Paulo").fold(tl.Order)
    assert book.backdated()["effective_at"].item().hour == 15


def test_effective_time_needs_both_instants_and_no_version() -> None:
    """known_at alone, or with a version, is refused with the call that works."""
    book = tl.from_frame(history()).fold(tl.Order)
    asked: list[dict[str, Any]] = [{}, {"version": 1}]
    for one in asked:
        with pytest.raises(InstantError, match="known_at needs an instant"):
            book.at(**one, known_at="2025-01-08")
        with pytest.raises(InstantError):
            book["a"].at(**one, known_at="2025-01-08")
    with pytest.raises(InstantError):
        book.at("2025-01-07T00:00", known_at="2025-01-08")


def test_the_clocks_agree_where_nothing_is_backdated() -> None:
    """Without effective_at and with clocks that rise, what is known is what is recorded."""
    events = history().with_columns(metadata=pl.lit(None, pl.String))
    log = tl.from_frame(events)
    book = log.fold(tl.Order)
    for day in range(5, 13):
        when = f"2025-01-{day:02}"
        assert book.at(when, known_at="2025-02-01").equals(book.at(when))
    assert all(effective_at(event) == event.timestamp for event in slow.lives_of(log.read())["a"])
