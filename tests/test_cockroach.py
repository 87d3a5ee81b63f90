"""CockroachDB: the suite where TITAN_TEST_COCKROACH points, or a recording of what is sent to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from servers import cockroach_url

import titan_lab as tl
from titan_lab.backends import postgres
from titan_lab.backends.cockroach import CockroachStore
from titan_lab.backends.ddl import ddl
from titan_lab.event import EVENTS, check
from titan_lab.scope import EVERYTHING, Scope
from titan_lab.testing.readers import frame_of
from titan_lab.testing.rows import row

sys.path.insert(0, str(Path(__file__).parent))
from test_postgres import Suite

ORDER = "550e8400-e29b-41d4-a716-446655440000"
CLOSED = datetime(2025, 1, 1, 12, tzinfo=UTC)
TYPES = dict.fromkeys(EVENTS, "text") | {"aggregate_id": "uuid", "version": "bigint", "payload": "jsonb"}
TYPES |= {"metadata": "jsonb", "timestamp": "timestamp with time zone"}


@pytest.fixture(scope="module")
def suite_database() -> Iterator[str]:
    """One database of the cluster for the whole suite."""
    with cockroach_url() as url:
        yield url


class TestCockroach(Suite):
    """A table whose ids are any text, in a cluster of the user's."""

    def session(self, place: Path) -> Any:
        self.__dict__.setdefault("cluster", self.server)
        self.server = self.cluster.replace("cockroachdb", "postgresql", 1)
        try:
            return super().session(place)
        finally:
            self.server = self.cluster

    def make(self, db: Any, keyed: bool) -> None:
        texts = "aggregate_id TEXT, version INT, event_type TEXT, payload TEXT, metadata TEXT"
        key = ", PRIMARY KEY (aggregate_id, version)" if keyed else ""
        db.execute(f"CREATE TABLE order_events ({texts}, timestamp TIMESTAMPTZ DEFAULT now(){key})")


class Recorded:
    """A cluster that answers what a test says, and remembers what it was sent."""

    def __init__(self, *_: Any) -> None:
        self.sent: list[str] = []
        self.own: dict[str, str] = {}
        self.shown = "cockroachdb://analyst@db/titan"
        self.looked: tuple[Any, ...] = (CLOSED, True, True, None, None, None)

    @contextmanager
    def session(self) -> Iterator[Any]:
        yield self

    told = connect = cursor = session

    def execute(self, sql: str, _: Any = None) -> Any:
        self.sent.append(sql)
        described = [
            (name, kind, "now()" if name == "timestamp" else None, True) for name, kind in TYPES.items()
        ]
        self.rows: list[Any] = described if "pg_attribute" in sql else [self.looked]
        if "cluster_logical" in sql:
            self.rows = [("1735725600000000000.0000000000",)]
        return self

    def fetchall(self) -> list[Any]:
        return self.rows

    def fetchone(self) -> Any:
        return self.rows[0]

    def stream(self, sql: str, size: int) -> Iterator[Any]:
        self.sent.append(sql)
        return iter(())


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store in such a cluster."""
    monkeypatch.setattr(postgres, "Server", Recorded)
    return CockroachStore("analyst@db/titan")


def test_a_read_is_as_of_the_clusters_present(store: Any) -> None:
    """So that it is one state, which includes what was written a moment ago."""
    assert list(store.frames(EVERYTHING, 100)) == []
    *_, asked = store.server.sent
    assert asked.endswith("FROM \"order_events\" AS OF SYSTEM TIME '1735725600000000000.0000000000'")
    count = len(store.server.sent)
    assert list(store.frames(Scope(aggregates=("no uuid",)), 100)) == []
    assert not [sql for sql in store.server.sent[count:] if "AS OF" in sql]


def test_the_frontier_is_the_closed_timestamp_or_what_is_still_open(store: Any) -> None:
    """Whichever is earlier; who may not see the others is told what is assumed."""
    assert store.frontier().instant == CLOSED
    assert "closed timestamp" in store.frontier().how
    began = CLOSED - timedelta(minutes=7)
    store.server.looked = (CLOSED, True, True, began, "billing", 3)
    assert store.frontier().instant == began
    assert "'billing' at node 3 has a transaction open since 2025-01-01T11:53:00Z" in store.frontier().how
    store.server.looked = (CLOSED, True, True, CLOSED + timedelta(seconds=1), "billing", 3)
    assert store.frontier().instant == CLOSED
    store.server.looked = (CLOSED, True, False, None, None, None)
    assert store.frontier().instant == CLOSED - timedelta(hours=1)
    assert "GRANT SYSTEM VIEWACTIVITY" in store.frontier().how
    store.server.looked = (CLOSED, False, True, None, None, None)
    assert store.frontier().instant is None


def test_nothing_is_sent_that_it_has_not(store: Any) -> None:
    """No advisory lock, no LISTEN, none of PostgreSQL's own views."""
    list(store.frames(EVERYTHING, 100))
    store.frontier()
    sent = "\n".join([*store.server.sent, *ddl("cockroach")])
    for absent in ("advisory", "LISTEN", "pg_stat", "pg_locks", "pg_snapshot", "xmin", "COPY", "TEMP"):
        assert absent not in sent


def test_rows_come_one_by_one_as_they_come_as_arrow(database: str) -> None:
    """The same rows by either driver; PostgreSQL has both."""
    log = tl.open(database, writable=True)
    log.append_many(frame_of([row(ORDER, version, metadata=None) for version in range(1, 251)]))
    frames = list(CockroachStore._rows(log.reader, log.reader.events.selected(), 100))
    assert [len(frame) for frame in frames] == [100, 100, 50]
    good = [check(frame)[0] for frame in frames]
    assert sum(map(len, good)) == 250
    assert tl.from_frame(frames[0]).read().equals(log.read().head(100))
