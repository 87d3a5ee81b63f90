"""Events in a SQLite file, in the tables of the event store."""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from titan_lab.backends.contract import (
    HEADS,
    SNAPSHOTS,
    Appended,
    Frontier,
    conflict,
    numbered,
    placed,
    summed,
    there_already,
)
from titan_lab.backends.ddl import NOW, SAVED, TABLE, ddl, script
from titan_lab.clock import instant
from titan_lab.errors import EventsError, InstantError, OpenError, ReadOnly, nearest
from titan_lab.event import EVENTS, as_text, moments
from titan_lab.scope import Scope

COLUMNS = ", ".join(EVENTS)
WRITTEN = "%Y-%m-%dT%H:%M:%S%.6fZ"
# A moment as it is written, which can be compared as text; 29 February is left to those who know the years.
DIGITS = re.sub(r"\d", "[0-9]", "0000-00-00T00:00:00.000000Z")
PLAIN = f"""(typeof(timestamp) = 'text' AND timestamp GLOB '{DIGITS}' AND timestamp > '0001'
    AND substr(timestamp, 6, 2) BETWEEN '01' AND '12' AND substr(timestamp, 9, 2) BETWEEN '01' AND '31'
    AND substr(timestamp, 6, 5) NOT IN ('02-29', '02-30', '02-31', '04-31', '06-31', '09-31', '11-31')
    AND substr(timestamp, 12, 2) < '24' AND substr(timestamp, 15, 2) < '60'
    AND substr(timestamp, 18, 2) < '60')"""
# A file from elsewhere may hold a version that is no number, which no event can have.
LAST = f"""SELECT version FROM {TABLE} WHERE aggregate_id = ? AND typeof(version) = 'integer'
    ORDER BY version DESC LIMIT 1"""
BEHIND = f"""SELECT metadata FROM {TABLE} WHERE aggregate_id = ? AND version > ? AND version <= ?
    AND typeof(version) = 'integer' ORDER BY version"""
FEW = 500  # ids that go into one statement
WRITTEN_TO = slice(24, 28)  # where a file's header counts the transactions that changed it
PATIENCE = 30.0  # seconds that one waits for another writer's transaction to end
MOST = 100_000  # rows that stand in memory as Python objects
UNIQUE = f"""
SELECT 1 FROM pragma_index_list('{TABLE}') AS i
WHERE i."unique" AND NOT i.partial AND 'aggregate_id,version' = (
    SELECT group_concat(name) FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY name))"""


