"""What changed, when and why, against a loop over events; each law beside the bug that must break it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import decoding, metadata, rows, tracks, typed
from titan_lab.book import Book
from titan_lab.clock import CUTS
from titan_lab.errors import NotMonotone
from titan_lab.reducers import key
from titan_lab.testing import slow, slow_change
from titan_lab.testing.histories import histories, moments, order_payloads, texts
from titan_lab.upcast import Payload
from titan_lab.why import bisect, change, explain, trace

often = settings(
    derandomize=True, max_examples=30, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=400, phases=[Phase.generate])

BEFORE = slow.START_OF_ALL - timedelta(seconds=1)
ALWAYS = datetime.max.replace(tzinfo=UTC)

Law = Callable[..., None]
cuts = st.sampled_from(CUTS)


class Point(tl.Record):
    x: int
    note: str | None = None


class Red(tl.EventType):
    number: int
    money: Decimal
    word: str
    points: list[Point]


class Blue(tl.EventType):
    number: int | None = None
    word: str | None = None
    flag: bool = False
    weight: float | None = None
    due: datetime | None = None


@tl.upcaster(Red, since=1, to=2, before={"text": "a"}, after={"word": "a"})
def text_became_word(payload: Payload) -> Payload:
    """Rename a field; without a columnar twin, so that it is read row by row."""
    return {("word" if name == "text" else name): value for name, value in payload.items()}


@tl.fill(Red, Blue, before={"number": 1}, after={"number": 1, "word": "none"})
def no_word(payload: Payload) -> Payload:
    """Say "none" where no word is."""
    return payload if payload.get("word") is not None else {**payload, "word": "none"}


class Everything(tl.Aggregate):
    """Every reducer."""

    upcasts = (text_became_word, no_word)

    name = key()
    first_word = tl.first(Red, Blue, "word")
    latest_word = tl.latest(Red, Blue, "word")
    points = tl.latest(Red)
    flag = tl.latest(Blue)
    weight = tl.latest(Blue)
    due = tl.latest(Blue)
    events = tl.count(Red, Blue)
    blues = tl.count(Blue)
    money = tl.total_of(Red)
    numbers = tl.total_of(Red, Blue, "number")
    least = tl.smallest(Red, Blue, "number")
    most = tl.largest(Red, Blue, "number")
    last_word_in_the_book = tl.largest(Red, Blue, "word")
    earliest = tl.smallest(Blue, "due")
    amounts = tl.collect(Red, "money")
    all_points = tl.collect(Red, "points")
    state = tl.machine({Red: "RED", Blue: "BLUE"})
    stamped = tl.first(Red, "timestamp")
    last_version = tl.latest(Red, Blue, "version")
    odd = tl.step(lambda value, event: (value + event.version) % 2, 0)
    trail = tl.step(lambda value, event: [*value, event.payload.word][:2], [], Red, dtype=pl.List(pl.String))


@st.composite
def colours(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Draw an event of Everything, or of a type it does not declare."""
    kind = draw(st.sampled_from(["Red", "Blue", "Green"]))
    fields: dict[str, st.SearchStrategy[Any]] = {
        "number": st.integers(-3, 3),
        "word": texts,
        "flag": st.booleans(),
        "weight": st.sampled_from([0.5, -2.25, 3.0]),
        "due": st.sampled_from(["2025-01-01T00:00:00Z", "2025-01-01T02:00:00.000001+02:00"]),
    }
    payload = {name: draw(values) for name, values in fields.items() if draw(st.booleans())}
    if kind != "Red":
        return kind, payload, {}
    old = draw(st.booleans())
    payload = {
        "number": payload.get("number", 0),
        "money": draw(st.integers(-999, 999).map(lambda cents: str(Decimal(cents) / 100))),
        "points": [{"x": x, "note": draw(texts)} for x in draw(st.lists(st.integers(0, 3), max_size=2))],
        **({"text" if old else "word": payload["word"]} if "word" in payload else {}),
    }
    return kind, payload, {} if old else {"schema_version": 2}


