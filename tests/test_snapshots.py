"""Snapshots never lie: with one or without, from memory or a file, the answer is the same."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import cli, later, saved, snapshot, taking
from titan_lab.advice import compare, concluded
from titan_lab.backends.contract import SNAPSHOTS
from titan_lab.clock import CUTS
from titan_lab.command import Desk
from titan_lab.errors import (
    InstantError,
    NoSuchAggregate,
    OpenError,
    ReadOnly,
    SchemaTooNew,
    SnapshotError,
)
from titan_lab.event import EVENTS
from titan_lab.orders.commands import OrderInHand
from titan_lab.saved import MARK
from titan_lab.snapshot import Snapshots
from titan_lab.testing import slow
from titan_lab.testing.histories import histories, moments
from titan_lab.testing.readers import frame_of, row

sys.path.insert(0, str(Path(__file__).parent))
from test_suite import tables

often = settings(derandomize=True, max_examples=60, database=None, deadline=None)
hunting = settings(
    often,
    max_examples=400,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


class Basket(tl.Aggregate):
    """What a state can hold: lists of objects, sums, floats that JSON may round, a step's values."""

    upcasts = tl.Order.upcasts

    created_at = tl.first(tl.OrderCreated, "timestamp")
    items = tl.latest(tl.OrderCreated, tl.OrderModified)
    amounts = tl.collect(tl.PaymentAuthorized, tl.RefundIssued, "amount")
    paid = tl.total_of(tl.PaymentAuthorized, "amount")
    most = tl.largest(tl.PaymentAuthorized, "amount")
    payments = tl.count(tl.PaymentAuthorized)
    ratio = tl.step(lambda told, one: -told / 2, -0.0, tl.OrderShipped, tl.PaymentAuthorized)
    seen = tl.step(lambda told, one: [*told, one.version], [], tl.OrderShipped, dtype=pl.List(pl.Int64))
    status = tl.machine({tl.OrderCreated: "NEW", tl.OrderCancelled: "GONE"})


def log_of(events: pl.DataFrame) -> tl.EventLog:
    """A log in memory that takes more."""
    log = tl.open("memory://")
    log.append_many(events)
    return log


def told(state: Any) -> tuple[Any, ...]:
    """All that a state says."""
    return state, state.valid_from, state.valid_to, state.provisional, repr(state.as_dict())


# --- law 4 ------------------------------------------------------------------------------------------------


def the_answer_is_the_same_without_it(
    events: pl.DataFrame, known: int, every: int, moment: Any, version: int, taker: Any, reader: Any
) -> None:
    """Take snapshots when each aggregate had some of its events, and ask when it has all."""
    log = log_of(events.filter(pl.col("version") <= known))
    Snapshots(log, taker).take(every)
    log.append_many(events.filter(pl.col("version") > known))
    book, snapshots = log.fold(reader), Snapshots(log, reader)
    for name, life in slow.lives_of(events).items():
        assert told(snapshots.state(name)) == told(book[name].now)
        assert told(snapshots.state(name, version=version)) == told(book[name].at(version=version))
        for cut in CUTS:
            state = snapshots.state(name, moment, cut=cut)
            assert told(state) == told(book[name].at(moment, cut=cut))
            loop = reader.fold(slow.counted(life, moment, cut))
            assert slow.plain(state.as_dict()) == slow.plain(loop.as_dict()) or not loop


asked = {
    "events": histories(max_aggregates=2),
    "known": st.integers(1, 7),
    "every": st.integers(1, 4),
    "moment": moments,
    "version": st.integers(0, 9),
}


@pytest.mark.parametrize("aggregate", [tl.Order, Basket])
def test_with_a_snapshot_or_without_the_answer_is_the_same(aggregate: type[tl.Aggregate]) -> None:
    """Law 4, for all cuts, versions and instants, on clocks that step back."""
    often(
        given(**asked, taker=st.just(aggregate), reader=st.just(aggregate))(the_answer_is_the_same_without_it)
    )()


class Paid(tl.Aggregate):
    """An aggregate before its fold is changed."""

    paid = tl.total_of(tl.PaymentAuthorized, "amount")


