"""Variants and flow: every way that lives take, counted exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import parallel
from titan_lab.event import EVENTS
from titan_lab.mining import variants as module
from titan_lab.mining import waits
from titan_lab.mining.trails import trails
from titan_lab.testing import slow_mining
from titan_lab.testing.histories import histories
from titan_lab.testing.slow import lives_of

often = settings(derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck), database=None)
hunting = settings(often, max_examples=300, phases=[Phase.explicit, Phase.generate])
START = datetime(2025, 1, 1, tzinfo=UTC)
VERBS = ["variants", "flow"]


def few_types() -> st.SearchStrategy[tuple[str, dict, dict]]:
    """Draw events of so few types that ways repeat."""
    return st.tuples(st.sampled_from(["A", "B", "é"]), st.just({}), st.just({}))


def log_of(lives: dict[str, str | list[str]], **gaps: list[int]) -> tl.EventLog:
    """Write lives as types in order; each event a minute after the last, or after the seconds given."""
    rows = []
    for name, types in lives.items():
        moment = START
        for place, kind in enumerate(types):
            rows.append((name, kind, moment))
            moment += timedelta(seconds=gaps.get(name, [60] * len(types))[place])
    frame = pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row")
    return tl.from_frame(frame, aggregate_id="case", event_type="activity", timestamp="time")


def agrees(verb: str, events: pl.DataFrame) -> None:
    mined = getattr(tl.from_frame(events), verb)()
    assert mined.to_dicts() == getattr(slow_mining, verb)(lives_of(events))


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_what_a_loop_over_the_lives_finds(verb: str) -> None:
    """On histories whose clocks step back, tie and stand still."""

    @often
    @given(events=histories() | histories(few_types(), max_aggregates=6, max_events=3))
    def check(events: pl.DataFrame) -> None:
        agrees(verb, events)

    check()


def without_ends(typed: Any) -> pl.Series:
    return pl.Series([bytes(typed.kind[start : start + 2]) for start in typed.starts], dtype=pl.Binary)


def run_on(rows: Any, typed: Any, made: Any = module.Rows.__init__) -> None:
    made(rows, typed)
    rows.followed[:-1] = True


@pytest.mark.parametrize(
    ("verb", "where", "name", "bug"),
    [
        # Two ways that begin alike are taken for one, as a hash that collides would do.
        ("variants", module, "sequences", without_ends),
        # Each next event of the table is taken for a next event of the life.
        ("flow", module.Rows, "__init__", run_on),
        # The plain timestamps, which step back.
        ("flow", module.Rows, "counted", lambda rows, cut: np.abs(rows.typed.timestamp)),
        ("variants", module.Rows, "counted", lambda rows, cut: rows.typed.timestamp),
    ],
    ids=["ways that begin alike", "into the next life", "waits by the clock", "durations by the clock"],
)
def test_a_planted_bug_is_noticed(
    verb: str, where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these would be an easy mistake."""
    monkeypatch.setattr(where, name, bug)

    @hunting
    @given(events=histories(few_types(), max_aggregates=6, max_events=3))
    def check(events: pl.DataFrame) -> None:
        agrees(verb, events)

    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("verb", VERBS)
def test_a_book_answers_as_its_log_does(verb: str) -> None:
    """Payloads and the aggregate play no part."""
    log = tl.open("sqlite:///data/samples/orders.db")
    assert getattr(log.fold(tl.Order), verb)().equals(getattr(log, verb)())


@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_log_gives_an_empty_frame_of_the_same_columns(verb: str) -> None:
    """With the dtypes that a full one has."""
    empty, full = tl.from_frame(EVENTS.to_frame()), log_of({"a": "AB"})
    assert getattr(empty, verb)().schema == getattr(full, verb)().schema
    assert getattr(empty, verb)().is_empty()


