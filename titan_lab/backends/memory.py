"""Events in memory: the specification that every other backend is measured against."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from titan_lab.backends.contract import Appended, Frontier, part_new
from titan_lab.event import EVENTS, moments
from titan_lab.scope import Scope


class MemoryStore:
    """Hold rows in one frame. `raw` rows may be anything; `append` adds only what was checked."""

    def __init__(
        self, raw: pl.DataFrame | None = None, url: str = "memory://", zone: str | None = None
    ) -> None:
        self.url = url
        self.zone = zone
        self.raw = EVENTS.to_frame() if raw is None else raw

    @classmethod
    def open(cls, address: str, writable: bool) -> MemoryStore:
        """Start empty: there is nothing to find in memory by a name."""
        return cls()

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Give the rows in slices. A scope is a filter that lets through what it cannot judge."""
        rows = (
            self.raw.with_row_index("row").with_columns(place=pl.struct(pl.lit("frame"), "row")).drop("row")
        )
        for part in rows.iter_slices(size):
            if scope.aggregates is not None:
                part = part.filter(pl.col("aggregate_id").cast(pl.String).is_in(list(scope.aggregates)))
            yield part

    def frontier(self) -> Frontier:
        """Know everything: nobody else can add to it."""
        stamps = self.raw["timestamp"] if "timestamp" in self.raw.columns else EVENTS.to_frame()["timestamp"]
        last = moments(stamps, self.zone).max()
        return Frontier(last, "all of it is in memory")  # type: ignore[arg-type]

    def append(self, events: pl.DataFrame) -> Appended:
        """Add what is new; refuse the whole frame if one event differs from what holds its place."""
        new, present = part_new(self.raw.select(list(EVENTS)), events)
        self.raw = pl.concat([self.raw.select(list(EVENTS)), new])
        return Appended(len(new), present)

    def close(self) -> None:
        """Keep the events: there is nothing to let go of."""