PaidBefore = Paid


class Paid(tl.Aggregate):  # type: ignore[no-redef]  # the same, after it
    paid = tl.total_of(tl.PaymentAuthorized, tl.RefundIssued, "amount")


changed = asked | {"taker": st.just(PaidBefore), "reader": st.just(Paid)}


def test_a_snapshot_of_the_fold_before_it_changed_is_not_used() -> None:
    """Law 4: the fingerprint is another."""
    often(given(**changed)(the_answer_is_the_same_without_it))()


def whoever_made_it(read: Callable) -> Callable:
    def careless(aggregate: Any, version: int, text: str) -> Any:
        state = json.loads(text)
        state[MARK] |= {"fingerprint": aggregate.fingerprint()}
        return read(aggregate, version, json.dumps(state))

    return careless


def at_its_own_timestamp(read: Callable) -> Callable:
    def early(*row: Any) -> Any:
        found = read(*row)
        early = isinstance(found, saved.Saved)
        return dataclasses.replace(found, valid_from=found.timestamp) if early else found

    return early


def without_cents(as_json: Callable) -> Callable:
    def rounded(value: Any, dtype: pl.DataType) -> Any:
        return as_json(round(value) if isinstance(value, Decimal) else value, dtype)

    return rounded


def at_any_instant(usable: Callable) -> Callable:
    return lambda self, name, moment, upto: usable(self, name, None, upto)


