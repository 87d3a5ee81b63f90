"""A PostgreSQL server that refuses, is gone, or holds something else; what a session for reading may not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import polars as pl
import pytest
from servers import own_postgres

import titan_lab as tl
from titan_lab.errors import EventsError, MissingExtra, OpenError, ReadOnly
from titan_lab.scope import EVERYTHING, Scope
from titan_lab.testing.readers import frame_of
from titan_lab.testing.rows import row

ORDER = "550e8400-e29b-41d4-a716-446655440000"
OTHER = "650e8400-e29b-41d4-a716-446655440000"


def session(url: str, **options: Any) -> Any:
    import psycopg

    return psycopg.connect(url, autocommit=True, **options)


@pytest.fixture
def store(database: str) -> str:
    """The service's tables with two events of one order."""
    tl.open(database, writable=True).append_many(frame_of([row(ORDER, 1), row(ORDER, 2)]))
    return database


def test_a_new_store_has_the_services_tables(database: str) -> None:
    """Made when a log is opened for writing, and found by the next; reading makes nothing."""
    with pytest.raises(OpenError, match="has no table order_events; it has none") as caught:
        tl.open(database)
    assert "writable=True" in str(caught.value.hint)
    assert len(tl.open(database, writable=True)) == len(tl.open(database)) == 0
    with session(database) as db, pytest.raises(Exception, match="events are never changed"):
        db.execute("DELETE FROM order_events")


def test_two_who_open_the_same_empty_store_make_it_once(database: str) -> None:
    """Whoever comes second finds the tables."""
    opened: list[Any] = []
    begin = threading.Barrier(4)

    def make() -> None:
        begin.wait()
        opened.append(tl.open(database, writable=True))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [len(log) for log in opened] == [0] * 4


@pytest.mark.parametrize(
    "attempt",
    ["INSERT INTO order_events SELECT * FROM order_events", "CREATE TABLE t ()", "DROP TABLE order_events"],
)
def test_a_session_that_reads_cannot_write_even_when_it_tries(store: str, attempt: str) -> None:
    """The database itself refuses, through both of the drivers."""
    log = tl.open(store)
    with pytest.raises(ReadOnly, match="open for reading only"), log.reader.server.session() as db:
        db.execute(attempt)
    with pytest.raises(ReadOnly, match="open for reading only"):
        list(log.reader.server.read(attempt, 100))
    assert len(log) == 2


def test_a_reader_may_not_be_talked_into_writing_by_its_url(store: str) -> None:
    """What the URL asks for comes first, and ours last."""
    log = tl.open(f"{store}?options=-c%20default_transaction_read_only%3Doff%20-c%20statement_timeout%3D7s")
    with log.reader.server.session() as db:
        assert db.execute("SHOW default_transaction_read_only").fetchone() == ("on",)
        assert db.execute("SHOW statement_timeout").fetchone() == ("7s",)
    (frame,) = log.reader.server.read("SELECT current_setting('statement_timeout') AS told", 10)
    assert frame["told"].to_list() == ["7s"]


def test_a_read_that_takes_longer_than_is_allowed_is_told(store: str) -> None:
    """By the server's own words; the session is not lost."""
    log = tl.open(f"{store}?options=-c%20statement_timeout%3D50ms")
    with pytest.raises(OpenError, match=r"refuses: .*statement timeout"):
        list(log.reader.server.read("SELECT pg_sleep(2)::text", 10))
    assert len(log) == 2


def test_a_view_that_fails_is_told_as_what_was_read(store: str) -> None:
    """Not as an event that cannot be written; what was asked is not repeated."""
    with session(store) as db:
        columns = "aggregate_id, version / (version - 2) AS version, event_type, payload, metadata, timestamp"
        db.execute(f"CREATE VIEW divided AS SELECT {columns} FROM order_events")
    with pytest.raises(OpenError, match=r"refuses: .*division by zero") as caught:
        tl.open(f"{store}?table=divided").read()
    assert "SELECT" not in str(caught.value)


def test_the_password_is_shown_nowhere(store: str) -> None:
    """Neither in the URL, nor in a repr, a card, a basis or an error."""
    log = tl.open(store.replace(":unused@", ":hunter2@"))
    book = log.fold(tl.Order)
    shown = [repr(log), log._repr_html_(), repr(book), book._repr_html_(), str(book.basis), log.url]
    shown += [str(vars(log.reader))]
    for url in (store.replace("//titan:unused@", "//"), store.replace("titan:unused", "titan:hunter2")):
        with pytest.raises(OpenError) as caught:
            tl.open(f"{url}x?password=hunter2" if "hunter2" not in url else f"{url}x")
        shown += [repr(caught.value), str(caught.value)]
    assert not [one for one in shown if "hunter2" in one or "unused" in one]
    assert "titan:***@" in log.url


