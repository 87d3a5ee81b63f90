"""PostgreSQL behind a proxy that cuts: a clear error or a clean resume, and never half of anything."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psycopg
import pytest
from servers import Postgres, own_postgres, scratch_database

import titan_lab as tl
from titan_lab.errors import OpenError, TitanError
from titan_lab.testing.proxy import Proxy

pytestmark = pytest.mark.slow

ORDER = "3f2b8c1e-0000-4000-8000-00000000000{}"
SECRET = "unused"  # the password in the server's URL


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of our own: the proxy stands only before ports of this machine."""
    with own_postgres() as made:
        yield made


@pytest.fixture
def database(server: Postgres) -> Iterator[str]:
    """An event store with 5,000 events of one order."""
    with scratch_database(server.url) as url:
        with tl.open(url, writable=True) as log:
            log.append_many(events(1, 5_000))
        yield url


@pytest.fixture
def proxy(server: Postgres) -> Iterator[Proxy]:
    """Stand between a client and that server."""
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def url(server: Postgres, database: str, proxy: Proxy) -> str:
    """The same store, through the proxy; nobody waits for it for long."""
    return f"{database.replace(f':{server.port}/', f':{proxy.port}/')}?connect_timeout=2"


def events(first: int, last: int, order: str = ORDER.format(1)) -> pl.DataFrame:
    """Events of one order with ids of their own, stamped by their writer."""
    row = {"aggregate_id": order, "event_type": "OrderModified", "timestamp": "2025-01-01T10:00:00Z"}
    return pl.DataFrame(
        [
            row
            | {
                "version": version,
                "payload": f'{{"note": "{"x" * 40}"}}',
                "metadata": f'{{"event_id": "{order}/{version}"}}',
            }
            for version in range(first, last + 1)
        ]
    )


def stored(database: str, order: str) -> list[int]:
    """List an order's versions, asked past the proxy and past the toolkit."""
    asked = "SELECT version FROM order_events WHERE aggregate_id = %s ORDER BY version"
    with psycopg.connect(database) as session:
        return [version for (version,) in session.execute(asked, [order])]


def clear(error: TitanError) -> bool:
    """Tell whether an error says what is wrong with what, and shows no password, whichever way one looks."""
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    told = f"{error} {error!r} {error.data} {behind!r}"
    return "postgresql://titan:***@127.0.0.1" in str(error) and SECRET not in told


# ------------------------------------------------------------------ opening


def test_a_server_that_is_down_is_told_at_once() -> None:
    """Nobody listens on port 1."""
    with pytest.raises(OpenError, match="no server listens there") as caught:
        tl.open(f"postgresql://titan:{SECRET}@127.0.0.1:1/orders")
    assert clear(caught.value)


def test_a_connection_that_is_refused_is_told_at_once(url: str, proxy: Proxy) -> None:
    """By what lies between, such as a firewall that resets."""
    proxy.refuse()
    with pytest.raises(OpenError, match="cannot be opened") as caught:
        tl.open(url)
    assert clear(caught.value)


def test_a_black_hole_is_given_up_after_the_timeout(url: str, proxy: Proxy) -> None:
    """The URL says for how long to wait."""
    proxy.black_hole()
    before = time.monotonic()
    with pytest.raises(OpenError, match="does not answer") as caught:
        tl.open(url)
    assert 1 < time.monotonic() - before < 20
    assert clear(caught.value)


