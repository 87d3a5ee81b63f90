"""Events in a PostgreSQL server, in the tables of the event store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from titan_lab.backends import inserts, oldest
from titan_lab.backends.columns import Events, describe, no_table
from titan_lab.backends.contract import SNAPSHOTS, Appended, Frontier
from titan_lab.backends.ddl import SAVED, TABLE, Dialect, ddl
from titan_lab.backends.server import Server, state_of
from titan_lab.clock import iso
from titan_lab.errors import OpenError, ReadOnly
from titan_lab.scope import Scope

if TYPE_CHECKING:
    from psycopg import Connection

NO_TABLE: Final = "42P01"
NO_SUCH_VALUE: Final = "22P02"  # of a column's type, such as an id that is no UUID
MANY: Final = 1_000_000  # rows that are too many to be numbered
SAMPLED: Final = "SELECT relkind IN ('r', 'p', 'm') FROM pg_class WHERE oid = to_regclass(%s)"
UNIQUE: Final = """
SELECT EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
    AND ARRAY['aggregate_id', 'version'] = (
        SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute AS a
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)))"""
MADE_MEANWHILE: Final = ("42P06", "42P07", "42723", "23505")  # by another who opened the same empty store


class PostgresStore:
    """Read, and if opened for it write, `order_events` in a PostgreSQL database."""

    scheme = "postgresql"
    dialect = "postgresql+psycopg"
    tables: Dialect = "postgres"
    # A number that depends on a text, and is the same in each of the server's sessions.
    hashed = "hashtextextended({text}, 0) >> 32"

    def __init__(self, address: str, writable: bool = False) -> None:
        self.writable = writable
        self.server = Server(address, writable, self.scheme, self.dialect)
        self.url = self.server.shown
        self.events = self._prepare()

    @classmethod
    def open(cls, address: str, writable: bool) -> PostgresStore:
        """Open ``postgresql://USER@HOST:PORT/DATABASE``.

        Parameters go to the driver, such as ``?sslmode=verify-full``; ``schema=`` and ``table=`` name where
        the events stand.
        """
        return cls(address, writable)

    # ------------------------------------------------------------------ reading

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Read with one statement, which sees one state of the store, and has the scope in it."""
        with self.server.session() as db:
            where = self.events.within(scope, self.literal(db))
        if where is not None:
            yield from self._rows(self.events.selected() + where, size)

    def frontier(self) -> Frontier:
        """Tell the instant before which no transaction that is still open can add an event."""
        with self.server.session() as db:
            return oldest.frontier(db, self.events.name, self.events.told)

    def snapshots(self) -> pl.DataFrame:
        """Read the table `order_snapshots`; a database without it has none."""
        with self.server.session() as db:
            if not self.one(db, "SELECT to_regclass(%s) IS NOT NULL", SAVED):
                return SNAPSHOTS.to_frame()
            rows = db.execute(
                f"SELECT aggregate_id::text, version::bigint, state::text FROM {SAVED}"
            ).fetchall()
        return pl.DataFrame(rows, SNAPSHOTS, orient="row")

    def snapshot(self, aggregate_id: str) -> tuple[int, str] | None:
        """Look one up; a database without the table has none."""
        if not self.events.may_be_an_id(aggregate_id):
            return None
        with self.server.session() as db:
            wanted = f"SELECT version::bigint, state::text FROM {SAVED} WHERE aggregate_id = %s"
            try:
                return db.execute(wanted, (aggregate_id,)).fetchone()
            except Exception as error:
                if state_of(error) not in (NO_TABLE, NO_SUCH_VALUE):
                    raise
        return None

    def rows_from(self, aggregate_id: str, version: int, most: int) -> list[tuple[Any, ...]]:
        """Look an aggregate's last rows up by its key: a few of them come sooner than as Arrow."""
        columns = "version::bigint, event_type::text, payload::text, metadata::text, timestamp::text"
        wanted = (
            f"SELECT {columns} FROM {self.events.name}"
            f" WHERE aggregate_id = {self.events.cast('aggregate_id', '%s')} AND version >= %s"
            " ORDER BY version LIMIT %s"
        )
        with self.server.session() as db:
            return db.execute(wanted, (aggregate_id, version, most)).fetchall()

    def tally(self, before: datetime) -> int:
        """Count the rows whose timestamp is before an instant, exclusive."""
        with self.server.session() as db:
            counted = f"SELECT count(*) FROM {self.events.name} WHERE timestamp < %s::timestamptz"
            return self.one(db, counted, iso(before))

    def heads(self) -> pl.DataFrame:
        """Give each aggregate's number of rows and its highest version."""
        return self._per_aggregate("count(*)::bigint AS events, max(version)::bigint AS version")

    def marks(self) -> pl.DataFrame:
        """Give for each aggregate a number that is another whenever one of its rows is.

        Columns aggregate_id String and mark Int64.
        """
        row = "ROW(version, event_type, payload, metadata, timestamp)::text"
        summed = f"sum({self.hashed.format(text=row)})"
        return self._per_aggregate(f"(count(*) * 4294967296 + {summed})::bigint AS mark")

    def sample(self, most: int) -> tuple[pl.Series, int]:
        """Give about so many ids, evenly, and the number of all events."""
        table = self.events.name
        with self.server.session() as db:
            events = self.one(db, f"SELECT count(*) FROM {table}")
            pages = events > MANY and self.tables == "postgres" and self.one(db, SAMPLED, table)
        if pages:  # some of them are read whole, which is evenly enough
            some = f"{table} TABLESAMPLE SYSTEM ({100 * most / events:.6f}) REPEATABLE (1)"
        else:
            numbered = f"SELECT aggregate_id, row_number() OVER (ORDER BY aggregate_id) AS n FROM {table}"
            some = f"({numbered}) AS numbered WHERE n % {max(events // most, 1)} = 0"
        chosen = f"SELECT aggregate_id::text AS aggregate_id FROM {some}"
        ids = [frame["aggregate_id"] for frame in self._rows(chosen, most)]
        return pl.concat([pl.Series("aggregate_id", [], pl.String), *ids]), events

    def close(self) -> None:
        """End the sessions; a log that is asked again opens new ones."""
        self.server.close()

    # ------------------------------------------------------------------ writing

    def append(self, events: pl.DataFrame) -> Appended:
        """Copy events in, in one transaction; a clash with a different event takes everything back."""
        with self._writing() as db:
            return inserts.append(db, self.events, events)

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        """Add events behind an aggregate's version in one statement, which finds it so or adds nothing."""
        with self._writing() as db:
            return inserts.extend(db, self.events, aggregate_id, events, expected_version)

    def save_snapshots(self, states: pl.DataFrame) -> None:
        """Insert or replace in one transaction, never an older state."""
        with self._writing() as db:
            try:
                inserts.save(db, states)
            except Exception as error:
                if state_of(error) != NO_TABLE:
                    raise
                raise OpenError(
                    f"{self.url} has no table {SAVED}",
                    hint=f"titan schema --dialect {self.tables} prints how to make it",
                ) from None

    def _writing(self) -> Any:
        if not self.writable:
            raise ReadOnly(f"{self.url} is open for reading only", hint="tl.open(url, writable=True)")
        return self.server.session()

    # ------------------------------------------------------------------ asking

    def _prepare(self) -> Events:
        table = self.server.own.get("table", TABLE)
        with self.server.session() as db:
            found = describe(db, table, self.url)
            if found is None and self.writable and table == TABLE:
                self._make(db)
                found = describe(db, table, self.url)
            if found is None:
                raise no_table(db, table, self.url)
            if self.writable and self.tables == "postgres" and not self.one(db, UNIQUE, found.name):
                raise OpenError(
                    f"{table} in {self.url} may hold two events in one place, so that no writer is refused",
                    hint="ALTER TABLE ... ADD PRIMARY KEY (aggregate_id, version); or open it for reading",
                )
            return found

    def _make(self, db: Connection) -> None:
        import psycopg

        try:
            with db.transaction():
                for statement in ddl(self.tables):
                    db.execute(statement)
        except psycopg.Error as error:
            if state_of(error) not in MADE_MEANWHILE:
                raise

    def _per_aggregate(self, measures: str) -> pl.DataFrame:
        asked = f"SELECT aggregate_id::text AS aggregate_id, {measures} FROM {self.events.name} GROUP BY 1"
        return pl.concat(list(self._rows(asked, 1_000_000)))

    def _rows(self, sql: str, size: int) -> Iterator[pl.DataFrame]:
        return self.server.read(sql, size)

    @staticmethod
    def one(db: Connection, statement: str, *values: object) -> Any:
        """Run a statement that gives one value."""
        row = db.execute(statement, values or None).fetchone()
        assert row is not None, "an aggregate gives one row"
        return row[0]

    @staticmethod
    def literal(db: Connection) -> Callable[[object], str]:
        """Give what writes a value as SQL, as the session understands it."""
        from psycopg.sql import Literal

        return lambda value: Literal(value).as_string(db)
