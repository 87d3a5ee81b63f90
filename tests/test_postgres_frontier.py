"""Up to when a PostgreSQL store is complete: nothing that is vouched for changes any more."""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from servers import own_postgres

import titan_lab as tl
from titan_lab.backends import oldest
from titan_lab.backends.contract import Frontier
from titan_lab.errors import Provisional
from titan_lab.log import EventLog
from titan_lab.testing.readers import frame_of
from titan_lab.testing.rows import row

ORDER = "550e8400-e29b-41d4-a716-446655440000"
OTHER = "650e8400-e29b-41d4-a716-446655440000"
INSERT = "INSERT INTO order_events VALUES (%s, %s, 'Paid', '{}', NULL, DEFAULT) RETURNING timestamp"


def session(url: str, **options: Any) -> Any:
    import psycopg

    return psycopg.connect(url, **options)


def instant(log: EventLog) -> datetime:
    found = log.frontier.instant
    assert found is not None
    return found


@pytest.fixture
def log(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventLog]:
    """A store with one old event, open for reading; without the second's grace, which is long for a test."""
    monkeypatch.setattr(oldest, "LISTED_WITHIN", timedelta(0))
    with tl.open(database, writable=True) as writer:
        writer.append_many(frame_of([row(ORDER, 1)]))
    with tl.open(database) as log:
        yield log