def for_any_version(usable: Callable) -> Callable:
    return lambda self, name, moment, upto: usable(self, name, moment, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "bug", "question"),
    [
        pytest.param(saved, "read", whoever_made_it, changed, id="the fingerprint is ignored"),
        pytest.param(
            saved, "read", at_its_own_timestamp, asked, id="it counts from its event's own timestamp"
        ),
        pytest.param(saved, "as_json", without_cents, asked, id="an amount loses its cents"),
        pytest.param(Snapshots, "_usable", at_any_instant, asked, id="it is used before it was taken"),
        pytest.param(Snapshots, "_usable", for_any_version, asked, id="it is used for an earlier version"),
    ],
)
def test_law_4_notices(
    place: Any, name: str, bug: Callable, question: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each planted bug."""
    monkeypatch.setattr(place, name, bug(getattr(place, name)))
    both = {"taker": st.just(tl.Order), "reader": st.just(tl.Order)}
    with pytest.raises(AssertionError):
        hunting(given(**(both | question))(the_answer_is_the_same_without_it))()


def a_gap_may_be_filled_later(events: pl.DataFrame, missing: int, every: int) -> None:
    """Some event arrives after those behind it, as a late transaction's do."""
    log = log_of(events.filter(pl.col("version") != missing))
    Snapshots(log, tl.Order).take(every)
    log.append_many(events.filter(pl.col("version") == missing))
    book, snapshots = log.fold(tl.Order), Snapshots(log, tl.Order)
    for name in book.ids:
        assert told(snapshots.state(name)) == told(book[name].now)


gaps = {"events": histories(max_aggregates=2), "missing": st.integers(1, 4), "every": st.integers(1, 3)}


def test_no_snapshot_is_taken_behind_a_gap() -> None:
    """Law 4: what comes into it later counts."""
    often(given(**gaps)(a_gap_may_be_filled_later))()


@pytest.mark.slow
def test_law_4_notices_a_snapshot_behind_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: versions are taken as they come."""

    def place(book: Any, one: taking.Wanted, every: int) -> tuple[int, int]:
        number = book.ids.to_list().index(one.aggregate_id)
        return int(book.typed.bounds[number + 1]) - 1, number

    monkeypatch.setattr(taking, "_place", place)
    with pytest.raises(AssertionError):
        hunting(given(**gaps)(a_gap_may_be_filled_later))()


def rows_of_any_kind_do_what_they_do_to_a_fold(table: pl.DataFrame, every: int) -> None:
    """Rows that cannot be read, payloads that do not fit, keys that stand twice."""
    log = tl.from_frame(table)
    Snapshots(log, tl.Order).take(every)
    book, snapshots = log.fold(tl.Order), Snapshots(log, tl.Order)
    for name in book.ids:
        assert told(snapshots.state(name)) == told(book[name].now)


def test_rows_of_any_kind_do_what_they_do_to_a_fold() -> None:
    """With snapshots before, behind and between them."""
    often(given(table=tables(), every=st.integers(1, 3))(rows_of_any_kind_do_what_they_do_to_a_fold))()


def a_desk_decides_on_the_same_state(
    events: pl.DataFrame, known: int, every: int, missing: int, taker: Any
) -> None:
    """Records and all; and neither way where an event is missing or cannot be read."""
    log = log_of(events.filter((pl.col("version") <= known) & (pl.col("version") != missing)))
    Snapshots(log, taker).take(every)
    log.append_many(events.filter((pl.col("version") > known) & (pl.col("version") != missing)))
    for name in {*events["aggregate_id"], "nobody"}:
        there = answer(lambda name=name: Desk(log, taker, {}).load(name))
        assert answer(lambda name=name: Snapshots(log, taker).load(name)) == there


def answer(ask: Callable[[], Any]) -> tuple[Any, ...]:
    """A state with all that its values are, or the error that stands in its place."""
    try:
        state = ask()
    except tl.TitanError as error:
        return type(error), str(error)
    return state, state.valid_from, repr(state.as_dict())


desks = {name: asked[name] for name in ("events", "known", "every")} | {"missing": st.integers(1, 9)}


@pytest.mark.parametrize("aggregate", [OrderInHand, Basket])
def test_a_desk_decides_on_the_same_state(aggregate: type[tl.Aggregate]) -> None:
    """As it would without snapshots, in the form that steps give it."""
    often(given(**desks, taker=st.just(aggregate))(a_desk_decides_on_the_same_state))()


@pytest.mark.slow
def test_a_desk_notices_objects_that_are_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what JSON gives is taken as it is."""
    monkeypatch.setattr(snapshot, "_built", lambda reducer, value: value)
    with pytest.raises(AssertionError):
        hunting(given(**desks, taker=st.just(OrderInHand))(a_desk_decides_on_the_same_state))()


@pytest.mark.slow
def test_a_desk_notices_a_gap_that_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: events are renumbered as they come."""

    def closed_up(*asked: Any) -> list[tl.Event]:
        found = later.later(*asked)
        first = asked[-1].version + 1
        return [dataclasses.replace(event, version=first + place) for place, event in enumerate(found)]

    monkeypatch.setattr(snapshot, "later", closed_up)
    with pytest.raises(AssertionError):
        hunting(given(**desks, taker=st.just(OrderInHand))(a_desk_decides_on_the_same_state))()


def test_orders_are_handled_from_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one event before it is read."""
    log = tl.open("memory://")
    snapshots = Snapshots(log, OrderInHand)
    desk = tl.OrderDesk(log, load=snapshots.load)
    items = [{"product_id": "tea", "quantity": 2, "price": "4.50"}]
    desk.handle(tl.CreateOrder(order_id="o", user_id="7", items=items))
    desk.handle(tl.AuthorizePayment(order_id="o", amount=9))
    snapshots.take(every=2)
    monkeypatch.setattr(Desk, "_life", None)
    assert desk.handle(tl.ShipOrder(order_id="o", tracking="T1")).version == 3
    with pytest.raises(tl.TitanError, match="may not go from SHIPPED to SHIPPED"):
        desk.handle(tl.ShipOrder(order_id="o", tracking="T1"))
    returned = [{"product_id": "tea", "quantity": 1}]
    assert desk.handle(tl.DeliverOrder(order_id="o")).version == 4
    assert desk.handle(tl.ReturnItems(order_id="o", items=returned)).version == 5


# --- one long life ----------------------------------------------------------------------------------------


def named(letter: str) -> str:
    """An id as every store takes it."""
    return f"{letter}0000000-0000-4000-8000-000000000000"


A, B = named("a"), named("b")


def life(number: int, name: str = A, first: int = 1) -> pl.DataFrame:
    """So many payments of 1.10 each, a second apart."""
    versions = pl.int_range(first, first + number, eager=True)
    return pl.select(
        aggregate_id=pl.lit(name),
        version=versions,
        event_type=pl.lit("PaymentAuthorized"),
        payload=pl.lit('{"amount": 1.10}'),
        metadata=pl.lit(None, pl.String),
        timestamp=pl.datetime(2025, 1, 1, time_zone="UTC") + pl.duration(seconds=versions),
    ).match_to_schema(EVENTS, integer_cast="upcast")


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tl.EventLog]:
    """A writable log with one life of 250 events, and one of 3."""
    if request.param == "postgres":
        url = request.getfixturevalue("database")
    else:
        url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/orders.db"}[request.param]
    log = tl.open(url, writable=True)
    log.append_many(pl.concat([life(250), life(3, B)]))
    yield log
    log.close()