BAD_ADDRESSES = [
    ("postgresql://titan:s3cret@127.0.0.1:1/db", "no server listens there", "check host and port"),
    ("postgresql://titan:s3cret@nowhere.invalid/db", "the host's name is unknown", "check the host"),
    ("postgresql://titan:s3cret@127.0.0.1:port/db", "is no URL of a database", "postgresql://USER@HOST"),
    ("postgresql://titan:s3cret@127.0.0.1:1/db?sslmode=never", "sslmode", ""),
    ("postgresql://titan:s3cret@127.0.0.1:1/db?nonsense=1", "nonsense", ""),
]


@pytest.mark.parametrize(("url", "message", "hint"), BAD_ADDRESSES)
def test_an_address_that_leads_nowhere_is_told_with_its_reason(url: str, message: str, hint: str) -> None:
    """And what to check."""
    with pytest.raises(OpenError, match=message) as caught:
        tl.open(url)
    assert hint in str(caught.value.hint)
    assert "s3cret" not in repr(caught.value) + str(caught.value)


def test_a_server_refuses_for_reasons_that_are_told(store: str) -> None:
    """An unknown database, an unknown role, encryption that is asked for and not there."""
    host = store.rpartition("@")[2].rpartition("/")[0]
    for url, message in [
        (f"{store}x", "does not exist"),
        (f"postgresql://nobody_here@{host}/postgres", "does not exist"),
        (f"{store}?sslmode=require", "no encrypted connection can be made"),
    ]:
        with pytest.raises(OpenError, match=message):
            tl.open(url)


def test_a_wrong_password_is_told_and_not_shown() -> None:
    """On a server of its own, since the others ask for none."""
    with own_postgres() as server:
        with session(server.url) as db:
            db.execute("ALTER ROLE titan PASSWORD 'unused'")
        hba = server.data / "pg_hba.conf"
        hba.write_text(hba.read_text().replace(" trust", " scram-sha-256"))
        server.stop()
        server.start()
        for url in (server.url.replace("unused", "s3cret"), server.url.replace(":unused", "")):
            with pytest.raises(OpenError, match="the user or the password is wrong") as caught:
                tl.open(url)
            assert "s3cret" not in repr(caught.value) + str(caught.value)


# --- WHAT IS THERE INSTEAD ---------------------------------------------------------------------------------

GOOD = "aggregate_id UUID, version INT, event_type TEXT, payload JSONB, metadata JSONB, timestamp TIMESTAMPTZ"


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (
            GOOD.replace("payload JSONB, ", ""),
            EventsError,
            "lacks payload; it has aggregate_id, version, event",
        ),
        (
            GOOD.replace("version INT", "version TEXT"),
            EventsError,
            "version is text, expected integer or bigint",
        ),
        (
            GOOD.replace("TIMESTAMPTZ", "DATE"),
            EventsError,
            "timestamp is date, expected timestamp with time zone",
        ),
        (GOOD.replace("JSONB", "BYTEA"), EventsError, "payload is bytea, expected jsonb or json or text"),
        (GOOD.replace("UUID", "INT"), EventsError, "aggregate_id is integer, expected uuid or text"),
    ],
)
def test_a_table_of_another_shape_is_named(database: str, columns: str, error: type, message: str) -> None:
    """What was found, and what was expected."""
    with session(database) as db:
        db.execute(f"CREATE TABLE order_events ({columns})")
    with pytest.raises(error, match=message):
        tl.open(database)


def test_a_table_elsewhere_is_named(store: str) -> None:
    """Another schema, or a name that is nearly this."""
    with session(store) as db:
        db.execute("CREATE SCHEMA shop")
        db.execute("ALTER TABLE order_events SET SCHEMA shop")
        db.execute("CREATE VIEW orders_event AS SELECT * FROM shop.order_events")
    with pytest.raises(OpenError, match=r"it has .*shop\.order_events") as caught:
        tl.open(store)
    assert "?schema=shop" in str(caught.value.hint)
    assert len(tl.open(f"{store}?schema=shop")) == 2
    assert len(tl.open(f"{store}?table=orders_event")) == 2
    assert tl.open(f"{store}?schema=shop").url.endswith("?schema=shop")
    with pytest.raises(OpenError) as caught:
        tl.open(f"{store}?table=orders_evnt")
    assert "Did you mean 'orders_event'" in str(caught.value.hint)


