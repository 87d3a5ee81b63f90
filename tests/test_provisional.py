"""Beyond the frontier of a store that is being written to, an answer may still change, and says so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import titan_lab as tl
from titan_lab.backends.contract import Frontier
from titan_lab.backends.memory import MemoryStore
from titan_lab.errors import Provisional
from titan_lab.log import EventLog
from titan_lab.testing.readers import frame_of, row

ELEVEN = datetime(2025, 1, 1, 11, tzinfo=UTC)


class Live(MemoryStore):
    """A store whose writers are at work: complete before eleven."""

    def frontier(self):
        return Frontier(ELEVEN, "the oldest open transaction", live=True)


class StillWriting(Live):
    """A store that is given an event, stamped before its end, while it is being read."""

    def frames(self, scope, size):
        yield from super().frames(scope, size)
        self.frontier = lambda: Frontier(ELEVEN.replace(hour=12), "the newest event", live=True)


@pytest.fixture
def log():
    return EventLog(Live(frame_of([row("a", 1)])))


def test_an_answer_before_the_frontier_stands(log):
    book = log.fold(tl.Order)
    assert len(book.at("2025-01-01T10:59:59.999999Z")) == 1
    state = book["a"].at("2025-01-01T10:59:59.999999Z")
    assert not state.provisional
    assert "provisional" not in repr(state) + state._repr_html_()


def test_an_answer_from_the_frontier_on_is_provisional(log):
    book = log.fold(tl.Order)
    with pytest.warns(Provisional, match="complete before 2025-01-01T11:00:00Z") as caught:
        book.at("2025-01-01T11:00Z")
    assert caught[0].filename == __file__
    for when in ("2025-01-01T11:00Z", "2026-01-01T00:00Z"):
        state = book["a"].at(when)
        assert state.provisional
        assert "provisional" in repr(state)
        assert "provisional" in state._repr_html_()


def test_a_version_is_not_provisional(log):
    assert not log.fold(tl.Order)["a"].at(version=1).provisional


def test_the_basis_says_from_when_on(log):
    basis = log.fold(tl.Order).basis
    assert basis.provisional_from == ELEVEN
    assert basis.provisional(ELEVEN)
    assert not basis.provisional(ELEVEN.replace(hour=10))


def test_a_branch_is_as_provisional_as_what_it_was_branched_from(log):
    branch = log.fold(tl.Order).branch().edit(version=1, set={"tracking": "X"})
    assert branch.basis.provisional_from == ELEVEN
    with pytest.warns(Provisional):
        branch.at("2025-01-01T12:00Z")


def test_a_store_of_files_is_known_to_its_end():
    book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
    assert book.basis.provisional_from is None
    assert len(book.at("2030-01-01")) == 500
    assert not book[book.ids[0]].at("2030-01-01").provisional


def test_the_frontier_is_of_before_the_reading(tmp_path):
    for keep in (None, tmp_path / "kept"):
        log = EventLog(StillWriting(frame_of([row("a", 1)])))
        assert log.fold(tl.Order, keep=keep).basis.provisional_from == ELEVEN


def test_what_is_kept_of_a_live_store_goes_on_with_its_frontier(log, tmp_path):
    assert log.fold(tl.Order, keep=tmp_path / "kept").basis.provisional_from == ELEVEN
    log.reader.frontier = lambda: Frontier(ELEVEN.replace(hour=13), "the oldest open transaction", live=True)
    again = log.fold(tl.Order, keep=tmp_path / "kept")
    assert again.kept.endswith("as kept")
    assert again.basis.provisional_from == ELEVEN.replace(hour=13)
