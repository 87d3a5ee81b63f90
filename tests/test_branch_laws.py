"""A branch is the fold of its edited events, verb by verb; each law beside the bug that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import titan_lab as tl
from titan_lab.book import Book, Branch
from titan_lab.clock import CUTS
from titan_lab.testing import slow, slow_branch
from titan_lab.testing.histories import START, histories
from titan_lab.whatif import insertion, side, splice

often = settings(
    derandomize=True, max_examples=30, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=400, phases=[Phase.generate])

Rows = list[dict[str, Any]]
Edit = Callable[[Branch, Rows], tuple[Branch, Rows]]  # the same edit of a branch and of a list of rows
NEWCOMERS = ("aa", "c", "zz")
KINDS = ["OrderCreated", "PaymentAuthorized", "OrderShipped", "OrderCancelled", "OrderModified"]


# --- random edits, each as an edit of a branch and as an edit of a list of rows -----------------------------


@st.composite
def filters(draw: st.DrawFn) -> tuple[dict[str, Any], slow_branch.Chosen]:
    """Draw what an edit is about, as arguments and as a loop would ask."""
    moment = START + timedelta(seconds=draw(st.integers(-1, 5)))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2))
    versions = draw(st.lists(st.integers(1, 4), max_size=3))
    life = draw(st.sampled_from(["a", "b", "é", "nobody"]))
    choices: list[tuple[dict[str, Any], slow_branch.Chosen]] = [
        ({"event_type": kinds}, lambda row: row["event_type"] in kinds),
        ({"version": versions}, lambda row: row["version"] in versions),
        ({"aggregate_id": life}, lambda row: row["aggregate_id"] == life),
        ({"since": moment}, lambda row: row["timestamp"] >= moment),
        ({"until": moment, "version": 1}, lambda row: row["timestamp"] <= moment and row["version"] == 1),
        ({"where": pl.col("payload").str.contains("tea")}, lambda row: "tea" in row["payload"]),
        ({"where": pl.col("metadata").is_null()}, lambda row: row["metadata"] is None),
        ({"where": pl.col("version") % 2 == 0}, lambda row: row["version"] % 2 == 0),
        ({"where": pl.lit(True)}, lambda row: True),
    ]
    return draw(st.sampled_from(choices))


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Draw an edit that is made of a branch and, the plain way, of a list of rows."""
    verb = draw(st.sampled_from(["without", "without", "stamp", "kind", "amount", "insert", "insert"]))
    if verb == "insert":
        return draw(insertions())
    named, chosen = draw(filters())
    if verb == "without":
        return lambda one, rows: (one.without(**named), slow_branch.without(rows, chosen))
    values: dict[str, Any] = {
        "stamp": {"timestamp": START + timedelta(seconds=draw(st.integers(0, 4)))},
        "kind": {"event_type": "OrderArchived"},
        "amount": {"amount": Decimal(draw(st.integers(-999, 999))) / 100},
    }[verb]
    if verb == "amount":
        others = {name: value for name, value in named.items() if name != "event_type"}
        named, also = {**others, "event_type": tl.RefundIssued}, chosen if others else None

        def chosen(row: dict[str, Any]) -> bool:
            return row["event_type"] == "RefundIssued" and (also is None or also(row))

    return lambda one, rows: (
        one.edit(set=values, **named),
        slow_branch.edit(rows, chosen, values, tl.Order),
    )


@st.composite
def insertions(draw: st.DrawFn) -> Edit:
    """Draw events that are appended, that begin a life, or before which others make room."""
    seed, how = draw(st.integers(0, 99)), draw(st.sampled_from(["append", "begin", "shift"]))
    kinds = draw(st.lists(st.sampled_from(["OrderShipped", "OrderCancelled", "Odd"]), min_size=1, max_size=3))
    stamp = START + timedelta(seconds=draw(st.integers(0, 4)))

    def insert(one: Branch, rows: Rows) -> tuple[Branch, Rows]:
        if not rows and how != "begin":
            return one, rows
        there = rows[seed % len(rows)] if rows else {}
        life, version = there.get("aggregate_id"), there.get("version")
        if how == "begin":
            free = [name for name in NEWCOMERS if name not in {row["aggregate_id"] for row in rows}]
            if not free:
                return one, rows
            life, version = free[seed % len(free)], 1
        new = [
            {
                "aggregate_id": life,
                "version": None if how == "append" else version + n,
                "event_type": kind,
                "payload": "{}",
                "metadata": None,
                "timestamp": stamp,
            }
            for n, kind in enumerate(kinds)
        ]
        shift = how == "shift"
        frame = pl.DataFrame(new, schema_overrides={"version": pl.Int64, "metadata": pl.String})
        return one.insert(frame, shift=shift), slow_branch.insert(rows, new, shift)

    return insert


def edited(events: pl.DataFrame, steps: list[Edit]) -> tuple[Book, Branch, Rows]:
    book = tl.from_frame(events).fold(tl.Order)
    one, rows = book.branch(), slow_branch.rows_of(events)
    for step in steps:
        one, rows = step(one, rows)
    return book, one, rows


