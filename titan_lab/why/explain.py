"""Why a sum moved: the change that each event made, added up by what the events have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import polars as pl

from titan_lab.amounts import from_units, is_exact
from titan_lab.clock import Instant, interval, zone_of
from titan_lab.errors import DeclarationError, NoSuchColumn, nearest
from titan_lab.grid import FULL, HALF, exact_sums, peak, refuse_large
from titan_lab.parallel import each, joined, spans
from titan_lab.rows import PIECE
from titan_lab.states import as_instants
from titan_lab.timeline import Timeline

Grouping: TypeAlias = Callable[[np.ndarray], tuple[pl.Series, np.ndarray]]


def explain(
    book: Timeline, measure: str, t0: Instant, t1: Instant, by: str = "event_type", zone: str | None = None
) -> pl.DataFrame:
    """Add up the changes of a column between two instants; see ``Book.explain``."""
    measure = book.aggregate.column(measure)
    dtype = book.aggregate.reducers[measure].dtype
    if not is_exact(dtype):
        raise DeclarationError(
            f"{measure} is {dtype}, whose sums are not exact", hint="explain a Decimal or whole-number column"
        )
    zone = zone or book.zone
    grouped = _by(book, by, zone or "UTC")
    start, end = interval(t0, t1, zone, f"book.explain({measure!r}, {{}}, {{}})")
    rows, change = _moves(book, measure, start, end)
    groups, numbers = grouped(rows)
    sums = exact_sums(numbers, change, len(groups))
    events = np.bincount(numbers, minlength=len(groups))
    if peak(change) * len(change) >= FULL:
        refuse_large(exact_sums(numbers, change >> HALF, len(groups)), events)
    # The groups are sorted, and so they stay where changes are of one size.
    order = np.argsort(-np.abs(sums), kind="stable")
    order = order[events[order] > 0]
    return pl.DataFrame(
        {
            by: groups.gather(order),
            "change": from_units(sums[order], dtype),
            "events": pl.Series(events[order]),
        }
    )


def _moves(book: Timeline, measure: str, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the events between two moments that moved a measure, and by how many of its smallest units."""
    track, counted, owners = book.tracks[measure], book.rows.counted("prefix"), book.rows.owners
    first = np.zeros(len(counted), dtype=bool)
    first[book.typed.starts] = True

    def look(piece: slice) -> tuple[np.ndarray, np.ndarray]:
        stamps = counted[piece]
        rows = np.flatnonzero((stamps > start) & (stamps <= end)) + piece.start
        before = np.zeros(len(rows), dtype=np.int64)
        later = np.flatnonzero(~first[rows])
        before[later] = track.units(rows[later] - 1, owners[rows[later]])
        change = track.units(rows, owners[rows]) - before
        moved = np.flatnonzero(change)
        return rows[moved], change[moved]

    found = each(look, spans(len(counted), PIECE), len(counted))
    rows, change = (joined([pair[place] for pair in found], np.int64) for place in (0, 1))
    return rows, change


def _by(book: Timeline, by: str, zone: str) -> Grouping:
    """Tell how to group rows: the groups, sorted with null as the last, and the number of each row's."""
    if by in book.tracks:
        if book.aggregate.reducers[by].dtype.is_nested():
            raise DeclarationError(
                f"{by} holds lists, by which nothing is grouped", hint="use another column"
            )
        track = book.tracks[by]
        return lambda rows: (track.groups, track.grouped(rows, book.rows.owners[rows]))
    if by == "event_type":
        return lambda rows: (
            pl.Series(book.typed.kinds, dtype=pl.String),
            book.typed.kind[rows].astype(np.intp),
        )
    if by == "day":
        zone_of(zone)
        return lambda rows: _by_day(as_instants(book.rows.counted("prefix")[rows]).dt.convert_time_zone(zone))
    known = ["event_type", "day", *book.tracks]
    raise NoSuchColumn(
        f"nothing can be explained by {by!r}; there are {', '.join(known)}",
        hint=nearest(str(by), known),
        column=by,
    )


def _by_day(moments: pl.Series) -> tuple[pl.Series, np.ndarray]:
    days = moments.dt.date().to_physical().to_numpy()
    first, last = (int(days.min()), int(days.max())) if len(days) else (0, 0)
    return pl.Series(np.arange(first, last + 1, dtype=np.int32)).cast(pl.Date), days - first
