"""The desk: load, decide, append. What it decides on here is a ticket, of which it knows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import titan_lab as tl
from titan_lab.backends.memory import MemoryStore
from titan_lab.command import allow, refuse
from titan_lab.errors import (
    CommandError,
    DeclarationError,
    EventsError,
    ReadOnly,
    Refused,
    SchemaTooNew,
    VersionConflict,
)
from titan_lab.event import records
from titan_lab.fold import State


class Opened(tl.EventType):
    subject: str


class Answered(tl.EventType):
    words: int
    when: datetime | None = None


class Closed(tl.EventType):
    pass


class Elsewhere(tl.EventType):
    pass


class Ticket(tl.Aggregate):
    subject = tl.latest(Opened)
    words = tl.total_of(Answered)
    status = tl.machine(
        {Opened: "OPEN", Closed: "CLOSED"}, allowed={None: ["OPEN"], "OPEN": ["CLOSED"], "CLOSED": []}
    )


class Open(tl.Command):
    aggregate_id: str
    subject: str


class Answer(tl.Command):
    aggregate_id: str
    words: int
    when: datetime | None = None
    last: bool = False


class Close(tl.Command):
    aggregate_id: str


class Misplace(tl.Command):
    aggregate_id: str


class Archive(tl.Command):
    aggregate_id: str


def answer(state: State, command: Answer) -> Sequence[tl.EventType]:
    """Answer an open ticket; no words are nothing to do."""
    if state.status != "OPEN":
        refuse(state, command, f"it is {state.status}", hint="open it again")
    if not command.words:
        return []
    said = Answered(words=command.words, when=command.when)
    return [said, Closed()] if command.last else [said]


DECIDERS: dict[type[tl.Command], Any] = {
    Open: lambda state, command: [Opened(subject=command.subject)],
    Answer: answer,
    Close: lambda state, command: [Closed()],
    Misplace: lambda state, command: [Elsewhere()],
}


@pytest.fixture
def log() -> tl.EventLog:
    return tl.open("memory://")


@pytest.fixture
def desk(log: tl.EventLog) -> tl.Desk:
    desk = tl.Desk(log, Ticket, DECIDERS)
    desk.handle(Open(aggregate_id="T-1", subject="no light"))
    return desk


def stored(log: tl.EventLog) -> list[tuple[str, int, str]]:
    return log.read().select("aggregate_id", "version", "event_type").rows()


# --- one command ------------------------------------------------------------------------------------------


def test_a_command_is_decided_on_the_state_and_its_events_are_appended(desk: tl.Desk) -> None:
    """All of them, or none."""
    handled = desk.handle(Answer(aggregate_id="T-1", words=3, last=True))
    assert (handled.aggregate_id, handled.version) == ("T-1", 3)
    assert handled.events == (Answered(words=3), Closed())
    assert (handled.state.status, handled.state.words, handled.state.version) == ("CLOSED", 3, 3)
    assert stored(desk.log) == [("T-1", 1, "Opened"), ("T-1", 2, "Answered"), ("T-1", 3, "Closed")]


def test_what_was_handled_stays_what_it_was(desk: tl.Desk) -> None:
    """Its state is the one after its own events, also when it is looked at later."""
    first = desk.handle(Answer(aggregate_id="T-1", words=3))
    desk.handle(Answer(aggregate_id="T-1", words=4))
    assert (first.version, first.state.words, first.state.version) == (2, 3, 2)
    assert first.state.valid_from is not None


def test_a_transition_that_is_not_allowed_is_refused_and_those_that_are_are_named(desk: tl.Desk) -> None:
    """As the aggregate's machine declares them; nothing is written."""
    with pytest.raises(
        Refused, match="Open of T-1 is refused: status may not go from OPEN to OPEN; allowed: CLOSED"
    ) as caught:
        desk.handle(Open(aggregate_id="T-1", subject="again"))
    assert caught.value.data["state"].status == "OPEN"
    assert caught.value.data["command"].subject == "again"
    with pytest.raises(Refused, match="status may not go to CLOSED from nothing; allowed: OPEN"):
        desk.handle(Close(aggregate_id="T-2"))
    desk.handle(Close(aggregate_id="T-1"))
    with pytest.raises(Refused, match="from CLOSED to CLOSED; nothing may follow CLOSED"):
        desk.handle(Close(aggregate_id="T-1"))
    assert len(desk.log) == 2


def test_a_decider_refuses_in_its_own_words(desk: tl.Desk) -> None:
    """And says what to do instead."""
    with pytest.raises(Refused, match="Answer of T-2 is refused: it is None") as caught:
        desk.handle(Answer(aggregate_id="T-2", words=1))
    assert caught.value.hint == "open it again"


