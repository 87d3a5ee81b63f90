"""One side of a comparison: the states of some aggregates, and their transitions that are not allowed."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

from titan_lab.event import TIMESTAMP
from titan_lab.lists import ranges
from titan_lab.mining.transitions import illegal_steps
from titan_lab.reducers import machine
from titan_lab.states import as_instants
from titan_lab.timeline import Timeline

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
        counts = np.bincount(track.grouped(self.rows, self.owners), minlength=len(track.groups))
        return dict(zip(track.groups.to_list(), counts.tolist(), strict=True))

    def illegal(self, declared: machine) -> pl.DataFrame:
        """List the transitions of a machine's column that are not allowed, by aggregate and version."""
        typed, starts = self.book.typed, self.book.typed.starts[self.owners]
        lengths = self.rows + 1 - starts
        found = illegal_steps(typed, declared, ranges(starts, lengths), np.repeat(self.owners, lengths))
        told = pl.Series([*declared.names, None], dtype=pl.String)
        kinds = pl.Series(typed.kinds, dtype=pl.String)
        return pl.DataFrame(
            {
                "aggregate_id": typed.ids.gather(typed.aggregate_of(found.rows)),
                "version": typed.version[found.rows],
                "event_type": kinds.gather(typed.kind[found.rows].astype(np.uint32)),
                "timestamp": as_instants(typed.timestamp[found.rows]),
                "column": pl.repeat(declared.name, len(found.rows), eager=True),
                "from_state": told.gather(found.before),
                "to_state": told.gather(found.after),
            },
            schema=ILLEGAL,
        )


def exact_total(units: np.ndarray) -> int:
    """Add up int64 numbers without leaving 64 bits on the way."""
    return (int((units >> 32).sum()) << 32) + int((units & 0xFFFF_FFFF).sum())