@st.composite
def told_histories(draw: st.DrawFn, payloads: Any = None, **size: int) -> pl.DataFrame:
    """Draw a history whose metadata tells of requests and causes, written in many ways."""
    events = draw(histories(payloads, **size))
    fields = {
        "event_id": st.sampled_from(["e1", "e2", "e3", "a/1"]),
        "causation_id": st.sampled_from(["e1", "e2", "e3", "a/1", "b/2", "ab/1", 'cmd "1"', "cmd-é", 7, ""]),
        "correlation_id": st.sampled_from(["r1", "r2", "", 'r "3"', "é", 5, True, {"a": "r1"}, None]),
    }
    told = []
    for text in events["metadata"]:
        names = draw(st.permutations(list(fields)))
        said = {name: draw(fields[name]) for name in names if draw(st.booleans())} | json.loads(text or "{}")
        tight = {"separators": (",", ":")} if draw(st.booleans()) else {}
        written = json.dumps(said, ensure_ascii=draw(st.booleans()), **tight)  # type: ignore[arg-type]
        told.append(written if said or text is not None else None)
    return events.with_columns(metadata=pl.Series(told, dtype=pl.String))


both = pytest.mark.parametrize(
    ("aggregate", "payloads"),
    [(tl.Order, order_payloads()), (Everything, colours())],
    ids=["Order", "Everything"],
)


def fold(events: pl.DataFrame, aggregate: Any = Everything) -> Book:
    return tl.from_frame(events).fold(aggregate)


def breaks(law: Law, *drawn: st.SearchStrategy[Any], **named: st.SearchStrategy[Any]) -> None:
    """Expect the law to be broken on some history."""
    with pytest.raises(AssertionError):
        hunting(given(*drawn, **named)(law))()


def by_then(lives: slow.Lives, moment: datetime, cut: Any) -> slow_change.Chosen:
    return {name: slow.counted(life, moment, cut) for name, life in lives.items()}


# --- blame ------------------------------------------------------------------------------------------------


def blame_is_what_the_loop_finds(aggregate: Any, events: pl.DataFrame, moment: datetime, cut: Any) -> None:
    book, lives = fold(events, aggregate), slow.lives_of(events)
    when = None if moment == ALWAYS else moment
    for name in aggregate.reducers:
        expected = slow_change.blame(aggregate, lives, name, moment, cut)
        assert book.blame(name, when, cut).to_dicts() == expected, name
        for one in expected[:1]:
            (alone,) = book[one.pop("aggregate_id")].blame(name, when, cut).to_dicts()
            assert alone == {"field": name} | one


@both
def test_each_value_is_blamed_on_the_event_that_set_it(aggregate: Any, payloads: Any) -> None:
    """Every reducer, every cut, and the upcast steps that wrote what was read."""

    @often
    @given(events=told_histories(payloads), moment=moments | st.just(ALWAYS), cut=cuts)
    def check(events: pl.DataFrame, moment: datetime, cut: Any) -> None:
        blame_is_what_the_loop_finds(aggregate, events, moment, cut)

    check()


