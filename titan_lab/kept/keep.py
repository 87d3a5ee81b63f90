"""A folded history kept in a folder: written once, mapped into memory whenever it is opened again.

    folder/kept            what is kept: of which declaration, from which source; replaced in one step
    folder/data-1f3a.../   the columns of the history and of its tracks, see disk.py
    folder/lock            held by whoever writes; the others wait, and then find it done

The pieces of a history come in order of aggregate_id and are put end to end, row numbers and all, so that
what is opened is one Book, however large, and every verb reads it as it reads one that was folded in memory.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from titan_lab import tracks
from titan_lab.book import Book
from titan_lab.errors import KeepError
from titan_lab.event import REJECTED
from titan_lab.fold import Aggregate
from titan_lab.kept.disk import Files, Writer, told_as_keep_errors
from titan_lab.lists import Lists
from titan_lab.parallel import spans
from titan_lab.rows import Rows
from titan_lab.timeline import Timeline
from titan_lab.tracks import Seen, Track
from titan_lab.typed import Part, Typed

try:
    import fcntl
except ImportError:  # no such lock on Windows: there two may write at once, and the later one counts
    fcntl = None  # type: ignore[assignment]

FORMAT = 2  # raise it when what is written changes
MANIFEST, LOCK, DATA = "kept", "lock", "data-"
OURS = re.compile(f"{MANIFEST}(\\.part)?|{LOCK}|{DATA}[0-9a-f]{{12}}")  # all that may ever be taken away
NOTHING = np.uint32(2**32 - 1)  # "none seen yet", until it is known how many there are in all
AT_ONCE = 2**22

Told = dict[str, Any]


class Keeper:
    """Write a folded history into a folder, piece after piece."""

    def __init__(self, folder: Path) -> None:
        self.writer = Writer(folder)
        self.rows = self.aggregates = 0
        self.kinds: list[tuple[list[str], np.ndarray]] = []
        self.tails: dict[str, pl.Series] = {}
        self.told: Told = {"parts": {}, "tracks": {}, "seen": {}}

    def add(self, book: Timeline) -> None:
        """Write the next piece; all its aggregates come after those that were written."""
        typed, rows, write = book.typed, book.rows, self.writer
        counted = rows.counted("prefix")
        if counted is not typed.timestamp and "counted" not in write.layout["arrays"] and self.rows:
            write.fork("timestamp", "counted")
        if counted is not typed.timestamp or "counted" in write.layout["arrays"]:
            write.array("counted", counted)
        first, last = rows.ends_of(counted)
        for name, values in {
            "starts": typed.starts + self.rows,
            "version": typed.version,
            "timestamp": typed.timestamp,
            "last": rows.last.astype(np.int64) + self.rows,
            "followed": rows.followed,
            "owners": rows.owners + np.int32(self.aggregates),
            "stepping_back": rows.stepping_back,
            "first_stamp": first,
            "last_stamp": last,
        }.items():
            write.array(name, values)
        write.column("ids", typed.ids)
        write.column("metadata", typed.metadata)
        for part in typed.parts:
            key = f"part {part.event_type} {part.schema_version}"
            self.told["parts"][key] = [
                part.event_type,
                part.schema_version,
                part.fields.columns,
                [*part.filled],
            ]
            write.array(key, part.rows.astype(np.int64) + self.rows)
            for field in part.fields:
                write.column(f"{key} {field.name}", field)
            for step, wrote in part.filled.items():
                write.array(f"{key} filled {step}", wrote)
        for names in self._sharing(book.tracks):
            self._seen(names[0], book.tracks[names[0]])
        for name, track in book.tracks.items():
            self._track(name, track)
        self.kinds.append((typed.kinds, typed.kind))
        self.rows += len(typed)
        self.aggregates += len(typed.ids)

    def close(self) -> Told:
        """Write what is only known at the end, and tell how to read it all."""
        kinds = sorted({name for names, _ in self.kinds for name in names})
        smallest = np.min_scalar_type(len(kinds))
        for names, codes in self.kinds:
            places = np.array([kinds.index(name) for name in names], dtype=smallest)
            self.writer.array("kind", places[codes])
        for name, tail in self.tails.items():
            self.writer.column(f"{name}.values", tail)
        for name, told in self.told["seen"].items():
            if not told["from_start"]:
                self._number_nothing(self.writer.layout["arrays"][f"{name}.latest"][0], told["values"])
        return self.told | {
            "data": self.writer.folder.name,
            "kinds": kinds,
            "layout": self.writer.close(),
        }

    def frame(self, name: str, values: pl.DataFrame) -> None:
        """Write a frame beside the history."""
        for column in values:
            self.writer.column(f"{name}.{column.name}", column)

    def _sharing(self, made: Mapping[str, Track]) -> list[list[str]]:
        """List the columns that share what they have seen, in this piece and in all before."""
        listening = {name: track for name, track in made.items() if not isinstance(track, tracks.Key)}
        groups: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for name, track in listening.items():
            before = self.told["tracks"].get(name, {}).get("seen", "")
            groups[before, id(track.seen)].append(name)
        for (before, _), names in groups.items():
            if before and names[0] != before:  # until here they went together
                self.told["seen"][names[0]] = dict(self.told["seen"][before])
                for part in ("rows", "latest", "first"):
                    self.writer.fork(f"{before}.{part}", f"{names[0]}.{part}")
            for name in names:
                self.told["tracks"].setdefault(name, {})["seen"] = names[0]
        return list(groups.values())

    def _seen(self, name: str, track: Track) -> None:
        told = self.told["seen"].setdefault(name, {"values": 0, "from_start": True})
        latest, first, from_start = track.seen
        base, count = np.uint32(told["values"]), len(track.rows)
        moved = latest + base
        if not from_start:
            moved[latest == count] = NOTHING
        self.writer.array(f"{name}.rows", track.rows.astype(np.int64) + self.rows)
        self.writer.array(f"{name}.latest", moved)
        self.writer.array(f"{name}.first", first + base)
        told["values"] += count
        told["from_start"] &= from_start

    def _track(self, name: str, track: Track) -> None:
        told = self.told["tracks"].setdefault(name, {})
        told["class"] = type(track).__name__
        if isinstance(track, tracks.Key):
            return
        count, values = len(track.rows), track.values
        body, self.tails[name] = values.head(count), values.slice(count)
        if track.order is not None:
            body = Lists(values, track.order).gather(np.arange(count))
        self.writer.column(f"{name}.values", body)
        if isinstance(track, tracks.States):
            told["names"] = track.names
            self.writer.array(f"{name}.codes", track._codes)
        if isinstance(track, tracks.Stepped):
            self.writer.array(f"{name}.setters", np.where(track.setters < 0, -1, track.setters + self.rows))

    def _number_nothing(self, file: str, number: int) -> None:
        place = self.writer.folder / file
        with told_as_keep_errors(self.writer.folder), place.open("r+b") as opened:
            for piece in spans(self.rows, AT_ONCE):
                opened.seek(4 * piece.start)
                latest = np.frombuffer(opened.read(4 * (piece.stop - piece.start)), np.uint32)
                opened.seek(4 * piece.start)
                opened.write(np.where(latest == NOTHING, np.uint32(number), latest).tobytes())


class Kept:
    """A folded history as it lies in a folder."""

    def __init__(self, folder: Path, told: Told) -> None:
        self.told = told
        self.files = Files(folder / told["data"], told["layout"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and self.told == other.told

    __hash__ = None  # type: ignore[assignment]

    def book(self, aggregate: type[Aggregate], **more: Any) -> Book:
        """Open it: nothing is computed, and only what is looked at is read."""
        files = self.files
        typed = Typed(
            ids=files.column("ids"),
            starts=files.array("starts"),
            version=files.array("version"),
            timestamp=files.array("timestamp"),
            kind=files.array("kind"),
            kinds=self.told["kinds"],
            metadata=files.column("metadata"),
            parts=[self._part(key, *told) for key, told in self.told["parts"].items()],
        )
        rows = Rows.kept(
            typed,
            files.array("counted") if files.has("counted") else typed.timestamp,
            (files.array("first_stamp"), files.array("last_stamp")),
            **{name: files.array(name) for name in ("last", "followed", "owners", "stepping_back")},
        )
        seen = {
            name: Seen(files.array(f"{name}.latest"), files.array(f"{name}.first"), told["from_start"])
            for name, told in self.told["seen"].items()
        }
        made = {
            name: self._track(name, typed, seen, reducer.dtype)
            for name, reducer in aggregate.reducers.items()
        }
        rejected = pl.concat([self.frame("unread", REJECTED), self.frame("misfits", REJECTED)])
        return Book(aggregate, typed, rejected=rejected, made=(rows, made), **more)

    def frame(self, name: str, schema: pl.Schema) -> pl.DataFrame:
        """Open a frame that was written beside the history."""
        return pl.DataFrame([self.files.column(f"{name}.{column}").alias(column) for column in schema])

    def _part(self, key: str, event_type: str, version: int, fields: list[str], steps: list[str]) -> Part:
        rows = self.files.array(key)
        columns = [self.files.column(f"{key} {field}").alias(field) for field in fields]
        frame = pl.DataFrame(columns) if columns else pl.DataFrame(height=len(rows))
        filled = {step: self.files.array(f"{key} filled {step}") for step in steps}
        return Part(event_type, rows, frame, version, filled)

    def _track(self, name: str, typed: Typed, seen: dict[str, Seen], dtype: pl.DataType) -> Track:
        told = self.told["tracks"][name]
        made: type[Track] = getattr(tracks, told["class"])
        if made is tracks.Key:
            return made.kept(typed, dtype=dtype)
        files, group = self.files, told["seen"]
        more: Told = {}
        if "names" in told:
            more = {"names": told["names"], "_codes": files.array(f"{name}.codes")}
        if made is tracks.Stepped:
            more = {"_setters": files.array(f"{name}.setters")}
        return made.kept(
            typed,
            dtype=dtype,
            rows=files.array(f"{group}.rows"),
            seen=seen[group],
            values=files.column(f"{name}.values", dtype),
            **more,
        )


def find(path: Path) -> tuple[Kept | None, str]:
    """Find what is kept in a folder; where nothing is or can be used, say why in half a sentence.

    Raises KeepError where something else stands there.
    """
    with told_as_keep_errors(path):
        if not path.exists():
            return None, ""
        theirs = not path.is_dir() or not all(OURS.fullmatch(one.name) for one in path.iterdir())
    if theirs:
        raise KeepError(
            f"{path} is there and is no kept history", hint="name a folder that is not there yet, or is empty"
        )
    try:
        text = (path / MANIFEST).read_bytes()
        kind, _, body = text.partition(b"\n")
        if kind != _kind(body):
            return None, f"{MANIFEST} is damaged, or was written by another edition of titan_lab"
        kept = Kept(path, json.loads(body))
        broken = kept.files.open()
        if broken and (path / MANIFEST).read_bytes() != text:
            return find(path)  # another process has replaced it in between
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{MANIFEST} cannot be read ({error.strerror})"
    return (None, f"it is damaged: {broken}") if broken else (kept, "")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a folder for writing; wait while another does. Raises KeepError where it cannot be written."""
    with told_as_keep_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("w")
    with lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(path: Path, kept: str | None) -> None:
    """Take away what was kept before, and what a killed process left half written."""
    for other in path.glob(f"{DATA}*"):
        if OURS.fullmatch(other.name) and other.name != kept:
            shutil.rmtree(other, ignore_errors=True)


@contextmanager
def fresh(path: Path) -> Iterator[Keeper]:
    """Give a Keeper that writes beside what is kept; take its folder away again if that fails."""
    kept, _ = find(path)
    _sweep(path, kept.told["data"] if kept else None)
    folder = path / f"{DATA}{uuid.uuid4().hex[:12]}"
    with told_as_keep_errors(path):
        folder.mkdir()
    try:
        yield Keeper(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def publish(path: Path, told: Told) -> None:
    """Let what was written count from now on, in one step, and take away what counted before."""
    part = path / f"{MANIFEST}.part"
    try:
        with told_as_keep_errors(path):
            body = json.dumps(told).encode()
            part.write_bytes(_kind(body) + b"\n" + body)
            part.replace(path / MANIFEST)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sweep(path, told["data"])


def _kind(body: bytes) -> bytes:
    """Write the first line of a manifest: what it is, and a sum over what it says."""
    return f"titan_lab kept history {FORMAT} {zlib.crc32(body):08x}".encode()
