"""Which row of a history held when: the searches that every question begins with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
import polars as pl

from titan_lab.asof import IdIndex, rows_at
from titan_lab.clock import Cut, counted_from, stepping_back
from titan_lab.parallel import each, joined, spans
from titan_lab.typed import Typed

STEPS = 6  # taken back one by one before a search by halving
PIECE = 131_072  # rows or labels worked on at a time: what is noted about them stays in the processor's cache

T = TypeVar("T")


class Rows:
    """The rows of a history, sorted by (aggregate, version), as moments see them."""

    def __init__(self, typed: Typed) -> None:
        self.typed = typed
        self._first_last: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._counted: dict[str, np.ndarray] = {}

    @cached_property
    def last(self) -> np.ndarray:
        """Give each aggregate's last row."""
        return (self.typed.ends - 1).astype(np.int32 if len(self.typed) < 2**31 else np.int64)

    @cached_property
    def followed(self) -> np.ndarray:
        """Tell which rows are followed by another event of the same aggregate."""
        followed = np.ones(len(self.typed), dtype=bool)
        followed[self.last] = False
        return followed

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
            clock = self.typed.timestamp if self.typed.clock is None else self.typed.clock
            self._counted[cut] = counted_from(clock, self.typed.starts, cut)
        return self._counted[cut]

    def until(self, counted: np.ndarray, none: int) -> np.ndarray:
        """Give the instant at which each row's successor counts; `none` for an aggregate's last row."""
        ends = np.append(counted[1:], none)
        ends[~self.followed] = none
        return ends

    def last_within(
        self, stamps: np.ndarray, bound: int, then: Callable[[np.ndarray, np.ndarray], T]
    ) -> list[T]:
        """Find each aggregate's last row whose stamp is within the bound, piece by piece.

        `then` is given each piece's rows and aggregates while they are at hand. stamps must never step back
        within an aggregate, so that the rows within are a prefix of its life.
        """
        first, last = self.ends_of(stamps)

        def look(piece: slice) -> T:
            owners = np.flatnonzero(first[piece] <= bound)
            owners += piece.start
            rows = self.last[owners]
            on = np.flatnonzero(last[owners] > bound)
            # Few lives go on at any one moment, and most of those end soon after it.
            for _ in range(STEPS):
                before = rows[on] - 1
                rows[on] = before
                on = on[stamps[before] > bound]
            low = self.typed.starts[owners[on]]
            rows[on] = rows_at(stamps, low, rows[on].astype(np.int64), np.full(len(low), bound))
            return then(rows.astype(np.intp), owners)

        return each(look, spans(len(first), PIECE), len(stamps))

    def prefixes(self, stamps: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows of `last_within`, and the aggregates they belong to, ascending."""
        found = self.last_within(stamps, bound, lambda rows, owners: (rows, owners))
        rows, owners = ([pair[place] for pair in found] for place in (0, 1))
        return joined(rows, np.intp), joined(owners, np.intp)

    def holding(self, ids: pl.Series, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the row that held for each (id, moment), and the aggregate; -1 where there is none."""
        owners, lives = self.index.find(ids), self._lives
        if not len(lives):
            return np.full(len(owners), -1), owners
        start, end, first, last = lives.take(owners, axis=0, mode="clip").T
        begun = (owners >= 0) & (first <= moments)
        rows = np.where(begun, end, -1)
        # Most moments lie before a life or after it; only those within need a search.
        on = np.flatnonzero(begun & (last > moments))
        rows[on] = rows_at(self.counted("prefix"), start[on], rows[on], moments[on])
        return rows, owners

    @cached_property
    def _lives(self) -> np.ndarray:
        """Lay out each aggregate's first and last row, and their stamps, side by side: one look finds all."""
        return np.column_stack([self.typed.starts, self.last, *self.ends_of(self.counted("prefix"))])

    @classmethod
    def kept(
        cls, typed: Typed, counted: np.ndarray, ends: tuple[np.ndarray, np.ndarray], **more: np.ndarray
    ) -> Rows:
        """Take up what was found before: prefix stamps, each aggregate's first and last of them, and more."""
        rows = cls(typed)
        rows._counted["prefix"] = counted
        rows._first_last[id(counted)] = counted, *ends
        vars(rows).update(more)
        return rows

    def ends_of(self, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give each aggregate's first and last stamp; kept, since every question begins with them."""
        kept = self._first_last.get(id(stamps))
        if kept is None or kept[0] is not stamps:  # kept with what they are of, so that its id stays its own
            kept = stamps, stamps[self.typed.starts], stamps[self.last]
            self._first_last[id(stamps)] = kept
        return kept[1:]
