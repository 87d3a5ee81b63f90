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

BITS = np.uint64(64)


def spine_frame(spine: Any, on: str, by: str) -> pl.DataFrame:
    """Take any frame as the spine of a point-in-time join: `by` as text, `on` as Datetime(us, UTC).

    Raises SpineError for a missing column and for moments without a zone.
    """
    if isinstance(spine, pl.LazyFrame):
        spine = spine.collect()
    try:
        frame = spine if isinstance(spine, pl.DataFrame) else pl.DataFrame(spine)
    except (TypeError, ValueError) as error:
        raise SpineError(f"the spine is a {type(spine).__name__}, no frame: {error}") from error
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
        raise SpineError(
            f"the spine's {on!r} is {'naive' if naive else 'no datetime'}: {dtype}",
            hint=f"frame.with_columns(pl.col({on!r}).dt.replace_time_zone('UTC')) says which zone it is in"
            if naive
            else f"frame.with_columns(pl.col({on!r}).str.to_datetime(time_zone='UTC')) reads text",
            column=on,
        )
    return frame.with_columns(as_text(frame[by]), frame[on].dt.cast_time_unit("us").dt.convert_time_zone("UTC"))


class IdIndex:
    """Find the number of each aggregate id; built once for a timeline."""

    def __init__(self, ids: pl.Series) -> None:
        self.ids = ids
        hashes = ids.hash().to_numpy()
        self.order = np.argsort(hashes).astype(np.int32)
        self.hashes = hashes[self.order]
        # One bucket per id on average: the leading bits of the hash say where to look.
        bits = max(len(ids), 1).bit_length()
        self.shift = BITS - np.uint64(bits)
        edges = np.arange(2**bits + 1, dtype=np.uint64)
        self.bucket = np.searchsorted(self.hashes >> self.shift, edges).astype(np.int32)

    def find(self, wanted: pl.Series) -> np.ndarray:
        """Give each id's number, -1 for an id nobody has and for null."""
        hashes = wanted.hash().to_numpy()
        home = (hashes >> self.shift).astype(np.int64)
        place, stop = self.bucket[home], self.bucket[home + 1]
        found = np.full(len(hashes), -1, dtype=np.int32)
        looking = np.flatnonzero(place < stop)
        place, stop, hashes = place[looking], stop[looking], hashes[looking]
        while len(looking):
            hit = self.hashes[place] == hashes
            found[looking[hit]] = self.order[place[hit]]
            place = place + np.int32(1)
            on = ~hit & (place < stop)
            looking, place, stop, hashes = looking[on], place[on], stop[on], hashes[on]
        return self._proven(wanted, found)

    def _proven(self, wanted: pl.Series, found: np.ndarray) -> np.ndarray:
        # Two ids can share a hash; only the text itself is proof.
        if not len(self.ids):
            return found
        same = (self.ids.gather(np.maximum(found, 0)) == wanted).fill_null(False).to_numpy()
        wrong = (found >= 0) & ~same
        if wrong.any():
            slow = {value: number for number, value in enumerate(self.ids)}
            found[wrong] = [slow.get(value, -1) for value in wanted.filter(wrong)]
        found[wanted.is_null().to_numpy()] = -1
        return found


def rows_at(stamps: np.ndarray, low: np.ndarray, high: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Give, for each label, the last row in [low, high) whose stamp is at or before its moment; -1 for none.

    stamps rise within each aggregate. Halves all ranges together; a range that is found out leaves the round.
    """
    first = low.copy()
    low, high = low.copy(), high.copy()
    active = np.arange(len(low))
    while len(active):
        span = low[active] < high[active]
        if not span.all():
            active = active[span]
            continue
        middle = (low[active] + high[active]) >> 1
        within = stamps[middle] <= moments[active]
        low[active] = np.where(within, middle + 1, low[active])
        high[active] = np.where(within, high[active], middle)
    return np.where(low > first, low - 1, -1)
