"""What the folder of a mirror holds: rows of a store, checked once, in parts that a manifest names.

    folder/mirror.json                 the manifest: of which store, up to when, which parts
    folder/events/000007.parquet       EVENTS, by (aggregate_id, version), and which sync brought each row
    folder/rejected/_000008.parquet    REJECTED, the instant that could be read of each row, and the same
    folder/lock, folder/readers        held by who syncs, and by those who read
    folder/kept/                       what was folded of it

A part counts from when the manifest names it, and is never written to again; the manifest is replaced in
one step.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from titan_lab.backends.contract import Frontier
from titan_lab.clock import EPOCH, MICROSECOND, from_micros, iso
from titan_lab.errors import MirrorError
from titan_lab.event import EVENTS, REJECTED, TIMESTAMP
from titan_lab.scope import Scope

LAYOUT = 1  # raise it when what is written changes
MANIFEST, LOCK, READERS, KEPT = "mirror.json", "lock", "readers", "kept"
GOOD, BAD = "events", "rejected"
SYNCED = pl.Schema({"synced": pl.Int32()})  # the number of the sync that brought a row
ROWS = pl.Schema(EVENTS | SYNCED)
REFUSED = pl.Schema(REJECTED | {"timestamp": TIMESTAMP} | SYNCED)
AT_ONCE = 2**23

Ends = tuple[str | None, str | None]  # ids from the first on, and before the second


@dataclass(frozen=True)
class Part:
    """One file of the copy. `first` and `last` are ids, `since` and `until` microseconds; all inclusive."""

    name: str
    rows: int
    size: int
    crc: int
    synced: int
    first: str | None = None
    last: str | None = None
    since: int = 0
    until: int = 0

    def may_hold(self, scope: Scope) -> bool:
        """Tell whether events of a scope can be in a part of events."""
        if scope.aggregates is not None:
            wanted = scope.aggregates
            return bool(wanted) and min(wanted) <= str(self.last) and max(wanted) >= str(self.first)
        start, end = scope.ids
        return not (
            (start is not None and str(self.last) < start)
            or (end is not None and str(self.first) >= end)
            or (scope.since is not None and self.until < (scope.since - EPOCH) // MICROSECOND)
            or (scope.until is not None and self.since > (scope.until - EPOCH) // MICROSECOND)
        )


@dataclass(frozen=True)
class Content:
    """What a copy holds, and the mark that it is complete before, as the store told it, in microseconds."""

    mark: int | None
    how: str
    live: bool
    at: str  # when it was told
    events: tuple[Part, ...] = ()
    rejected: tuple[Part, ...] = ()

    @property
    def frontier(self) -> Frontier:
        """Give the mark as the frontier of the copy."""
        how = f"as of the last sync at {self.at}, which was: {self.how}"
        return Frontier(None if self.mark is None else from_micros(self.mark), how, self.live)

    @classmethod
    def read(cls, told: dict[str, Any]) -> Content:
        """Take one from a manifest."""
        parts = {name: tuple(Part(**part) for part in told[name]) for name in (GOOD, BAD)}
        return cls(**told | parts)


@dataclass(frozen=True)
class Manifest:
    """What a folder says of itself.

    syncs: the number of the last sync that changed anything. edition: another one whenever rows were taken
    away. content: None until the first sync is done. filling: what a sync of everything has written so far,
    and the ranges of ids that it has yet to read.
    """

    source: str
    zone: str | None
    syncs: int = 0
    edition: int = 0
    next: int = 1  # the number of the next part
    content: Content | None = None
    filling: Content | None = None
    ranges: list[Ends] = field(default_factory=list)

    def parts(self) -> list[Part]:
        """List all parts that it names."""
        held = [one for one in (self.content, self.filling) if one is not None]
        return [part for one in held for part in (*one.events, *one.rejected)]

    def text(self) -> str:
        """Write it down."""
        return json.dumps({"layout": LAYOUT} | asdict(self), indent=1)


def read_manifest(path: Path) -> Manifest | None:
    """Read a folder's manifest; None where there is no folder, or an empty one.

    Raises MirrorError for a folder of something else, and for a manifest that is damaged, or too new.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if path.exists() and not _begun(path):
            raise MirrorError(
                f"{path} is there and is no mirror", hint="name a folder that is not there yet, or is empty"
            ) from None
        return None
    except OSError as error:
        raise MirrorError(
            f"{path / MANIFEST} cannot be read: {error.strerror or error}", hint="check the permissions"
        ) from error
    try:
        told = json.loads(text)
        layout = told.pop("layout")
        if layout > LAYOUT:
            raise MirrorError(
                f"{path} was written by a newer titan_lab (layout {layout}; this one knows {LAYOUT})",
                hint="update titan_lab, or mirror into another folder",
            )
        for name in ("content", "filling"):
            told[name] = told[name] and Content.read(told[name])
        return Manifest(**told | {"ranges": [tuple(ends) for ends in told["ranges"]]})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MirrorError(
            f"{path / MANIFEST} is damaged: {error}", hint="delete the folder, and sync again"
        ) from error


def _begun(path: Path) -> bool:
    """Tell whether a folder without a manifest is empty, or was begun by us, which its lock shows."""
    if not path.is_dir():
        return False
    names = {one.name for one in path.iterdir()}
    return not names or (LOCK in names and names <= {LOCK, READERS, f"{MANIFEST}.part", GOOD, BAD})


def marked_now(frontier: Frontier, now: Any) -> Content:
    """Take a store's frontier as the mark of a copy that holds nothing yet.

    A writer whose clock is ahead must not move the mark there: what honest clocks write would be behind it.
    """
    mark = frontier.instant if frontier.instant is None else min(frontier.instant, now)
    micros = None if mark is None else (mark - EPOCH) // MICROSECOND
    return Content(micros, frontier.how, frontier.live, iso(now.replace(microsecond=0)))


def sum_of(file: Path) -> tuple[int, int]:
    """Give a file's size and the checksum of its bytes."""
    size = crc = 0
    try:
        with file.open("rb") as opened:
            while some := opened.read(AT_ONCE):
                size, crc = size + len(some), zlib.crc32(some, crc)
    except OSError as error:
        raise MirrorError(
            f"{file} cannot be read: {error.strerror or error}",
            hint=f"bring it back, or delete {file.parent.parent} and sync again",
            part=file.name,
        ) from error
    return size, crc
