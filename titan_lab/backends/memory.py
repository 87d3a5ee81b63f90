"""Events in memory: the specification that every other backend is measured against."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from threading import Lock

import polars as pl

from titan_lab.backends.contract import (
    SNAPSHOTS,
    Appended,
    Frontier,
    extension,
    heads,
    numbered,
    part_new,
    summed,
    versions_of,
)
from titan_lab.event import EVENTS, moments
from titan_lab.scope import Scope


class MemoryStore:
    """Hold the rows it was made of, which may be anything, and the events appended, which were checked."""

    def __init__(
        self, raw: pl.DataFrame | None = None, url: str = "memory://", zone: str | None = None
    ) -> None:
        self.url = url
        self.zone = zone
        self.raw = EVENTS.to_frame() if raw is None else raw
        self.added = EVENTS.to_frame()
        self._writing = Lock()
        self.saved: dict[str, tuple[int, str]] = {}

    @classmethod
    def open(cls, address: str, writable: bool) -> MemoryStore:
        """Start empty: there is nothing to find in memory by a name."""
        return cls()

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Give the rows in slices. A scope is a filter that lets through what it cannot judge."""
        for name, rows in (("frame", self.raw), ("appended", self.added)):
            rows = rows.with_row_index("row").with_columns(place=pl.struct(pl.lit(name), "row")).drop("row")
            for part in rows.iter_slices(size):
                if scope.aggregates is not None:
                    part = part.filter(pl.col("aggregate_id").cast(pl.String).is_in(list(scope.aggregates)))
                yield part

    def frontier(self) -> Frontier:
        """Know everything: nobody else can add to it."""
        told = [self.added["timestamp"]]
        if "timestamp" in self.raw.columns:
            told.append(moments(self.raw["timestamp"], self.zone))
        return Frontier(pl.concat(told).max(), "all of it is in memory")  # type: ignore[arg-type]

    def tally(self, before: datetime) -> int:
        """Count the rows whose timestamp is before an instant."""
        told = [self.added["timestamp"]]
        if "timestamp" in self.raw.columns:
            told.append(moments(self.raw["timestamp"], self.zone))
        return int((pl.concat(told) < before).sum())

    def heads(self) -> pl.DataFrame:
        """Give each aggregate's number of rows and its highest version, as HEADS."""
        keys = [numbered(rows) for rows in (self.raw, self.added) if "aggregate_id" in rows.columns]
        return summed([heads(rows.lazy()) for rows in keys])

    def append(self, events: pl.DataFrame) -> Appended:
        """Add what is new; refuse the whole frame if one event differs from what holds its place."""
        with self._writing:
            new, there = part_new(self.added, events)
            new, before = part_new(self.raw, new, self.zone)
            self.added = pl.concat([self.added, new])
        return Appended(len(new), there + before)

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        """Add events behind a version, one writer after the other."""
        with self._writing:
            stored = pl.concat([versions_of(rows, aggregate_id) for rows in (self.raw, self.added)])
            new = extension(aggregate_id, stored, events, expected_version)
            if isinstance(new, Appended):
                return new
            self.added = pl.concat([self.added, new])
        return Appended(len(new), 0, expected_version + len(new))

    def snapshots(self) -> pl.DataFrame:
        """Give the saved states."""
        rows = [(name, *saved) for name, saved in self.saved.items()]
        return pl.DataFrame(rows, SNAPSHOTS, orient="row")

    def snapshot(self, aggregate_id: str) -> tuple[int, str] | None:
        """Look one up."""
        return self.saved.get(aggregate_id)

    def save_snapshots(self, states: pl.DataFrame) -> None:
        """Keep them, but for those that are older than what is there."""
        for name, version, state in states.select(list(SNAPSHOTS)).iter_rows():
            if version >= self.saved.get(name, (0, ""))[0]:
                self.saved[name] = (version, state)

    def close(self) -> None:
        """Keep the events: there is nothing to let go of."""
