"""Which row of a history held when: the searches that every question begins with."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

from titan_lab.asof import IdIndex, rows_at
from titan_lab.clock import Cut, counted_from, stepping_back
from titan_lab.parallel import each, joined, spans
from titan_lab.typed import Typed

PIECE = 131_072  # rows or labels worked on at a time: what is noted about them stays in the processor's cache


class Rows:
    """The rows of a history, sorted by (aggregate, version), as moments see them."""

    def __init__(self, typed: Typed) -> None:
        self.typed = typed
        self.followed = np.ones(len(typed), dtype=bool)  # by another event of the same aggregate
        self.followed[typed.ends - 1] = False
        self._counted: dict[str, np.ndarray] = {}

    @cached_property
    def owners(self) -> np.ndarray:
        """Number the aggregate of every row."""
        numbers = np.arange(len(self.typed.starts), dtype=np.int32)
        return np.repeat(numbers, np.diff(self.typed.bounds))

    @cached_property
    def stepping_back(self) -> np.ndarray:
        """Tell which aggregates have an event stamped earlier than its predecessor."""
        return stepping_back(self.typed.timestamp, self.typed.starts)

    @cached_property
    def index(self) -> IdIndex:
        """Find aggregates by id."""
        return IdIndex(self.typed.ids)

    def counted(self, cut: Cut) -> np.ndarray:
        """Give the instant, in microseconds, from which each row counts under a cut that is a prefix.

        "filter" is none; it equals "prefix" on every aggregate whose timestamps do not step back.
        """
        cut = "prefix" if cut == "filter" else cut
        if cut not in self._counted:
            self._counted[cut] = counted_from(self.typed.timestamp, self.typed.starts, cut)
        return self._counted[cut]

    def until(self, counted: np.ndarray, none: int) -> np.ndarray:
        """Give the instant at which each row's successor counts; `none` for an aggregate's last row."""
        ends = np.append(counted[1:], none)
        ends[~self.followed] = none
        return ends

    def last_within(self, stamps: np.ndarray, bound: int) -> list[np.ndarray]:
        """Find each aggregate's last row whose stamp is within the bound, ascending, piece by piece.

        stamps must never step back within an aggregate, so that the rows within are a prefix of its life.
        """

        def last_rows(piece: slice) -> np.ndarray:
            within = stamps[piece] <= bound
            followed = self.followed[piece].copy()
            followed[:-1] &= within[1:]
            followed[-1:] &= (
                stamps[piece.stop : piece.stop + 1] <= bound if piece.stop < len(stamps) else False
            )
            rows = np.flatnonzero(within > followed)
            rows += piece.start
            return rows

        return each(last_rows, spans(len(stamps), PIECE), len(stamps))

    def prefixes(self, stamps: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows of `last_within`, and the aggregates they belong to."""
        rows = joined(self.last_within(stamps, bound), np.int64)
        return rows, self.owners[rows]

    def holding(self, ids: pl.Series, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the row that held for each (id, moment), and the aggregate; -1 where there is none."""
        counted, bounds, index = self.counted("prefix"), self.typed.bounds, self.index

        def look(piece: slice) -> tuple[np.ndarray, np.ndarray]:
            owners = index.find(ids[piece])
            low, high = bounds[owners], bounds[owners + 1]
            high[owners < 0] = low[owners < 0]
            return rows_at(counted, low, high, moments[piece]), owners

        found = each(look, spans(len(moments), PIECE), len(moments))
        return joined([rows for rows, _ in found], np.int64), joined(
            [owners for _, owners in found], np.int32
        )
