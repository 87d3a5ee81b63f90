"""Variants and flow: which ways lives take, and what directly follows what.

Durations are lengths of time between the moments at which events count (law 2): a timestamp that steps back
counts from its predecessor's moment, so no waiting is negative, and a life's waitings add up to its duration.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from titan_lab.lists import lists_together, ranges
from titan_lab.mining.waits import Waits
from titan_lab.parallel import each, joined, spans
from titan_lab.rows import PIECE, Rows
from titan_lab.typed import Typed

ROOM = 65_536  # pairs of types that may be counted in a table, however few the events


def variants(rows: Rows) -> pl.DataFrame:
    """Group the aggregates by their sequence of event types."""
    typed, counted = rows.typed, rows.counted("prefix")
    lives = pl.DataFrame(
        {
            "codes": sequences(typed),
            "life": np.arange(len(typed.ids)),
            "lasted": counted[rows.last] - counted[typed.starts],
        }
    )
    found = lives.group_by("codes").agg(
        count=pl.len().cast(pl.Int64), life=pl.col("life").min(), lasted=pl.col("lasted").median()
    )
    first = found["life"].to_numpy()
    lengths = np.diff(typed.bounds)[first]
    codes = typed.kind[ranges(typed.starts[first], lengths)]
    names = pl.Series(typed.kinds, dtype=pl.String).gather(codes.astype(np.uint32))
    return found.select(
        variant=lists_together(lengths, names),
        count="count",
        # By numpy, which divides; polars multiplies by the reciprocal, and 36 of 500 are 0.07200000000000001.
        share=pl.Series(found["count"].to_numpy() / max(len(typed.ids), 1)),
        median_duration=pl.col("lasted").floor().cast(pl.Int64).cast(pl.Duration("us")),
        example=typed.ids.gather(first),
    ).sort("count", "variant", descending=[True, False])


def sequences(typed: Typed) -> pl.Series:
    """Give each life's codes as one binary value: equal bytes are equal lives, whatever a hash says."""
    codes = np.ascontiguousarray(typed.kind)
    offsets = pa.py_buffer((typed.bounds * codes.itemsize).astype(np.int64))
    texts = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(typed.ids), [None, offsets, pa.py_buffer(codes)]
    )
    return pl.Series(texts, dtype=pl.Binary)


def flow(rows: Rows) -> pl.DataFrame:
    """Count which event type directly follows which, and how long that takes."""
    typed, counted = rows.typed, rows.counted("prefix")
    size = len(typed.kinds) + 1  # the code past the last stands for outside of the life, before or after it
    outside = size - 1
    came = typed.kind[typed.starts] + np.int64(outside * size)
    went = typed.kind[rows.last] * np.int64(size) + outside

    def look(piece: slice) -> tuple[np.ndarray, np.ndarray]:
        before = np.flatnonzero(rows.followed[piece]) + piece.start
        after = before + 1
        pairs = typed.kind.take(before).astype(np.int64)
        pairs *= size
        pairs += typed.kind.take(after)
        return pairs, counted.take(after) - counted.take(before)

    found = each(look, spans(len(typed), PIECE), len(typed))
    moves, waited = (joined([pair[place] for pair in found], np.int64) for place in (0, 1))
    pairs, moves, came, went = numbered(size**2, moves, came, went)
    waits = Waits(moves, waited, len(pairs))
    counts = waits.counts + np.bincount(came, minlength=len(pairs)) + np.bincount(went, minlength=len(pairs))
    names = pl.Series([*typed.kinds, None], dtype=pl.String)
    frame = pl.DataFrame(
        {
            "from_type": names.gather(pairs // size),
            "to_type": names.gather(pairs % size),
            "count": pl.Series(counts, dtype=pl.Int64),
            "mean_wait": waits.mean(),
            "median_wait": waits.quantile(5),
            "p90_wait": waits.quantile(9),
        }
    )
    share = (pl.col("count") / pl.col("count").sum().over("from_type")).alias("share")
    return frame.select("from_type", "to_type", "count", share, "mean_wait", "median_wait", "p90_wait").sort(
        "count", "from_type", "to_type", descending=[True, False, False]
    )


def numbered(size: int, *codes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Number the codes that occur, of `size` possible ones: those codes, then each array by its numbers."""
    if size > ROOM + sum(map(len, codes)):
        found = np.unique(np.concatenate(codes))
        return (found, *(np.searchsorted(found, some) for some in codes))
    occurs = np.zeros(size, dtype=bool)
    for some in codes:
        occurs[some] = True
    number = np.cumsum(occurs, dtype=np.int32) - np.int32(1)
    return (np.flatnonzero(occurs), *(number.take(some) for some in codes))
