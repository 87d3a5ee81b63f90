"""Funnels: who took which steps, proven by the events; the mistakes of others are tests here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import parallel, tracks
from titan_lab.errors import FunnelError, InstantError, NoSuchColumn
from titan_lab.event import EVENTS
from titan_lab.mining import chains as module
from titan_lab.testing import slow_mining
from titan_lab.testing.histories import histories
from titan_lab.testing.slow import lives_of

often = settings(derandomize=True, max_examples=120, suppress_health_check=list(HealthCheck), database=None)
hunting = settings(often, max_examples=400, phases=[Phase.explicit, Phase.generate])
START = datetime(2025, 1, 1, tzinfo=UTC)
SAMPLES = "sqlite:///data/samples/orders.db"

few_types = st.tuples(st.sampled_from(["A", "B", "é"]), st.just({}), st.just({}))


def log_of(*lives: str | list[str], every: float = 60, gaps: list[float] | None = None) -> tl.EventLog:
    """Write lives, a letter or name for each event, so many seconds after the one before."""
    rows = []
    for number, types in enumerate(lives):
        moment = START
        for place, kind in enumerate(types):
            moment += timedelta(seconds=gaps[place] if gaps else every)
            rows.append((f"life {number}", kind, moment))
    frame = pl.DataFrame(rows, schema=["case", "activity", "time"], orient="row")
    return tl.from_frame(frame, aggregate_id="case", event_type="activity", timestamp="time")


def counts(log: Any, steps: Any, **rules: Any) -> list[int]:
    return log.funnel(steps, **rules).steps["count"].to_list()


def versions(log: Any, steps: Any, **rules: Any) -> list[list[int]]:
    return log.funnel(steps, **rules).witnesses["versions"].to_list()


# --- against the loop that tries every chain --------------------------------------------------------------

TAKES: dict[str, Any] = {
    "A": "A",
    "B": "B",
    "é": "é",
    "not A": lambda kind: kind != "A",
    "any": lambda kind: True,
}
APART = ["A", "B", "é"]  # in any order, steps must have no type in common

rules = st.fixed_dictionaries(
    {
        "strict": st.booleans(),
        "reentry": st.booleans(),
        "within": st.none() | st.integers(0, 4).map(lambda seconds: timedelta(seconds=seconds)),
    }
)
every_type = pl.DataFrame(
    [("~", n, kind, "{}", None, START) for n, kind in enumerate(["A", "B", "é"], start=1)],
    schema=EVENTS,
    orient="row",
)


def agrees(events: pl.DataFrame, steps: list[str], order: str, rules: dict[str, Any]) -> None:
    """Compare with the loop: the chains, and all that is counted from them."""
    events = pl.concat([events, every_type])  # so that each step is taken by somebody
    rules = rules | {"strict": rules["strict"] and order == "given"}
    found = tl.from_frame(events).funnel([TAKES[step] for step in steps], order=order, **rules)
    takes = [step if callable(step) else step.__eq__ for step in (TAKES[name] for name in steps)]
    lives = lives_of(events)
    expected = slow_mining.funnel(lives, takes, any_order=order == "any", **rules)
    told = [
        (name, [life[place] for place in chain])
        for name, life in sorted(lives.items(), key=lambda one: one[0].encode())
        for chain in expected.get(name, [])
    ]
    assert found.witnesses.rows() == [
        (
            name,
            len(chain),
            [event.version for event in chain],
            [event.event_type for event in chain],
            [event.timestamp for event in chain],
        )
        for name, chain in told
    ]
    reached = [sum(len(chain) > place for _, chain in told) for place in range(len(steps))]
    assert found.steps["count"].to_list() == reached
    assert found.steps["share_of_first"].to_list() == [
        n / reached[0] if reached[0] else None for n in reached
    ]
    previous = [
        None,
        *(n / before if before else None for before, n in pairwise(reached)),
    ]
    assert found.steps["share_of_previous"].to_list() == previous
    waits: list[list[timedelta]] = [[] for _ in steps]
    for name, some in expected.items():
        moments = slow_mining.clocks(lives[name])
        for chain in some:
            for place, (before, after) in enumerate(pairwise(chain), start=1):
                waits[place].append(moments[after] - moments[before])
    assert found.steps["median_wait"].to_list() == [slow_mining.quantile(some, 5) for some in waits]


drawn = st.one_of(
    st.tuples(st.lists(st.sampled_from(list(TAKES)), min_size=1, max_size=4), st.just("given")),
    st.tuples(st.lists(st.sampled_from(APART), min_size=1, max_size=4), st.just("any")),
)


@often
@given(events=histories(few_types, max_aggregates=3), course=drawn, rules=rules)
def test_it_is_what_trying_every_chain_finds(
    events: pl.DataFrame, course: Any, rules: dict[str, Any]
) -> None:
    """On histories whose clocks step back, tie and stand still; with every rule, alone and together."""
    agrees(events, *course, rules)


def first_begin_only(piece: Any, step: bytes, one: bool, own: Any = module._Piece.begins) -> np.ndarray:
    return own(piece, step, one=True)


def last_longest(found: Any) -> np.ndarray:
    return np.flatnonzero(np.append(np.diff(found.lives), 1)[: len(found.lives)])


def every_begin(found: Any) -> np.ndarray:
    return np.arange(len(found.lives))


def one_row_for_two(piece: Any, step: bytes, rows: Any, ends: Any, own: Any = module._Piece.after) -> Any:
    return own(piece, step, np.maximum(rows, 0) - 1, ends)


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        # The window opens at the first possible begin only: the greedy single chain of others.
        (module._Piece, "begins", first_begin_only),
        # Of equally long chains, or of all, the last one counts.
        (module, "_longest", last_longest),
        # Chains that overlap count as entries of their own.
        (module, "_entries", every_begin),
        # One event takes two steps.
        (module._Piece, "after", one_row_for_two),
        # Time as the clock told it, which steps back.
        (module.Rows, "counted", lambda rows, cut: rows.typed.timestamp),
    ],
    ids=["one begin", "the last chain", "overlapping entries", "one event for two steps", "the clock's time"],
)
def test_a_planted_bug_is_noticed(where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these is a mistake that others shipped, or that lies near."""
    monkeypatch.setattr(where, name, bug)

    @hunting
    @given(events=histories(few_types, max_aggregates=3), course=drawn, rules=rules)
    def check(events: pl.DataFrame, course: Any, rules: dict[str, Any]) -> None:
        agrees(events, *course, rules)

    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(
    "rules", [{}, {"within": "7d"}, {"strict": True}, {"reentry": True}, {"order": "any"}]
)
def test_pieces_threads_and_the_order_of_rows_change_nothing(
    rules: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 10; a piece of three rows still holds whole lives."""
    events = tl.open(SAMPLES).read()
    steps = ["OrderCreated", "OrderModified", "OrderShipped"]
    before = tl.from_frame(events).funnel(steps, **rules)
    monkeypatch.setattr(module, "PIECE", 3)
    monkeypatch.setattr(parallel, "MANY", 1)
    after = tl.from_frame(events.sample(fraction=1, shuffle=True, seed=7)).funnel(steps, **rules)
    assert after.steps.equals(before.steps)
    assert after.witnesses.equals(before.witnesses)


# --- groups, against the fold event by event --------------------------------------------------------------


def groups_agree(events: pl.DataFrame, by: str) -> None:
    """Compare each chain's group with the fold up to its first step, and the counts with the witnesses."""
    book = tl.from_frame(events).fold(tl.Order)
    some = [lambda kind: kind != "OrderCreated", lambda kind: True]
    try:
        found = book.funnel(some, within="2s", by=by, reentry=True)
    except FunnelError:  # nobody takes the first step
        return
    lives = lives_of(events)
    for aggregate_id, value, numbers in found.witnesses.select("aggregate_id", by, "versions").iter_rows():
        life = [event for event in lives[aggregate_id] if event.version <= numbers[0]]
        assert value == getattr(tl.Order.fold(life), by)
    rows = found.witnesses.select(by, "reached").rows()
    for value, step, count in found.steps.select(by, "step", "count").iter_rows():
        assert count == sum(other == value and reached >= step for other, reached in rows)
    assert len(found.steps) == 2 * len({value for value, _ in rows})


@often
@given(events=histories(), by=st.sampled_from(["status", "total", "user_id"]))
def test_groups_are_the_state_after_the_first_step(events: pl.DataFrame, by: str) -> None:
    """Whatever is known by then, null where nothing is."""
    groups_agree(events, by)


def test_a_group_by_what_became_of_an_order_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: the state after the last event, which the funnel's beginning could not know."""
    at = tracks.Latest.at

    def last(self: Any, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return at(self, (self.typed.ends - 1)[owners], owners)

    monkeypatch.setattr(tracks.Latest, "at", last)

    @hunting
    @given(events=histories())
    def check(events: pl.DataFrame) -> None:
        groups_agree(events, "total")

    with pytest.raises(AssertionError):
        check()


# --- what others got wrong --------------------------------------------------------------------------------


def test_equal_timestamps_are_no_ties() -> None:
    """Version order decides: what comes in the same instant still comes before or after."""
    log = log_of("ABC", "CBA", every=0)
    assert counts(log, ["A", "B", "C"]) == [2, 1, 1]
    assert counts(log, ["A", "B", "C"], within="0s", strict=True) == [2, 1, 1]


def test_the_same_step_twice_takes_two_events() -> None:
    """ClickHouse's windowFunnel lets one event stand for both."""
    assert counts(log_of("AB", "AAB", "ABA"), ["A", "A", "B"]) == [3, 2, 1]


def test_a_repeated_step_does_not_end_a_chain() -> None:
    """strict_deduplication and strict_increase stop at the second A; a later A is no step back."""
    assert counts(log_of("AABBC", every=0), ["A", "B", "C"]) == [1, 1, 1]


def test_a_later_window_counts_where_the_first_one_closes_too_early() -> None:
    """The first A is too old by the time of C; the second is not."""
    log = log_of("AABC", gaps=[0, 3600, 60, 60])
    assert counts(log, ["A", "B", "C"], within="10m") == [1, 1, 1]
    assert versions(log, ["A", "B", "C"], within="10m") == [[2, 3, 4]]


def test_an_earlier_window_counts_where_it_gets_further() -> None:
    """The chain from the second A ends at B; that from the first comes to C, if B does not move it on."""
    log = log_of("ABAC", every=60)
    assert versions(log, ["A", "B", "C"]) == [[1, 2, 4]]


def test_a_window_includes_its_end_and_nothing_past_it() -> None:
    """To the microsecond, from the first step and not from the one before."""
    log = log_of("ABC", gaps=[0, 60, 60])
    assert counts(log, ["A", "B", "C"], within="2m") == [1, 1, 1]
    assert counts(log, ["A", "B", "C"], within=timedelta(minutes=2) - timedelta(microseconds=1)) == [1, 1, 0]


def test_an_event_between_two_steps_breaks_a_strict_chain_only() -> None:
    """Also one whose type is no step: strict means nothing in between."""
    log = log_of("AXB", "AB", "AXAB")
    assert counts(log, ["A", "B"]) == [3, 3]
    assert counts(log, ["A", "B"], strict=True) == [3, 2]
    assert versions(log, ["A", "B"], strict=True) == [[1], [1, 2], [3, 4]]


def test_a_strict_chain_that_breaks_may_begin_again() -> None:
    """strict_order stops at the first interruption."""
    assert counts(log_of("ABXABC"), ["A", "B", "C"], strict=True) == [1, 1, 1]


def test_forty_steps_are_no_more_than_four() -> None:
    """ClickHouse ends at 32 conditions, and funnels of joins at a dozen."""
    names = [f"S{n}" for n in range(40)]
    log = log_of(names, names[:35], names[::-1])
    assert counts(log, names) == [3, *[2] * 34, *[1] * 5]
    assert counts(log, names, strict=True) == [3, *[2] * 34, *[1] * 5]
    assert counts(log, names, order="any") == [*[3] * 35, *[2] * 5]
    assert repr(log.funnel(names)) == "<Funnel of 3 aggregates: S0 3 > S1 2 > S2 2 > 36 more > S39 1>"


def test_entering_again_counts_again_when_it_is_asked_for() -> None:
    """Each after the end of the one before; an entry that goes nowhere is one, too."""
    log = log_of("ABABA")
    assert counts(log, ["A", "B"]) == [1, 1]
    assert counts(log, ["A", "B"], reentry=True) == [3, 2]
    assert versions(log, ["A", "B"], reentry=True) == [[1, 2], [3, 4], [5]]


def test_a_life_of_many_entries_is_no_loop_over_them() -> None:
    """A hundred thousand entries of one aggregate, each told by its events."""
    log = log_of("AB" * 100_000, every=1)
    assert counts(log, ["A", "B"], reentry=True) == [100_000, 100_000]


def test_in_any_order_each_step_still_takes_an_event_of_its_own() -> None:
    """Two of A are needed for two steps of A; the witnesses come by version."""
    log = log_of("CBA", "AB", "AAC", "B")
    assert counts(log, ["A", "B", "C"], order="any") == [4, 3, 1]
    assert counts(log, ["A", "A", "C"], order="any") == [3, 2, 1]
    assert versions(log, ["A", "B", "C"], order="any") == [[1, 2, 3], [1, 2], [1, 3], [1]]
    assert log.funnel(["A", "B"], order="any").steps["name"].to_list() == ["1 of 2", "2 of 2"]


def test_in_any_order_a_window_begins_at_every_step() -> None:
    """B and C lie close together, A is an hour away."""
    log = log_of("ABC", gaps=[0, 3600, 60])
    assert versions(log, ["A", "B", "C"], order="any", within="5m") == [[2, 3]]


def test_a_window_longer_than_all_time_is_none() -> None:
    """No sum of microseconds runs over."""
    for order in ("given", "any"):
        assert counts(log_of("AB"), ["A", "B"], order=order, within=timedelta.max) == [1, 1]


def test_an_event_decades_in_the_future_stays_outside_of_the_window() -> None:
    """And what comes after it counts from its moment, as everywhere."""
    log = log_of("ABC", gaps=[0, 10**9, -(10**9)])
    assert counts(log, ["A", "C"], within="30d") == [1, 0]
    assert counts(log, ["A", "C"]) == [1, 1]


def test_a_life_of_one_event_takes_one_step() -> None:
    """The others are taken by nobody here."""
    funnel = log_of("A", "B").funnel(["A", "B"])
    assert funnel.steps.rows() == [(1, "A", 1, 1.0, None, None), (2, "B", 0, 0.0, 0.0, None)]
    assert funnel.witnesses["aggregate_id"].to_list() == ["life 0"]


def test_an_empty_log_gives_zeros() -> None:
    """There is nothing to compare a step's name with, so any will do."""
    full, empty = log_of("AB").funnel(["A", "B"]), tl.from_frame(EVENTS.to_frame()).funnel(["A", "B"])
    assert empty.steps.rows() == [(1, "A", 0, None, None, None), (2, "B", 0, None, None, None)]
    assert (empty.steps.schema, empty.witnesses.schema) == (full.steps.schema, full.witnesses.schema)
    for rules in ({"within": "1d"}, {"reentry": True}, {"strict": True}, {"order": "any"}):
        funnel = tl.from_frame(EVENTS.to_frame()).funnel(["A", lambda kind: True], by="event_type", **rules)
        assert funnel.steps.is_empty()
        assert funnel.witnesses.is_empty()


def test_names_in_any_script_are_names() -> None:
    """Whatever an application called its events."""
    log = log_of(["注文", "paiement reçu", "🚚"], ["注文", "🚚"])
    assert counts(log, ["注文", "🚚"]) == [2, 2]
    assert repr(log.funnel(["注文", "🚚"])) == "<Funnel of 2 aggregates: 注文 2 > 🚚 2>"


# --- steps, groups and what is shown ----------------------------------------------------------------------


def test_steps_are_names_classes_or_functions() -> None:
    """A function that has a name lends it; a lambda is called by the types it lets through."""

    def money(kind: str) -> bool:
        return kind in ("PaymentAuthorized", "RefundIssued")

    steps = [tl.OrderCreated, "OrderShipped", money, lambda kind: kind.startswith("Order")]
    names = tl.open(SAMPLES).funnel(steps).steps["name"].to_list()
    assert names[:3] == ["OrderCreated", "OrderShipped", "money"]
    assert names[3].split(" | ")[:2] == ["OrderCancelled", "OrderCorrected"]
    assert tl.open(SAMPLES).funnel("OrderCreated").steps["name"].to_list() == ["OrderCreated"]


def test_a_book_groups_by_its_state_after_the_first_step() -> None:
    """What an order became later has no say; a book and its log agree otherwise."""
    log = tl.open(SAMPLES)
    book = log.fold(tl.Order)
    steps = ["PaymentAuthorized", "OrderShipped"]
    grouped = book.funnel(steps, by="status").steps
    assert grouped["status"].to_list() == ["PAID", "PAID"]
    assert grouped.drop("status").equals(log.funnel(steps).steps)
    by_sum = book.funnel(["OrderCreated", "OrderShipped"], by="total")
    assert by_sum.steps["count"].sum() == sum(by_sum.counts)
    assert by_sum.witnesses.columns == [
        "aggregate_id",
        "total",
        "reached",
        "versions",
        "event_types",
        "timestamps",
    ]
    firsts = book.at(version=1, columns="total").select("aggregate_id", "total")
    joined = by_sum.witnesses.select("aggregate_id", "total").join(firsts, on=["aggregate_id", "total"])
    assert len(joined) == len(by_sum.witnesses)


def test_a_log_groups_by_a_field_of_the_first_step() -> None:
    """Sorted by value, null last; each group has all steps and medians of its own."""
    frame = pl.DataFrame(
        {
            "aggregate_id": ["a", "a", "b", "c", "c"],
            "event_type": ["A", "B", "A", "A", "B"],
            "timestamp": [START + timedelta(seconds=n) for n in (0, 5, 0, 0, 9)],
            "payload": ['{"from": {"land": "PT"}}', "{}", '{"from": null}', '{"from": {"land": "BR"}}', "{}"],
        }
    )
    steps = tl.from_frame(frame).funnel(["A", "B"], by="payload.from.land").steps
    assert steps.select("payload.from.land", "count", "median_wait").rows() == [
        ("BR", 1, None),
        ("BR", 1, timedelta(seconds=9)),
        ("PT", 1, None),
        ("PT", 1, timedelta(seconds=5)),
        (None, 1, None),
        (None, 0, None),
    ]


def test_a_notebook_sees_the_steps_and_the_rules() -> None:
    """As text: a type's name is an application's."""
    funnel = log_of(["<script>", "B"]).funnel(["<script>", "B"], within="36h", strict=True, reentry=True)
    shown = re.sub(r"<style.*?</style>|<[^>]*>", " ", funnel._repr_html_(), flags=re.DOTALL)
    assert "<script>" not in funnel._repr_html_()
    assert "Funnel of 1 aggregates" in shown
    assert "within 1 d 12 h · nothing in between · each entry counts · see .witnesses for the events" in shown


# --- bad input --------------------------------------------------------------------------------------------


def broken(kind: str) -> bool:
    return kind[99] == "x"


@pytest.mark.parametrize(
    ("steps", "rules", "error", "message"),
    [
        ([], {}, FunnelError, "a funnel of no steps"),
        (None, {}, FunnelError, "None is no list of steps"),
        (["OrderCreated", "OrderShiped"], {}, FunnelError, "no event takes step 2, 'OrderShiped'"),
        (["ordershipped"], {}, FunnelError, "no event takes step 1, 'ordershipped'"),
        (["OrderCreated", 7], {}, FunnelError, "step 2 is 7, no event type"),
        ([int], {}, FunnelError, "step 1 is <class 'int'>, no event type"),
        ([broken], {}, FunnelError, "step 1 failed on 'ItemsReturned' with IndexError: string index out"),
        ([lambda kind: 1], {}, FunnelError, "step 1 says 1 of 'ItemsReturned', neither True nor False"),
        ([lambda kind: False], {}, FunnelError, "no event takes step 1, 'a function'"),
        (["OrderCreated"], {"within": "soon"}, InstantError, "'soon' is no length of time"),
        (["OrderCreated"], {"within": "1mo"}, InstantError, "'1mo' is no length of time"),
        (["OrderCreated"], {"within": 7}, InstantError, "7 is no length of time"),
        (["OrderCreated"], {"within": "9" * 30 + "d"}, InstantError, "is no length of time"),
        (["OrderCreated"], {"within": -timedelta(days=7)}, InstantError, "ends before it begins"),
        (["OrderCreated"], {"order": "all"}, FunnelError, "'all' is no order"),
        (["OrderCreated"], {"order": "any", "strict": True}, FunnelError, "strict leaves nothing between"),
        (
            ["OrderCreated", lambda kind: True],
            {"order": "any"},
            FunnelError,
            r"steps 1 \(OrderCreated\) and 2 \(.*\) share some types",
        ),
        (["OrderCreated"], {"by": "statos"}, NoSuchColumn, "statos"),
    ],
)
@pytest.mark.parametrize("source", ["log", "book"])
def test_bad_input_is_named(source: str, steps: Any, rules: Any, error: type, message: str) -> None:
    """For a log as for a book."""
    log = tl.open(SAMPLES)
    with pytest.raises(error, match=message):
        (log if source == "log" else log.fold(tl.Order)).funnel(steps, **rules)


@pytest.mark.parametrize(
    ("step", "near"), [("OrderShiped", "OrderShipped"), ("ordershipped", "OrderShipped")]
)
def test_a_misspelt_step_is_answered_with_near_names(step: str, near: str) -> None:
    """With the names as they are written."""
    with pytest.raises(FunnelError, match=f"Did you mean '{near}'"):
        tl.open(SAMPLES).funnel([step])


def test_a_strange_step_is_answered_with_all_names() -> None:
    """Up to a dozen of them."""
    with pytest.raises(FunnelError, match=r"the types that occur are ItemsReturned, .*Issued$"):
        tl.open(SAMPLES).funnel(["xyz"])


def test_a_column_that_a_funnel_has_itself_is_refused() -> None:
    """Rather than told apart by a suffix."""

    class Opened(tl.EventType):
        count: int = 1

    class Ticket(tl.Aggregate):
        count = tl.latest(Opened)

    frame = pl.DataFrame({"aggregate_id": ["a"], "event_type": ["Opened"], "timestamp": [START]})
    with pytest.raises(FunnelError, match="a funnel has a column 'count' of its own"):
        tl.from_frame(frame).fold(Ticket).funnel(["Opened"], by="count")
    with pytest.raises(FunnelError, match="a funnel has a column 'aggregate_id' of its own"):
        tl.from_frame(frame).funnel(["Opened"], by="aggregate_id")