@pytest.mark.parametrize("verb", VERBS)
def test_threads_and_the_order_of_rows_change_nothing(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 10: pieces of three rows on threads give the same bytes."""
    events = tl.open("sqlite:///data/samples/orders.db").read()
    before = getattr(module, verb)(trails(events))
    monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(parallel, "MANY", 1)
    assert getattr(module, verb)(trails(events.sample(fraction=1, shuffle=True, seed=7))).equals(before)


def test_one_event_is_a_life_of_no_length() -> None:
    """It begins and ends there."""
    log = log_of({"a": "A"})
    assert log.variants().rows() == [(["A"], 1, 1.0, timedelta(0), "a")]
    assert log.flow().rows() == [
        (None, "A", 1, 1.0, None, None, None),
        ("A", None, 1, 1.0, None, None, None),
    ]


def test_equal_timestamps_are_no_ties() -> None:
    """Order is by version, so the same moment for all events tells the same two ways every time."""
    log = log_of({"a": "ABC", "b": "CBA"}, a=[0, 0, 0], b=[0, 0, 0])
    assert log.variants()["variant"].to_list() == [["A", "B", "C"], ["C", "B", "A"]]


def test_a_clock_that_steps_back_waits_nothing() -> None:
    """The second event counts from the first one's moment; the third is 5 s after that."""
    log = log_of({"a": "ABC"}, a=[-10, 15, 0])
    waits = log.flow().drop_nulls(["from_type", "to_type"])
    assert waits["mean_wait"].to_list() == [timedelta(0), timedelta(seconds=5)]
    assert log.variants()["median_duration"].item() == timedelta(seconds=5)


def test_types_named_like_the_ends_stay_themselves() -> None:
    """Beginning and end are null, so that no name can be taken for them."""
    log = log_of({"a": ["start", "end"]})
    assert log.flow().select("from_type", "to_type").rows() == [
        (None, "start"),
        ("end", None),
        ("start", "end"),
    ]


def test_ways_of_more_than_256_types_stay_apart() -> None:
    """Codes are then wider than a byte."""
    names = [f"T{n}" for n in range(700)]
    log = log_of({"a": names, "b": names[::-1], "c": names})
    assert log.variants().select("count", "example").rows() == [(2, "a"), (1, "b")]
    assert log.variants()["variant"][1].to_list() == names[::-1]


def test_pairs_of_very_many_types_need_no_table_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more possible pairs than events, those that occur are looked up instead."""
    log = tl.open("sqlite:///data/samples/orders.db")
    before = log.flow()
    monkeypatch.setattr(module, "ROOM", -(10**9))
    assert log.flow().equals(before)


def test_a_life_of_ten_thousand_events_is_one_way() -> None:
    """And one that differs in its last event is another."""
    log = log_of({"a": "AB" * 5000, "b": "AB" * 4999 + "AC"})
    assert log.variants()["count"].to_list() == [1, 1]


def test_types_narrow_what_a_way_is_made_of() -> None:
    """As of reading: the scope comes first, then the mining."""
    log = log_of({"a": "AXB", "b": "AB", "c": "X"})
    assert log.variants(types=["A", "B"]).select("variant", "count").rows() == [(["A", "B"], 2)]


@pytest.mark.parametrize("longest", [5, 10**15, 2**61])
def test_waits_are_exact_however_long_they_are(longest: int) -> None:
    """Sums beyond 64 bits, and values that leave no room for their group beside them."""
    rng = np.random.default_rng(1)
    groups, lengths = rng.integers(0, 5, 999), rng.integers(0, longest, 999)
    groups[groups == 2] = 1
    found = waits.Waits(groups, lengths, 5)
    for group in range(5):
        own = sorted(int(n) for n in lengths[groups == group])
        told = [column.dt.total_microseconds()[group] for column in (found.mean(), found.quantile(9))]
        place, tenth = divmod(9 * (len(own) - 1), 10)
        assert told == (
            [
                sum(own) // len(own),
                own[place] + (own[min(place + 1, len(own) - 1)] - own[place]) * tenth // 10,
            ]
            if own
            else [None, None]
        )