# --- a branch is the fold of its events ---------------------------------------------------------------------


def answers(book: Book, moment: Any) -> list[pl.DataFrame]:
    """Ask a book everything."""
    labels = pl.DataFrame({"aggregate_id": ["a", "b", "c", "é"], "ts": [moment] * 4})
    frames = [book.at(moment, cut=cut) for cut in CUTS]
    frames += [book.history(), book.at(version=2), book.cuts(moment), book.asof(labels), book.ids.to_frame()]
    frames.append(book.every("1s", START, START + timedelta(seconds=4), measure="total"))
    frames += [book[name].log() for name in book.ids[:1]]
    return frames


def branch_is_the_fold_of_its_events(events: pl.DataFrame, steps: list[Edit], moment: Any) -> None:
    book, one, rows = edited(events, steps)
    before = [frame.serialize() for frame in answers(book, moment)]
    again = tl.from_frame(slow_branch.frame_of(rows)).fold(tl.Order)
    for ours, theirs in zip(answers(one, moment), answers(again, moment), strict=True):
        assert_frame_equal(ours.drop("payload", strict=False), theirs.drop("payload", strict=False))
    assert len(one) == len(again)
    assert one.basis.events == len(rows)
    assert [frame.serialize() for frame in answers(book, moment)] == before


drawn = given(
    events=histories(),
    steps=st.lists(edits(), max_size=4),
    moment=st.integers(-1, 5).map(lambda seconds: START + timedelta(seconds=seconds)),
)


def test_a_branch_answers_like_the_fold_of_its_events_and_leaves_the_base_alone() -> None:
    """Law 3, for what never happened: every verb, after up to four edits."""
    often(drawn(branch_is_the_fold_of_its_events))()


def test_the_law_notices_a_new_event_put_before_the_one_it_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: an inserted row stands one place too early."""
    honest = splice._before

    def early(old: Any, new: Any, found: Any) -> np.ndarray:
        return np.maximum(
            honest(old, new, found) - 1, old.bounds[found.number[new.aggregate_of(np.arange(len(new)))]]
        )

    monkeypatch.setattr(splice, "_before", early)
    with pytest.raises(AssertionError):
        hunting(drawn(branch_is_the_fold_of_its_events))()


def test_the_law_notices_values_that_stay_when_their_event_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: rows are renumbered, but an event's fields are those of the one before."""
    honest = splice._mover

    def stale(*args: Any) -> Any:
        def moved(part: Any) -> Any:
            part = honest(*args)(part)
            return splice.Part(part.event_type, part.rows, part.fields.select(pl.all().shift(1)))

        return moved

    monkeypatch.setattr(splice, "_mover", stale)
    with pytest.raises(AssertionError):
        hunting(drawn(branch_is_the_fold_of_its_events))()


@settings(often, max_examples=12)
@given(events=histories(), moment=st.integers(-1, 5))
def test_a_branch_of_nothing_is_the_book(events: pl.DataFrame, moment: int) -> None:
    """Without an edit, and with one that meets no event."""
    book = tl.from_frame(events).fold(tl.Order)
    when = START + timedelta(seconds=moment)
    for one in (
        book.branch(),
        book.branch().without(version=99),
        book.branch().edit(set={"x": 1}, version=99),
    ):
        assert one.touched == 0
        for ours, theirs in zip(answers(one, when), answers(book, when), strict=True):
            assert_frame_equal(ours, theirs)
        compared = one.compare()
        assert compared.orders.is_empty()
        assert compared.illegal.is_empty()
        assert compared.changed == 0
        assert compared.totals["base"].equals(compared.totals["branch"])


@often
@given(events=histories(), seconds=st.integers(-1, 5), steps=st.lists(edits(), max_size=2))
def test_a_branch_at_an_instant_is_a_branch_of_the_past(
    events: pl.DataFrame, seconds: int, steps: list[Edit]
) -> None:
    """What came later is not there, neither to be edited nor to be compared with."""
    when = START + timedelta(seconds=seconds)
    rows = slow_branch.until(slow_branch.rows_of(events), when)
    one = tl.from_frame(events).fold(tl.Order).branch("then", at=when)
    for step in steps:
        one, rows = step(one, rows)
    again = tl.from_frame(slow_branch.frame_of(rows)).fold(tl.Order)
    for ours, theirs in zip(answers(one, when), answers(again, when), strict=True):
        assert_frame_equal(ours.drop("payload", strict=False), theirs.drop("payload", strict=False))


class Same(tl.Order):
    """Declares the same events, so that nothing is decoded again."""

    payments = tl.count(tl.PaymentAuthorized)
    trail = tl.step(
        lambda told, event: [*told, event.metadata.get("correlation_id")], [], dtype=pl.List(pl.String)
    )


class Fewer(tl.Aggregate):
    """Declares other events, so that all are."""

    paid = tl.total_of(tl.PaymentAuthorized, "amount")
    shipped = tl.count(tl.OrderShipped)