def test_an_idle_store_is_complete_up_to_a_second_ago(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that has just begun may not be listed yet."""
    monkeypatch.setattr(oldest, "LISTED_WITHIN", timedelta(seconds=1))
    begun = datetime.now(UTC)
    found = log.frontier
    assert found.live
    assert found.instant is not None
    assert begun - timedelta(seconds=1) <= found.instant <= datetime.now(UTC) - timedelta(seconds=0.9)
    assert "writers leave `timestamp` to the database" in found.how


@pytest.mark.parametrize("ended", ["commit", "rollback"])
def test_an_open_transaction_holds_the_frontier_back_until_it_ends(
    database: str, log: EventLog, ended: str
) -> None:
    """Also while it is idle, and before it has written; whoever holds it is named, and no query is shown."""
    with session(database, application_name="billing") as slow:
        (began,) = slow.execute("SELECT now()").fetchone()
        held = log.frontier
        assert held.instant == began
        assert f"pid {slow.info.backend_pid} ('billing', titan, idle in transaction)" in held.how
        assert "SELECT" not in held.how
        (stamp,) = slow.execute(INSERT, (ORDER, 2)).fetchone()
        assert stamp == began == instant(log)
        assert len(log) == 1
        getattr(slow, ended)()
        assert instant(log) > began
        assert len(log) == (2 if ended == "commit" else 1)


def test_the_oldest_of_several_holds_it(database: str, log: EventLog) -> None:
    """Also if it only reads, since it may write yet; one that is idle outside of a transaction does not."""
    with session(database) as first, session(database) as second, session(database, autocommit=True) as idle:
        idle.execute("SELECT 1")
        (began,) = first.execute("SELECT now()").fetchone()
        second.execute(INSERT, (ORDER, 2))
        assert instant(log) == began
        first.rollback()
        assert instant(log) > began


def test_a_writers_clock_that_is_30_years_ahead_does_not_move_it(database: str, log: EventLog) -> None:
    """What is known comes from the server, not from the rows."""
    with tl.open(database, writable=True) as writer:
        writer.append_many(frame_of([row(OTHER, 1, timestamp="2056-01-01T00:00:00Z")]))
    assert instant(log) < datetime.now(UTC)


def test_an_answer_beyond_it_is_provisional(database: str, log: EventLog) -> None:
    """And says so; one before it does not."""
    with session(database) as slow:
        (began,) = slow.execute("SELECT now()").fetchone()
        book = log.fold(tl.Order)
        assert "has a transaction open since" in str(book.basis)
        with pytest.warns(Provisional):
            book.at(began + timedelta(seconds=1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            book.at(began - timedelta(seconds=1))


def test_a_prepared_transaction_holds_it_back(database: str, log: EventLog) -> None:
    """It tells when it was prepared, not when it began; what is assumed is said."""
    with session(database, autocommit=True) as two:
        two.execute("BEGIN")
        (stamp,) = two.execute(INSERT, (ORDER, 2)).fetchone()
        two.execute("PREPARE TRANSACTION 'shop-17'")
        found = log.frontier
        assert found.instant is not None
        assert found.instant < stamp
        assert "the transaction 'shop-17' of titan is prepared" in found.how
        assert "within an hour of its start" in found.how
        two.execute("COMMIT PREPARED 'shop-17'")
        assert instant(log) > stamp


def test_a_role_that_may_not_see_others_knows_what_it_can(database: str, log: EventLog) -> None:
    """That nobody else has a transaction open is told to all; since when one is open is not."""
    role = f"blind_{os.getpid()}"
    with session(database, autocommit=True) as db:
        db.execute(f"CREATE ROLE {role} LOGIN")
        db.execute(f"GRANT SELECT ON order_events TO {role}")
        (started,) = db.execute("SELECT pg_postmaster_start_time()").fetchone()
        try:
            with tl.open(database.replace("titan:unused@", f"{role}@")) as blind:
                # The server's own workers are hidden as well, while they look after the tables.
                _eventually(lambda: datetime.now(UTC) - instant(blind) < timedelta(seconds=5))
                with session(database) as slow:
                    (began,) = slow.execute("SELECT now()").fetchone()
                    assert instant(blind) == started < began
                    assert "GRANT pg_read_all_stats" in blind.frontier.how
                    db.execute(f"GRANT pg_read_all_stats TO {role}")
                    _eventually(lambda: instant(blind) == began)
        finally:
            db.execute(f"DROP OWNED BY {role}")
            db.execute(f"DROP ROLE {role}")


def _eventually(holds: Any) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_standby_says_what_it_assumes() -> None:
    """It does not see its primary's transactions."""
    at = datetime(2025, 1, 1, 12, tzinfo=UTC)

    class Standby:
        def execute(self, _: str) -> Any:
            return self

        def fetchall(self) -> list[Any]:
            return [(at, True, at - timedelta(minutes=1), True, None, None, None, None, None, None)]

    found = oldest.frontier(Standby(), '"order_events"', True)
    assert found.instant == at - timedelta(minutes=61)
    assert "a standby does not see" in found.how
    assert "none of them takes more than an hour" in found.how


# --- THE LAW: WHAT IS VOUCHED FOR DOES NOT CHANGE -----------------------------------------------------------


def broken_promises(url: str, rounds: int) -> int:
    """Count the looks at a store whose events before the frontier were not all there yet.

    Six writers, each with transactions of its own: slow ones, idle ones, some rolled back.
    """
    import psycopg

    def write(name: int) -> None:
        dice = random.Random(name)
        with psycopg.connect(url) as db:
            for n in range(rounds):
                db.execute("SELECT now()")
                time.sleep(dice.random() * 0.03)
                db.execute(INSERT, (f"{name:08x}{ORDER[8:]}", n + 1))
                time.sleep(dice.random() ** 4 * 0.3)
                if dice.random() < 0.15:
                    db.rollback()
                else:
                    db.commit()

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    looks: list[tuple[datetime, pl.DataFrame]] = []
    with tl.open(url) as log:
        for one in threads:
            one.start()
        while any(one.is_alive() for one in threads):
            frontier = log.frontier.instant
            if frontier is not None:
                looks.append((frontier, log.read()))
            time.sleep(0.02)
        for one in threads:
            one.join()
        final = log.read()
    assert len(looks) > 10
    before = [
        final.filter(pl.col("timestamp") < at).equals(seen.filter(pl.col("timestamp") < at))
        for at, seen in looks
    ]
    return before.count(False)


@pytest.mark.slow
def test_what_is_before_the_frontier_never_changes(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second's grace, so that the frontier is as near to the writers as it can be."""
    monkeypatch.setattr(oldest, "LISTED_WITHIN", timedelta(milliseconds=20))
    tl.open(database, writable=True).close()
    assert broken_promises(database, 40) == 0


@pytest.mark.slow
def test_the_law_notices_a_frontier_that_is_the_clock(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive one must be caught."""

    def naive(db: Any, table: str, told: bool) -> Frontier:
        ((now,),) = db.execute("SELECT now()").fetchall()
        return Frontier(now, "the clock", live=True)

    monkeypatch.setattr(oldest, "frontier", naive)
    tl.open(database, writable=True).close()
    assert broken_promises(database, 20) > 0


@pytest.mark.slow
def test_the_frontier_outlives_its_server() -> None:
    """After a crash all that was open is gone, and rolled back."""
    with own_postgres() as server:
        log = tl.open(server.url, writable=True)
        log.append_many(frame_of([row(ORDER, 1)]))
        slow = session(server.url)
        (began,) = slow.execute(INSERT, (ORDER, 2)).fetchone()
        assert instant(log) <= began
        server.kill9()
        slow.close()
        server.start()
        _eventually(lambda: instant(log) > began)
        assert len(log) == 1
        log.close()
