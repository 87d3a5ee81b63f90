"""What changed between two looks at a history, and which event made it so.

A value is its event's: a track knows, for the value after any row, the row of the event that set it. Two rows
of one life whose value comes from the same event have the same value, so only the others are compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl

from titan_lab.clock import Cut, Instant, check_cut, interval
from titan_lab.errors import InstantError
from titan_lab.parallel import each
from titan_lab.timeline import Timeline
from titan_lab.why.blame import compared, events_at, look, refolds, standing_at, together, until
from titan_lab.written import as_written


class Side(NamedTuple):
    """One side of a comparison: after which row each aggregate stood, -1 where it was not there yet."""

    book: Timeline
    rows: np.ndarray
    owners: np.ndarray

    def some(self, places: np.ndarray) -> Side:
        """Keep these aggregates only."""
        return Side(self.book, self.rows[places], self.owners[places])

    def values(self, name: str) -> pl.Series:
        """Gather a column; an aggregate that was not there has the value that its life begins with."""
        reducer, track = self.book.aggregate.reducers[name], self.book.tracks[name]
        there = self.rows >= 0
        if there.all():
            return track.at(self.rows, self.owners)
        start = pl.Series([reducer.initial], dtype=reducer.dtype).new_from_index(0, len(there))
        if not there.any():
            return start
        # Of those not there, their own first row is gathered where they have one, to be taken away again.
        owners = np.maximum(self.owners, 0)
        found = track.at(np.where(there, self.rows, self.book.typed.starts[owners]), owners)
        return found.zip_with(pl.Series(there), start)

    def sources(self, name: str) -> np.ndarray:
        """Find the row of the event that set each value of a column; -1 for none."""
        there = np.flatnonzero(self.rows >= 0)
        if len(there) == len(self.rows):
            return self.book.tracks[name].sources(self.rows, self.owners)
        found = np.full(len(self.rows), -1)
        found[there] = self.book.tracks[name].sources(self.rows[there], self.owners[there])
        return found


class Changes(NamedTuple):
    """The changes of one column: the places among those compared, the values, the rows of the events."""

    places: np.ndarray
    before: pl.Series
    after: pl.Series
    sources: np.ndarray


def diff(
    book: Timeline,
    t0: Instant | int | None,
    t1: Instant | int | None,
    columns: str | Iterable[str] | None = None,
    cut: Cut = "prefix",
    versions: tuple[int, int] | None = None,
    lives: np.ndarray | None = None,
) -> pl.DataFrame:
    """Compare two moments of a history; see ``Book.diff``. lives: only these aggregates."""
    names = compared(book.aggregate, columns)
    check_cut(cut)
    if versions is not None:
        low, high = _two_versions(versions)
        stamps = book.typed.version
        rows = [standing_at(book, stamps, bound, lives) for bound in (low, high)]
    elif t0 is None or t1 is None:
        raise InstantError(
            "diff needs two instants, or two versions",
            hint="book.diff('2025-01-15', '2025-01-16') or book.diff(versions=(1, 3))",
        )
    else:
        low, high = interval(t0, t1, book.zone, "book.diff({}, {})")  # type: ignore[arg-type]
        if refolds(book, cut):
            return between(until(book, low), until(book, high), None, names)
        stamps = book.rows.counted(cut)
        rows = [standing_at(book, stamps, bound, lives) for bound in (low, high)]
    moved = np.flatnonzero(rows[0] != rows[1])
    owners = moved if lives is None else lives[moved]
    before, after = (Side(book, one[moved], owners) for one in rows)
    return _compare(book.typed.ids.gather(owners), before, after, names)


def between(
    a: Timeline,
    b: Timeline,
    when: Instant | None = None,
    columns: str | Iterable[str] | None = None,
    cut: Cut | tuple[Cut, Cut] = "prefix",
) -> pl.DataFrame:
    """Compare two Timelines at an instant (without one: at their end): branches, folds or cuts.

    Columns and order as of ``Book.diff``; columns that only one of the two declares are left out. The event
    is the one that set the value in `b`, null where none has. cut: one for both, or one for each.
    """
    shared = [name for name in a.aggregate.reducers if name in b.aggregate.reducers]
    if columns is None:
        names = [name for name in compared(a.aggregate, None) if name in shared]
    else:
        names = compared(a.aggregate, columns)
        compared(b.aggregate, names)
    cut_a, cut_b = cut if isinstance(cut, tuple) and len(cut) == 2 else (cut, cut)
    a, rows_a = look(a, when, cut_a)
    b, rows_b = look(b, when, cut_b)
    if a.typed.ids.equals(b.typed.ids):
        ids, of_a, of_b = a.typed.ids, np.arange(len(a)), np.arange(len(b))
    else:
        ids = pl.concat([a.typed.ids, b.typed.ids]).unique().sort()
        of_a, of_b = (one.rows.index.find(ids).astype(np.int64) for one in (a, b))
        rows_a, rows_b = (np.append(rows, -1)[owners] for rows, owners in ((rows_a, of_a), (rows_b, of_b)))
    moved = np.flatnonzero(rows_a != rows_b if a is b else (rows_a >= 0) | (rows_b >= 0))
    before, after = Side(a, rows_a, of_a).some(moved), Side(b, rows_b, of_b).some(moved)
    return _compare(ids.gather(moved), before, after, names)


def _two_versions(versions: tuple[int, int]) -> tuple[int, int]:
    two = tuple(versions) if isinstance(versions, Iterable) else ()
    if len(two) != 2 or not all(isinstance(one, int) and one >= 0 for one in two):
        raise InstantError(
            f"{versions!r} are no two versions", hint="book.diff(versions=(1, 3)); 0 is before the first"
        )
    if two[1] < two[0]:
        raise InstantError(
            f"version {two[1]} comes before version {two[0]}",
            hint=f"book.diff(versions={two[::-1]})",
            versions=two,
        )
    return two


# --- comparing --------------------------------------------------------------------------------------------


def _compare(ids: pl.Series, before: Side, after: Side, names: list[str]) -> pl.DataFrame:
    dtypes = {one.book.aggregate.reducers[name].dtype for one in (before, after) for name in names}
    as_text = len(dtypes) != 1

    def changes_of(name: str) -> Changes:
        sources = after.sources(name)
        if before.book is after.book:
            places = np.flatnonzero(before.sources(name) != sources)
        else:
            places = np.arange(len(ids))
        old, new = before.some(places).values(name), after.some(places).values(name)
        if old.dtype != new.dtype:
            old, new = as_written(old), as_written(new)
        changed = np.flatnonzero(old.ne_missing(new).to_numpy())
        if len(changed) < len(places):
            old, new, places = old.gather(changed), new.gather(changed), places[changed]
        if as_text:
            old, new = as_written(old), as_written(new)
        return Changes(places, old, new, sources[places])

    found = each(changes_of, names, len(ids))
    counts, order = _by_aggregate([one.places for one in found], len(ids))
    numbers = np.repeat(np.arange(len(found), dtype=np.uint32), [len(one.places) for one in found])
    sources = np.concatenate([one.sources for one in found] or [np.zeros(0, dtype=np.int64)])

    nothing = pl.Series([], dtype=pl.String if as_text else dtypes.pop())

    def in_order(values: list[pl.Series]) -> pl.Series:
        return pl.concat([nothing, *(one.rename("") for one in values)], rechunk=True).gather(order)

    columns = {
        "aggregate_id": lambda: ids.gather(np.repeat(np.arange(len(ids)), counts)),
        "field": lambda: pl.Series(names, dtype=pl.String).gather(numbers[order]),
        "before": lambda: in_order([one.before for one in found]),
        "after": lambda: in_order([one.after for one in found]),
        **events_at(after.book.typed, sources[order]),
    }
    return together(columns, len(order))


def _by_aggregate(places: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Order what was found column by column by aggregate first: how many each has, and where each stands.

    The places of a column rise, so that the next free spot of each aggregate is all that must be known.
    """
    counts = np.zeros(size, dtype=np.int64)
    for found in places:
        counts[found] += 1
    spots = np.cumsum(counts) - counts
    order = np.empty(int(counts.sum()), dtype=np.int64)
    done = 0
    for found in places:
        order[spots[found]] = np.arange(done, done + len(found))
        spots[found] += 1
        done += len(found)
    return counts, order
