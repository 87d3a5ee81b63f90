"""SQLite: the event store's own tables in one file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

import titan_lab as tl
from titan_lab.backends.ddl import ddl, script
from titan_lab.backends.sqlite import SqliteStore
from titan_lab.errors import EventsError, OpenError, ReadOnly
from titan_lab.event import EVENTS
from titan_lab.testing.readers import Row, WriterSuite, frame_of, kill_in_the_middle, row

# As the event store has it, without the constraints that would keep bad rows out.
LOOSE = f"CREATE TABLE IF NOT EXISTS order_events ({', '.join(EVENTS)})"


class TestSqlite(WriterSuite):
    """SQLite joins the suite."""

    def url(self, place: Path) -> str:
        return f"sqlite:///{place}/orders.db"

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        good = len({(one["aggregate_id"], one["version"]) for one in rows}) == len(rows)
        with closing(sqlite3.connect(place / "orders.db")) as db:
            db.executescript(script(ddl("sqlite")) if good else LOOSE)
            db.executemany(
                "INSERT INTO order_events VALUES (?, ?, ?, ?, ?, ?)", [tuple(r.values()) for r in rows]
            )
            db.commit()

    def peek(self, place: Path) -> list[Row]:
        with closing(sqlite3.connect(place / "orders.db")) as db:
            db.row_factory = sqlite3.Row
            return [dict(one) for one in db.execute("SELECT * FROM order_events ORDER BY 1, 2")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    TestSqlite().seed(tmp_path, [row("a", 1), row("a", 2)])
    return tmp_path / "orders.db"


def test_a_new_store_has_the_event_stores_tables(tmp_path: Path) -> None:
    """Names, columns and keys are those of the service, so that its own tools can read the file."""
    tl.open(f"sqlite:///{tmp_path}/new/orders.db", writable=True)
    with closing(sqlite3.connect(tmp_path / "new" / "orders.db")) as db:
        tables = {
            name: [(column, key) for _, column, _, _, _, key in db.execute(f"PRAGMA table_info({name})")]
            for name in ("order_events", "order_snapshots")
        }
    keys = {"aggregate_id": 1, "version": 2}
    assert tables["order_events"] == [(name, keys.get(name, 0)) for name in EVENTS]
    assert tables["order_snapshots"] == [("aggregate_id", 1), ("version", 0), ("state", 0), ("timestamp", 0)]


def test_timestamps_are_written_as_utc_text_that_sorts_in_order_of_time(path: Path) -> None:
    """With microseconds and a Z, always the same width."""
    tl.open(f"sqlite:///{path}", writable=True).append_many(
        frame_of([row("b", 1, timestamp="2025-01-01T12:00:00+02:00")])
    )
    (stored,) = [one for one in TestSqlite().peek(path.parent) if one["aggregate_id"] == "b"]
    assert stored["timestamp"] == "2025-01-01T10:00:00.000000Z"


def test_a_session_that_reads_cannot_write_even_when_it_tries(path: Path) -> None:
    """The database itself refuses, not only our code."""
    for attempt in ("DELETE FROM order_events", "CREATE TABLE t (x)", "DROP TABLE order_events"):
        with pytest.raises(ReadOnly), SqliteStore(path)._session() as db:
            db.execute(attempt)
    with SqliteStore(path)._session() as db:
        assert db.execute("PRAGMA query_only").fetchone() == (1,)
    assert len(tl.open(f"sqlite:///{path}")) == 2


def test_opening_for_reading_leaves_no_trace(path: Path) -> None:
    """The file keeps its bytes and its time, and nothing is left beside it."""
    before = (path.read_bytes(), path.stat().st_mtime_ns, list(path.parent.iterdir()))
    log = tl.open(f"sqlite:///{path}")
    log.fold(tl.Order).at("2025-01-02")
    log.audit()
    assert (path.read_bytes(), path.stat().st_mtime_ns, list(path.parent.iterdir())) == before


def test_a_file_without_write_permission_is_read_and_refuses_to_be_written(path: Path) -> None:
    """The error names the file and what to check."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert len(tl.open(f"sqlite:///{path}")) == 2
        if os.geteuid() == 0:
            pytest.skip("the superuser may write anywhere")
        with pytest.raises(ReadOnly, match=r"orders\.db cannot be written") as caught:
            tl.open(f"sqlite:///{path}", writable=True).append_many(frame_of([row("c", 1)]))
        assert "permissions" in str(caught.value.hint)
    finally:
        path.parent.chmod(0o755)


