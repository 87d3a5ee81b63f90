"""What changed between two looks at a history, and which event made it so.

A value is its event's: a track knows, for the value after any row, the row of the event that set it. Two rows
of one life whose value comes from the same event have the same value, so only the others are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl

from titan_lab.asof import rows_at
from titan_lab.clock import Cut, Instant, check_cut, interval, micros
from titan_lab.errors import InstantError, NoSuchColumn
from titan_lab.fold import Aggregate
from titan_lab.parallel import each
from titan_lab.reducers import key, step
from titan_lab.timeline import FOREVER, Timeline, as_instants
from titan_lab.typed import Typed
from titan_lab.written import as_written

Columns: TypeAlias = dict[str, Callable[[], pl.Series]]


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
        # Of those not there, another row's value is gathered, to be taken away again.
        found = track.at(np.maximum(self.rows, 0), np.maximum(self.owners, 0))
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


def blame(
    book: Timeline,
    column: str,
    when: Instant | None = None,
    cut: Cut = "prefix",
    lives: np.ndarray | None = None,
) -> pl.DataFrame:
    """Find the event that set the value of a column; see ``Book.blame``. lives: only these aggregates."""
    (column,) = state_columns(book.aggregate, column)
    book, standing = _look(book, when, cut, lives)
    lives = np.arange(len(book)) if lives is None else lives
    there = standing >= 0
    if not there.all():
        standing, lives = standing[there], lives[there]
    track = book.tracks[column]
    sources = track.sources(standing, lives)
    ids = book.typed.ids
    columns = {
        "aggregate_id": lambda: ids if len(lives) == len(ids) else ids.gather(lives),
        "value": lambda: track.at(standing, lives),
        **_events_at(book.typed, sources),
        "upcast": lambda: _upcasts(book, column, sources),
    }
    return _together(columns, len(lives))


def blame_all(
    book: Timeline, column: str | None, when: Instant | None, cut: Cut, lives: np.ndarray | None
) -> pl.DataFrame:
    """Find the events behind all columns, or behind one; values of several dtypes become text."""
    names = _compared(book.aggregate, None) if column is None else [column]
    found = [blame(book, name, when, cut, lives) for name in names]
    if len({one.schema["value"] for one in found}) > 1:
        found = [one.with_columns(value=as_written(one["value"])) for one in found]
    named = [
        one.insert_column(1, pl.lit(name).alias("field")) for one, name in zip(found, names, strict=True)
    ]
    return pl.concat(named)


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
    names = _compared(book.aggregate, columns)
    check_cut(cut)
    if versions is not None:
        low, high = _two_versions(versions)
        stamps = book.typed.version
        rows = [_standing(book, stamps, bound, lives) for bound in (low, high)]
    elif t0 is None or t1 is None:
        raise InstantError(
            "diff needs two instants, or two versions",
            hint="book.diff('2025-01-15', '2025-01-16') or book.diff(versions=(1, 3))",
        )
    else:
        low, high = interval(t0, t1, book.zone, "book.diff({}, {})")  # type: ignore[arg-type]
        if _refolds(book, cut):
            return between(_until(book, low), _until(book, high), None, names)
        stamps = book.rows.counted(cut)
        rows = [_standing(book, stamps, bound, lives) for bound in (low, high)]
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
        names = [name for name in _compared(a.aggregate, None) if name in shared]
    else:
        names = _compared(a.aggregate, columns)
        _compared(b.aggregate, names)
    cut_a, cut_b = (cut, cut) if isinstance(cut, str) else cut
    a, rows_a = _look(a, when, cut_a)
    b, rows_b = _look(b, when, cut_b)
    if a.typed.ids.equals(b.typed.ids):
        ids, of_a, of_b = a.typed.ids, np.arange(len(a)), np.arange(len(b))
    else:
        ids = pl.concat([a.typed.ids, b.typed.ids]).unique().sort()
        of_a, of_b = (one.rows.index.find(ids).astype(np.int64) for one in (a, b))
        rows_a, rows_b = (np.append(rows, -1)[owners] for rows, owners in ((rows_a, of_a), (rows_b, of_b)))
    moved = np.flatnonzero(rows_a != rows_b if a is b else (rows_a >= 0) | (rows_b >= 0))
    before, after = Side(a, rows_a, of_a).some(moved), Side(b, rows_b, of_b).some(moved)
    return _compare(ids.gather(moved), before, after, names)


def state_columns(aggregate: type[Aggregate], columns: str | Iterable[str] | None) -> list[str]:
    """Check names of columns of the state itself; None means all. Raises NoSuchColumn."""
    names = aggregate.columns(columns)
    for name in names:
        if name not in aggregate.reducers:
            raise NoSuchColumn(
                f"{name} is no column of the state", hint=f"use {', '.join(aggregate.reducers)}", column=name
            )
    return list(dict.fromkeys(names))


# --- what is told of an event -----------------------------------------------------------------------------


def _together(columns: Columns, size: int) -> pl.DataFrame:
    """Compute the columns of a frame side by side, the slowest first."""
    slowest_first = sorted(columns, key=lambda name: name != "correlation_id")
    found = each(lambda name: columns[name]().alias(name), slowest_first, size)
    return pl.DataFrame(found).select(*columns)


def _events_at(typed: Typed, rows: np.ndarray) -> Columns:
    """Tell how to describe the events of some rows; -1 becomes nulls."""
    missing = rows < 0
    some_missing = bool(missing.any())
    rows = np.maximum(rows, 0) if some_missing else rows
    if not len(typed):
        rows = rows[:0]

    def with_nulls(column: Callable[[], pl.Series]) -> Callable[[], pl.Series]:
        if not len(typed):
            return lambda: column().extend_constant(None, len(missing))
        return lambda: column().set(pl.Series(missing), None) if some_missing else column()

    kinds = pl.Series(typed.kinds, dtype=pl.String)
    columns: Columns = {
        "version": lambda: pl.Series(typed.version.take(rows)),
        "event_type": lambda: kinds.gather(typed.kind.take(rows).astype(np.uint32)),
        "timestamp": lambda: as_instants(typed.timestamp.take(rows)),
        "correlation_id": lambda: typed.correlations_of(rows),
    }
    return {name: with_nulls(column) for name, column in columns.items()}


# --- looking ----------------------------------------------------------------------------------------------


def _look(
    book: Timeline, when: Instant | None, cut: Cut, lives: np.ndarray | None = None
) -> tuple[Timeline, np.ndarray]:
    """Find the row after which each aggregate stands, -1 for none, and the timeline that has these rows."""
    check_cut(cut)
    if when is not None and _refolds(book, cut):
        book, when = _until(book, micros(when, book.zone)), None
    bound = FOREVER if when is None else micros(when, book.zone)
    return book, _standing(book, book.rows.counted(cut), bound, lives)


def _standing(book: Timeline, stamps: np.ndarray, bound: int, lives: np.ndarray | None) -> np.ndarray:
    if lives is None and bound == FOREVER:
        return book.rows.last
    if lives is not None:
        starts, ends = book.typed.starts[lives], book.typed.ends[lives]
        return rows_at(stamps, starts, ends, np.full(len(lives), bound))
    rows, owners = book.rows.prefixes(stamps, bound)
    found = np.full(len(book), -1)
    found[owners] = rows
    return found


def _refolds(book: Timeline, cut: Cut) -> bool:
    """Tell whether what a cut lets through is no prefix of some life, so that it must be folded by itself."""
    return cut == "filter" and bool(book.rows.stepping_back.any())


def _until(book: Timeline, moment: int) -> Timeline:
    rows = np.flatnonzero(book.typed.timestamp <= moment)
    return Timeline(book.aggregate, book.typed.take(rows), zone=book.zone)


def _compared(aggregate: type[Aggregate], columns: str | Iterable[str] | None) -> list[str]:
    """Name the columns to compare, in order of declaration; one that shows the id never differs."""
    asked = set(state_columns(aggregate, columns))
    return [n for n, one in aggregate.reducers.items() if n in asked and not isinstance(one, key)]


def _two_versions(versions: tuple[int, int]) -> tuple[int, int]:
    two = tuple(versions)
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

    def look(name: str) -> Changes:
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

    found = each(look, names, len(ids))
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
        **_events_at(after.book.typed, sources[order]),
    }
    return _together(columns, len(order))


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


# --- upcasts ----------------------------------------------------------------------------------------------


def _upcasts(book: Timeline, column: str, rows: np.ndarray) -> pl.Series:
    """Name the upcast steps that wrote what a column took from the events of these rows."""
    reducer = book.aggregate.reducers[column]
    told: list[str | None] = [None]
    there = rows[rows >= 0] if len(rows) else rows
    if isinstance(reducer, step) or not len(there):  # a step reads the whole event, no field of it
        return pl.Series(told, dtype=pl.String).new_from_index(0, len(rows))
    low, high = int(there.min()), int(there.max()) + 1
    codes = np.zeros(high - low + 1, dtype=np.uint16)  # the last one is for -1
    for part in book.typed.parts:
        field = reducer.sources.get(part.event_type)
        steps = book.aggregate.chain.steps_for(part.event_type, part.schema_version) if field else []
        steps = [one for one in steps if field in one.writes]
        fills = [one.name for one in steps if one.versions is None]
        if not steps:
            continue
        span = slice(*np.searchsorted(part.rows, [low, high]))
        wrote = np.full(span.stop - span.start, len(told), dtype=np.uint16)
        for bit, name in enumerate(fills):
            wrote += part.filled[name][span].astype(np.uint16) << np.uint16(bit)
        codes[part.rows[span] - low] = wrote
        for bits in range(2 ** len(fills)):
            idle = {name for bit, name in enumerate(fills) if not bits >> bit & 1}
            told.append(" > ".join(one.name for one in steps if one.name not in idle) or None)
    if len(told) == 1:
        return pl.Series(told, dtype=pl.String).new_from_index(0, len(rows))
    return pl.Series(told, dtype=pl.String).gather(codes[np.maximum(rows - low, -1)])
