"""One sync while it runs: what is read of the store, what of the copy, and what was found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import polars as pl

from titan_lab.backends.contract import KEY
from titan_lab.backends.manifest import BAD, GOOD, REFUSED, Content, Manifest, Part, marked_now
from titan_lab.backends.mirror import MirrorStore, merged, read_parts, read_refused
from titan_lab.event import EVENTS, check, moments
from titan_lab.mirror.folder import Folder, Writer
from titan_lab.scope import Scope

SIZE = 250_000  # rows that are read at a time
AT_ONCE = 20_000  # aggregates that are compared at a time
TOLD = [name for name in REFUSED if name != "synced"]

Checked = tuple[pl.DataFrame, pl.DataFrame]
Progress = Callable[[int, int], None]
One = TypeVar("One")


class Copying:
    """A store, the folder of its copy, and what the manifest says by now."""

    def __init__(
        self,
        folder: Folder,
        store: MirrorStore,
        reader: Any,
        zone: str | None,
        manifest: Manifest,
        progress: Progress | None,
    ) -> None:
        self.folder = folder
        self.store = store
        self.reader = reader
        self.zone = zone
        self.manifest = manifest
        self.progress = progress
        self.now = datetime.now(UTC)
        self.whole = False
        self.read = self.total = self.written = 0
        self.found = dict.fromkeys(("added", "rejected", "late", "edited", "gone"), 0)
        self.begin()

    def begin(self) -> None:
        """Begin to write, without what was not published."""
        manifest = self.manifest
        self.writer = Writer(self.folder, manifest.next, manifest.syncs + 1)

    def marked(self) -> Content:
        """Ask the store for its frontier; to be done before its rows are read."""
        return marked_now(self.reader.frontier(), self.now)

    def frames(self, scope: Scope) -> Iterator[Checked]:
        """Read a scope of the store, checked, as EVENTS and REFUSED; of ids that were not asked for none."""
        return (checked for checked in self.ranges([scope]) if checked is not None)

    def ranges(self, scopes: Iterable[Scope]) -> Iterator[Checked | None]:
        """Read scopes, one after the other; None when one is read to its end."""

        def read() -> Iterator[tuple[Scope, pl.DataFrame | None]]:
            for scope in scopes:
                for raw in self.reader.frames(scope, SIZE):
                    yield scope, raw
                yield scope, None

        for scope, raw in ahead(read()):  # past the end of a scope as well, while that is written
            yield None if raw is None else self._checked(scope, raw)

    def _checked(self, scope: Scope, raw: pl.DataFrame) -> Checked:
        good, bad = check(raw, self.zone)
        self.read += len(raw)
        if self.progress is not None:
            self.progress(self.read, max(self.read, self.total))
        if scope.aggregates is not None or scope.ids != (None, None):
            bad = bad.filter(replace(scope, since=None).predicate().fill_null(False))
        stamps = moments(bad["raw"].str.json_path_match("$.timestamp"), self.zone).alias("timestamp")
        synced = pl.lit(self.writer.synced, pl.Int32).alias("synced")
        return good.filter(scope.predicate()), bad.with_columns(stamps, synced)

    def events(self, content: Content) -> list[Part]:
        """Give the parts of a content that hold events."""
        return self.store.sound(content.events, GOOD)

    def held(self, parts: list[Part], scope: Scope) -> pl.DataFrame:
        """Read the events of a scope in some parts of the copy."""
        return merged(read_parts(self.store.path, self.store.sound(parts, GOOD), scope)).select(list(EVENTS))

    def refused(self, content: Content) -> pl.DataFrame:
        """Read the rejected rows of a content."""
        return read_refused(self.store.path, self.store.sound(content.rejected, BAD))

    def flushed(self) -> list[Part]:
        """Give the parts that were written since this was last asked for, with all that waited."""
        self.writer.flush()
        parts, self.writer.parts = self.writer.parts, []
        self.written += len(parts)
        return parts

    def save(self, **changes: Any) -> None:
        """Let the manifest say something else from now on."""
        self.manifest = replace(self.manifest, **changes)
        self.folder.publish(self.manifest)

    def count(self, there: pl.DataFrame, new: pl.DataFrame, lost: pl.DataFrame) -> None:
        """Count what is new in some aggregates, and what of the copy the store has otherwise, or no more."""
        edited = lost.join(there, on=KEY, how="semi").height
        self.found["added"] += len(new) - edited
        self.found["edited"] += edited
        self.found["gone"] += len(lost) - edited


def difference(found: pl.DataFrame, held: pl.DataFrame, on: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give the rows that only the first of two frames has, and those that only the second has.

    A row that one has twice and the other once is in the difference once.
    """
    copy = pl.int_range(pl.len()).over(on).alias("copy")
    one, other = found.with_columns(copy), held.with_columns(copy)
    both = [*on, "copy"]
    return (
        one.join(other, on=both, how="anti", nulls_equal=True).drop("copy"),
        other.join(one, on=both, how="anti", nulls_equal=True).drop("copy"),
    )


def ahead(frames: Iterator[One]) -> Iterator[One]:
    """Take from an iterator in a thread, one ahead of whoever works on what it gives."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, frames, None)
        while (one := coming.result()) is not None:
            coming = pool.submit(next, frames, None)
            yield one