def test_a_folder_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    """The error names near files."""
    (tmp_path / "orders.db").touch()
    with pytest.raises(OpenError, match="there is no file") as caught:
        tl.open(f"sqlite:///{tmp_path}/ordrs.db")
    assert "'orders.db'" in str(caught.value.hint)
    with pytest.raises(OpenError, match="there is no file"):
        tl.open(f"sqlite:///{tmp_path}/nowhere/orders.db")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("CREATE TABLE orders (id)", OpenError, "has no table order_events; it has orders"),
        ("CREATE TABLE order_events (aggregate_id, version)", EventsError, "lacks event_type, payload"),
    ],
)
def test_a_file_without_the_table_or_a_column_is_named(
    tmp_path: Path, script: str, error: type, message: str
) -> None:
    """What was expected, and what there is."""
    with closing(sqlite3.connect(tmp_path / "other.db")) as db:
        db.executescript(script)
    with pytest.raises(error, match=message):
        tl.open(f"sqlite:///{tmp_path}/other.db")


@pytest.mark.parametrize("content", [b"PAR1 this is no database, it is much longer text", b"x" * 5000])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    """The hint names the scheme it may have been meant for."""
    (tmp_path / "orders.db").write_bytes(content)
    with pytest.raises(OpenError, match=r"orders\.db is no SQLite database") as caught:
        tl.open(f"sqlite:///{tmp_path}/orders.db")
    assert "parquet://" in str(caught.value.hint)


def test_values_of_the_wrong_type_in_a_cell_are_judged_row_by_row(tmp_path: Path) -> None:
    """SQLite lets anything stand anywhere; one blob or number does not spoil the frame."""
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db:
        db.execute(LOOSE)
        db.executemany(
            "INSERT INTO order_events VALUES (?, ?, ?, ?, ?, ?)",
            [
                ("a", 1, "OrderDelivered", "{}", None, "2025-01-01T10:00:00Z"),
                ("a", "two", "OrderDelivered", "{}", None, "2025-01-01T10:00:00Z"),
                ("a", 3, "OrderDelivered", b"\xff\xfe", None, "2025-01-01T10:00:00Z"),
                ("a", 4, "OrderDelivered", b'{"by": "blob"}', None, "2025-01-01T10:00:00Z"),
                ("a", 5, "OrderDelivered", "{}", None, 1735725600),
                (None, 6, "OrderDelivered", "{}", None, "2025-01-01T10:00:00Z"),
                ("a", "7", "OrderDelivered", "{}", None, "2025-01-01T10:00:00Z"),
                ("a", 2.5, "OrderDelivered", "{}", None, "2025-01-01T10:00:00Z"),
            ],
        )
        db.commit()
    log = tl.open(f"sqlite:///{tmp_path}/orders.db")
    assert log.read()["version"].to_list() == [1, 4, 7]
    assert sorted(log.rejected["path"]) == ["$", "aggregate_id", "timestamp", "version", "version"]


APPEND_AND_HANG = """
import sys, time
import polars as pl, titan_lab as tl
honest = pl.DataFrame.iter_rows
def hang_in_the_middle(self, **options):
    for n, row in enumerate(honest(self, **options)):
        if n == 30_000:
            print("in the middle", flush=True)
            time.sleep(600)
        yield row
log = tl.open(sys.argv[1], writable=True)
pl.DataFrame.iter_rows = hang_in_the_middle
n = pl.int_range(3, 40_003, eager=True)
log.append_many(pl.DataFrame({"aggregate_id": "a", "version": n, "event_type": "OrderShipped",
    "payload": '{"tracking": "' + "x" * 200 + '"}',
    "timestamp": "2025-01-01T10:00:00Z"}))
"""


def test_an_append_that_is_killed_leaves_the_store_as_it_was(path: Path) -> None:
    """Some rows had reached the file. Reading writes nothing, so the error says who can undo them."""
    size = path.stat().st_size
    kill_in_the_middle(APPEND_AND_HANG, f"sqlite:///{path}")
    assert path.stat().st_size > size  # the kill came in the middle, not before
    with pytest.raises(OpenError, match="cut off in the middle") as caught:
        tl.open(f"sqlite:///{path}")
    assert "writable=True" in str(caught.value.hint)
    writable = tl.open(f"sqlite:///{path}", writable=True)
    assert tl.open(f"sqlite:///{path}").read()["version"].to_list() == [1, 2]
    assert writable.append_many(frame_of([row("a", 3)])).added == 1
    assert tl.open(f"sqlite:///{path}").read()["version"].to_list() == [1, 2, 3]
