"""Laws 3, 10 and 11 once more, each beside the bug that must break it."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import titan_lab as tl
from titan_lab import event, typed
from titan_lab.backends.ddl import ddl, script
from titan_lab.backends.sqlite import SqliteStore
from titan_lab.errors import ReadOnly
from titan_lab.testing import slow
from titan_lab.testing.histories import histories

often = settings(
    derandomize=True, max_examples=40, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=300, phases=[Phase.generate])


class Basket(tl.Aggregate):
    """Lists and sums, which a careless step would change in place."""

    amounts = tl.collect(tl.PaymentAuthorized, tl.RefundIssued, "amount")
    paid = tl.total_of(tl.PaymentAuthorized, "amount")
    log = tl.step(lambda told, one: [*told, one.version], [], tl.OrderShipped, dtype=pl.List(pl.Int64))


# --- 3. split -------------------------------------------------------------------------------------------


def a_fold_can_be_split(events: pl.DataFrame) -> None:
    for life in slow.lives_of(events).values():
        whole = Basket.fold(life)
        for place in range(len(life) + 1):
            start = Basket.fold(life[:place])
            before = copy.deepcopy(start.as_dict())
            assert Basket.fold(life[place:], start=start) == whole
            assert start.as_dict() == before  # a snapshot that a fold went on from is still that snapshot


def test_a_fold_can_be_split_at_every_place_and_leaves_its_start_alone() -> None:
    """Law 3: snapshots and increments rest on it."""
    often(given(events=histories())(a_fold_can_be_split))()


def test_law_3_notices_a_step_that_changes_the_state_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a list that grows in place."""

    def grow(self: Any, value: list, one: tl.Event) -> list:
        value.append(self.value_in(one))
        return value

    monkeypatch.setattr(tl.collect, "step", grow)
    with pytest.raises(AssertionError):
        hunting(given(events=histories())(a_fold_can_be_split))()


# --- 10. same question, same answer ---------------------------------------------------------------------


def row_order_does_not_matter(events: pl.DataFrame) -> None:
    """Also not where two rows claim one place: which of them counts depends on what they say."""
    rivals = events.with_columns(
        event_type=pl.lit("OrderCancelled"), payload=pl.lit("{}"), metadata=pl.lit(None, pl.String)
    )
    rows = pl.concat([events, rivals])
    there, back = (tl.from_frame(frame).fold(tl.Order) for frame in (rows, rows.reverse()))
    assert there.history().equals(back.history())
    assert there.rejected.drop("place").sort(pl.all()).equals(back.rejected.drop("place").sort(pl.all()))
    assert len(there.typed) + len(there.rejected) == len(rows)


def test_the_order_of_rows_does_not_matter_even_where_two_claim_one_place() -> None:
    """Law 10, on histories in which every version is claimed twice."""
    often(given(events=histories())(row_order_does_not_matter))()


def test_law_10_notices_that_whoever_comes_first_is_served_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: of two rows with one key, the one that stood first is kept."""

    def as_they_stand(events: pl.DataFrame) -> event.InOrder:
        found = event._keys(events.sort("aggregate_id", "version", maintain_order=True))
        assert found is not None
        return found

    monkeypatch.setattr(typed, "in_order", as_they_stand)
    with pytest.raises(AssertionError):
        hunting(given(events=histories())(row_order_does_not_matter))()


# --- 11. analysts cannot harm the store -----------------------------------------------------------------


def reading_cannot_write(path: Path) -> None:
    store = SqliteStore(path)
    for attempt in ("DELETE FROM order_events", "DROP TABLE order_events", "CREATE TABLE mine (x)"):
        with pytest.raises(ReadOnly), store._session() as db:
            db.execute(attempt)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db:
        db.executescript(script(ddl("sqlite")))
    return tmp_path / "orders.db"


def test_a_session_that_reads_cannot_write(path: Path) -> None:
    """Law 11, in the database itself."""
    reading_cannot_write(path)


def test_law_11_notices_a_session_that_could_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: every session is opened as if for writing."""

    @contextmanager
    def open_hearted(self: SqliteStore) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path)) as db:
            yield db

    monkeypatch.setattr(SqliteStore, "_session", open_hearted)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        reading_cannot_write(path)