def test_a_snapshot_is_taken_at_the_last_multiple_and_only_what_follows_is_folded(log: tl.EventLog) -> None:
    """The second time nothing is left to do."""
    snapshots = Snapshots(log, tl.Order)
    assert snapshots.state(A).rests_on == "all events: there is no snapshot"
    assert snapshots.take(every=100) == taking.Taken(saved=1, present=0, short=1, broken=0, foreign=0)
    assert snapshots.take(every=100) == taking.Taken(saved=0, present=1, short=1, broken=0, foreign=0)
    state = snapshots.state(A)
    assert (state.version, state.paid) == (250, Decimal("275.00"))
    assert state.rests_on == "the snapshot of version 200, and 50 events after it"
    assert snapshots.state(A, version=201).rests_on == "the snapshot of version 200, and 1 event after it"
    assert snapshots.state(B).rests_on == "all events: there is no snapshot"


def test_a_snapshot_that_is_passed_over_says_why(log: tl.EventLog) -> None:
    """By instant, by version, by cut."""
    snapshots = Snapshots(log, tl.Order)
    snapshots.take(every=100)
    reasons = [
        snapshots.state(A, "2025-01-01T00:03:19Z").rests_on,
        snapshots.state(A, version=199).rests_on,
        snapshots.state(A, "2025-01-01T00:03:20Z", cut="latest").rests_on,
    ]
    assert reasons == [
        "all events: the snapshot of version 200 was taken after that instant",
        "all events: the snapshot of version 200 is a later one",
        "all events: the cut 'latest' is no prefix",
    ]
    assert snapshots.state(A, "2025-01-01T00:03:20Z").rests_on.startswith("the snapshot")


def test_a_changed_fold_passes_over_what_the_old_one_saved_and_replaces_it(log: tl.EventLog) -> None:
    """Never by an earlier version, though fewer snapshots are asked for."""
    Snapshots(log, PaidBefore).take(every=50)
    snapshots = Snapshots(log, Paid)
    told = snapshots.state(A).rests_on
    assert told == (
        f"all events: the snapshot of version 250 is of another fold: Paid {PaidBefore.fingerprint()},"
        f" this is Paid {Paid.fingerprint()}"
    )
    assert snapshots.advise().saved.startswith(
        "snapshots in the store: 0 of this fold, which are used, 1 of another"
    )
    assert snapshots.take(every=100).saved == 1
    assert snapshots.state(A).rests_on == "the snapshot of version 250, and 0 events after it"


def test_what_another_program_saved_is_never_used_and_left_as_it_is(log: tl.EventLog) -> None:
    """It has no fingerprint, whatever else it holds."""
    theirs = pl.DataFrame([(A, 100, '{"total": 7, "status": "PAID"}')], SNAPSHOTS, orient="row")
    log.reader.save_snapshots(theirs)  # type: ignore[attr-defined]
    snapshots = Snapshots(log, tl.Order)
    assert snapshots.state(A).rests_on == (
        "all events: the snapshot of version 100 has no fingerprint: another program saved it"
    )
    assert snapshots.take() == taking.Taken(saved=0, present=0, short=1, broken=0, foreign=1)
    assert log.reader.snapshot(A) == theirs.row(0)[1:]  # type: ignore[attr-defined]
    assert snapshots.advise().saved.endswith("1 of another program, which are not")


