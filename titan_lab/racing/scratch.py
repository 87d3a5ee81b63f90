"""A store that exists for one race: tables under a name that nobody has, dropped with all they hold."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from titan_lab.backends.ddl import TABLE, Dialect, ddl, script
from titan_lab.errors import MissingExtra, OpenError, RaceError, ReadOnly, UnknownScheme
from titan_lab.redacted import redact

PREFIX = "titan_race_"
PATIENCE = 10  # seconds to wait for a server, and for a lock that another writer holds


class Scratch(Protocol):
    """Where a race takes place. Everything it makes has its name, and `drop` removes exactly that."""

    name: str
    url: str  # opens the tables; may hold a password
    shown: str  # the same for people
    together: bool  # whether several may write at once
    prepares: bool  # whether a transaction can be prepared here, and left by its session
    pause: float  # seconds that a writer waits before its commit, on average: less where it excludes others
    rest: float  # and after it, so that these have their turn

    def make(self) -> None:
        """Make empty tables. A second time: instead of those before."""
        ...

    def drop(self) -> None:
        """Remove what was made, whoever still works on it; a second time does nothing."""
        ...

    def session(self, autocommit: bool = False) -> Any:
        """Open a connection that has execute, commit, rollback and close; the first statement begins."""
        ...

    def sql(self, text: str) -> str:
        """Write a statement with the driver's own marks for values; here they are `?`."""
        ...

    def stamp(self, moment: datetime) -> Any:
        """Give an instant as a writer with its own clock would store it."""
        ...

    def moment(self, stamp: Any) -> datetime:
        """Give a stored timestamp as an instant."""
        ...


def scratch_at(url: str) -> Scratch:
    """Choose a name that nobody has, at a database of PostgreSQL or CockroachDB, or beside a file of SQLite.

    Nothing is made yet. Raises RaceError for a store in which nothing can be raced, and for a database that
    holds events: it is no scratch database, and a race holds transactions open on purpose.
    """
    scheme, separator, address = url.partition("://")
    name = f"{PREFIX}{token_hex(4)}"
    if separator and scheme in ("postgresql", "postgres"):
        return Server(f"postgresql://{address}", name, "postgres")
    if separator and scheme in ("cockroachdb", "cockroach"):
        return Server(f"postgresql://{address}", name, "cockroach")
    if separator and scheme == "sqlite":
        return File(Path(address.removeprefix("/")), name)
    why = {
        "memory": "nobody else can write to it",
        "parquet": "a folder of Parquet files has no transactions: a file is there, or it is not",
        "mirror": "a mirror has one writer, its own sync",
    }.get(scheme)
    if why:
        raise RaceError(f"{redact(url)} cannot be raced: {why}", hint="name a scratch database of a server")
    raise UnknownScheme(
        f"no race is run on {redact(url)!r}; it is on postgresql://, cockroachdb:// and sqlite://",
        hint="titan audit postgresql://USER@HOST/SCRATCH --race",
    )