def test_each_event_of_a_decision_is_held_to_the_state_that_the_one_before_it_left() -> None:
    """A decider that closes a ticket twice is refused as a whole."""
    log = tl.open("memory://")
    twice = tl.Desk(log, Ticket, DECIDERS | {Close: lambda state, command: [Closed(), Closed()]})
    twice.handle(Open(aggregate_id="T-1", subject="no light"))
    with pytest.raises(Refused, match="from CLOSED to CLOSED"):
        twice.handle(Close(aggregate_id="T-1"))
    assert len(log) == 1


def test_where_there_is_nothing_to_do_nothing_is_written(desk: tl.Desk) -> None:
    """That is no error, and is told."""
    handled = desk.handle(Answer(aggregate_id="T-1", words=0))
    assert (handled.events, handled.version) == ((), 1)
    assert repr(handled) == "<Handled: nothing to do; T-1 is at version 1>"
    assert len(desk.log) == 1


def test_deciding_alone_needs_no_log(desk: tl.Desk) -> None:
    """It is a pure function of state and command."""
    state = desk.load("T-1")
    assert desk.decide(state, Close(aggregate_id="T-1")) == [Closed()]
    assert desk.decide(state, Close(aggregate_id="T-1")) == [Closed()]
    assert state == desk.load("T-1")
    allow(Ticket, state, Closed, Close(aggregate_id="T-1"))


# --- metadata ---------------------------------------------------------------------------------------------


def test_the_command_is_the_cause_of_its_events(desk: tl.Desk) -> None:
    """A request has one correlation_id; who asked, and since when it holds, is told where it is known."""
    handled = desk.handle(
        Answer(aggregate_id="T-1", words=3, last=True),
        command_id="cmd-1",
        correlation_id="req-1",
        user_id="ann",
        effective_at="2025-01-01T10:00Z",
    )
    assert handled.command_id == "cmd-1"
    said = {
        "correlation_id": "req-1",
        "causation_id": "cmd-1",
        "user_id": "ann",
        "effective_at": "2025-01-01T10:00:00Z",
    }
    _, second, third = records(desk.log.read())
    assert second.metadata == said | {"event_id": "cmd-1:1"}
    assert third.metadata == said | {"event_id": "cmd-1:2"}


def test_a_command_without_an_id_gets_one_and_begins_its_own_request(desk: tl.Desk) -> None:
    """So that `story.trace` shows what it led to."""
    (event,) = records(desk.log.read())
    assert event.metadata["correlation_id"] == event.metadata["causation_id"]
    tree = desk.log.fold(Ticket)["T-1"].trace()
    assert tree.select("depth", "cause", "event_type").rows() == [
        (0, event.metadata["causation_id"], None),
        (1, event.metadata["event_id"], "Opened"),
    ]


def test_events_are_written_in_the_newest_shape() -> None:
    """What a desk wrote is upcast by nobody."""
    log = tl.open("memory://")
    items = [{"product_id": "tea", "quantity": 1, "price": "4.50"}]
    tl.OrderDesk(log).handle(tl.CreateOrder(order_id="order-1", user_id="7", items=items))
    (event,) = records(log.read())
    assert event.schema_version == tl.Order.chain.current("OrderCreated") == 2
    assert set(log.fold(tl.Order)["order-1"].blame()["upcast"]) == {None}


# --- who comes too late, and who asks again ---------------------------------------------------------------


class Meanwhile(MemoryStore):
    """A store in which others append just before we do: these events, one each time."""

    others: Sequence[tl.EventType] = ()

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Any:
        if self.others:
            theirs, *self.others = self.others
            tl.EventLog(MeanwhileNobody(self), writable=True).append(aggregate_id, theirs, expected_version)
        return super().extend(aggregate_id, events, expected_version)


