"""A sync that is killed, wherever that is, loses nothing and doubles nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from titan_lab.backends.ddl import ddl, script
from titan_lab.backends.manifest import read_manifest
from titan_lab.connect import open_log
from titan_lab.errors import MirrorError
from titan_lab.event import EVENTS
from titan_lab.log import EventLog
from titan_lab.testing.readers import Row, row

pytestmark = pytest.mark.slow

ORDER = ["aggregate_id", "version", "path", "reason", "raw", "place"]

# Sync in parts of a few rows, and die after the k-th thing that was done to the disk.
SYNC = """
import os, signal, sys
from pathlib import Path
import polars as pl
from titan_lab.connect import open_log
from titan_lab.mirror import folder, tail, whole

url, path, last = sys.argv[1:]
left = int(last)
folder.FULL = whole.FULL = 4
folder.TIER, folder.LARGEST = 3, 16

def counted(owner, name):
    real = getattr(owner, name)
    def done(*args, **more):
        global left
        result = real(*args, **more)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, done)

counted(os, "fsync")
counted(Path, "replace")
counted(Path, "unlink")
counted(Path, "mkdir")
counted(pl.DataFrame, "write_parquet")
if "manifest first" in os.environ.get("PLANTED", ""):
    written = folder.Writer._write
    later = []
    def promised(self, rows, kind, name):
        # The part is named before it is there: its size and checksum are told from a file beside.
        part = written(self, rows, kind, name)
        file = self.folder.path / kind / name
        later.append((file, file.read_bytes()))
        os.remove(file)
        return part
    published = folder.Folder.publish
    def publish(self, manifest):
        published(self, manifest)
        for file, content in later:
            file.write_bytes(content)
        later.clear()
    folder.Writer._write, folder.Folder.publish = promised, publish

log = open_log(url)
log.reader.url = "sqlite:///orders.db"  # wherever a copy of it stands
log.mirror(path).sync()
"""


def at(second: int) -> str:
    return f"2025-01-01T10:00:{second:02d}.000000Z"


def first_rows() -> list[Row]:
    """Orders enough for several parts, and rows that are no events."""
    good = [row(f"order-{n:02d}", version, timestamp=at(version)) for n in range(9) for version in (1, 2)]
    return [*good, row("order-01", 3, payload="{"), row("order-07", 3, timestamp="soon")]


def more_rows() -> list[Row]:
    """What is new, what is late, and what is no event; then small parts are made one."""
    new = [row(f"order-{n:02d}", 4, timestamp=at(9 + n)) for n in range(6)]
    late = [row("order-08", 5, timestamp="2024-01-01T00:00:00.000000Z"), row("order-02", 6, timestamp=at(1))]
    return [*new, *late, row("order-03", 7, payload="[]", timestamp=at(30))]


class Place:
    """A folder with a store and its mirror; the store says the same of itself in every copy of the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mirror = path / "mirror"

    @property
    def log(self) -> EventLog:
        log = open_log(f"sqlite:///{self.path}/orders.db")
        log.reader.url = "sqlite:///orders.db"
        return log

    def run(self, statement: str, rows: list[Row]) -> None:
        with closing(sqlite3.connect(self.path / "orders.db")) as db, db:
            db.executemany(statement, rows)

    def make(self) -> None:
        """Make the store, with rows for several parts."""
        self.path.mkdir()
        with closing(sqlite3.connect(self.path / "orders.db")) as db:
            db.executescript(script(ddl("sqlite")))
        self.add(first_rows())

    def add(self, rows: list[Row]) -> None:
        names = ", ".join(EVENTS)
        self.run(
            f"INSERT INTO order_events ({names}) VALUES ({', '.join(f':{one}' for one in EVENTS)})", rows
        )

    def edit(self) -> None:
        """Change a row in place, as somebody would who took the guards away."""
        self.run("DROP TRIGGER order_events_no_update", [{}])
        self.run("UPDATE order_events SET payload = '{}' WHERE aggregate_id = 'order-08'", [{}])

    def killed_at(self, step: int, planted: str = "") -> bool:
        """Sync in a process of its own that dies at a step; tell whether it came that far."""
        command = [sys.executable, "-c", SYNC, f"sqlite:///{self.path}/orders.db", str(self.mirror)]
        done = subprocess.run(
            [*command, str(step)],
            env=os.environ | {"PLANTED": planted},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode != 0

    def readable(self, *states: pl.DataFrame) -> None:
        """Read the mirror as it was left: one of these states, and none before the first sync is done."""
        try:
            found = open_log(f"mirror://{self.mirror}").read()
        except MirrorError as error:
            found, said = EVENTS.to_frame(), error.message
            assert "is not done" in said or "there is no mirror" in said
        assert any(found.equals(state) for state in states)

    def whole(self) -> None:
        """Sync, and hold the mirror against the store; no file is left over, and nothing to put right."""
        mirror = self.log.mirror(self.mirror)
        mirror.sync()
        assert mirror.read().equals(self.log.read())
        assert mirror.rejected.sort(ORDER).equals(self.log.rejected.sort(ORDER))
        manifest = read_manifest(self.mirror)
        assert manifest is not None
        named = sorted(part.name for part in manifest.parts())
        assert sorted(file.name for file in self.mirror.rglob("*.parquet")) == named
        assert not mirror.sync().repaired


def killed_at_every_step(start: Place, *states: pl.DataFrame, planted: str = "") -> int:
    """Kill a sync after every step, each time from the same start; count the steps."""
    for step in count(1):
        copy = Place(start.path.parent / str(step))
        shutil.copytree(start.path, copy.path)
        if not copy.killed_at(step, planted):
            return step - 1
        copy.readable(*states)
        copy.whole()
        shutil.rmtree(copy.path)
    raise AssertionError("it never ends")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A store that was never synced."""
    made = Place(tmp_path / "start")
    made.make()
    return made


def grown(place: Place) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sync, and let the store go on; give what the mirror holds, and what it will."""
    assert not place.killed_at(0)
    before = place.log.read()
    place.add(more_rows())
    place.edit()
    return before, place.log.read()


def test_a_first_sync_killed_at_every_step_is_one_that_was_not_killed(place: Place) -> None:
    """It goes on with the range of ids that it had come to."""
    assert killed_at_every_step(place, EVENTS.to_frame(), place.log.read()) > 30


def test_a_sync_of_news_killed_at_every_step_is_one_that_was_not_killed(place: Place) -> None:
    """With what is new, late, edited and rejected in it, and parts that are made one."""
    assert killed_at_every_step(place, *grown(place)) > 15


def test_a_manifest_written_before_its_parts_would_be_noticed(place: Place) -> None:
    """Planted: killed in between, the mirror names a part that is not there."""
    states = grown(place)
    with pytest.raises(AssertionError):
        killed_at_every_step(place, *states, planted="manifest first")
