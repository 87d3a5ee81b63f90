"""Read the copy in a mirror's folder; `manifest` tells how it lies there, ``titan_lab.mirror`` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from titan_lab.backends.contract import KEY, Frontier, heads, summed
from titan_lab.backends.manifest import (
    BAD,
    GOOD,
    READERS,
    REFUSED,
    ROWS,
    Content,
    Part,
    read_manifest,
    sum_of,
)
from titan_lab.clock import EPOCH, MICROSECOND
from titan_lab.errors import MirrorError, ReadOnly
from titan_lab.event import EVENTS, REJECTED
from titan_lab.scope import EVERYTHING, Scope

try:
    import fcntl
except ImportError:  # no such lock on Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]


class MirrorStore:
    """Read the copy in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"mirror://{path}"
        self._sound: set[tuple[str, int]] = set()

    @classmethod
    def open(cls, address: str, writable: bool) -> MirrorStore:
        """Open ``mirror://relative/path`` or ``mirror:///absolute/path``, which was synced before."""
        if not address:
            raise MirrorError("the URL names no folder", hint="write mirror://path/to/folder")
        if writable:
            raise ReadOnly(f"mirror://{address} is a copy", hint="append to its store, and sync")
        store = cls(Path(address))
        store.content()
        return store

    @property
    def zone(self) -> str | None:
        """Give the zone in which the rows were read that had none."""
        manifest = read_manifest(self.path)
        return None if manifest is None else manifest.zone

    # ------------------------------------------------------------------ reading

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Give what ``checked`` gives, the good rows first, and the rejected ones as text."""
        events, rejected = self.checked(scope)
        yield from events.iter_slices(size)
        texts = [pl.col("raw").str.json_path_match(f"$.{name}").alias(name) for name in EVENTS]
        yield from rejected.select(*texts, "place").iter_slices(size)

    def checked(self, scope: Scope) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Read events and REJECTED rows as they were checked when they came; the events by (id, version)."""
        with self.reading() as content:
            parts = self.sound(content.events, GOOD)
            events = merged(read_parts(self.path, parts, scope)).select(list(EVENTS))
            rejected = read_refused(self.path, self.sound(content.rejected, BAD)).select(list(REJECTED))
        if scope.aggregates is not None:
            rejected = rejected.filter(pl.col("aggregate_id").is_in(list(scope.aggregates)))
        return events, rejected

    def frontier(self) -> Frontier:
        """Tell the mark of the last sync."""
        return self.content().frontier

    def tally(self, before: Any) -> int:
        """Count the rows stamped before an instant, exclusive; those that were rejected, too."""
        with self.reading() as content:
            rejected = read_refused(self.path, self.sound(content.rejected, BAD))
            good = count_before(self.path, self.sound(content.events, GOOD), before)
        return good + rejected.filter(pl.col("timestamp") < before).height

    def heads(self) -> pl.DataFrame:
        """Give each aggregate's number of rows and its highest version."""
        with self.reading() as content:
            rejected = read_refused(self.path, self.sound(content.rejected, BAD))
            return heads_of(self.path, self.sound(content.events, GOOD), rejected)

    def facts(self) -> dict[str, list[int]]:
        """Tell the number of the last sync that changed anything."""
        manifest = read_manifest(self.path)
        return {} if manifest is None else {"syncs": [manifest.edition, manifest.syncs]}

    def ids_since(self, facts: dict[str, list[int]]) -> pl.Series | None:
        """List the ids that got rows since; None where rows were taken away, or one has no id."""
        (edition, syncs), manifest = facts.get("syncs", (-1, 0)), read_manifest(self.path)
        if manifest is None or manifest.edition != edition:
            return None
        with self.reading() as content:
            found = [read_refused(self.path, self.sound(content.rejected, BAD)).lazy()]
            found += [
                pl.scan_parquet(self.path / GOOD / part.name, glob=False)
                for part in self.sound(content.events, GOOD)
                if part.synced > syncs
            ]
            new = [rows.filter(pl.col("synced") > syncs).select("aggregate_id") for rows in found]
            ids = pl.concat(new).unique().collect().to_series()
        return None if ids.null_count() else ids

    def sample(self, most: int) -> tuple[pl.Series, int]:
        """Give about so many ids, evenly, and the number of all events."""
        with self.reading() as content:
            events = sum(part.rows for part in content.events)
            step = max(events // most, 1)
            ids = [pl.Series("aggregate_id", [], pl.String)]
            for part in self.sound(content.events, GOOD):
                rows = pl.scan_parquet(self.path / GOOD / part.name, glob=False).select("aggregate_id")
                ids.append(rows.gather_every(step).collect(engine="streaming").to_series())
        return pl.concat(ids), events

    def close(self) -> None:
        """Do nothing: no file is held open."""

    # ------------------------------------------------------------------ the folder

    def content(self) -> Content:
        """Give what the manifest names. Raises MirrorError before the first sync is done."""
        manifest = read_manifest(self.path)
        if manifest is None:
            raise MirrorError(
                f"there is no mirror in {self.path}", hint=f"titan sync URL {self.path} makes one"
            )
        if manifest.content is None:
            raise MirrorError(
                f"the first sync of {self.path} is not done: {len(manifest.ranges)} ranges of ids are left",
                hint=f"wait for it, or sync again: titan sync {manifest.source} {self.path}",
            )
        return manifest.content

    @contextmanager
    def reading(self) -> Iterator[Content]:
        """Keep the parts that the manifest names from being removed while they are read."""
        try:
            lock = (self.path / READERS).open("rb")
        except OSError:  # a copy of a copy, without its locks; nobody syncs there
            yield self.content()
            return
        with lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield self.content()  # read under the lock, so that its parts are there

    def sound(self, parts: Sequence[Part], kind: str) -> list[Part]:
        """Give parts whose bytes are those that were written; looked at once. Raises MirrorError."""
        for part in parts:
            if (part.name, part.crc) in self._sound:
                continue
            file = self.path / kind / part.name
            size, crc = sum_of(file)
            if (size, crc) != (part.size, part.crc):
                what = f"{size:,} bytes of {part.size:,}" if size != part.size else "other bytes than written"
                raise MirrorError(
                    f"{file} is damaged: it has {what}",
                    hint=f"delete {self.path}, and sync again",
                    part=part.name,
                )
            self._sound.add((part.name, part.crc))
        return list(parts)


# ---------------------------------------------------------------------- parts


def read_parts(path: Path, parts: Sequence[Part], scope: Scope = EVERYTHING) -> list[pl.DataFrame]:
    """Read the rows of a scope, part by part."""
    found = []
    for part in parts:
        if part.may_hold(scope):
            rows = pl.scan_parquet(path / GOOD / part.name, glob=False)
            found.append((rows.filter(scope.predicate()) if scope else rows).collect())
    return found


def read_refused(path: Path, parts: Sequence[Part]) -> pl.DataFrame:
    """Read all rejected rows."""
    return pl.concat(
        [REFUSED.to_frame(), *(pl.read_parquet(path / BAD / part.name, glob=False) for part in parts)]
    )


def merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Put frames that are sorted each in one order; the largest that do not overlap are not sorted again."""
    frames = sorted((one for one in frames if len(one)), key=len, reverse=True)
    base, rest = list[pl.DataFrame](), list[pl.DataFrame]()
    for one in frames:
        apart = all(_ends(one)[0] > _ends(other)[1] or _ends(one)[1] < _ends(other)[0] for other in base)
        (base if apart else rest).append(one)
    base.sort(key=_ends)
    whole = pl.concat([ROWS.to_frame(), *base])
    if not rest:
        return whole
    some = pl.concat(rest)
    if len(some) > len(whole) // 4:
        return pl.concat([whole, some]).sort(KEY, maintain_order=True)
    some = some.sort(KEY, maintain_order=True)
    # Behind what is there of the same aggregate, where later events belong; what does not is sorted later.
    places = whole["aggregate_id"].search_sorted(some["aggregate_id"], side="right").to_numpy()
    order = np.insert(np.arange(len(whole)), places.astype(np.int64), len(whole) + np.arange(len(some)))
    return pl.concat([whole, some], rechunk=True)[order]


def _ends(frame: pl.DataFrame) -> tuple[str, str]:
    ids = frame["aggregate_id"]
    return ids[0], ids[-1]


def count_before(path: Path, parts: Sequence[Part], before: Any) -> int:
    """Count the events that are stamped before an instant; only parts that straddle it are read."""
    limit, count = (before - EPOCH) // MICROSECOND, 0
    for part in parts:
        if part.until < limit:
            count += part.rows
        elif part.since < limit:
            early = pl.scan_parquet(path / GOOD / part.name, glob=False).filter(pl.col("timestamp") < before)
            count += early.select(pl.len()).collect().item()
    return count


def heads_of(
    path: Path, parts: Sequence[Part], rejected: pl.DataFrame, ids: pl.Series | None = None
) -> pl.DataFrame:
    """Give each aggregate's number of rows, rejected ones too, and its highest version; of all or some."""
    found = [rejected.lazy(), *(pl.scan_parquet(path / GOOD / part.name, glob=False) for part in parts)]
    if ids is not None:
        wanted = ids.to_frame("aggregate_id").lazy()
        found = [rows.join(wanted, on="aggregate_id", how="semi", nulls_equal=True) for rows in found]
    return summed([heads(rows) for rows in found])