class SqliteStore:
    """Read, and if opened for it write, `order_events` in one file."""

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = path
        self.writable = writable
        self.url = f"sqlite:///{path}"
        self._prepare()

    @classmethod
    def open(cls, address: str, writable: bool) -> SqliteStore:
        """Open ``sqlite:///relative.db`` or ``sqlite:////absolute.db``."""
        path = address.removeprefix("/")
        if not path:
            raise OpenError("the URL names no file", hint="write sqlite:///path/to/orders.db")
        return cls(Path(path), writable)

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Read in order of the key; ids are looked up, types and window are filtered by the caller."""
        with self._session() as db:
            db.execute("BEGIN")  # one state of the store for all frames
            db.text_factory = bytes  # text that is no UTF-8 must not stop the good rows beside it
            for where, values in _wheres(scope):
                if scope.since is not None:
                    where = f"{where} {'AND' if where else 'WHERE'} (timestamp < ? AND {PLAIN}) IS NOT TRUE"
                    values = (*values, _written(scope.since))
                rows = db.execute(
                    f"SELECT {COLUMNS} FROM {TABLE} {where} ORDER BY aggregate_id, version", values
                )
                while batch := rows.fetchmany(min(size, MOST)):
                    yield _frame(batch)

    def frontier(self) -> Frontier:
        """Take the end of the file as complete: SQLite has one writer at a time."""
        with self._session() as db:
            (last,) = db.execute(f"SELECT max(timestamp) FROM {TABLE}").fetchone()
        try:
            return Frontier(instant(str(last)) if last is not None else None, "the end of the file")
        except InstantError:
            return Frontier(None, "the end of the file; its last timestamp cannot be read")

    def snapshots(self) -> pl.DataFrame:
        """Read the table `order_snapshots`; a file without it has none."""
        with self._session() as db:
            db.text_factory = bytes
            if not _has_saved(db):
                return SNAPSHOTS.to_frame()
            rows = db.execute(f"SELECT {', '.join(SNAPSHOTS)} FROM {SAVED} ORDER BY aggregate_id").fetchall()
        columns = [_series(name, [row[place] for row in rows]) for place, name in enumerate(SNAPSHOTS)]
        return pl.DataFrame(columns).cast(dict(SNAPSHOTS), strict=False)  # type: ignore[arg-type]

    def snapshot(self, aggregate_id: str) -> tuple[int, str] | None:
        """Look one up; a file without the table has none."""
        with self._session() as db:
            if not _has_saved(db):
                return None
            wanted = f"SELECT version, state FROM {SAVED} WHERE aggregate_id = ?"
            found: tuple[int, str] | None = db.execute(wanted, (aggregate_id,)).fetchone()
        return found

    def rows_from(self, aggregate_id: str, version: int, most: int) -> list[tuple[Any, ...]]:
        """Look an aggregate's last rows up by its key."""
        with self._session() as db:
            wanted = (
                f"SELECT {COLUMNS.partition(', ')[2]} FROM {TABLE} WHERE aggregate_id = ? AND version >= ?"
            )
            return db.execute(f"{wanted} ORDER BY version LIMIT ?", (aggregate_id, version, most)).fetchall()

    def save_snapshots(self, states: pl.DataFrame) -> None:
        """Insert or replace in one transaction, never an older state."""
        if not self.writable:
            raise ReadOnly(f"{self.url} is open for reading only", hint="tl.open(url, writable=True)")
        columns = ", ".join(SNAPSHOTS)
        with self._session() as db:
            if not _has_saved(db):
                raise OpenError(
                    f"{self.path} has no table {SAVED}",
                    hint="titan schema --dialect sqlite prints how to make it",
                )
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                f"INSERT INTO {SAVED} ({columns}) VALUES (?, ?, ?) ON CONFLICT (aggregate_id) DO UPDATE"
                f" SET version = excluded.version, state = excluded.state, timestamp = {NOW}"
                f" WHERE excluded.version >= {SAVED}.version",
                states.select(list(SNAPSHOTS)).iter_rows(),
            )
            db.execute("COMMIT")

    def facts(self) -> dict[str, list[int]]:
        """Tell size, time and inode of the file and of the log beside it, and how often it was written to."""
        told = {}
        for file in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            if file.exists():
                with file.open("rb") as opened:
                    times = int.from_bytes(opened.read(WRITTEN_TO.stop)[WRITTEN_TO], "big")
                stat = file.stat()
                told[str(file.resolve())] = [stat.st_size, stat.st_mtime_ns, stat.st_ino, times]
        return told

    def marks(self) -> pl.DataFrame:
        """Give for each aggregate a number that is another whenever one of its rows is.

        Columns aggregate_id String and mark Int64.
        """
        content = " || ".join(f"quote({name})" for name in list(EVENTS)[1:])
        with self._session() as db:
            db.text_factory = bytes
            db.create_function("crc32", 1, zlib.crc32, deterministic=True)
            mark = f"count(*) * 4294967296 + sum(crc32(CAST({content} AS BLOB)))"
            rows = db.execute(f"SELECT aggregate_id, {mark} FROM {TABLE} GROUP BY aggregate_id").fetchall()
        ids, marks = ([row[place] for row in rows] for place in (0, 1))
        return pl.DataFrame([_series("aggregate_id", ids), pl.Series("mark", marks, pl.Int64)])

    def sample(self, most: int) -> tuple[pl.Series, int]:
        """Give about so many ids, evenly, and the number of all events."""
        with self._session() as db:
            (events,) = db.execute(f"SELECT count(*) FROM {TABLE}").fetchone()
            db.text_factory = bytes
            rows = db.execute(f"SELECT aggregate_id FROM {TABLE} ORDER BY aggregate_id")
            ids = [name for (name,) in islice(rows, 0, None, max(events // most, 1))]
        return as_text(_series("aggregate_id", ids)), events

    def tally(self, before: datetime) -> int:
        """Count the rows whose timestamp is before an instant."""
        count = f"SELECT count(*) FROM {TABLE} WHERE timestamp < ? AND {PLAIN}"
        with self._session() as db:
            db.execute("BEGIN")
            (plain,) = db.execute(count, (_written(before),)).fetchone()
            db.text_factory = bytes
            others = db.execute(f"SELECT timestamp FROM {TABLE} WHERE NOT {PLAIN}").fetchall()
        return plain + int((moments(_series("timestamp", [one for (one,) in others])) < before).sum())

    def heads(self) -> pl.DataFrame:
        """Give each aggregate's number of rows and its highest version, as HEADS."""
        with self._session() as db:
            db.text_factory = bytes
            rows = db.execute(
                f"SELECT aggregate_id, max(version), count(*) FROM {TABLE} GROUP BY aggregate_id"
            ).fetchall()
        ids, versions, counts = ([row[place] for row in rows] for place in range(3))
        keys = pl.DataFrame([_series("aggregate_id", ids), _series("version", versions)])
        return summed(
            [numbered(keys).with_columns(events=pl.Series(counts, dtype=pl.Int64)).select(list(HEADS))]
        )

    def append(self, events: pl.DataFrame) -> Appended:
        """Insert in one transaction; a clash with a different event takes everything back."""
        self._refuse_unless_writable()
        stored = events.select(list(EVENTS)).with_columns(pl.col("timestamp").dt.strftime(WRITTEN))
        with self._session() as db:
            db.execute("BEGIN IMMEDIATE")
            (before,) = db.execute("SELECT total_changes()").fetchone()
            db.executemany(
                f"INSERT INTO {TABLE} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                stored.iter_rows(),
            )
            (after,) = db.execute("SELECT total_changes()").fetchone()
            added = after - before
            if added < len(stored):
                self._refuse_clashes(db, stored)
            db.execute("COMMIT")
        return Appended(added, len(stored) - added)

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        """Insert behind the aggregate's last version, which nobody else can move in the same transaction."""
        self._refuse_unless_writable()
        with self._session() as db:
            db.execute("BEGIN IMMEDIATE")
            last = db.execute(LAST, (aggregate_id,)).fetchone()
            found = last[0] if last else 0
            if found != expected_version:
                span = (aggregate_id, expected_version, expected_version + len(events))
                stored = [told for (told,) in db.execute(BEHIND, span)]
                there_already(aggregate_id, found, stored, events, expected_version)
                return Appended(0, len(events), found)
            new = placed(aggregate_id, events, expected_version, datetime.now(UTC))
            db.executemany(
                f"INSERT INTO {TABLE} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                new.with_columns(pl.col("timestamp").dt.strftime(WRITTEN)).iter_rows(),
            )
            db.execute("COMMIT")
        return Appended(len(new), 0, expected_version + len(new))

    def close(self) -> None:
        """Do nothing: a connection lives as long as one read or one append."""

    def _refuse_unless_writable(self) -> None:
        if not self.writable:
            raise ReadOnly(f"{self.url} is open for reading only", hint="tl.open(url, writable=True)")

    def _refuse_clashes(self, db: sqlite3.Connection, stored: pl.DataFrame) -> None:
        known = f"SELECT event_type, payload, timestamp FROM {TABLE} WHERE aggregate_id = ? AND version = ?"
        clashes = []
        for row in stored.iter_rows(named=True):
            (found,) = db.execute(known, (row["aggregate_id"], row["version"])).fetchall()
            if found[:2] != (row["event_type"], row["payload"]) or _differs(found[2], row["timestamp"]):
                clashes.append(row)
        if clashes:
            db.execute("ROLLBACK")
            raise conflict(clashes[0], len(clashes))

    def _prepare(self) -> None:
        if not self.path.exists():
            if not self.writable:
                raise OpenError(
                    f"there is no file {self.path}",
                    hint=_near_files(self.path)
                    or "check the path; tl.open(url, writable=True) makes a new store",
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._session() as db:
                db.executescript(script(ddl("sqlite")))
        with self._session() as db:
            tables = [
                name
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            ]
            if TABLE not in tables:
                raise OpenError(
                    f"{self.path} has no table {TABLE}; it has {', '.join(sorted(tables)) or 'none'}",
                    hint="open the event store's own file, or hand its rows to tl.from_frame",
                )
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({TABLE})")]
            if self.writable and not db.execute(UNIQUE).fetchone():
                raise OpenError(
                    f"{TABLE} in {self.path} may hold two events in one place, so that no writer is refused",
                    hint=f"CREATE UNIQUE INDEX one_place ON {TABLE}(aggregate_id, version); or read it only",
                )
            missing = [name for name in EVENTS if name not in columns]
            if missing:
                raise EventsError(
                    f"{TABLE} in {self.path} lacks {', '.join(missing)}; it has {', '.join(columns)}",
                    hint=f"the event store's columns are {COLUMNS}",
                    missing=missing,
                )

    def _journal(self) -> Path:
        return self.path.with_name(f"{self.path.name}-journal")

    @contextmanager
    def _session(self) -> Iterator[sqlite3.Connection]:
        mode = "rwc" if self.writable else "ro"
        try:
            db = sqlite3.connect(
                f"file:{quote(str(self.path))}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=PATIENCE,
            )
            try:
                if not self.writable:
                    db.execute("PRAGMA query_only = ON")
                yield db
            finally:
                db.close()
        except sqlite3.OperationalError as error:
            if not self.writable and "readonly" in str(error) and self._journal().exists():
                raise OpenError(
                    f"{self.path} holds an append that was cut off in the middle and must be undone",
                    hint="tl.open(url, writable=True) undoes it",
                ) from error
            if "readonly" in str(error) or (self.writable and "unable to open" in str(error)):
                raise ReadOnly(
                    f"{self.path} cannot be written: {error}",
                    hint="check the file's and folder's permissions",
                ) from error
            if "locked" in str(error):
                raise OpenError(
                    f"{self.path} was locked by another process for {PATIENCE:.0f} s: {error}",
                    hint="see who holds a transaction open, and try again",
                ) from error
            raise OpenError(f"SQLite could not read {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise OpenError(
                f"{self.path} is no SQLite database, or is damaged: {error}",
                hint="Parquet files open with parquet://path",
            ) from error


def _has_saved(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (SAVED,)).fetchone() is not None


def _wheres(scope: Scope) -> Iterator[tuple[str, tuple[Any, ...]]]:
    late = [] if scope.from_version is None else [("version >= ?", scope.from_version)]
    if scope.aggregates is None:
        first, end = scope.ids
        # What has no id comes before all, as in `Scope`; with an OR no index would end the search.
        before = "aggregate_id < ?" if first is not None else "(aggregate_id < ? OR aggregate_id IS NULL)"
        within = [("aggregate_id >= ?", first), (before, end), *late]
        asked = [(text, one) for text, one in within if one is not None]
        yield f"WHERE {' AND '.join(text for text, _ in asked)}" if asked else "", tuple(i for _, i in asked)
        if end is not None:
            yield "WHERE aggregate_id >= x''", ()  # an id that is no text sorts last, whatever it says
        return
    ids = sorted(set(scope.aggregates))
    for start in range(0, len(ids), FEW):
        some: tuple[Any, ...] = tuple(ids[start : start + FEW])
        where = f"WHERE aggregate_id IN ({', '.join('?' * len(some))})"
        for text, one in late:
            where, some = f"{where} AND {text}", (*some, one)
        yield where, some


def _frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    values = list(chain.from_iterable(rows))
    return pl.DataFrame([_series(name, values[place :: len(EVENTS)]) for place, name in enumerate(EVENTS)])


def _series(name: str, values: list[Any]) -> pl.Series:
    try:
        if name == "version":
            return pl.Series(name, values, pl.Int64)
        column = pl.Series(name, values, pl.Binary)
        return column.cast(pl.String)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        # SQLite lets any value stand in any column; what is not of the column's type is judged as text.
        return pl.Series(
            name, [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values], strict=False
        )


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def _differs(stored: str, written: str) -> bool:
    try:
        return instant(stored) != instant(written)
    except InstantError:
        return True


def _near_files(path: Path) -> str | None:
    return nearest(path.name, [one.name for one in path.parent.iterdir()]) if path.parent.is_dir() else None
