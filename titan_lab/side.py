"""One side of a comparison: the states of some aggregates, and their transitions that are not allowed."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

from titan_lab.event import TIMESTAMP
from titan_lab.lists import ranges
from titan_lab.timeline import Timeline
from titan_lab.tracks import States

ILLEGAL = pl.Schema(
    {
        "aggregate_id": pl.String(),
        "version": pl.Int64(),
        "event_type": pl.String(),
        "timestamp": TIMESTAMP,
        "column": pl.String(),
        "from_state": pl.String(),
        "to_state": pl.String(),
    }
)


class Side:
    """The states of some aggregates of a book, after their last event or at a moment."""

    def __init__(self, book: Timeline, moment: int | None, some: np.ndarray | None) -> None:
        self.book = book
        self.moment = moment
        if moment is None:
            owners = np.arange(len(book)) if some is None else some
            self.rows, self.owners = book.typed.ends[owners] - 1, owners
            return
        self.rows, self.owners = book.rows.prefixes(book.rows.counted("prefix"), moment)
        if some is not None:
            wanted = np.zeros(len(book), dtype=bool)
            wanted[some] = True
            there = np.flatnonzero(wanted[self.owners])
            self.rows, self.owners = self.rows[there], self.owners[there]

    @cached_property
    def ids(self) -> pl.Series:
        """Give the ids of the aggregates that exist, sorted."""
        return self.book.typed.ids.gather(self.owners)

    def column(self, name: str) -> pl.Series:
        """Give a column's values, in order of the ids."""
        return self.book.tracks[name].at(self.rows, self.owners)

    def total(self, name: str) -> int:
        """Add up a column of exact numbers, in its smallest unit."""
        return exact_total(self.book.tracks[name].units(self.rows, self.owners))

    def counts(self, name: str) -> dict[str | None, int]:
        """Count the aggregates in each state of a machine's column; None counts those in none."""
        track = self.book.tracks[name]
        assert isinstance(track, States)
        codes = track.codes(self.rows, self.owners)
        names = track.named(np.arange(track.size + 1)).to_list()
        return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))

    def illegal(self, name: str, allowed: dict[str | None, tuple[str, ...]]) -> pl.DataFrame:
        """List the transitions of a machine's column that are not allowed, by aggregate and version."""
        typed, reducer = self.book.typed, self.book.aggregate.reducers[name]
        states: dict[str, str] = reducer.states  # type: ignore[attr-defined]
        names: list[str] = list(dict.fromkeys(states.values()))
        code_of = np.array([names.index(states[k]) if k in states else -1 for k in typed.kinds] or [-1])
        starts = typed.starts[self.owners]
        rows = ranges(starts, self.rows + 1 - starts)
        owners = np.repeat(self.owners, self.rows + 1 - starts)
        codes = code_of[typed.kind[rows]]
        moving = np.flatnonzero(codes >= 0)
        rows, owners, codes = rows[moving], owners[moving], codes[moving]
        before = np.full(len(codes), len(names))
        same = np.flatnonzero(owners[1:] == owners[:-1]) + 1
        before[same] = codes[same - 1]
        lawful = np.array(
            [[to in allowed.get(state, ()) for to in names] for state in names]
            + [[None not in allowed or to in allowed[None] for to in names]]
        )
        wrong = np.flatnonzero(~lawful[before, codes])
        told = pl.Series(names, dtype=pl.String)
        return pl.DataFrame(
            {
                "aggregate_id": typed.ids.gather(owners[wrong]),
                "version": typed.version[rows[wrong]],
                "event_type": pl.Series(typed.kinds, dtype=pl.String).gather(
                    typed.kind[rows[wrong]].astype(np.uint32)
                ),
                "timestamp": pl.Series(typed.timestamp[rows[wrong]]).cast(TIMESTAMP),
                "column": pl.repeat(name, len(wrong), eager=True),
                "from_state": told.extend_constant(None, 1).gather(before[wrong]),
                "to_state": told.gather(codes[wrong]),
            },
            schema=ILLEGAL,
        )


def exact_total(units: np.ndarray) -> int:
    """Add up int64 numbers without leaving 64 bits on the way."""
    return (int((units >> 32).sum()) << 32) + int((units & 0xFFFF_FFFF).sum())
