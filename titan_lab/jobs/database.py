"""Where the ledger is kept: a file of SQLite, or a database of a PostgreSQL server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from titan_lab.errors import LedgerError, MissingExtra
from titan_lab.jobs.locks import FileLocks, Locks, ServerLocks
from titan_lab.jobs.table import STRUCTURED, runs_table
from titan_lab.paths import project_root
from titan_lab.redacted import redact

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Select

LEDGER_VARIABLE: Final = "TITAN_LEDGER"


class Database:
    """Reach the table of runs; every error of a driver becomes a LedgerError that shows no password."""

    def __init__(self, given: str) -> None:
        scheme, _, rest = given.partition("://")
        self._file: Path | None = None
        if scheme == "sqlite" and rest.startswith("/") and rest != "/":
            self._file = project_root() / rest[1:]  # an absolute path replaces the root
            given = f"sqlite:///{self._file}"
        elif scheme in ("postgresql", "postgres", "postgresql+psycopg"):
            given = f"postgresql+psycopg://{rest}"
        else:
            raise LedgerError(
                f"{redact(given)!r} is no place for a ledger",
                hint="sqlite:///runs/ledger.db or postgresql://USER@HOST/DATABASE "
                f"(as an argument or in {LEDGER_VARIABLE})",
            )
        self._url = given
        self._made = False

    @property
    def shown(self) -> str:
        """Give the URL without what is secret in it."""
        return redact(self._url.partition("?")[0])

    @cached_property
    def _engine(self) -> Engine:
        try:
            from sqlalchemy import NullPool, create_engine, event
        except ImportError as error:
            raise MissingExtra("sqlalchemy", "run", "the ledger of runs") from error
        options: dict[str, Any]
        if self._file:
            options = {"timeout": 60}
        else:
            # A run may take hours in which the session that holds its lock says nothing.
            options = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
            options |= {"connect_timeout": 10, "application_name": "titan_lab ledger"}
        try:
            # Without a pool no connection is shared with a forked process, or left open at the end.
            engine = create_engine(self._url, poolclass=NullPool, connect_args=options)
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres", "a ledger in PostgreSQL") from error
        except Exception as error:
            raise LedgerError(
                f"{self.shown} is no URL of a database: {redact(str(error))}",
                hint="postgresql://USER@HOST:PORT/DATABASE",
            ) from None
        if self._file:
            # Readers do not wait for the writer, nor the writer for them.
            event.listen(engine, "connect", lambda raw, _: raw.execute("pragma journal_mode=wal").close())
        return engine

    @cached_property
    def locks(self) -> Locks:
        """Give what locks beside this database: files, or the server."""
        if self._file:
            return FileLocks(self._file.with_name(f"{self._file.name}.locks"))
        return ServerLocks(self._engine)

    def there(self) -> bool:
        """Tell whether there is a table to read."""
        if self._file:
            return self._file.exists()
        if not self._made:
            from sqlalchemy import inspect

            with self.told():
                self._made = inspect(self._engine).has_table(runs_table().name)
        return self._made

    def make(self) -> None:
        """Make the table, and the file of SQLite, where there is none yet."""
        if self._made:
            return
        with self.told(), self.locks.alone():  # two that make one table at once fail on both databases
            runs_table().metadata.create_all(self._engine)
        self._made = True

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what a driver or the system says into an error of ours, which shows no password."""
        try:
            yield
        except Exception as error:
            if not (isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy.")):
                raise  # asked by name, since there may be nothing of SQLAlchemy's to import, or no need to
            cause = str(getattr(error, "orig", None) or error).strip()
            raise LedgerError(
                f"the ledger {self.shown} cannot be used: {redact(cause)}",
                hint=f"it is the argument `ledger`, or {LEDGER_VARIABLE}, or ledger.db in the folder of runs",
            ) from error

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Give a connection in a transaction, which is committed at the end."""
        with self.told(), self._engine.begin() as connection:
            yield connection

    def rows(self, chosen: Select[Any]) -> list[dict[str, Any]]:
        """Read rows, with what is JSON read; none where there is no table."""
        if not self.there():
            return []
        with self.connection() as connection:
            found = [dict(row) for row in connection.execute(chosen).mappings()]
        for row in found:
            row.update({name: json.loads(row[name]) for name in (*STRUCTURED, "outputs")})
        return found
