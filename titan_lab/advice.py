"""What snapshots would buy: read from how many events each aggregate has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from titan_lab.notebook import html

EVERY = (None, 10, 50, 100, 500, 1_000)  # numbers of events between two snapshots that are compared
LONG = 100  # events that a load folds in no time


@dataclass(frozen=True, slots=True)
class Advice:
    """What snapshots would buy: `table` for each distance between two, and a `conclusion` in a sentence.

    saved: what the store holds already, in words.
    """

    table: pl.DataFrame
    conclusion: str
    saved: str

    def __str__(self) -> str:
        return f"{self.conclusion}\n{self.saved}"

    def _repr_html_(self) -> str:
        return html.table(self.table, caption=self.conclusion, note=self.saved)


def compare(lengths: np.ndarray, every: Sequence[int | None] = EVERY) -> pl.DataFrame:
    """Work out, for aggregates of these many events, what a snapshot every so many events would buy.

    A load is counted before each event, as commands make one: of an aggregate of n events, with 0 to n-1 of
    them there. Returns every Int64 (null: no snapshots), rows Int64 (aggregates that would have one), writes
    Int64 (snapshots taken over all lives), mean Float64, p99 and most Int64 (events that a load folds: on
    average, by 99 % of the loads at most, and by any), in the order asked for.

    >>> compare(np.array([3, 3, 250]), [None, 100]).row(1)
    (100, 1, 2, 43.48046875, 98, 99)
    """
    lengths = lengths[lengths > 0]
    longer = np.cumsum(np.bincount(lengths)[::-1])[::-1] if len(lengths) else np.zeros(1, dtype=np.int64)
    loads = longer[1:]  # with v events there: as many as there are aggregates that have more than v
    there = np.arange(len(loads))
    rows = []
    for each in every:
        folded = there if each is None else there % each
        amount = np.bincount(folded, loads).astype(np.int64) if len(loads) else np.zeros(1, dtype=np.int64)
        total = int(amount.sum())
        p99 = int(np.searchsorted(np.cumsum(amount), -(-99 * total // 100)))
        rows.append(
            (
                each,
                0 if each is None else int((lengths >= each).sum()),
                0 if each is None else int((lengths // each).sum()),
                int((folded * loads).sum()) / total if total else 0.0,
                p99,
                int(folded.max(initial=0)),
            )
        )
    schema = {"every": pl.Int64, "rows": pl.Int64, "writes": pl.Int64, "mean": pl.Float64}
    return pl.DataFrame(rows, schema=schema | {"p99": pl.Int64, "most": pl.Int64}, orient="row")


def concluded(lengths: np.ndarray, name: str) -> str:
    """Say in a sentence what follows from these lengths.

    >>> concluded(np.array([3] * 997 + [250] * 3), "Order")
    '99 % of the 1,000 aggregates of Order have at most 3 events: snapshots buy nothing but for 3'
    """
    lengths = np.sort(lengths[lengths > 0])
    if not len(lengths):
        return f"there is no {name} yet: snapshots buy nothing"
    most = int(lengths[-(-99 * len(lengths) // 100) - 1])
    told = f"99 % of the {len(lengths):,} aggregates of {name} have at most {most:,} events"
    long = int((lengths >= LONG).sum())
    if not long:
        return f"{told}, the longest {lengths[-1]:,}: snapshots buy nothing"
    if most < LONG:
        return f"{told}: snapshots buy nothing but for {long:,}"
    _, _, writes, mean, _, folded = compare(lengths, [LONG]).row(0)
    without = compare(lengths, [None]).row(0)
    return (
        f"{told}: with a snapshot every {LONG} a load folds {mean:,.0f} events on average and {folded:,} at"
        f" most, not {without[3]:,.0f} and {without[5]:,}, for {writes:,} writes"
    )