def test_json_and_domains_and_partitions_are_read(database: str) -> None:
    """Whatever gives these columns; NULL metadata stays null, and digits stay as they are."""
    with session(database) as db:
        db.execute("CREATE DOMAIN label AS VARCHAR(40)")
        columns = GOOD.replace("JSONB", "JSON").replace("event_type TEXT", "event_type label")
        db.execute(f"CREATE TABLE order_events ({columns}) PARTITION BY HASH (aggregate_id)")
        db.execute("CREATE TABLE p PARTITION OF order_events FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
        db.execute(
            "INSERT INTO order_events VALUES (%s, 1, 'Paid', '{\"amount\":  1.50}', NULL, '2025-01-01Z')",
            (ORDER,),
        )
    events = tl.open(database).read()
    assert events.select("payload", "metadata").rows() == [('{"amount":  1.50}', None)]


@pytest.mark.parametrize(
    ("name", "found"),
    [(ORDER, 1), (ORDER.upper(), 0), (f"{{{ORDER}}}", 0), ("order-1", 0), ("a\0b", 0)],
)
def test_what_is_no_id_here_is_nobodys(database: str, name: str, found: int) -> None:
    """A UUID has one notation, that in which it is read."""
    log = tl.open(database, writable=True)
    log.append_many(frame_of([row(ORDER, 1)]))
    assert len(log.read(aggregates=[name])) == found


def test_ranges_of_ids_are_read_as_they_sort(database: str) -> None:
    """By their bytes, as a history in pieces is cut; a bound need be nobody's id."""
    log = tl.open(database, writable=True)
    log.append_many(frame_of([row(ORDER, 1), row(OTHER, 1)]))
    for bounds, found in [
        ((None, OTHER), [ORDER]),
        ((OTHER, None), [OTHER]),
        (("55", "6"), [ORDER]),
        (("~", None), []),
    ]:
        frames = list(log.reader.frames(Scope(ids=bounds), 10))
        assert [one for frame in frames for one in frame["aggregate_id"]] == found


# --- RIGHTS ------------------------------------------------------------------------------------------------


def test_a_role_reads_what_it_was_granted(store: str) -> None:
    """And is told what it lacks, when it opens or when it writes."""
    role = f"analyst_{os.getpid()}"
    as_role = store.replace("titan:unused@", f"{role}@")
    with session(store) as db:
        db.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with pytest.raises(OpenError, match="may not read order_events") as caught:
                tl.open(as_role)
            assert "GRANT SELECT" in str(caught.value.hint)
            db.execute(f"GRANT SELECT ON order_events TO {role}")
            assert len(tl.open(as_role)) == 2
            log = tl.open(as_role, writable=True)
            with pytest.raises(ReadOnly, match="permission denied for table order_events") as refused:
                log.append(ORDER, {"event_type": "Paid", "payload": {}}, 2)
            assert "INSERT" in str(refused.value.hint)
            with pytest.raises(ReadOnly, match="permission denied"):
                log.append_many(frame_of([row(ORDER, 3)]))
            log.close()
        finally:
            db.execute(f"DROP OWNED BY {role}")
            db.execute(f"DROP ROLE {role}")


# --- WHAT THE TABLE CANNOT HOLD ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payload": '{"a": "x\\u0000y"}'}, "unsupported Unicode escape sequence"),
        ({"event_type": "x" * 101}, "value too long"),
        ({"version": 2**31}, "out of range"),
        ({"aggregate_id": "order-1"}, "'order-1' is no id"),
        ({"aggregate_id": ORDER.upper()}, "is no id"),
        ({"event_type": "a\0b"}, "nothing was written"),
    ],
)
def test_an_event_that_the_table_cannot_hold_is_refused_with_all_others(
    store: str, changes: dict[str, Any], message: str
) -> None:
    """By bulk and one by one."""
    log = tl.open(store, writable=True)
    with pytest.raises(EventsError, match=message):
        log.append_many(frame_of([row(OTHER, 1), row(OTHER, 2) | changes]))
    if "version" not in changes:
        bad = {"event_type": "Paid", "payload": "{}"} | {
            k: v for k, v in changes.items() if k != "aggregate_id"
        }
        for events in ([bad], [bad] * 200):
            with pytest.raises(EventsError, match=message):
                log.append(changes.get("aggregate_id", ORDER), events, 2)
    assert len(log) == 2


# --- A SERVER THAT GOES AWAY -------------------------------------------------------------------------------


