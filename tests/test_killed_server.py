"""A PostgreSQL killed under load: what it acknowledged is there, nothing is there by half."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from uuid import uuid4

import polars as pl
import psycopg
import pytest
from servers import Postgres, own_postgres, scratch_database

import titan_lab as tl
from titan_lab.errors import OpenError, RaceError, TitanError, VersionConflict
from titan_lab.event import EVENTS

pytestmark = pytest.mark.slow

WRITERS = 4
ROUNDS = 6
TAIL = ["event_type", "payload", "metadata", "timestamp"]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server that may be killed."""
    with own_postgres() as made:
        yield made


@pytest.fixture
def database(server: Postgres) -> Iterator[str]:
    """An empty event store."""
    with scratch_database(server.url) as url:
        tl.open(url, writable=True).close()
        yield url


def batch(rng: Random, by: str) -> pl.DataFrame:
    """Some events with ids of their own; each says how many its batch has."""
    ids = [str(uuid4()) for _ in range(rng.randint(1, 30))]
    return pl.DataFrame(
        {
            "event_type": ["OrderModified"] * len(ids),
            "payload": [f'{{"by": "{by}", "batch": "{ids[0]}", "size": {len(ids)}}}'] * len(ids),
            "metadata": [f'{{"event_id": "{one}"}}' for one in ids],
            "timestamp": [None] * len(ids),
        },
        {name: EVENTS[name] for name in TAIL},
    )


class Writer(threading.Thread):
    """Append batch after batch, to an order of its own and to one that all share, until a server is gone.

    A batch whose outcome is not known is kept, and is sent again first when the writer starts again.
    """

    def __init__(self, url: str, name: str, shared: str) -> None:
        super().__init__(daemon=True)
        self.url, self.named, self.shared = url, name, shared
        self.own = str(uuid4())
        self.ends = {self.own: 0, shared: 0}
        self.acknowledged: list[tuple[str, int, str]] = []  # order, version, event_id
        self.unknown: tuple[str, pl.DataFrame, int] | None = None
        self.told: TitanError | None = None
        self.resent = 0
        self.stop = threading.Event()

    def again(self) -> Writer:
        """Make the same writer anew, as a process that was started again and knows what it had in hand."""
        made = Writer(self.url, self.named, self.shared)
        made.own, made.ends, made.acknowledged = self.own, self.ends, self.acknowledged
        made.unknown, made.resent = self.unknown, self.resent
        return made

    def run(self) -> None:
        rng = Random(self.named)
        try:
            with tl.open(self.url, writable=True) as log:
                while not self.stop.is_set():
                    order = rng.choice([self.own, self.shared])
                    self._append(log, *(self.unknown or (order, batch(rng, self.named), self.ends[order])))
        except OpenError as error:
            self.told = error

    def _append(self, log: tl.EventLog, order: str, events: pl.DataFrame, expected: int) -> None:
        again = self.unknown is not None
        self.unknown = (order, events, expected)
        try:
            done = log.append(order, events, expected)
        except VersionConflict:
            self.unknown = None
            # Another writer of the shared order was first: look where it ends now, and go on.
            self.ends[order] = log.events(order)["version"].max()  # type: ignore[assignment]
            return
        self.unknown = None
        self.resent += again and done.present > 0
        self.ends[order] = expected + len(events)
        ids = events["metadata"].str.json_path_match("$.event_id")
        self.acknowledged += [(order, expected + place, one) for place, one in enumerate(ids, 1)]


def stored(database: str) -> pl.DataFrame:
    """Read all events past the toolkit."""
    asked = """
        SELECT aggregate_id::text, version, metadata->>'event_id', payload->>'batch', (payload->>'size')::int
        FROM order_events ORDER BY 1, 2
    """
    with psycopg.connect(database) as session:
        rows = session.execute(asked).fetchall()
    return pl.DataFrame(rows, ["aggregate_id", "version", "event_id", "batch", "size"], orient="row")


def whole(events: pl.DataFrame) -> None:
    """Assert that each order's versions have no gap, and that each batch is there once, with all it has."""
    ends = events.group_by("aggregate_id").agg(pl.len().alias("events"), pl.col("version").max())
    assert (ends["events"] == ends["version"]).all()
    batches = events.group_by("aggregate_id", "batch", "size").agg(
        pl.len().alias("events"), (pl.col("version").max() - pl.col("version").min() + 1).alias("span")
    )
    assert (batches["events"] == batches["size"]).all()
    assert (batches["events"] == batches["span"]).all()
    assert batches["batch"].is_unique().all()
    assert events["event_id"].is_unique().all()