class Server:
    """A schema of its own in a database of a server."""

    together = True
    pause, rest = 0.05, 0.0

    def __init__(self, url: str, name: str, dialect: Dialect) -> None:
        self.name = name
        self._dialect = dialect
        parts = urlsplit(url)
        query = {key: value for key, value in parse_qsl(parts.query) if key not in ("schema", "table")}
        # Of every session, also those of `tl.open`: what to call it, and where its tables are.
        query["application_name"] = name
        query["options"] = f"{query.get('options', '')} -csearch_path={name}".strip()
        scheme = {"postgres": "postgresql", "cockroach": "cockroachdb"}[dialect]
        self.url = parts._replace(scheme=scheme, query=urlencode(query, quote_via=quote)).geturl()
        self._direct = self.url.replace(f"{scheme}://", "postgresql://", 1)
        self.shown = redact(url.partition("?")[0])
        self._made = False
        with self._reached(self._direct) as db:
            found = db.execute(
                "SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
                " WHERE relname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
                [TABLE],
            ).fetchone()
            if found:
                (schema,) = found
                killed = f"DROP SCHEMA {schema} CASCADE, if the race that made it runs no more"
                raise RaceError(
                    f"{self.shown} is no scratch database: it has {schema}.{TABLE}; nothing was done",
                    hint=killed
                    if schema.startswith(PREFIX)
                    else "name an empty database: a race leaves transactions open on purpose",
                )
            self.prepares = dialect == "postgres" and (
                db.execute("SHOW max_prepared_transactions").fetchone()[0] != "0"
            )

    def make(self) -> None:
        """Make the schema and its tables."""
        self.drop()
        with self._reached(self._direct) as db:
            self._made = True  # from here on there may be something to drop, also after an interrupt
            db.execute(f"CREATE SCHEMA {self.name}")
            for statement in ddl(self._dialect):
                db.execute(statement)

    def drop(self) -> None:
        """End the race's own sessions, roll back what they prepared, and drop the schema."""
        if not self._made:
            return
        left = f"; the schema {self.name} is left there: DROP SCHEMA {self.name} CASCADE"
        with self._reached(self._direct, left) as db:
            if self._dialect == "postgres":
                db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = %s AND pid <> pg_backend_pid()",
                    [self.name],
                )
                for (gid,) in db.execute(
                    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE %s",
                    [f"{self.name}%"],
                ).fetchall():
                    db.execute(f"ROLLBACK PREPARED '{gid}'")
            db.execute(f"DROP SCHEMA IF EXISTS {self.name} CASCADE")
        self._made = False

    def session(self, autocommit: bool = False) -> Any:
        """Connect with psycopg; the schema is on the path."""
        return _psycopg().connect(self._direct, autocommit=autocommit, connect_timeout=PATIENCE)

    def sql(self, text: str) -> str:
        return text.replace("?", "%s")

    def stamp(self, moment: datetime) -> datetime:
        return moment

    def moment(self, stamp: datetime) -> datetime:
        return stamp

    @contextmanager
    def _reached(self, url: str, left: str = "") -> Iterator[Any]:
        psycopg = _psycopg()
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=PATIENCE) as db:
                yield db
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
            raise ReadOnly(
                f"{self.shown} lets this role make no schema: {redact(str(error)).strip()}",
                hint="a race needs a scratch database of its own, in which the role may create",
            ) from None
        except psycopg.Error as error:
            raise OpenError(
                f"{self.shown} cannot be raced: {redact(str(error)).strip()}{left}",
                hint="check that the server runs, and the URL: postgresql://USER@HOST:PORT/DATABASE",
            ) from None


class File:
    """A file of its own beside a file of SQLite, which is not opened and need not be there."""

    together = prepares = False
    pause, rest = 0.002, 0.05

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._path = path.with_name(f"{path.name}.{name}")
        self.shown = self.url = f"sqlite:///{self._path}"
        if not path.parent.is_dir():
            raise OpenError(
                f"there is no folder {path.parent}", hint="a race makes its file beside the one that is named"
            )

    def make(self) -> None:
        """Make the file and its tables."""
        self.drop()
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as db:
                # Readers do not wait for writers, nor writers for them: more can happen at once.
                db.execute("PRAGMA journal_mode = wal")
                db.executescript(script(ddl("sqlite")))
        except sqlite3.Error as error:
            raise ReadOnly(
                f"{self._path} cannot be made: {error}", hint="a race makes its file beside the one named"
            ) from None

    def drop(self) -> None:
        """Remove the file and what SQLite keeps beside it."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(f"{self._path.name}{suffix}").unlink(missing_ok=True)

    def session(self, autocommit: bool = False) -> sqlite3.Connection:
        """Connect; a transaction excludes other writers from its beginning, as it does in the store."""
        return sqlite3.connect(
            self._path,
            timeout=PATIENCE,
            isolation_level=None if autocommit else "IMMEDIATE",
            check_same_thread=False,
        )

    def sql(self, text: str) -> str:
        return text

    def stamp(self, moment: datetime) -> str:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def moment(self, stamp: str) -> datetime:
        return datetime.fromisoformat(stamp)


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra("psycopg", "postgres", "a race on a server") from error
    return psycopg
