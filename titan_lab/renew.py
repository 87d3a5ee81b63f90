"""A kept history with some of its aggregates folded anew: the others stay what they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from titan_lab.book import Book
from titan_lab.lists import ranges
from titan_lab.marks import marks
from titan_lab.rows import Rows
from titan_lab.timeline import tracks_of
from titan_lab.tracks import Shared, Stepped, Track
from titan_lab.typed import Typed

Range = tuple[str | None, str | None]  # ids from the first on, and before the second


def renewed(old: Book, new: Book, ids: Range, touched: pl.Series) -> Book:
    """Put what is new in a range of ids among the old, without the old aggregates that were touched.

    Payloads are not read again. Whole columns are carried forward again, which takes less than to take them
    apart; a `step`, which runs event by event, is not.
    """
    others = rows_of(old.typed, ids, ~old.typed.ids.is_in(touched.implode()))
    whole, place = interleaved(old.typed.take(others), new.typed)
    shared, known = Shared(whole), dict[str, Track]()
    for name, track in old.tracks.items():
        if isinstance(track, Stepped):
            rows, values = _spliced(track, new.tracks[name], others, place)
            seen = shared.seen(rows, name.encode())
            known[name] = Stepped.kept(whole, dtype=track.dtype, rows=rows, seen=seen, values=values)
    made = Rows(whole), tracks_of(old.aggregate, whole, known)
    return Book(old.aggregate, whole, made=made)


def within(typed: Typed, ids: Range) -> Typed:
    """Keep the aggregates in a range of ids."""
    return typed if ids == (None, None) else typed.take(rows_of(typed, ids))


def _spliced(old: Track, new: Track, others: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, pl.Series]:
    """Put the rows and values of two tracks together: of the old those at some rows, of the new all."""
    where = np.searchsorted(others, old.rows)
    kept = np.flatnonzero(np.append(others, -1)[where] == old.rows)
    rows = np.concatenate([place[where[kept]], place[len(others) + new.rows]])
    order = np.argsort(rows)
    values = pl.concat([old.values.gather(kept), new.values.head(len(new.rows))]).gather(order)
    return rows[order], pl.concat([values, new.values.tail(1)], rechunk=True)


def interleaved(one: Typed, other: Typed) -> tuple[Typed, np.ndarray]:
    """Put two histories of different aggregates together, in order of aggregate_id.

    Returns also the place of every row, those of the one first and then those of the other.
    """
    ids = pl.concat([one.ids, other.ids])
    order = ids.arg_sort().to_numpy().astype(np.int64)
    lengths = np.concatenate([np.diff(one.bounds), np.diff(other.bounds)])[order]
    rows = ranges(np.concatenate([one.starts, other.starts + len(one)])[order], lengths)
    place = np.empty(len(rows), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    kinds = sorted({*one.kinds, *other.kinds})
    number = [np.array([kinds.index(name) for name in half.kinds], dtype=np.intp) for half in (one, other)]
    kind = np.concatenate([number[0][one.kind], number[1][other.kind]])
    whole = Typed(
        ids=ids.gather(order),
        starts=np.cumsum(lengths) - lengths,
        version=np.concatenate([one.version, other.version])[rows],
        timestamp=np.concatenate([one.timestamp, other.timestamp])[rows],
        kind=kind.astype(np.min_scalar_type(len(kinds)))[rows],
        kinds=kinds,
        metadata=pl.concat([one.metadata, other.metadata]).gather(rows),
        parts=[replace(part, rows=place[part.rows]) for part in one.parts]
        + [replace(part, rows=place[part.rows + len(one)]) for part in other.parts],
    )
    return whole, place


def rows_of(typed: Typed, ids: Range, some: pl.Series | None = None) -> np.ndarray:
    """List the rows of the aggregates in a range of ids, or of some among them."""
    start, end = (typed.ids.search_sorted(one) if one is not None and len(typed.ids) else None for one in ids)
    owners = np.arange(len(typed.ids))[start:end]
    if some is not None:
        owners = owners[marks(some)[start:end]]
    return ranges(typed.starts[owners], np.diff(typed.bounds)[owners])