def blame_of(aggregate: Any, payloads: Any) -> tuple[Law, st.SearchStrategy, st.SearchStrategy]:
    def law(events: pl.DataFrame, moment: datetime) -> None:
        blame_is_what_the_loop_finds(aggregate, events, moment, "prefix")

    return law, told_histories(payloads), st.just(ALWAYS)


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (tracks.Track, "sources", lambda self, at, owners: np.minimum(self.places(at, owners), at[-1:])),
        (tracks.Extreme, "setters", property(lambda self: self.rows)),
        (tracks.Stepped, "setters", property(lambda self: self.rows)),
        (tracks.First, "places", tracks.Track.places),
        (tracks.Key, "sources", lambda self, at, owners: at),
        (decoding, "_differing", lambda before, after, names: np.ones(before.height, dtype=bool)),
        (metadata, "HEADS", ('{"correlation_id": ', '{"correlation_id": "')),
        (typed.Typed, "correlations_of", lambda self, at: self.correlations.gather(at // 2)),
    ],
    ids=[
        "a place for a row",
        "an extreme that came again",
        "a step that changed nothing",
        "the latest for the first",
        "the last event for an id",
        "a fill that wrote nothing",
        "a quote too many",
        "another event's request",
    ],
)
def test_the_law_of_blame_notices(where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs: what would be told instead of the event that set the value."""
    monkeypatch.setattr(where, name, bug)
    # The steps of Everything run row by row, so that only Order's know of columns.
    breaks(*blame_of(tl.Order, order_payloads()) if where is decoding else blame_of(Everything, colours()))


# --- diff -------------------------------------------------------------------------------------------------


def diff_is_what_the_loop_finds(
    aggregate: Any, events: pl.DataFrame, t0: datetime, later: int, cut: Any, names: list[str]
) -> None:
    book, lives, t1 = fold(events, aggregate), slow.lives_of(events), t0 + timedelta(seconds=later)
    before, after = by_then(lives, t0, cut), by_then(lives, t1, cut)
    dtypes = {aggregate.reducers[name].dtype for name in names}
    as_text = len(dtypes) > 1
    found = book.diff(t0, t1, columns=names, cut=cut)
    assert found.to_dicts() == slow_change.diff(aggregate, before, after, names, as_text)
    assert found.schema["before"] == found.schema["after"] == (pl.String() if as_text else dtypes.pop())
    for name in lives:
        alone = book[name].diff(t0, t1, names, cut) if name in book else found.drop("aggregate_id")
        assert alone.equals(found.filter(pl.col("aggregate_id") == name).drop("aggregate_id"))


def columns_of(aggregate: Any) -> st.SearchStrategy[list[str]]:
    names = [name for name in aggregate.reducers if name not in ("id", "name")]
    return st.just(names) | st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)


@both
def test_a_diff_lists_each_field_that_changed_with_its_event(aggregate: Any, payloads: Any) -> None:
    """Two instants, every cut, all columns as text and some in their own dtype; a story tells its part."""

    @often
    @given(
        events=told_histories(payloads),
        t0=moments,
        later=st.integers(0, 4),
        cut=cuts,
        names=columns_of(aggregate),
    )
    def check(**drawn: Any) -> None:
        diff_is_what_the_loop_finds(aggregate, **drawn)

    check()


def everything_differs_rightly(
    events: pl.DataFrame, t0: datetime, later: int, cut: Any, names: list[str]
) -> None:
    diff_is_what_the_loop_finds(Everything, events, t0, later, cut, names)


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (change.Side, "values", lambda self, name: self.book.tracks[name].at(self.rows.clip(0), self.owners)),
        (change.Side, "sources", lambda self, name: np.full(len(self.rows), -1)),
        (change, "_by_aggregate", lambda places, size: (
            np.bincount(np.concatenate(places), minlength=size), np.arange(sum(map(len, places))))),
        (change, "as_written", lambda values: values.cast(pl.String, strict=False)
            if not values.dtype.is_nested() else slow_lists(values)),
    ],
    ids=["another's state for none", "no sources", "fields before aggregates", "instants with a space"],
)  # fmt: skip
def test_the_law_of_diff_notices(where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs: what a comparison may confuse."""
    monkeypatch.setattr(where, name, bug)
    names = [one for one in Everything.reducers if one != "name"]
    whole = {"t0": BEFORE, "later": 6, "cut": "prefix", "names": names}
    breaks(
        everything_differs_rightly,
        events=told_histories(colours()),
        **{one: st.just(value) for one, value in whole.items()},
    )


def slow_lists(values: pl.Series) -> pl.Series:
    return pl.Series([slow_change.as_written(one) for one in values.to_list()], dtype=pl.String)


@often
@given(events=told_histories(), low=st.integers(0, 4), more=st.integers(0, 4))
def test_two_versions_are_compared_like_two_instants(events: pl.DataFrame, low: int, more: int) -> None:
    """0 is before the first event, and a life that is shorter shows its last state."""
    book, lives = fold(events, tl.Order), slow.lives_of(events)
    before, after = (
        {name: [event for event in life if event.version <= bound] for name, life in lives.items()}
        for bound in (low, low + more)
    )
    found = book.diff(versions=(low, low + more))
    assert found.to_dicts() == slow_change.diff(tl.Order, before, after, list(tl.Order.reducers), True)
    for name in lives:
        mine = found.filter(pl.col("aggregate_id") == name).drop("aggregate_id")
        assert book[name].diff(low, low + more).equals(mine)


class Younger(tl.Aggregate):
    """Another fold of the same events, whose columns of the same names mean something else."""

    upcasts = Everything.upcasts

    latest_word = tl.first(Red, Blue, "word")
    numbers = tl.count(Red, Blue)
    money = tl.latest(Red)
    least = tl.latest(Blue, "word")
    of_its_own = tl.count(Red)


def two_timelines_differ_as_the_loop_says(
    events: pl.DataFrame, kept: list[bool], t: datetime, cut_a: Any, cut_b: Any
) -> None:
    fewer = events.filter(pl.Series((kept * len(events))[: len(events)], dtype=pl.Boolean))
    a, b = fold(events), fold(fewer)
    before = by_then(slow.lives_of(events), t, cut_a)
    after = by_then(slow.lives_of(fewer), t, cut_b)
    names = list(Everything.reducers)
    found = a.diff(b, t, cut=(cut_a, cut_b))
    assert found.to_dicts() == slow_change.diff(Everything, before, after, names, True)
    assert a.diff(a, t, cut=(cut_b, cut_a)).to_dicts() == slow_change.diff(
        Everything, by_then(slow.lives_of(events), t, cut_b), before, names, True
    )
    assert a.diff(b).to_dicts() == slow_change.diff(
        Everything, by_then(slow.lives_of(events), ALWAYS, "prefix"),
        by_then(slow.lives_of(fewer), ALWAYS, "prefix"), names, True
    )  # fmt: skip
    assert a.diff(a, t).is_empty()


timelines = {
    "events": told_histories(colours()),
    "kept": st.lists(st.booleans(), min_size=3, max_size=5),
    "t": moments,
    "cut_a": cuts,
    "cut_b": cuts,
}


def test_two_timelines_are_compared_life_by_life() -> None:
    """A history beside one from which events are missing, and beside itself under another cut."""
    often(given(**timelines)(two_timelines_differ_as_the_loop_says))()


def test_the_law_of_timelines_notices_lives_that_are_matched_by_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: the n-th life of one is compared with the n-th of the other."""

    def by_place(self: Any, ids: pl.Series) -> np.ndarray:
        return np.where(np.arange(len(ids)) < len(self.ids), np.arange(len(ids)), -1).astype(np.int32)

    monkeypatch.setattr("titan_lab.asof.IdIndex.find", by_place)
    breaks(two_timelines_differ_as_the_loop_says, **timelines)


@often
@given(events=told_histories(colours()), t=moments)
def test_two_declarations_are_compared_in_the_columns_that_both_have(
    events: pl.DataFrame, t: datetime
) -> None:
    """Where the dtypes of a column differ, both are text."""
    lives = by_then(slow.lives_of(events), t, "prefix")
    expected = []
    for aggregate_id in sorted(filter(lives.get, lives), key=str.encode):
        old, new = (one.fold(lives[aggregate_id]) for one in (Everything, Younger))
        for name in Everything.reducers:
            if name in Younger.reducers:
                before, after = slow_change.as_written(old[name]), slow_change.as_written(new[name])
                if before != after:
                    event = slow_change.setter(Younger, name, lives[aggregate_id])
                    expected.append((aggregate_id, name, before, after, *slow_change.told(event).values()))
    assert fold(events).diff(fold(events, Younger), t).rows() == expected


# --- explain ----------------------------------------------------------------------------------------------


def a_sum_moves_by_its_parts(
    aggregate: Any, events: pl.DataFrame, t0: datetime, later: int, measure: str, by: str
) -> None:
    book, lives, t1 = fold(events, aggregate), slow.lives_of(events), t0 + timedelta(seconds=later)
    zone = "America/Sao_Paulo"  # midnight there is no midnight here
    found = book.explain(measure, t0, t1, by=by, zone=zone)
    expected = slow_change.explain(aggregate, lives, measure, t0, t1, by, zone)
    assert {row[0]: row[1:] for row in found.rows()} == expected
    sums = [book.at(t, columns=measure)[measure].sum() for t in (t0, t1)]
    assert found["change"].sum() == sums[1] - sums[0]
    assert found.schema["change"] == aggregate.reducers[measure].dtype
    assert found.schema["events"] == pl.Int64
    ordered = found.select(by, size=pl.col("change").abs())
    assert ordered.equals(ordered.sort("size", by, descending=[True, False], nulls_last=True))


explained = {
    "t0": moments | st.just(BEFORE),
    "later": st.sampled_from([0, 2, 6, 6]),
    "measure": st.sampled_from(["money", "numbers", "least", "events", "last_version", "odd"]),
    "by": st.sampled_from(["event_type", "day", "state", "latest_word", "flag", "least", "due", "name"]),
}


def sums_of_everything(events: pl.DataFrame, t0: datetime, later: int, measure: str, by: str) -> None:
    a_sum_moves_by_its_parts(Everything, events, t0, later, measure, by)


def test_a_sum_is_explained_without_a_rest() -> None:
    """By type, by day of a zone and by any column; the parts add up to the difference exactly."""
    often(given(events=told_histories(colours()), **explained)(sums_of_everything))()


@pytest.mark.parametrize(
    ("where", "name", "by", "bug"),
    [
        (rows, "counted_from", "event_type", lambda stamps, starts, cut: stamps),
        (explain, "_by_day", "day", lambda moments: honest_days(moments.dt.convert_time_zone("UTC"))),
        (tracks.States, "grouped", "state", lambda self, at, owners: self._codes[owners].astype(np.intp)),
    ],
    ids=["timestamps for the prefix", "days of another zone", "another's state"],
)
def test_the_law_of_explaining_notices(
    where: Any, name: str, by: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bugs: when an event counts, on which day, and for which state."""
    monkeypatch.setattr(where, name, bug)
    breaks(sums_of_everything, events=told_histories(colours()), **explained | {"by": st.just(by)})


honest_days = explain._by_day


# --- bisect -----------------------------------------------------------------------------------------------


def the_first_instant_is_the_first(events: pl.DataFrame, enough: int, rising: bool) -> None:
    book, lives = fold(events), slow.lives_of(events)

    def holds(values: Iterable[tuple[int, str | None]]) -> bool:
        values = list(values)
        reds = sum(state == "RED" for _, state in values)
        return sum(number for number, _ in values) >= enough if rising else reds == enough

    def of_frame(states: pl.DataFrame) -> bool:
        return holds(states.select("events", pl.col("state").cast(pl.String)).rows())

    expected = slow_change.bisect(
        Everything, lives, lambda states: holds((state.events, state.state) for state in states)
    )
    assert book.bisect(of_frame, scan=True, columns=["events", "state"]) == expected
    try:
        found = book.bisect(of_frame, columns=["events", "state"])
    except NotMonotone as error:
        assert not rising
        answers = list(error.data["answers"].values())
        assert True in answers
        assert False in answers[answers.index(True) :]
    else:
        if rising:
            assert found == expected
        elif found is not None:
            assert of_frame(book.at(found))
    for name, life in lives.items():
        first = next((e.version for e in life if Everything.fold(life[: e.version]).events >= enough), None)
        assert book[name].bisect(lambda state: state.events >= enough) == first


searched = {"events": told_histories(colours()), "enough": st.integers(1, 8), "rising": st.booleans()}


def test_halving_finds_the_first_instant_or_says_that_it_cannot() -> None:
    """A predicate that stays true is found as by looking at every instant; one that does not is noticed."""
    often(given(**searched)(the_first_instant_is_the_first))()


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (bisect, "PROBES", 1),
        (bisect, "_moments", lambda book, since, until: np.unique(book.typed.timestamp)[1:]),
        (rows, "counted_from", lambda stamps, starts, cut: stamps),
    ],
    ids=["one probe only", "the first instant left out", "timestamps for the prefix"],
)
def test_the_law_of_halving_notices(where: Any, name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs: too few looks, too few instants, and others than those at which states change."""
    monkeypatch.setattr(where, name, bug)
    breaks(the_first_instant_is_the_first, **searched)


# --- trace ------------------------------------------------------------------------------------------------


def a_tree_is_walked_from_cause_to_effect(events: pl.DataFrame, all_of_it: bool) -> None:
    book, lives = fold(events, tl.Order), slow.lives_of(events)
    for name, life in lives.items():
        version = None if all_of_it else life[len(life) // 2].version
        found = book.trace(name, version)
        told = found.select("depth", "cause", "aggregate_id", "version", "cycle").rows()
        assert told == slow_change.trace(lives, name, version)
        seen: set[str] = set()
        for row in found.iter_rows(named=True):
            assert row["depth"] == 0 or row["causation_id"] in seen
            seen |= {row["cause"], f"{row['aggregate_id']}/{row['version']}"}


@often
@given(events=histories(), all_of_it=st.booleans())
def test_a_history_that_tells_no_causes_has_a_flat_tree(events: pl.DataFrame, all_of_it: bool) -> None:
    """Only what shares a request is in it."""
    a_tree_is_walked_from_cause_to_effect(events, all_of_it)


traced = {"events": told_histories(max_aggregates=3, max_events=4), "all_of_it": st.booleans()}


def test_a_trace_is_the_walk_from_cause_to_effect() -> None:
    """Across aggregates, through events and commands, with circles and names that two claim."""
    often(given(**traced)(a_tree_is_walked_from_cause_to_effect))()


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("_placed", lambda typed, names: np.zeros(0, dtype=np.int64)),
        ("_mentioning", lambda typed, names: np.flatnonzero(
            typed.metadata.str.contains_any([*names, "never"]).fill_null(False).to_numpy())),
        ("_first_of_circle", lambda node, cause: node),
    ],
    ids=["causes named by their place", "names that JSON escapes", "a circle cut anywhere"],
)  # fmt: skip
def test_the_law_of_traces_notices(name: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs: what is easily overlooked."""
    monkeypatch.setattr(trace, name, bug)
    breaks(a_tree_is_walked_from_cause_to_effect, **traced)
