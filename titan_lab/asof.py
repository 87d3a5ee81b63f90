"""Point-in-time lookups: from a frame of (id, moment) to the row that held then.

Two searches, both over arrays that lie still: the id through a hash table of all ids, the moment by halving
the aggregate's own few rows. All labels go through each step together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from titan_lab.errors import SpineError, nearest
from titan_lab.event import as_text
from titan_lab.frames import as_frame
from titan_lab.marks import marks, nulls

BITS = np.uint64(64)


def spine_frame(spine: Any, on: str, by: str) -> pl.DataFrame:
    """Take any frame as the spine of a point-in-time join: `by` as text, `on` as Datetime(us, UTC).

    Raises SpineError for a missing column and for moments without a zone.
    """
    frame = as_frame(spine, "the spine", SpineError)
    for name, argument in ((on, "on"), (by, "by")):
        if name not in frame.columns:
            raise SpineError(
                f"the spine has no column {name!r}; it has {', '.join(frame.columns) or 'none'}",
                hint=nearest(name, frame.columns) or f"name the column with {argument}=",
                column=name,
            )
    dtype = frame.schema[on]
    if not (isinstance(dtype, pl.Datetime) and dtype.time_zone):
        naive = isinstance(dtype, pl.Datetime | pl.Date)
        mended = {
            pl.Datetime: "dt.replace_time_zone('UTC')",
            pl.Date: "cast(pl.Datetime('us', 'UTC'))",
            pl.String: "str.to_datetime(time_zone='UTC')",
        }.get(type(dtype), "cast(pl.Datetime('us')).dt.replace_time_zone('UTC')")
        raise SpineError(
            f"the spine's {on!r} is {'naive' if naive else 'no datetime'}: {dtype}",
            hint=f"frame.with_columns(pl.col({on!r}).{mended}) says which instants it holds",
            column=on,
        )
    return frame.with_columns(
        as_text(frame[by]), frame[on].dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    )


class IdIndex:
    """Find the number of each aggregate id: a hash table with open slots, built once for a timeline."""

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids
        self.hashes = ids.hash().to_numpy()
        # At most every second slot is taken, so most ids lie where they belong; even no ids need one.
        bits = max((2 * len(ids)).bit_length(), 1)
        self.shift = np.uint64(64 - bits)
        self.mask = (1 << bits) - 1
        self.slots = np.full(1 << bits, -1, dtype=np.int32)
        numbers = np.arange(len(ids), dtype=np.int32)
        slot = self._home(self.hashes)
        while len(numbers):
            free = self.slots[slot] < 0
            self.slots[slot[free]] = numbers[free]
            homeless = self.slots[slot] != numbers
            numbers, slot = numbers[homeless], (slot[homeless] + 1) & self.mask

    def find(self, wanted: pl.Series) -> np.ndarray:
        """Give each id's number, -1 for an id nobody has and for null."""
        hashes = wanted.hash().to_numpy()
        slot = self._home(hashes)
        found = self.slots.take(slot, mode="clip")  # faster than self.slots[slot]; all are within
        if not len(self.ids):
            return found
        missed = np.flatnonzero((self.hashes.take(found, mode="clip") != hashes) & (found >= 0))
        while len(missed):
            slot = (slot if len(slot) == len(missed) else slot[missed]) + 1 & self.mask
            number = self.slots[slot]
            found[missed] = number
            again = (number >= 0) & (self.hashes[number] != hashes[missed])
            missed, slot = missed[again], slot[again]
        return self._proven(wanted, found)

    def _home(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes >> self.shift).astype(np.int64)

    def _proven(self, wanted: pl.Series, found: np.ndarray) -> np.ndarray:
        # Two ids can share a hash; only the text itself is proof.
        if not len(self.ids):
            return found
        same = marks(self.ids.gather(np.maximum(found, 0)) == wanted)
        wrong = (found >= 0) & ~same
        if wrong.any():
            slow = {value: number for number, value in enumerate(self.ids)}
            found[wrong] = [slow.get(value, -1) for value in wanted.filter(wrong)]
        found[nulls(wanted)] = -1
        return found


def rows_at(stamps: np.ndarray, low: np.ndarray, high: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Give, for each label, the last row in [low, high) whose stamp is at or before its moment; -1 for none.

    stamps rise within each aggregate. All ranges are halved together; once the short lives are found out, the
    long ones go on alone.
    """
    if not len(low):
        return np.zeros(0, dtype=np.int64)
    first, found = low, low.copy()
    active: np.ndarray | slice = slice(None)
    while True:
        open_ = low < high
        if not open_.all():
            found[active] = low
            active = np.flatnonzero(open_) if isinstance(active, slice) else active[open_]
            low, high, moments = low[open_], high[open_], moments[open_]
            if not len(low):
                return np.where(found > first, found - 1, -1)
        middle = (low + high) >> 1
        within = stamps[middle] <= moments
        low, high = np.where(within, middle + 1, low), np.where(within, high, middle)