@pytest.mark.parametrize("other", [Same, Fewer])
def test_a_refolded_branch_is_the_fold_by_that_declaration(other: type[tl.Aggregate]) -> None:
    """Whether payloads are decoded again or not; a step sees the metadata, too."""

    @often
    @given(events=histories(), steps=st.lists(edits(), max_size=2))
    def check(events: pl.DataFrame, steps: list[Edit]) -> None:
        _, one, rows = edited(events, steps)
        again = tl.from_frame(slow_branch.frame_of(rows)).fold(other)
        assert_frame_equal(one.refold(other).history(), again.history())

    check()


# --- comparing ----------------------------------------------------------------------------------------------


def comparison_equals_the_loop(events: pl.DataFrame, steps: list[Edit], moment: Any) -> None:
    _, one, rows = edited(events, steps)
    whole = slow.lives_of(events), slow.lives_of(slow_branch.frame_of(rows))
    then = [{name: slow.counted(life, moment, "prefix") for name, life in lives.items()} for lives in whole]
    then = [{name: life for name, life in lives.items() if life} for lives in then]
    for when, (before, after) in ((None, whole), (moment, then)):
        told = one.compare(when=when)
        wanted = slow_branch.differences(tl.Order, before, after)
        assert told.orders.select("aggregate_id", "field").rows() == [row[:2] for row in wanted]
        for column in tl.Order.reducers:
            alone = [(name, ours, theirs) for name, field, ours, theirs in wanted if field == column]
            assert told.of(column).rows() == alone
        assert told.changed == len({row[0] for row in wanted})
        for column, base, branch, change in told.totals.rows():
            assert base == slow_branch.totals(tl.Order, before, column)
            assert branch == slow_branch.totals(tl.Order, after, column)
            assert change == branch - base
        counts = {state: (base, branch) for _, state, base, branch, _ in told.states.rows()[1:]}
        for state, count in counts.items():
            assert count == tuple(
                sum(slow_branch._last(tl.Order, life)["status"] == state for life in lives.values())
                for lives in (before, after)
            )
        assert told.states.row(0)[2:4] == (len(before), len(after))
        ours, theirs = (slow_branch.illegal(tl.Order, lives, "status") for lives in (before, after))
        fresh = [
            (name, *one)
            for name in sorted(theirs, key=str.encode)
            if name not in ours
            for one in theirs[name]
        ]
        assert told.illegal.select("aggregate_id", "version", "from_state", "to_state").rows() == fresh


def test_a_comparison_is_what_a_loop_over_all_orders_finds() -> None:
    """Values, sums, counts, and transitions that nobody made before; at the end and at an instant."""
    often(drawn(comparison_equals_the_loop))()


@often
@given(events=histories(), some=st.lists(edits(), max_size=2), others=st.lists(edits(), max_size=2))
def test_branches_of_one_book_are_compared_on_what_either_touched(
    events: pl.DataFrame, some: list[Edit], others: list[Edit]
) -> None:
    """The answer is the one that looking at everything gives; branches of branches are no exception."""
    book, one, rows = edited(events, some)
    two = one.branch("two")
    three = book.branch("three")
    three_rows = slow_branch.rows_of(events)
    for step in others:
        two, _ = step(two, rows)
        three, three_rows = step(three, three_rows)
    again = tl.from_frame(slow_branch.frame_of(three_rows)).fold(tl.Order)
    for mine, other, plain in ((one, three, again), (two, three, again), (two, book, None)):
        told = mine.compare(other)
        whole = mine.compare(tl.from_frame(events).fold(tl.Order) if plain is None else plain)
        assert_frame_equal(told.orders, whole.orders)
        assert_frame_equal(told.totals, whole.totals)
        assert_frame_equal(told.states, whole.states)
        assert_frame_equal(told.illegal, whole.illegal)


def test_the_comparison_notices_a_column_that_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: columns that listen to what was changed are passed over."""
    from titan_lab.whatif.history import WhatIf

    monkeypatch.setattr(WhatIf, "_suspects", property(lambda self: ["status"]))
    with pytest.raises(AssertionError):
        hunting(drawn(comparison_equals_the_loop))()


def test_the_comparison_notices_a_state_taken_over_from_the_neighbour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: the first event of an order is judged by the last state of the one before."""
    honest = side.ranges

    def wider(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.maximum(honest(starts, lengths) - 1, 0)

    monkeypatch.setattr(side, "ranges", wider)
    with pytest.raises(AssertionError):
        hunting(drawn(comparison_equals_the_loop))()


def test_the_law_notices_events_that_do_not_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what follows an inserted event moves up by one version too many."""
    honest = insertion._room

    def far(*args: Any) -> Any:
        room = honest(*args)
        return room._replace(by=room.by + 1)

    monkeypatch.setattr(insertion, "_room", far)
    with pytest.raises(AssertionError):
        hunting(drawn(branch_is_the_fold_of_its_events))()