@pytest.mark.parametrize("text", ["[]", "null", "7", '{"$fold": null}', '{"$fold": 7}', '{"$fold": {}}'])
def test_what_is_no_state_is_passed_over(log: tl.EventLog, text: str) -> None:
    """As if another program had saved it."""
    log.reader.save_snapshots(pl.DataFrame([(A, 100, text)], SNAPSHOTS, orient="row"))  # type: ignore[attr-defined]
    state = Snapshots(log, tl.Order).state(A)
    assert (state.version, "another program" in state.rests_on) == (250, True)


def test_what_a_state_says_of_itself_is_no_more_than_a_line() -> None:
    """Who wrote it is not known."""
    nasty = json.dumps({MARK: {"aggregate": "\x1b[2J" * 100, "fingerprint": ["<script>"]}})
    reason = saved.read(tl.Order, 1, nasty)
    assert isinstance(reason, str)
    assert reason.isprintable()
    assert len(reason) < 200


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000])
def test_what_is_no_json_is_passed_over(text: str) -> None:
    """Where a store takes it."""
    assert saved.read(tl.Order, 100, text) == saved.NO_FINGERPRINT


@pytest.mark.parametrize(
    "change",
    [
        {"paid": "much"},
        {"paid": [1]},
        {"items": 7},
        {"created_at": "soon"},
        {"paid": ...},
        {MARK: {"valid_from": 5}},
    ],
)
def test_a_state_that_was_tampered_with_is_passed_over(log: tl.EventLog, change: dict[str, Any]) -> None:
    """Where it can be seen: a value of another type, or one that is missing."""
    snapshots = Snapshots(log, tl.Order)
    snapshots.take(every=100)
    version, text = log.reader.snapshot(A)  # type: ignore[attr-defined]
    state = json.loads(text)
    for name, value in change.items():
        state[name] = state[name] | value if name == MARK else value
    state = {name: value for name, value in state.items() if value is not ...}
    log.reader.save_snapshots(pl.DataFrame([(A, version, json.dumps(state))], SNAPSHOTS, orient="row"))  # type: ignore[attr-defined]
    assert "cannot be read" in snapshots.state(A).rests_on
    assert snapshots.state(A).paid == Decimal("275.00")
    assert snapshots.take(every=100).saved == 1


def test_a_snapshot_of_another_log_is_passed_over(log: tl.EventLog) -> None:
    """Its event must be there, with the type and the timestamp that it had."""
    for events, reason in [
        (life(150), "its event is another, or gone"),
        (life(250).with_columns(event_type=pl.lit("RefundIssued")), "its event is another, or gone"),
        (life(250).with_columns(pl.col("timestamp") + pl.duration(seconds=1)), "has another timestamp"),
    ]:
        other = log_of(events)
        Snapshots(log, tl.Order).take(every=100)
        other.reader.save_snapshots(log.reader.snapshots())  # type: ignore[attr-defined]
        state = Snapshots(other, tl.Order).state(A)
        assert reason in state.rests_on
        assert told(state) == told(other.fold(tl.Order)[A].now)


def test_an_older_state_never_takes_the_place_of_a_newer_one(log: tl.EventLog) -> None:
    """Two writers race; the one that read first may write last."""
    rows = [(A, 200, '{"by": "the later one"}'), (A, 100, '{"by": "the slow one"}')]
    for one in rows:
        log.reader.save_snapshots(pl.DataFrame([one], SNAPSHOTS, orient="row"))  # type: ignore[attr-defined]
    assert log.reader.snapshot(A) == rows[0][1:]  # type: ignore[attr-defined]
    log.reader.save_snapshots(pl.DataFrame([(A, 200, "{}")], SNAPSHOTS, orient="row"))  # type: ignore[attr-defined]
    assert log.reader.snapshots().rows() == [(A, 200, "{}")]  # type: ignore[attr-defined]
    assert log.reader.snapshot(B) is None  # type: ignore[attr-defined]


def test_what_is_saved_agrees_with_the_replay(log: tl.EventLog) -> None:
    """`conform` compares a stored state with the replay, and finds none that differs."""
    Snapshots(log, tl.Order).take(every=100)
    assert log.fold(tl.Order).conform().counts["snapshot differs from replay"] == 0