class MeanwhileNobody:
    """The same store, without the others."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def extend(self, *arguments: Any) -> Any:
        return MemoryStore.extend(self.store, *arguments)


@pytest.fixture
def crowded() -> tuple[tl.Desk, Meanwhile]:
    store = Meanwhile()
    desk = tl.Desk(tl.EventLog(store, writable=True), Ticket, DECIDERS)
    desk.handle(Open(aggregate_id="T-1", subject="no light"))
    return desk, store


def test_who_comes_too_late_decides_again_on_what_is_there_then(crowded: tuple[tl.Desk, Meanwhile]) -> None:
    """As often as it takes."""
    desk, store = crowded
    store.others = [Answered(words=1), Answered(words=2)]
    handled = desk.handle(Answer(aggregate_id="T-1", words=4))
    assert (handled.version, handled.state.words) == (4, 7)


def test_what_is_not_allowed_any_more_is_refused_then(crowded: tuple[tl.Desk, Meanwhile]) -> None:
    """It is decided anew, not forced through."""
    desk, store = crowded
    store.others = [Closed()]
    with pytest.raises(Refused, match="it is CLOSED"):
        desk.handle(Answer(aggregate_id="T-1", words=4))
    assert len(desk.log) == 2


def test_a_command_about_a_version_that_was_seen_is_not_decided_on_another(
    crowded: tuple[tl.Desk, Meanwhile],
) -> None:
    """Whether it is another already, or becomes one meanwhile."""
    desk, store = crowded
    for pinned in (0, 2):
        with pytest.raises(VersionConflict, match=f"T-1 is at version 1, and was expected at {pinned}"):
            desk.handle(Answer(aggregate_id="T-1", words=4), expected_version=pinned)
    store.others = [Answered(words=1)]
    with pytest.raises(VersionConflict, match="T-1 is at version 2, and was expected at 1") as caught:
        desk.handle(Answer(aggregate_id="T-1", words=4), expected_version=1)
    assert (caught.value.data["expected"], caught.value.data["found"]) == (1, 2)
    assert desk.handle(Answer(aggregate_id="T-1", words=4), expected_version=2).version == 3


def test_who_is_always_too_late_is_told_so_in_the_end() -> None:
    """Nothing of it was written."""
    store = Meanwhile()
    desk = tl.Desk(tl.EventLog(store, writable=True), Ticket, DECIDERS, attempts=3)
    desk.handle(Open(aggregate_id="T-1", subject="no light"))
    store.others = [Answered(words=1)] * 5
    with pytest.raises(VersionConflict, match="T-1 is at version 4, and was expected at 3"):
        desk.handle(Answer(aggregate_id="T-1", words=4))
    assert desk.load("T-1").words == 3


def test_a_command_that_is_asked_again_is_done_once(desk: tl.Desk) -> None:
    """Also after more came, and where it would be refused by now: its answer is that of the first time."""
    first = desk.handle(Answer(aggregate_id="T-1", words=3, last=True), command_id="cmd-1")
    again = desk.handle(Answer(aggregate_id="T-1", words=3, last=True), command_id="cmd-1")
    assert again == first
    assert again.state == first.state
    with pytest.raises(Refused):
        desk.handle(Answer(aggregate_id="T-1", words=3, last=True), command_id="cmd-2")
    assert len(desk.log) == 3


def test_events_that_others_hung_on_a_command_are_not_taken_for_its_own(desk: tl.Desk) -> None:
    """A causation_id alone does not say that it was done."""
    desk.log.append("T-1", Answered(words=1), 1, metadata=tl.Metadata(causation_id="cmd-1"))
    assert desk.handle(Answer(aggregate_id="T-1", words=3), command_id="cmd-1").version == 3


# --- how a state is found ---------------------------------------------------------------------------------


def test_a_state_may_be_found_in_another_way(desk: tl.Desk) -> None:
    """Such as from a saved one; then the events are read for a repeated command alone."""
    asked: list[str] = []

    def load(aggregate_id: str) -> State:
        asked.append(aggregate_id)
        return desk.load(aggregate_id)

    other = tl.Desk(desk.log, Ticket, DECIDERS, load=load)
    assert other.handle(Answer(aggregate_id="T-1", words=3), command_id="cmd-1").version == 2
    assert other.handle(Answer(aggregate_id="T-1", words=3), command_id="cmd-1").version == 2
    assert other.load("T-1").words == 3
    assert asked == ["T-1", "T-1"]


def test_a_state_may_come_from_a_snapshot(log: tl.EventLog) -> None:
    """The desk decides as it does without; whoever is not there yet begins."""
    snapshots = tl.Snapshots(log, Ticket)
    desk = tl.Desk(log, Ticket, DECIDERS, load=snapshots.state)
    desk.handle(Open(aggregate_id="T-1", subject="no light"))
    for _ in range(12):
        desk.handle(Answer(aggregate_id="T-1", words=1))
    assert snapshots.take(every=10).saved == 1
    assert desk.load("T-1").rests_on == "the snapshot of version 10, and 3 events after it"
    handled = desk.handle(Answer(aggregate_id="T-1", words=5, last=True))
    assert (handled.version, handled.state.words) == (15, 17)
    with pytest.raises(Refused, match="from CLOSED to CLOSED"):
        desk.handle(Close(aggregate_id="T-1"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"version": 3}, r"version 2 of T-1 cannot be read \(it is missing, or was rejected\)"),
        ({"payload": "{"}, r"version 2 of T-1 cannot be read \(it is missing"),
        ({"payload": '{"words": "many"}'}, r"version 2 of T-1 cannot be read \(found 'many'"),
    ],
)
def test_nothing_is_decided_on_half_a_history(bad: dict[str, Any], message: str) -> None:
    """A gap, a row that is no event, a payload that does not fit."""
    good = {"aggregate_id": "T-1", "timestamp": "2025-01-01T10:00Z"}
    rows = [
        good | {"version": 1, "event_type": "Opened", "payload": '{"subject": "no light"}'},
        good | {"version": 2, "event_type": "Answered", "payload": '{"words": 1}'} | bad,
        good | {"version": 4 if "version" in bad else 3, "event_type": "Answered", "payload": '{"words": 1}'},
    ]
    desk = tl.Desk(tl.from_frame(pl.DataFrame(rows)), Ticket, DECIDERS)
    with pytest.raises(EventsError, match=message):
        desk.handle(Close(aggregate_id="T-1"))


def test_nothing_is_decided_on_events_of_newer_code(desk: tl.Desk) -> None:
    """They may mean something else."""
    desk.log.append("T-1", Answered(words=1), 1, metadata=tl.Metadata(schema_version=2))
    with pytest.raises(SchemaTooNew):
        desk.handle(Close(aggregate_id="T-1"))


# --- what is no command -----------------------------------------------------------------------------------


def test_a_command_that_nobody_decides_is_named(desk: tl.Desk) -> None:
    """And so are those that somebody does."""
    with pytest.raises(CommandError, match="nobody decides Archive; the commands are Open, Answer, Close"):
        desk.handle(Archive(aggregate_id="T-1"))
    with pytest.raises(CommandError, match="'close' is no command"):
        desk.handle("close")  # type: ignore[arg-type]


def test_a_decider_cannot_make_events_that_the_aggregate_does_not_declare(desk: tl.Desk) -> None:
    """They would change nothing."""
    with pytest.raises(DeclarationError, match="Misplace leads to Elsewhere, which Ticket does not declare"):
        desk.handle(Misplace(aggregate_id="T-1"))


def test_a_desk_that_could_not_work_is_refused_when_it_is_set_up(log: tl.EventLog) -> None:
    """Not when it is asked first: no field names the aggregate, or nothing would be tried."""

    class Nobodys(tl.Command):
        words: int

    with pytest.raises(DeclarationError, match="0 attempts are none"):
        tl.Desk(log, Ticket, DECIDERS, attempts=0)
    with pytest.raises(DeclarationError, match="Nobodys has no field 'aggregate_id' to name its aggregate"):
        tl.Desk(log, Ticket, {Nobodys: answer})


def test_fields_are_read_as_payloads_are() -> None:
    """numpy's numbers, whole floats, instants with a zone; what was left out is left out."""
    asked = Answer(aggregate_id="T-1", words=np.int64(3), when=datetime(2025, 1, 1, 10, tzinfo=UTC))
    assert (asked.words, type(asked.words), asked.when) == (3, int, datetime(2025, 1, 1, 10, tzinfo=UTC))
    assert Answer(aggregate_id="T-1", words=3.0).words == 3  # type: ignore[arg-type]
    assert Answer(aggregate_id=7, words=np.float64(3)).whose() == "7"  # type: ignore[arg-type]
    assert Answer(aggregate_id="T-1", words=3).when is None
    for wrong in (None, "many", 1.5, True):
        with pytest.raises(CommandError, match=r"Answer: .* at words"):
            Answer(aggregate_id="T-1", words=wrong)  # type: ignore[arg-type]
    with pytest.raises(tl.TitanError, match="has no time zone"):
        Answer(aggregate_id="T-1", words=3, when=datetime(2025, 1, 1, 10))


def test_a_log_for_reading_takes_no_command(tmp_path: Path) -> None:
    """The desk does not open it for writing by itself."""
    url = f"sqlite:///{tmp_path}/tickets.db"
    tl.Desk(tl.open(url, writable=True), Ticket, DECIDERS).handle(Open(aggregate_id="T-1", subject="x"))
    with pytest.raises(ReadOnly, match="open for reading only"):
        tl.Desk(tl.open(url), Ticket, DECIDERS).handle(Close(aggregate_id="T-1"))


def test_a_desk_and_what_it_handled_show_themselves(desk: tl.Desk) -> None:
    """In a line, and escaped in a notebook: an id is anybody's text."""
    assert repr(desk) == "<Desk of Ticket on memory://>"
    assert "Open, Answer, Close" in desk._repr_html_()
    shown = desk.handle(Open(aggregate_id="<b>T-2</b>", subject="x"))._repr_html_()
    assert "<b>T-2" not in shown
    assert "Opened" in shown