def test_a_server_that_is_killed_in_the_middle_is_told_and_later_found_again() -> None:
    """A read that was cut gives an error and no part; what was acknowledged is there; the log goes on."""
    with own_postgres() as server:
        log = tl.open(server.url, writable=True)
        names = [f"{n:08x}{ORDER[8:]}" for n in range(30_000)]
        payload = '{"tracking": "' + "x" * 500 + '"}'
        log.append_many(frame_of([row(name, 1, payload=payload) for name in names]))
        frames = log.reader.frames(EVERYTHING, 100)
        next(frames)
        server.kill9()
        with pytest.raises(OpenError, match=r"the connection to .* was lost"):
            list(frames)
        for asked in (lambda: log.read(), lambda: log.frontier, lambda: log.append(ORDER, [], 0)):
            with pytest.raises(OpenError, match=r"no server listens there|was lost"):
                asked()
        server.start()
        assert len(log) == 30_000
        assert log.append(names[0], {"event_type": "Paid", "payload": {}}, 1).version == 2
        log.close()


@pytest.mark.slow
def test_an_append_that_was_acknowledged_outlives_its_server() -> None:
    """Killed under load: each that was answered is there, and of any other all or nothing."""
    with own_postgres() as server:
        answered: list[int] = []

        def write() -> None:
            with tl.open(server.url, writable=True) as log, suppress(OpenError):
                while True:
                    events = [{"event_type": "Paid", "payload": {"at": len(answered)}}] * 7
                    answered.append(log.append(ORDER, events, 7 * len(answered)).version)

        def copy() -> None:
            bulk = frame_of([row(OTHER, version) for version in range(1, 60_001)])
            with tl.open(server.url, writable=True) as log, suppress(OpenError):
                copying.set()
                log.append_many(bulk)

        copying = threading.Event()
        tl.open(server.url, writable=True).close()
        threads = [threading.Thread(target=one) for one in (write, copy)]
        for one in threads:
            one.start()
        copying.wait()
        time.sleep(0.1)
        server.kill9()
        for one in threads:
            one.join()
        server.start()
        with tl.open(server.url) as log:
            events = log.read()
        assert len(answered) > 0
        assert events.filter(aggregate_id=OTHER).height in (0, 60_000)
        versions = events.filter(aggregate_id=ORDER)["version"].to_list()
        assert len(versions) % 7 == 0
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) >= answered[-1]


@pytest.mark.parametrize(
    ("gone", "url", "install"),
    [
        ("sqlalchemy", "postgresql://db/titan", "titan-lab[postgres]"),
        ("psycopg", "postgresql://db/titan", "titan-lab[postgres]"),
        ("sqlalchemy_cockroachdb", "cockroachdb://db/titan", "titan-lab[cockroach]"),
    ],
)
def test_a_package_that_is_not_installed_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, gone: str, url: str, install: str
) -> None:
    """Each driver is an extra."""
    if gone == "sqlalchemy_cockroachdb":
        from sqlalchemy.dialects import registry

        monkeypatch.setattr(registry, "load", _no_such_dialect)
    else:
        monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(MissingExtra) as caught:
        tl.open(url)
    assert install in str(caught.value.hint)


def _no_such_dialect(name: str) -> None:
    from sqlalchemy.exc import NoSuchModuleError

    raise NoSuchModuleError(name)