def test_every_acknowledged_append_survives_a_killed_server(
    server: Postgres, database: str, tmp_path: Path
) -> None:
    """Six times killed in the middle of its work, and a mirror that synced in between agrees in the end."""
    shared = str(uuid4())
    writers = [Writer(database, f"writer {n}", shared) for n in range(WRITERS)]
    log = tl.open(database)
    mirror = log.mirror(tmp_path / "mirror")
    lost = 0
    for number in range(ROUNDS):
        for writer in writers:
            writer.start()
        time.sleep(0.3)
        mirror.sync()
        time.sleep(Random(number).uniform(0.1, 0.6))
        server.kill9()
        for writer in writers:
            writer.join(timeout=60)
            assert not writer.is_alive()
            assert writer.told is not None
            assert "unused" not in f"{writer.told} {writer.told!r}"
        with pytest.raises(OpenError):
            mirror.sync()
        server.start()

        found = stored(database)
        whole(found)
        there = set(found.select("aggregate_id", "version", "event_id").rows())
        assert there.issuperset(one for writer in writers for one in writer.acknowledged)
        lost += sum(writer.unknown is not None for writer in writers)
        writers = [writer.again() for writer in writers]
    assert lost > 0  # else nothing was in the middle of its work

    for writer in writers:  # what they had in hand goes out again, and then they stop
        writer.start()
    time.sleep(0.3)
    for writer in writers:
        writer.stop.set()
        writer.join(timeout=60)
        assert writer.told is None
    whole(stored(database))
    acknowledged = {one for writer in writers for one in writer.acknowledged}
    assert acknowledged == set(stored(database).select("aggregate_id", "version", "event_id").rows())

    mirror.sync()
    assert mirror.read().equals(log.read())
    assert log.read().height == len(acknowledged) > 100


def test_an_append_that_fails_to_serialize_is_tried_again(database: str) -> None:
    """With SERIALIZABLE as the database's default: eight writers, each event in the end there, once."""
    with psycopg.connect(database, autocommit=True) as session:
        name = session.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]
        session.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    shared = str(uuid4())
    writers = [Writer(database, f"writer {n}", shared) for n in range(8)]
    for writer in writers:
        writer.start()
    time.sleep(2)
    for writer in writers:
        writer.stop.set()
    for writer in writers:
        writer.join(timeout=60)
        if writer.told is not None:  # it gave up after many tries, and says why
            assert "(40001)" in str(writer.told)
            assert "again" in str(writer.told.hint)
    found = stored(database)
    whole(found)
    there = set(found.select("aggregate_id", "version", "event_id").rows())
    assert there.issuperset(one for writer in writers for one in writer.acknowledged)
    assert all(writer.acknowledged for writer in writers)


def test_the_frontier_waits_for_an_idle_transaction_and_says_who_holds_it(database: str) -> None:
    """What that transaction writes late is not missed by a mirror that synced in between."""
    with tl.open(database, writable=True) as log:
        order = str(uuid4())
        log.append(order, batch(Random(1), "one"), 0)
        with psycopg.connect(database, application_name="a forgotten console") as idle:
            began = idle.execute("SELECT now()").fetchone()[0]  # type: ignore[index]
            time.sleep(1.5)
            log.append(str(uuid4()), batch(Random(2), "two"), 0)
            frontier = log.frontier
            assert frontier.live
            assert frontier.instant <= began
            assert f"pid {idle.info.backend_pid}" in frontier.how
            assert "a forgotten console" in frontier.how
            assert "idle in transaction" in frontier.how
        deadline = time.monotonic() + 10
        while log.frontier.instant <= began:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_race_whose_server_is_killed_ends_and_says_what_it_leaves(server: Postgres, database: str) -> None:
    """It cannot drop its tables there; their name is in the error."""
    with scratch_database(server.url) as scratch, ThreadPoolExecutor(1) as pool:
        racing = pool.submit(tl.race, scratch, rounds=20)
        time.sleep(2)
        server.kill9()
        with pytest.raises(OpenError, match=r"the schema titan_race_\w+ is left there") as caught:
            racing.result(timeout=60)
        assert "unused" not in f"{caught.value} {caught.value!r}"
        server.start()
        with pytest.raises(RaceError, match="it has titan_race_") as again:
            tl.race(scratch)
        assert "DROP SCHEMA titan_race_" in str(again.value.hint)
