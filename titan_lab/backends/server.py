"""One database server: its URL, the sessions that are kept open, and what its errors mean.

Two drivers speak to it. psycopg does all but the reading of events, which come as Arrow from ADBC, several
times as fast. In a log that is open for reading only, both sessions are read-only in the database itself.
"""

from __future__ import annotations

import os
import selectors
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote, urlencode

import polars as pl

from titan_lab.errors import EventsError, MissingExtra, OpenError, ReadOnly, TitanError
from titan_lab.redacted import redact

if TYPE_CHECKING:
    from psycopg import Connection
    from sqlalchemy import URL, Engine

PURPOSE: Final = "reading from a PostgreSQL server"
OURS: Final = ("schema", "table")  # parameters of the URL that are not the driver's
READ_ONLY: Final = "-c default_transaction_read_only=on"
# Timestamps are read and written as ISO-8601 in UTC, whatever the server or the role has set.
# A range of ids lies together in the table, so its index leads there faster than the server would think.
SESSION: Final = "-c timezone=UTC -c datestyle=ISO -c random_page_cost=1.1"
DEFAULTS: Final = {
    "application_name": "titan_lab",
    "client_encoding": "utf8",
    "connect_timeout": "10",
    # Of a cable that was pulled nothing is heard: after a minute without an answer it is given up.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
SHORT: Final = 3  # characters of a text that is no secret by itself
ROW: Final = 256  # bytes that an event takes, about
MOST: Final = 100_000  # events at a time, so that the server goes on while these are looked at
UNKNOWN: Final = "40003"  # whether a transaction was committed
# What the server says in words, since a session that does not begin has no SQLSTATE.
SIGNS: Final = (
    (("password authentication", "no password supplied"), "the user or the password is wrong", None),
    (("does not exist",), None, "check the names of the database and of the role"),
    (
        ("resolve host", "translate host", "Name or service"),
        "the host's name is unknown",
        "check the host in the URL",
    ),
    (
        ("SSL", "TLS", "certificate"),
        "no encrypted connection can be made as asked",
        "see sslmode and sslrootcert",
    ),
    (("refused", "No such file"), "no server listens there", "check host and port, and whether it runs"),
    (("timeout", "timed out"), "the server does not answer", "check host, port and what lies between"),
    (("pg_hba",), "the server does not let this user or address in", "ask who keeps its pg_hba.conf"),
)


class Server:
    """Keep one session for statements and some for reading, each checked for life before it is used again."""

    def __init__(self, address: str, writable: bool, scheme: str, dialect: str) -> None:
        try:
            from sqlalchemy import make_url
            from sqlalchemy.exc import ArgumentError
        except ImportError as error:
            raise MissingExtra("sqlalchemy", "postgres", PURPOSE) from error
        shown = redact(f"{scheme}://{address}")
        try:
            url = make_url(f"{dialect}://{address}")
        except (ArgumentError, ValueError):
            raise OpenError(
                f"{shown} is no URL of a database", hint=f"{scheme}://USER@HOST:PORT/DATABASE"
            ) from None
        if "@" in str(url.host):
            raise OpenError(
                f"{scheme}://***@{str(url.host).rpartition('@')[2]} has an @ too many before its host",
                hint="an @ in a user's name or a password is written as %40, a / as %2F, a : as %3A",
            )
        self.scheme = scheme
        self.writable = writable
        self.own = {name: str(url.query[name]) for name in OURS if name in url.query}
        self._url = url.difference_update_query(OURS)
        self.shown = redact(
            url.set(drivername=scheme).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
        )
        self._sessions: list[Connection] = []  # the one for statements, once there is one
        self._readers: list[Any] = []  # those that are idle
        self._process = os.getpid()
        self._lock = RLock()
        weakref.finalize(self, _end, self._process, self._sessions, self._readers)

    # ------------------------------------------------------------------ sessions

    def engine(self) -> Engine:
        """Make an engine of SQLAlchemy, which keeps no session of its own."""
        from sqlalchemy import NullPool, create_engine
        from sqlalchemy.exc import NoSuchModuleError

        try:
            return create_engine(self._settled(), poolclass=NullPool)
        except NoSuchModuleError as error:
            raise MissingExtra("sqlalchemy-cockroachdb", "cockroach", "a CockroachDB cluster") from error
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres", PURPOSE) from error

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Give the session in which each statement is a transaction, unless it is in `db.transaction()`."""
        with self._lock, self.told():
            session = self._session()
            try:
                yield session
            finally:
                if _busy(session):  # an interrupt left it in the middle: what follows would not be committed
                    _end(self._process, self._sessions)

    def _session(self) -> Connection:
        self._forget_another_process()
        for kept in self._sessions:
            # An idle server says nothing: what can be read is its farewell, or the end of the connection.
            if not kept.closed and not _busy(kept) and not _speaks(kept.fileno()):
                return kept
        _end(self._process, self._sessions)
        self._sessions.append(self.connect())
        return self._sessions[0]

    def connect(self) -> Connection:
        """Begin another session, which whoever asked for it closes."""
        with self._opening():
            made = self.engine().raw_connection()
            session: Any = made.driver_connection
            made.detach()
            session.autocommit = True
        return session

    def read(self, sql: str, size: int) -> Iterator[pl.DataFrame]:
        """Run one SELECT, which sees one state of the store, and give its rows in frames of about `size`."""
        with self.told():
            reader, cursor, batches = self._ask(sql, size)
            whole = False
            try:
                for batch in batches:
                    yield pl.DataFrame(pl.from_arrow(batch))
                whole = True
            finally:
                self._put_back(reader, cursor, whole)

    def _ask(self, sql: str, size: int) -> tuple[Any, Any, Any]:
        with self._lock:
            self._forget_another_process()
            kept = self._readers.pop() if self._readers else None
        if kept is not None:
            with suppress(self._driver().Error):  # the server may have ended it since; a new one will tell
                return kept, *self._run(kept, sql, size)
        with self._opening():
            made = self._driver().connect(self._libpq(), autocommit=True)
        return made, *self._run(made, sql, size)

    def _run(self, reader: Any, sql: str, size: int) -> tuple[Any, Any]:
        cursor = reader.cursor()
        try:
            hint = {"adbc.postgresql.batch_size_hint_bytes": str(min(max(size, 1), MOST) * ROW)}
            cursor.adbc_statement.set_options(**hint)
            cursor.execute(sql)
            return cursor, cursor.fetch_record_batch()
        except Exception:
            self._put_back(reader, cursor, whole=False)
            raise

    def _put_back(self, reader: Any, cursor: Any, whole: bool) -> None:
        with suppress(self._driver().Error):
            cursor.close()
        if whole:
            with self._lock:
                self._readers.append(reader)
        else:
            with suppress(self._driver().Error):
                reader.close()

    def _driver(self) -> Any:
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise MissingExtra("adbc-driver-postgresql", "postgres", PURPOSE) from error
        return dbapi

    def close(self) -> None:
        """End all sessions; a later read opens new ones."""
        with self._lock:
            _end(self._process, self._sessions, self._readers)

    def _forget_another_process(self) -> None:
        if self._process != os.getpid():  # a fork: these sessions are its parent's
            self._process, self._sessions, self._readers = os.getpid(), [], []

    def _settled(self) -> URL:
        """Give the URL with what every session begins with; what it asks for itself goes first."""
        query = DEFAULTS | {name: value for name, value in self._url.query.items() if name != "options"}
        told = [str(self._url.query.get("options", "")), SESSION]
        if "schema" in self.own:
            name = self.own["schema"].replace('"', '""').replace("\\", "\\\\").replace(" ", "\\ ")
            told.append(f'-c search_path="{name}"')
        if not self.writable:
            told.append(READ_ONLY)
        return self._url.set(query=query | {"options": " ".join(told).strip()})

    def _libpq(self) -> str:
        """Write the URL as libpq reads it, in which a + is no space."""
        settled = self._settled()
        plain = settled.set(drivername="postgresql", query={}).render_as_string(hide_password=False)
        return f"{plain}?{urlencode(settled.query, doseq=True, quote_via=quote)}"

    # ------------------------------------------------------------------ errors

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what a driver says into an error of ours, which shows no password."""
        try:
            yield
        except Exception as error:
            if isinstance(error, TitanError) or not _from_a_driver(error):
                raise
            self._raise(error)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Say why a session does not begin."""
        try:
            yield
        except Exception as error:
            if isinstance(error, TitanError) or not _from_a_driver(error):
                raise
            said = self._said(error)
            for signs, what, hint in SIGNS:
                if any(sign in said for sign in signs):
                    raise OpenError(
                        f"{self.shown} cannot be opened: {what or said}" + (f" ({said})" if what else ""),
                        hint=hint or "check them; the password is not shown",
                    ) from None
            raise OpenError(f"{self.shown} cannot be opened: {said}") from None

    def _raise(self, error: Exception) -> NoReturn:
        said, state = self._said(error), state_of(error)
        if state == "25006":
            raise ReadOnly(
                f"{self.shown} is open for reading only, or is a standby: {said}",
                hint="tl.open(url, writable=True)",
            ) from None
        if state == "42501":
            raise (ReadOnly if self.writable else OpenError)(
                f"the role may not do this in {self.shown}: {said}",
                hint="GRANT SELECT ON order_events lets it read, GRANT SELECT, INSERT append",
            ) from None
        writes = type(error).__module__.startswith("psycopg")  # the other driver reads, and a view may fail
        if writes and (state[:2] == "22" or type(error).__name__ == "DataError"):
            raise EventsError(
                f"{self.shown} takes no such event; nothing was written: {said}",
                hint="the table's types are narrower than an event's: see docs/postgres.md",
            ) from None
        # Once rows have come, a refusal has no SQLSTATE; only its words tell it from an end.
        lost = not state and "]: ERROR:" not in said
        if lost or state[:2] == "08" or state[:3] == "57P" or state == UNKNOWN:
            raise OpenError(
                f"the connection to {self.shown} was lost: {said}",
                hint="ask again; what was being appended may be there or not, and appending it again is safe",
            ) from None
        raise OpenError(f"{self.shown} refuses: {said}{f' ({state})' if state else ''}") from None

    def _said(self, error: Exception) -> str:
        """Give what a driver says, on one line, without the statement and without the password."""
        told = str(getattr(error, "orig", None) or error).partition("Query was:")[0]
        said = redact(" ".join(told.split()))
        for secret in (self._url.password, self._url.query.get("password")):
            if secret and len(str(secret)) >= SHORT:  # of a letter, all of them would tell which it is
                said = said.replace(str(secret), "***")
        return said or type(error).__name__


def _speaks(connection: int) -> bool:
    with selectors.DefaultSelector() as selector:  # unlike `select`, it knows no largest number of a file
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))


def _end(process: int, *kept: list[Any]) -> None:
    """Close sessions, unless they are another process's."""
    for sessions in kept:
        while sessions:
            session = sessions.pop()
            if process == os.getpid():
                with suppress(Exception):  # what was cut cannot be closed any more, and need not be
                    session.close()


def _busy(session: Connection) -> bool:
    """Tell whether a session is in a transaction, or in the middle of a statement."""
    from psycopg.pq import TransactionStatus

    return not session.closed and session.info.transaction_status != TransactionStatus.IDLE


def state_of(error: Exception) -> str:
    """Give an error's SQLSTATE; empty where it has none, as when a connection is cut."""
    return str(getattr(error, "sqlstate", None) or "")


def _from_a_driver(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in (
        "psycopg",
        "sqlalchemy",
        "adbc_driver_manager",
        "pyarrow",
    )
