"""The folder of a mirror, as the one who syncs sees it: written so that a kill at any point harms nothing.

Parts are written and brought to the disk first, then the manifest that names them replaces the one before in
one step, and only then goes what no manifest names. Whoever is killed leaves files without a name behind,
and the next sync takes them away.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from titan_lab.backends.manifest import (
    BAD,
    GOOD,
    LOCK,
    MANIFEST,
    READERS,
    REFUSED,
    ROWS,
    Manifest,
    Part,
    read_manifest,
    sum_of,
)
from titan_lab.backends.mirror import MirrorStore, fcntl, merged
from titan_lab.errors import MirrorError
from titan_lab.event import in_order
from titan_lab.scope import Scope

FULL = 500_000  # rows of a part, unless it was made of smaller ones
GROUP = 100_000  # rows that a reader can pass over
TIER = 8  # so many parts of about one size become one
LARGEST = 2**17  # rows up to which a part is made one with others


OURS = re.compile(r"_?\d{6,}\.parquet")  # names that a part may have


class Folder:
    """Write the parts and the manifest of one mirror. To be used by one process at a time, see ``alone``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for syncing. Raises MirrorError, which names the holder, where another does."""
        with told_as_mirror_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("a+")  # first, for it shows that what follows is ours
            for folder in (self.path / GOOD, self.path / BAD):
                folder.mkdir(exist_ok=True)
            (self.path / READERS).touch()
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(
                        lock, fcntl.LOCK_EX | fcntl.LOCK_NB
                    )  # goes with its process, whatever ends that
                except BlockingIOError:
                    lock.seek(0)
                    raise MirrorError(
                        f"{self.path} is being synced by {lock.read() or 'another process'}",
                        hint="wait for it; what was synced before can be read meanwhile",
                    ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}")
            lock.flush()
            yield

    def publish(self, manifest: Manifest) -> None:
        """Let a manifest count from now on, in one step."""
        part = self.path / f"{MANIFEST}.part"
        with told_as_mirror_errors(self.path):
            with part.open("w", encoding="utf-8") as out:
                out.write(manifest.text())
                out.flush()
                os.fsync(out.fileno())
            part.replace(self.path / MANIFEST)
            _to_disk(self.path)

    def sweep(self) -> None:
        """Take away the parts that no manifest names; what somebody reads just now goes the next time."""
        with told_as_mirror_errors(self.path), (self.path / READERS).open("rb") as readers:
            if fcntl is not None:
                try:
                    fcntl.flock(readers, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
            manifest = read_manifest(self.path)
            named = {part.name for part in manifest.parts()} if manifest else set()
            for kind in (GOOD, BAD):
                for file in (self.path / kind).glob("*.parquet"):
                    if OURS.fullmatch(file.name) and file.name not in named:
                        file.unlink()


class Writer:
    """Collect rows, and write them into new parts of a folder."""

    def __init__(self, folder: Folder, number: int, synced: int) -> None:
        self.folder = folder
        self.next = number
        self.synced = synced
        self.parts: list[Part] = []
        self.rows = 0
        self._waiting: list[pl.DataFrame] = []
        self._count = 0

    def add(self, events: pl.DataFrame) -> None:
        """Take EVENTS; a part is written when there are enough."""
        self.rows += len(events)
        self._waiting.append(events)
        self._count += len(events)
        if self._count >= FULL:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one part, sorted."""
        if self._count:
            events = in_order(pl.concat(self._waiting)).events
            self._waiting, self._count = [], 0
            self.parts.append(self.good(events.with_columns(synced=pl.lit(self.synced, pl.Int32))))

    def good(self, rows: pl.DataFrame) -> Part:
        """Write rows of ROWS, which are sorted, as a part."""
        ids, stamps = rows["aggregate_id"], rows["timestamp"].to_physical()
        part = self._write(rows.select(list(ROWS)), GOOD, f"{self.next:06d}.parquet")
        ends = {"first": ids[0], "last": ids[-1], "since": stamps.min(), "until": stamps.max()}
        return replace(part, **ends)

    def refused(self, rows: pl.DataFrame) -> tuple[Part, ...]:
        """Write rows of REFUSED as a part; none where there are none."""
        if rows.is_empty():
            return ()
        # A folder of Parquet files passes over names that begin so, and reads the events.
        return (self._write(rows.select(list(REFUSED)), BAD, f"_{self.next:06d}.parquet"),)

    def _write(self, rows: pl.DataFrame, kind: str, name: str) -> Part:
        self.next += 1
        file = self.folder.path / kind / name
        with told_as_mirror_errors(self.folder.path):
            try:
                rows.write_parquet(file, compression="zstd", compression_level=1, row_group_size=GROUP)
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            except (OSError, pl.exceptions.PolarsError):
                file.unlink(missing_ok=True)
                raise
            _to_disk(file.parent)
        size, crc = sum_of(file)
        return Part(name, len(rows), size, crc, int(rows["synced"].max() or 0))  # type: ignore[arg-type]


def compacted(writer: Writer, store: MirrorStore, parts: list[Part]) -> list[Part]:
    """Make one part of many small ones of about a size, and so on: in all, a row is written few times."""
    while True:
        tiers: dict[int, list[Part]] = {}
        for part in parts:
            if part.rows < LARGEST:
                tiers.setdefault(len(f"{part.rows:o}"), []).append(part)
        full = next((tier for _, tier in sorted(tiers.items()) if len(tier) >= TIER), None)
        if full is None:
            return parts
        rows = merged(
            [pl.read_parquet(store.path / GOOD / part.name, glob=False) for part in store.sound(full, GOOD)]
        )
        ordered = in_order(rows).events
        parts = [part for part in parts if part not in full] + [writer.good(ordered)]


def without(writer: Writer, store: MirrorStore, parts: list[Part], ids: pl.Series) -> list[Part]:
    """Write the parts that hold some aggregates anew, without these."""
    left, some = [], Scope(aggregates=tuple(ids))
    for part in store.sound(parts, GOOD):
        if not part.may_hold(some):
            left.append(part)
            continue
        rows = pl.read_parquet(store.path / GOOD / part.name, glob=False)
        others = rows.filter(~pl.col("aggregate_id").is_in(ids.implode()))
        if len(others) == len(rows):
            left.append(part)
        elif len(others):
            left.append(writer.good(others))
    return left


@contextmanager
def told_as_mirror_errors(path: Path) -> Iterator[None]:
    """Let what the file system refuses be a MirrorError."""
    try:
        yield
    except MirrorError:
        raise
    except (OSError, pl.exceptions.PolarsError) as error:
        raise MirrorError(
            f"the mirror cannot be kept in {path}: {getattr(error, 'strerror', None) or error}",
            hint="check the folder's permissions and the room on its disk; what was there is unharmed",
        ) from error


def _to_disk(folder: Path) -> None:
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