def test_a_reader_without_its_driver_says_so(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens, and cannot read."""
    log = tl.open(store)
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(MissingExtra, match="adbc-driver-postgresql"):
        log.read()


def test_sessions_that_the_server_ended_are_opened_again(store: str) -> None:
    """As one does that was idle for too long, between two questions."""
    log = tl.open(store, writable=True)
    assert len(log) == 2
    with session(store) as db:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'titan_lab'"
        assert len(db.execute(ended).fetchall()) == 2
        time.sleep(0.2)
        assert len(log) == 2
        assert log.append(ORDER, {"event_type": "Paid", "payload": {}}, 2).version == 3
        log.read()
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'titan_lab'"
        assert db.execute(count).fetchone() == (2,)
        log.close()
        time.sleep(0.2)
        assert db.execute(count).fetchone() == (0,)
        assert len(log) == 3


def test_a_read_that_is_given_up_leaves_no_session_behind(store: str) -> None:
    """And the log goes on."""
    log = tl.open(store, writable=True)
    log.append(ORDER, [{"event_type": "Paid", "payload": {"note": "x" * 300}}] * 50_000, 2)
    frames = log.reader.frames(EVERYTHING, 100)
    next(frames)
    frames.close()
    assert len(log) == 50_002
    with session(store) as db:
        time.sleep(0.2)
        running = (
            "SELECT state, count(*) FROM pg_stat_activity WHERE application_name = 'titan_lab' GROUP BY 1"
        )
        assert db.execute(running).fetchall() == [("idle", 2)]


def test_a_read_sees_one_state_of_the_store(store: str) -> None:
    """What others append while it is at work belongs to the next."""
    log = tl.open(store, writable=True)
    log.append(ORDER, [{"event_type": "Paid", "payload": {"note": "x" * 300}}] * 20_000, 2)
    frames = log.reader.frames(EVERYTHING, 100)
    rows = len(next(frames))
    tl.open(store, writable=True).append(ORDER, [{"event_type": "Paid", "payload": {}}] * 1_000, 20_002)
    assert rows + sum(len(frame) for frame in frames) == 20_002
    assert len(log) == 21_002


def test_threads_read_side_by_side(store: str) -> None:
    """Each has a session of its own while it reads."""
    log = tl.open(store)
    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.append(len(log.read()))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert told == [2] * 8


def test_a_forked_process_opens_sessions_of_its_own(store: str) -> None:
    """Those of its parent go on."""
    code = """
import os, sys, titan_lab as tl
log = tl.open(sys.argv[1])
assert len(log) == 2 and log.frontier.instant
child = os.fork()
if not child:
    assert log.frontier.instant  # no frame: polars has threads, which a fork has not
    log.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(log) == 2 and log.frontier.instant
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, store], check=True, timeout=60)


# --- WHAT IS OFFERED BESIDE --------------------------------------------------------------------------------


def test_tally_heads_marks_and_sample_say_what_the_rows_say(database: str) -> None:
    """Against the samples in a file."""
    samples = tl.open("sqlite:///data/samples/orders.db")
    events = samples.read()
    log = tl.open(database, writable=True)
    log.append_many(events)
    store = log.reader
    by_order = events.group_by("aggregate_id").agg(
        events=pl.len().cast(pl.Int64), version=pl.col("version").max()
    )
    assert store.heads().sort("aggregate_id").equals(by_order.sort("aggregate_id"))
    middle = events["timestamp"].sort()[6_000]
    assert store.tally(middle) == events.filter(pl.col("timestamp") < middle).height
    ids, count = store.sample(100)
    assert count == 12_123
    assert 95 <= len(ids) <= 105
    assert set(ids) <= set(events["aggregate_id"])
    before = store.marks()
    assert set(before["aggregate_id"]) == set(events["aggregate_id"])
    log.append(
        ids[0], {"event_type": "Paid", "payload": {}}, events.filter(aggregate_id=ids[0])["version"].max()
    )
    assert before.join(store.marks(), on=["aggregate_id", "mark"], how="anti")["aggregate_id"].to_list() == [
        ids[0]
    ]
    with session(database) as db:
        db.execute("DROP TRIGGER order_events_keep ON order_events")
        changed = db.execute(
            "UPDATE order_events SET payload = payload || '{\"a\": 1}' WHERE aggregate_id = %s", (ids[1],)
        )
        assert changed.rowcount
    after = store.marks()
    assert set(before.join(after, on=["aggregate_id", "mark"], how="anti")["aggregate_id"]) == {
        ids[0],
        ids[1],
    }


def test_a_history_is_kept_and_only_what_is_new_is_folded_again(database: str, tmp_path: Any) -> None:
    """By the marks; and in pieces by the sample."""
    log = tl.open(database, writable=True)
    log.append_many(tl.open("sqlite:///data/samples/orders.db").read())
    book = log.fold(tl.Order, keep=tmp_path / "kept", pieces=3)
    assert len(book) == 500
    log.append(book.ids[0], tl.OrderShipped(), log.events(book.ids[0])["version"].max())
    assert "folded 1 aggregates again" in log.fold(tl.Order, keep=tmp_path / "kept").kept


def test_saved_states_are_read(store: str) -> None:
    """As text; a database without their table has none."""
    log = tl.open(store, writable=True)
    assert log.reader.snapshots().is_empty()
    with session(store) as db:
        db.execute("INSERT INTO order_snapshots VALUES (%s, 2, '{\"total\": 1.50}')", (ORDER,))
        assert log.reader.snapshots().rows() == [(ORDER, 2, '{"total": 1.50}')]
        db.execute("DROP TABLE order_snapshots")
    assert log.reader.snapshots().is_empty()