def test_a_fold_in_parts_saves_the_same_states(log: tl.EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many events are folded at a time."""
    log.append_many(pl.concat([life(130, named(letter)) for letter in "cdef"]))
    Snapshots(log, tl.Order).take(every=10)
    at_once = log.reader.snapshots().sort("aggregate_id")  # type: ignore[attr-defined]
    other = log_of(log.read())
    monkeypatch.setattr(taking, "AT_ONCE", 200)
    assert Snapshots(other, tl.Order).take(every=10).saved == 5
    states = other.reader.snapshots().sort("aggregate_id")  # type: ignore[attr-defined]
    assert states.drop("state").equals(at_once.drop("state"))
    assert [json.loads(text) for text in states["state"]] == [json.loads(text) for text in at_once["state"]]


def test_many_events_after_a_snapshot_are_folded_as_columns(
    log: tl.EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is faster than in steps, though it begins at the beginning."""
    monkeypatch.setattr(later, "STEPS", 20)
    Snapshots(log, tl.Order).take(every=100)
    state = Snapshots(log, tl.Order).state(A)
    assert state.rests_on.startswith("all events: the snapshot of version 200 is more than 20 events back")
    assert told(state) == told(log.fold(tl.Order)[A].now)


@pytest.mark.parametrize(
    "bad",
    [
        {"payload": '{"amount": "much"}'},
        {"payload": "{}"},
        {"metadata": '{"schema_version": "one"}'},
        {"metadata": '{"schema_version": true}'},
        {"metadata": '{"schema_version": 0}'},
        {"metadata": '{"schema_version": null}'},
    ],
)
def test_an_event_that_does_not_fit_does_what_it_does_to_a_fold(
    log: tl.EventLog, bad: dict[str, str]
) -> None:
    """It is left out, with a snapshot before it or without."""
    Snapshots(log, tl.Order).take(every=100)
    odd = row(A, 251, event_type="PaymentAuthorized", timestamp="2025-01-02T00:00:00Z")
    log.append_many(
        frame_of(
            [odd | {"payload": '{"amount": 1}'} | bad, odd | {"version": 252, "payload": '{"amount": 1}'}]
        )
    )
    assert told(Snapshots(log, tl.Order).state(A)) == told(log.fold(tl.Order)[A].now)


def test_a_payload_of_newer_code_stops_it_as_it_stops_a_fold(log: tl.EventLog) -> None:
    """Also behind the instant that was asked about."""
    Snapshots(log, tl.Order).take(every=100)
    newer = row(A, 251, event_type="PaymentAuthorized", metadata='{"schema_version": 9}')
    log.append_many(frame_of([newer]))
    with pytest.raises(SchemaTooNew):
        Snapshots(log, tl.Order).state(A, "2025-01-01T00:03:30Z")


@pytest.mark.slow
def test_a_database_without_the_table_has_none_and_says_how_to_make_it(database: str) -> None:
    """Reading goes on without."""
    import psycopg

    with tl.open(database, writable=True) as log:
        log.append_many(life(3))
        with psycopg.connect(database) as db:
            db.execute("DROP TABLE order_snapshots")
        assert Snapshots(log, tl.Order).state(A).rests_on == "all events: there is no snapshot"
        with pytest.raises(OpenError, match=r"no table order_snapshots\n.*titan schema --dialect postgres"):
            Snapshots(log, tl.Order).take(every=1)


# --- what cannot be done ----------------------------------------------------------------------------------


def test_a_log_that_is_open_for_reading_takes_none(tmp_path: Path) -> None:
    """Also not by the store itself."""
    url = f"sqlite:///{tmp_path}/orders.db"
    tl.open(url, writable=True).append_many(life(3))
    log = tl.open(url)
    with pytest.raises(ReadOnly, match="writable=True"):
        Snapshots(log, tl.Order).take(every=1)
    with pytest.raises(ReadOnly, match="writable=True"):
        log.reader.save_snapshots(SNAPSHOTS.to_frame())  # type: ignore[attr-defined]


def test_a_file_without_the_table_has_none_and_says_how_to_make_it(tmp_path: Path) -> None:
    """Reading goes on without."""
    log = tl.open(f"sqlite:///{tmp_path}/orders.db", writable=True)
    log.append_many(life(3))
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db:
        db.execute("DROP TABLE order_snapshots")
    assert Snapshots(log, tl.Order).state(A).rests_on == "all events: there is no snapshot"
    with pytest.raises(OpenError, match=r"no table order_snapshots\n.*titan schema --dialect sqlite"):
        Snapshots(log, tl.Order).take(every=1)


def test_a_store_of_files_keeps_no_snapshots(tmp_path: Path) -> None:
    """It answers without them."""
    log = tl.open(f"parquet://{tmp_path}", writable=True)
    log.append_many(life(3))
    assert Snapshots(log, tl.Order).state(A).rests_on == f"all events: {log.url} keeps no snapshots"
    assert Snapshots(log, tl.Order).advise().saved == "the store holds no snapshot"
    with pytest.raises(SnapshotError, match=r"keeps no snapshots\n.*SQLite"):
        Snapshots(log, tl.Order).take()


@pytest.mark.parametrize("every", [0, -1, 1.5, "100", True, None])
def test_a_distance_is_a_whole_number(log: tl.EventLog, every: Any) -> None:
    """From one on."""
    with pytest.raises(SnapshotError, match="is no distance"):
        Snapshots(log, tl.Order).take(every)


def test_what_json_cannot_hold_is_refused(log: tl.EventLog) -> None:
    """By its dtype, before anything is folded."""

    class Waiting(tl.Aggregate):
        waited = tl.step(lambda told, one: told, None, tl.PaymentAuthorized, dtype=pl.Duration("us"))

    with pytest.raises(SnapshotError, match=r"Waiting.waited is Duration.*which no snapshot can hold"):
        Snapshots(log, Waiting).take()


def test_a_step_that_would_not_find_again_what_it_left_is_refused(log: tl.EventLog) -> None:
    """A tuple would come back as a list, and the next step might differ."""

    class Pairs(tl.Aggregate):
        last = tl.step(lambda told, one: (one.version,), None, tl.PaymentAuthorized, dtype=pl.List(pl.Int64))

    with pytest.raises(SnapshotError, match=r"leaves \(200,\) after version 200, and would find \[200\]"):
        Snapshots(log, Pairs).take()
    assert log.reader.snapshots().is_empty()  # type: ignore[attr-defined]


def test_unclear_questions_are_refused(log: tl.EventLog) -> None:
    """As a story does."""
    snapshots = Snapshots(log, tl.Order)
    with pytest.raises(NoSuchAggregate, match="no event of 'nobody'"):
        snapshots.state("nobody")
    with pytest.raises(InstantError, match="not by both"):
        snapshots.state(A, "2025-01-01", version=1)
    with pytest.raises(InstantError, match="no time zone"):
        snapshots.state(A, "2025-01-01T10:00:00")
    with pytest.raises(InstantError, match="is no cut"):
        snapshots.state(A, cut="nearly")  # type: ignore[arg-type]
    with pytest.raises(InstantError, match="is no version"):
        snapshots.state(A, version="3")  # type: ignore[arg-type]


# --- advice -----------------------------------------------------------------------------------------------


def by_hand(lengths: list[int], every: int | None) -> tuple[Any, ...]:
    """Load each aggregate before each of its events, and count."""
    folded = [v if every is None else v % every for length in lengths for v in range(length)]
    ranked = sorted(folded)
    p99 = next((v for place, v in enumerate(ranked, start=1) if 100 * place >= 99 * len(ranked)), 0)
    rows = 0 if every is None else sum(length >= every for length in lengths)
    writes = 0 if every is None else sum(length // every for length in lengths)
    mean = sum(folded) / len(folded) if folded else 0.0
    return every, rows, writes, mean, p99, max(folded, default=0)


def the_table_is_what_counting_by_hand_gives(lengths: list[int], every: int | None) -> None:
    assert compare(np.array(lengths, dtype=np.int64), [every]).rows() == [by_hand(lengths, every)]


counts = {"lengths": st.lists(st.integers(0, 30), max_size=8), "every": st.none() | st.integers(1, 12)}


def test_the_advice_is_what_counting_by_hand_gives() -> None:
    """From the lengths alone."""
    often(given(**counts)(the_table_is_what_counting_by_hand_gives))()


@pytest.mark.slow
def test_counting_by_hand_notices_an_event_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a load is made after each event, not before it."""
    monkeypatch.setattr(np, "arange", lambda stop: np.linspace(1, stop, stop, dtype=np.int64))
    with pytest.raises(AssertionError):
        hunting(given(**counts)(the_table_is_what_counting_by_hand_gives))()


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        ([], "there is no Order yet: snapshots buy nothing"),
        (
            [3, 5],
            "99 % of the 2 aggregates of Order have at most 5 events, the longest 5: snapshots buy nothing",
        ),
        (
            [3] * 200 + [10_000],
            "99 % of the 201 aggregates of Order have at most 3 events: snapshots buy nothing but for 1",
        ),
        (
            [1_000] * 3,
            "99 % of the 3 aggregates of Order have at most 1,000 events: with a snapshot every 100 a load \
folds 50 events on average and 99 at most, not 500 and 999, for 30 writes",
        ),
    ],
)
def test_the_advice_ends_in_a_sentence(lengths: list[int], sentence: str) -> None:
    """Which says whether it is worth it."""
    assert concluded(np.array(lengths, dtype=np.int64), "Order") == sentence


def test_distances_to_compare_are_whole_numbers(log: tl.EventLog) -> None:
    """Or none at all."""
    assert Snapshots(log, tl.Order).advise([None, 7]).table["every"].to_list() == [None, 7]
    with pytest.raises(SnapshotError, match="are no distances"):
        Snapshots(log, tl.Order).advise([0])


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def test_states_are_saved_all_or_none(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """One that the table refuses takes the others back."""
    url = f"sqlite:///{tmp_path}/orders.db" if store == "sqlite" else request.getfixturevalue("database")
    with tl.open(url, writable=True) as log:
        states = pl.DataFrame([(A, 1, "{}"), (B, 1, None)], SNAPSHOTS, orient="row")
        with pytest.raises(tl.TitanError):
            log.reader.save_snapshots(states)  # type: ignore[attr-defined]
        assert log.reader.snapshots().is_empty()  # type: ignore[attr-defined]


def test_what_was_done_and_advised_shows_itself(log: tl.EventLog) -> None:
    """In a notebook."""
    snapshots = Snapshots(log, tl.Order)
    assert "broken" in snapshots.take()._repr_html_()
    assert "snapshots in the store: 1 of this fold" in snapshots.advise()._repr_html_()
    assert "1 of this fold" in snapshots._repr_html_()
    assert repr(snapshots) == f"<Snapshots of Order in {log.url}>"


# --- the command line ------------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    """Run `titan snapshots`."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(
        cli.titan, ["snapshots", *arguments], catch_exceptions=False
    )


def test_the_command_advises_and_takes(tmp_path: Path) -> None:
    """Advice opens a store for reading only."""
    url = f"sqlite:///{tmp_path}/orders.db"
    tl.open(url, writable=True).append_many(pl.concat([life(250), life(3, B)]))
    advised = command(url, "--every", "7").stdout.splitlines()
    assert [line.split()[0] for line in advised[2:9]] == ["–", "7", "10", "50", "100", "500", "1,000"]
    assert advised[-2].startswith("99 % of the 2 aggregates of Order")
    assert advised[-1] == "the store holds no snapshot"
    assert command(url, "--take").stdout.split()[:6] == ["saved", "1", "present", "0", "short", "1"]
    assert json.loads(command(url, "--take", "--json").stdout)["present"] == 1
    told = json.loads(command(url, "--json").stdout)
    with pytest.raises(OpenError, match="there is no file"):
        command(f"sqlite:///{tmp_path}/typo.db", "--take")
    assert told["saved"].startswith("snapshots in the store: 1 of this fold")
    assert told["advice"][0] | {"mean": 0} == {
        "every": None,
        "rows": 0,
        "writes": 0,
        "mean": 0,
        "p99": 247,
        "most": 249,
    }