def test_a_line_that_fell_silent_is_given_up_after_a_minute(database: str) -> None:
    """By the system's probes: a pulled cable sends no reset. The proxy cannot show it, its system answers."""
    with tl.open(database) as log, log.reader.server.session() as session:  # type: ignore[attr-defined]
        told = session.info.get_parameters()
    idle, interval, count = (int(told[f"keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert idle + interval * count == 60


def test_a_wrong_password_is_told_and_shown_nowhere(server: Postgres, database: str) -> None:
    """Neither the wrong one nor the right one."""
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    rules = server.data / "pg_hba.conf"
    old = rules.read_text()
    try:
        rules.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{old}")
        with psycopg.connect(database, autocommit=True) as session:
            session.execute("SELECT pg_reload_conf()")
        given = re.sub("titan:unused@", "locked:{}@", database)
        deadline = time.monotonic() + 10
        told: TitanError | None = None
        while True:  # the server reads its rules again in its own time
            try:
                tl.open(given.format(SECRET)).close()
            except OpenError as error:
                told = error
            if "the user or the password is wrong" in str(told):
                break
            assert time.monotonic() < deadline, told
        assert SECRET not in f"{told} {told!r} {told.__cause__!r}"
        with pytest.raises(OpenError, match="the role may not read order_events"):
            tl.open(given.format("right")).read()
    finally:
        rules.write_text(old)
        with psycopg.connect(database, autocommit=True) as session:
            session.execute("SELECT pg_reload_conf()")
            session.execute("DROP ROLE locked")


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize("size", [0, 1, 500, 5_000, 50_000, 500_000])
def test_a_read_that_is_cut_says_so_and_the_next_one_is_whole(
    database: str, url: str, proxy: Proxy, size: int
) -> None:
    """Wherever it was cut: never a part of the rows as if it were all of them."""
    whole = tl.open(database).read()
    log = tl.open(url)
    proxy.cut_after(size)
    with pytest.raises(OpenError, match=r"lost|cannot be opened") as caught:
        log.read()
    assert proxy.cuts == 1
    assert clear(caught.value)
    assert log.read().equals(whole)


def test_a_slow_line_only_takes_longer(database: str, url: str, proxy: Proxy) -> None:
    """And a silence that ends is no cut."""
    log = tl.open(url)
    proxy.delay(0.005)
    assert log.read().equals(tl.open(database).read())


@pytest.mark.parametrize("size", [0, 2_000, 20_000, 200_000])
def test_a_sync_that_is_cut_goes_on_where_it_was(
    tmp_path: Path, database: str, url: str, proxy: Proxy, size: int
) -> None:
    """The mirror is a part of the truth until then, and the whole truth afterwards."""
    log = tl.open(url)
    mirror = log.mirror(tmp_path / "mirror")
    proxy.cut_after(size)
    with pytest.raises(OpenError) as caught:
        mirror.sync()
    assert clear(caught.value)
    mirror.sync()
    whole = tl.open(database)
    assert mirror.read().equals(whole.read())
    with tl.open(database, writable=True) as writer:
        writer.append_many(events(1, 300, ORDER.format(2)))
    proxy.cut()
    with_more = log.mirror(tmp_path / "mirror")
    with_more.sync()
    assert with_more.read().equals(whole.read())


# ------------------------------------------------------------------ appending


def append_many(log: tl.EventLog, first: int, last: int) -> tuple[int, int]:
    done = log.append_many(events(first, last, ORDER.format(2)))
    return done.added, done.present


def append(log: tl.EventLog, first: int, last: int) -> tuple[int, int]:
    wanted = ["event_type", "payload", "metadata"]
    done = log.append(ORDER.format(2), events(first, last).select(wanted), first - 1)
    return done.added, done.present


def tried(way: Way, log: tl.EventLog, first: int, last: int) -> tuple[int, int] | OpenError:
    """Append, and give what came of it."""
    try:
        return way(log, first, last)
    except OpenError as error:
        return error


Way = Callable[[tl.EventLog, int, int], tuple[int, int]]
WAYS = pytest.mark.parametrize("way", [append_many, append])
SIZE = 150


@WAYS
@pytest.mark.parametrize(("of", "step"), [("client", 499), ("server", 5)])
def test_an_append_that_is_cut_anywhere_is_whole_or_absent_and_can_be_sent_again(
    database: str, url: str, proxy: Proxy, way: Way, of: str, step: int
) -> None:
    """Cut after more and more bytes of either side, until none is left to cut."""
    outcomes = set()
    with tl.open(url, writable=True) as log:
        way(log, 1, SIZE)
        last = SIZE
        for size in range(0, 1_000_000, step):
            log.frontier  # noqa: B018 - the session is open, so that the append itself is what is cut
            before = proxy.cuts
            proxy.cut_after(size, of=of)  # type: ignore[arg-type]
            told = tried(way, log, last + 1, last + SIZE)
            proxy.heal()
            found = stored(database, ORDER.format(2))
            there = len(found) > last
            assert found == list(range(1, last + 1 + there * SIZE))
            if isinstance(told, OpenError):
                assert clear(told)
                outcomes.add(there)
                assert way(log, last + 1, last + SIZE) == ((0, SIZE) if there else (SIZE, 0))
            else:
                assert there
                assert told == (SIZE, 0)
            last += SIZE
            assert stored(database, ORDER.format(2)) == list(range(1, last + 1))
            if proxy.cuts == before:
                break
        else:
            pytest.fail("the append was cut every time")
    assert (of == "server") in outcomes  # it acts before it answers


@WAYS
def test_the_error_of_a_lost_acknowledgement_says_that_the_outcome_is_unknown(
    database: str, url: str, proxy: Proxy, way: Way
) -> None:
    """And what to do: the same events again, which adds none twice."""
    with tl.open(url, writable=True) as log:
        way(log, 1, SIZE)
        for size in range(0, 1_000_000, 5):
            log.frontier  # noqa: B018 - as above
            proxy.cut_after(size, of="server")
            told = tried(way, log, SIZE + 1, 2 * SIZE)
            if len(stored(database, ORDER.format(2))) > SIZE:
                break
        proxy.heal()
        assert isinstance(told, OpenError)
        assert "may be there or not" in str(told)
        assert "again is safe" in str(told)
        assert way(log, SIZE + 1, 2 * SIZE) == (0, SIZE)


def test_a_commit_that_never_arrives_leaves_nothing(database: str, url: str, proxy: Proxy) -> None:
    """The server rolls back what its client did not live to commit."""
    with psycopg.connect(url) as session:
        session.execute(
            "INSERT INTO order_events VALUES (%s, 1, 'OrderShipped', '{}', NULL, now())", [ORDER.format(3)]
        )
        proxy.cut_at(b"COMMIT", delivered=False)
        with pytest.raises(psycopg.OperationalError):
            session.commit()
    assert stored(database, ORDER.format(3)) == []
