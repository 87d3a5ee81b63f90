"""From when until when a state held: laws 2 and 7 once more, each beside the bug that must break it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import rows, states
from titan_lab.book import Book
from titan_lab.clock import CUTS
from titan_lab.testing import slow
from titan_lab.testing.histories import histories, moments

often = settings(
    derandomize=True, max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=300, phases=[Phase.generate])

Law = Callable[..., None]


class Parcel(tl.Aggregate):
    """Few columns: these laws are about rows and moments."""

    tracking = tl.latest(tl.OrderShipped)
    events = tl.count(tl.PaymentAuthorized, tl.OrderShipped, tl.OrderCancelled)


@st.composite
def gappy(draw: st.DrawFn) -> pl.DataFrame:
    """Draw a history of which some events are lost, so that versions have gaps and begin anywhere."""
    events = draw(histories())
    kept = draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    return events.filter(pl.Series(kept, dtype=pl.Boolean))


def fold(events: pl.DataFrame) -> Book:
    return tl.from_frame(events).fold(Parcel)


def spans(frame: pl.DataFrame) -> list[tuple]:
    return frame.select("aggregate_id", "version", "valid_from", "valid_to").rows()


def breaks(law: Law, *drawn: st.SearchStrategy[Any]) -> None:
    """Expect the law to be broken on some history."""
    with pytest.raises(AssertionError):
        hunting(given(*drawn)(law))()


# --- 2. the spans of states ------------------------------------------------------------------------------


def states_hold_as_the_loop_says(events: pl.DataFrame) -> None:
    lives = slow.lives_of(events)
    expected = [
        (name, event.version, since, until)
        for name in sorted(lives, key=str.encode)
        for event, (since, until) in zip(lives[name], slow.held(lives[name]), strict=True)
    ]
    assert spans(fold(events).history()) == expected


def test_a_state_holds_until_its_successor_counts() -> None:
    """Nobody's state ends with another's beginning, and the last one's end is open."""
    often(given(events=gappy())(states_hold_as_the_loop_says))()


def test_the_law_of_spans_notices_an_end_taken_from_the_next_aggregate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: an aggregate's last row is taken to be followed by the next row of the table."""

    def leaking(self: Any, some: np.ndarray, counted: np.ndarray) -> pl.Series:
        return states.as_instants(counted[np.minimum(some + 1, len(counted) - 1)])

    monkeypatch.setattr(states.States, "_valid_to", leaking)
    breaks(states_hold_as_the_loop_says, gappy())


def each_cut_holds_as_the_loop_says(events: pl.DataFrame, moment: datetime) -> None:
    lives, book = slow.lives_of(events), fold(events)
    for cut in CUTS:
        expected = []
        for name in sorted(lives, key=str.encode):
            seen = slow.counted(lives[name], moment, cut)
            if seen:
                expected.append((name, seen[-1].version, *slow.held_at(lives[name], moment, cut)))
        assert spans(book.at(moment, cut=cut)) == expected, cut
        for _, _, since, until in expected:
            assert since <= moment
            assert until is None or moment < until


def test_under_every_cut_a_state_holds_as_long_as_the_same_events_count() -> None:
    """valid_from and valid_to are those of the cut that was asked for."""
    often(given(events=gappy(), moment=moments)(each_cut_holds_as_the_loop_says))()


def test_the_law_of_cuts_notices_spans_of_the_wrong_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: rows are chosen by one cut and dated by another."""
    honest = states.States.frame

    def prefix_always(self: Any, some: np.ndarray, owners: np.ndarray, names: list, counted: Any) -> Any:
        return honest(self, some, owners, names, self.rows.counted("prefix"))

    monkeypatch.setattr(states.States, "frame", prefix_always)
    breaks(each_cut_holds_as_the_loop_says, gappy(), moments)


# --- windows and versions --------------------------------------------------------------------------------


def a_window_keeps_what_held_in_it(events: pl.DataFrame, since: datetime, until: datetime) -> None:
    book = fold(events)
    whole = book.history()

    def held(row: dict[str, Any]) -> bool:
        ended = row["valid_to"] is not None and row["valid_to"] <= since and row["valid_from"] < since
        return row["valid_from"] <= until and not ended

    kept = whole.filter(pl.Series([held(row) for row in whole.to_dicts()], dtype=pl.Boolean))
    assert book.history(since, until).equals(kept)
    assert book.history(since=since).equals(book.history(since, moments_end))
    assert book.history(until=until).equals(book.history(moments_start, until))


moments_start, moments_end = slow.START_OF_ALL - timedelta(days=1), slow.START_OF_ALL + timedelta(days=1)


def test_a_window_of_history_keeps_the_states_that_held_at_some_moment_of_it() -> None:
    """Both ends are inclusive; an end that is not given does not narrow."""
    often(given(events=gappy(), since=moments, until=moments)(a_window_keeps_what_held_in_it))()


def test_the_law_of_windows_notices_states_that_had_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: every state is taken to hold for ever."""

    def for_ever(self: Any, counted: np.ndarray, none: int) -> np.ndarray:
        return np.full(len(counted), none)

    monkeypatch.setattr(rows.Rows, "until", for_ever)
    breaks(a_window_keeps_what_held_in_it, gappy(), moments, moments)


