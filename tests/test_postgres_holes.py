"""Four holes of an event store in PostgreSQL: each shown open with the SQL that has it, and closed with ours.

The tables are the service's own, and the statements with the holes are those that its design has.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.backends import inserts, oldest
from titan_lab.errors import OpenError, Provisional, VersionConflict
from titan_lab.scope import EVERYTHING
from titan_lab.testing.readers import frame_of
from titan_lab.testing.rows import row

ORDER = "550e8400-e29b-41d4-a716-446655440000"
PAID = {"event_type": "Paid", "payload": {}}
UNCHECKED = """
INSERT INTO order_events (aggregate_id, version, event_type, payload) VALUES (%s, %s, 'Paid', '{"by": "B"}')
ON CONFLICT (aggregate_id, version) DO NOTHING RETURNING version"""


def session(url: str, **options: Any) -> Any:
    import psycopg

    return psycopg.connect(url, autocommit=True, **options)


@pytest.fixture
def log(database: str) -> Any:
    """An order at version 3, open for writing."""
    with tl.open(database, writable=True) as log:
        log.append_many(frame_of([row(ORDER, version) for version in (1, 2, 3)]))
        yield log


# --- 1. A CONFLICT IN A BATCH -------------------------------------------------------------------------------


def test_an_empty_returning_does_not_tell_of_a_conflict_in_a_batch(database: str, log: Any) -> None:
    """Open: a writer that has seen version 1 stores half a command, and hears versions, so no conflict."""
    with session(database) as db:
        told = [db.execute(UNCHECKED, (ORDER, version)).fetchall() for version in (2, 3, 4, 5)]
    assert told == [[], [], [(4,)], [(5,)]]
    assert log.events(ORDER)["version"].to_list() == [1, 2, 3, 4, 5]  # 1A 2A 3A 4B 5B


@pytest.mark.parametrize("size", [4, inserts.FEW + 1])
@pytest.mark.parametrize("expected", [0, 1, 2], ids=["all taken", "first taken", "one taken"])
def test_a_batch_that_meets_a_taken_version_is_not_stored(log: Any, size: int, expected: int) -> None:
    """Closed: by one statement and by a copy, wherever the conflict stands."""
    before = log.read()
    with pytest.raises(VersionConflict, match=f"is at version 3, and was expected at {expected}"):
        log.append(ORDER, [PAID] * size, expected)
    clashing = frame_of([row(ORDER, version, payload='{"by": "B"}') for version in range(3, 3 + size)])
    with pytest.raises(
        VersionConflict, match=r"version 3 of .* is already another event; nothing was written"
    ):
        log.append_many(clashing)
    assert log.read().equals(before)


@pytest.mark.parametrize("size", [1, inserts.FEW + 1])
def test_of_many_writers_behind_one_version_exactly_one_wins(database: str, log: Any, size: int) -> None:
    """Closed: eight at once, again and again; the others hear of it, and can go on behind it."""
    wins, losses = [], []

    def write(name: int) -> None:
        with tl.open(database, writable=True) as own:
            seen = 3
            for n in range(5):
                while True:
                    try:
                        seen = own.append(
                            ORDER, [PAID | {"payload": {"by": name, "n": n}}] * size, seen
                        ).version
                        wins.append(seen)
                        break
                    except VersionConflict as error:
                        seen = error.data["found"]
                        losses.append(seen)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(wins) == [3 + size * n for n in range(1, 41)]
    assert losses
    events = log.events(ORDER)
    assert events["version"].to_list() == list(range(1, 3 + size * 40 + 1))
    assert events[3:].group_by("payload").len()["len"].unique().to_list() == [size]


# --- 2. A TIMESTAMP IS THE START OF ITS TRANSACTION ---------------------------------------------------------


def test_a_later_version_can_be_stamped_earlier(database: str, log: Any) -> None:
    """Open: at the stamp of version 5 plain SQL folds it without version 4. Closed: a cut is a prefix."""
    import psycopg

    insert = (
        "INSERT INTO order_events VALUES (%s, %s, 'OrderShipped', '{}', NULL, DEFAULT) RETURNING timestamp"
    )
    with psycopg.connect(database) as early, psycopg.connect(database) as late:
        early.execute("SELECT 1")  # this transaction has begun, and thinks
        late.execute(insert, (ORDER, 4))
        late.commit()
        ((stamp,),) = early.execute(insert, (ORDER, 5)).fetchall()
        early.commit()
    with session(database) as db:
        plain = (
            "SELECT version FROM order_events WHERE aggregate_id = %s AND timestamp <= %s ORDER BY version"
        )
        assert db.execute(plain, (ORDER, stamp)).fetchall() == [(1,), (2,), (3,), (5,)]
    book = log.fold(tl.Order)
    with pytest.warns(Provisional):
        states = [book.at(when)["version"].to_list() for when in (stamp, stamp + timedelta(seconds=9))]
    assert states == [[3], [5]]
    assert log.audit()["kind"].to_list() == ["clock inversion"]


# --- 3. PAGES BY OFFSET -------------------------------------------------------------------------------------


def test_pages_by_offset_lose_and_double_rows_when_somebody_writes(database: str, log: Any) -> None:
    """Open: an event between two pages moves all behind it. Closed: one read is one statement."""
    page = "SELECT aggregate_id, version FROM order_events ORDER BY aggregate_id, version OFFSET %s LIMIT 2"
    late = frame_of([row("00000000" + ORDER[8:], 1)])
    with session(database) as db:
        seen = db.execute(page, (0,)).fetchall()
        log.append_many(late)  # sorts before all that was seen
        seen += db.execute(page, (2,)).fetchall()
    assert [version for _, version in seen] == [1, 2, 2, 3]  # one twice, and the new one never

    frames = log.reader.frames(EVERYTHING, 1)
    first = next(frames)
    log.append_many(frame_of([row("00000001" + ORDER[8:], 1)]))
    assert sorted(pl.concat([first, *frames])["version"]) == [1, 1, 2, 3]


# --- 4. NO POSITION IN THE WHOLE LOG ------------------------------------------------------------------------


def test_a_cursor_on_timestamps_misses_what_commits_late(
    database: str, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open: the event is stamped before what was read already. Closed: the frontier waits for it."""
    import psycopg

    monkeypatch.setattr(oldest, "LISTED_WITHIN", timedelta(0))
    tail = "SELECT version FROM order_events WHERE timestamp > %s ORDER BY timestamp"
    with psycopg.connect(database) as slow, session(database) as db:
        slow.execute(UNCHECKED, (ORDER, 4))
        log.append("650e8400" + ORDER[8:], PAID, 0)
        held, vouched = log.frontier.instant, log.read()
        ((cursor,),) = db.execute("SELECT max(timestamp) FROM order_events").fetchall()
        slow.commit()
        assert db.execute(tail, (cursor,)).fetchall() == []  # version 4 is never seen by whoever goes on here

    moved, found = log.frontier.instant, log.read()
    assert held < moved
    before = vouched.filter(pl.col("timestamp") < held)
    assert found.filter(pl.col("timestamp") < held).equals(before)
    since = found.filter(pl.col("timestamp").is_between(held, moved, closed="left"))
    assert sorted(since["version"]) == [1, 4]


