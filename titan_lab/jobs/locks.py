"""One holder at a time for a name, freed by the system when the holder's process is gone.

A row that says "locked" outlives the process that wrote it. These locks belong to the process: `kill -9`, a
crash or a power cut frees them, and whoever looks next can tell a dead holder from a live one.

- `FileLocks`: `flock` on a file of a folder, for processes of one machine (containers that share the folder
  included). On a network file system it is as good as that system's own locks; use PostgreSQL there.
- `ServerLocks`: an advisory lock of a PostgreSQL session, for many machines. It needs a connection of its
  own: a pooler that hands sessions around (PgBouncer in transaction mode) would hand the lock around as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from titan_lab.errors import JobError

if TYPE_CHECKING:
    from sqlalchemy import Engine


class Locks(Protocol):
    """Hold names, and tell whether somebody holds one."""

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Hold a name while the block runs. Gives False, holding nothing, where somebody else has it."""

    def held(self, name: str) -> bool:
        """Tell whether a living process holds a name. Changes nothing, and disturbs nobody who tries."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no one else is inside, for what must not be done twice at once; be quick."""


class FileLocks:
    """Hold names by files in a folder, which is made when the first one is held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Hold a name while the block runs. Gives False, holding nothing, where somebody else has it."""
        path = self.folder / _file_name(name)
        with self.alone():
            file = path.open("a")
            taken = _flock(file, wait=False)
        if not taken:
            file.close()
            yield False
            return
        try:
            yield True
        finally:
            with self.alone():
                # Under the gate nobody has just opened what is removed here, to lock a file without a name.
                path.unlink(missing_ok=True)
                file.close()

    def held(self, name: str) -> bool:
        """Tell whether a living process holds a name. Changes nothing, and disturbs nobody who tries."""
        path = self.folder / _file_name(name)
        if not path.exists():
            return False
        with self.alone():  # to try is to hold for a moment, in which nobody else may try
            try:
                file = path.open("r")
            except FileNotFoundError:
                return False
            with file:
                return not _flock(file, wait=False)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no one else is inside, for what must not be done twice at once; be quick."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "gate").open("a") as gate:
            _flock(gate, wait=True)
            yield


class ServerLocks:
    """Hold names by advisory locks of PostgreSQL sessions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Hold a name while the block runs. Gives False, holding nothing, where somebody else has it."""
        from sqlalchemy import text

        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
            taken = session.execute(text("select pg_try_advisory_lock(:key)"), {"key": _key(name)}).scalar()
            yield bool(taken)  # the session's end is the lock's end

    def held(self, name: str) -> bool:
        """Tell whether a living session holds a name. Changes nothing, and disturbs nobody who tries."""
        from sqlalchemy import text

        key = _key(name) % 2**64
        found = text(
            "select count(*) from pg_locks where locktype = 'advisory' and granted and objsubid = 1 "
            "and database = (select oid from pg_database where datname = current_database()) "
            "and classid::bigint = :high and objid::bigint = :low"
        )
        with self.engine.connect() as session:
            return bool(session.execute(found, {"high": key >> 32, "low": key % 2**32}).scalar())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no one else is inside, for what must not be done twice at once; be quick."""
        from sqlalchemy import text

        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
            session.execute(text("select pg_advisory_lock(:key)"), {"key": _key("gate")})
            yield


def _flock(file: IO[str], *, wait: bool) -> bool:
    try:
        import fcntl
    except ImportError as error:
        raise JobError(
            "locks by file need POSIX, which this system is not",
            hint="keep the ledger in PostgreSQL: TITAN_LEDGER=postgresql://...",
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _file_name(name: str) -> str:
    # A name may be too long for a file, or differ from another one only by what a file name cannot hold.
    readable = re.sub(r"[^\w.@-]+", "-", name)[:80]
    return f"{readable}.{hashlib.sha256(name.encode()).hexdigest()[:12]}.lock"


def _key(name: str) -> int:
    digest = hashlib.sha256(f"titan_lab:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