def a_version_is_the_state_after_it(events: pl.DataFrame, version: int) -> None:
    book = fold(events)
    expected = {
        row["aggregate_id"]: row for row in book.history().to_dicts() if row["version"] <= version
    }  # the last one of each id stays
    assert {row["aggregate_id"]: row for row in book.at(version=version).to_dicts()} == expected


def test_at_a_version_stands_the_last_state_up_to_it() -> None:
    """Where that version is missing, the one before it; where all are later, nothing."""
    often(given(events=gappy(), version=st.integers(0, 8))(a_version_is_the_state_after_it))()


def test_the_law_of_versions_notices_rows_counted_for_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: version n is taken for the n-th row, which it is only where nothing is missing."""
    honest = rows.Rows.prefixes

    def nth(self: Any, stamps: np.ndarray, bound: int) -> Any:
        if stamps is self.typed.version:
            stamps = np.arange(len(stamps)) - self.typed.starts[self.owners] + 1
        return honest(self, stamps, bound)

    monkeypatch.setattr(rows.Rows, "prefixes", nth)
    breaks(a_version_is_the_state_after_it, gappy(), st.integers(0, 8))


# --- 7. no future ----------------------------------------------------------------------------------------

labels = st.lists(st.tuples(st.sampled_from(["a", "ab", "b", "é", "nobody"]), moments), max_size=6)
ages = st.sampled_from([None, timedelta(0), timedelta(microseconds=1), timedelta(seconds=1)])


def spine_of(told: list[tuple[str, datetime]]) -> pl.DataFrame:
    return pl.DataFrame(told, schema={"who": pl.String, "when": pl.Datetime("us", "UTC")}, orient="row")


def an_age_is_how_long_the_state_had_held(
    events: pl.DataFrame, told: list[tuple[str, datetime]], ttl: timedelta | None
) -> None:
    lives = slow.lives_of(events)
    answer = fold(events).asof(spine_of(told), on="when", by="who", ttl=ttl)
    for (name, moment), row in zip(told, answer.to_dicts(), strict=True):
        life = lives.get(name, [])
        seen = slow.counted(life, moment, "prefix")
        age = moment - slow.held(life)[len(seen) - 1][0] if seen else None
        fresh = age is not None and (ttl is None or age <= ttl)
        assert row["state_age"] == (age if fresh else None)
        assert row["version"] == (seen[-1].version if fresh else None)
        assert row["tracking"] == (Parcel.fold(seen).tracking if fresh else None)


def test_the_age_of_a_joined_state_is_how_long_it_had_held_and_ttl_ends_it() -> None:
    """Exactly as old as the ttl is young enough; what is too old is null, in its row."""
    often(given(events=gappy(), told=labels, ttl=ages)(an_age_is_how_long_the_state_had_held))()


def test_the_law_of_ages_notices_an_age_counted_from_the_events_own_stamp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: a state is dated by the last event's timestamp, though it counted only later."""
    monkeypatch.setattr(rows.Rows, "counted", lambda self, cut: self.typed.timestamp)
    breaks(an_age_is_how_long_the_state_had_held, gappy(), labels, ages)


def what_comes_later_changes_no_label(
    events: pl.DataFrame, later: pl.DataFrame, told: list[tuple[str, datetime]]
) -> None:
    """Go on with the same lives after every label, and with new ones, and ask again."""
    last = events.group_by("aggregate_id").agg(pl.col("version").max().alias("last"))
    more = later.join(last, on="aggregate_id", how="left").select(
        "aggregate_id",
        pl.col("version") + pl.col("last").fill_null(0),
        "event_type",
        "payload",
        "metadata",
        pl.col("timestamp").dt.offset_by("1h"),
    )
    before = fold(events).asof(spine_of(told), on="when", by="who")
    after = fold(pl.concat([events, more])).asof(spine_of(told), on="when", by="who")
    assert before.equals(after)


def test_what_happens_after_a_label_does_not_change_its_features() -> None:
    """Law 7, from its other side: the future may hold anything."""
    often(given(events=histories(), later=histories(), told=labels)(what_comes_later_changes_no_label))()


def test_the_law_of_no_future_notices_a_last_row_that_is_always_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: the newest state is joined, whatever the label's moment."""

    def newest(stamps: np.ndarray, low: np.ndarray, high: np.ndarray, when: np.ndarray) -> np.ndarray:
        return np.where(high > low, high - 1, -1)

    monkeypatch.setattr(rows, "rows_at", newest)
    breaks(what_comes_later_changes_no_label, histories(), histories(), labels)