# --- WHAT A DATABASE MAY ASK FOR AGAIN ----------------------------------------------------------------------


def test_serialization_failures_are_tried_again_and_not_for_ever(
    database: str, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a database whose transactions are serializable all appends arrive; a bound ends what never works."""
    strict = f"{database}?options=-c%20default_transaction_isolation%3Dserializable"
    threads = [
        threading.Thread(target=_append_many_times, args=(strict, f"{n:08x}{ORDER[8:]}")) for n in range(6)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(log) == 3 + 6 * 20
    assert set(log.audit()["kind"]) == {"clock inversion"}  # the copied ones bring times of their own

    import psycopg

    tried = []

    def fails(*_: Any) -> bool:
        tried.append(1)
        raise psycopg.errors.SerializationFailure("could not serialize access")

    monkeypatch.setattr(inserts, "_insert", fails)
    monkeypatch.setattr(inserts.time, "sleep", lambda _: None)
    with pytest.raises(OpenError, match="could not serialize access"):
        log.append(ORDER, PAID, 3)
    assert len(tried) == inserts.TRIES


def _append_many_times(url: str, name: str) -> None:
    with tl.open(url, writable=True) as log:
        for version in range(10):
            log.append(name, PAID, version)
        log.append_many(frame_of([row(name, version) for version in range(11, 21)]))
