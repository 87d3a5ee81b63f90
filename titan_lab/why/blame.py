"""Which event set a value: for one column of all aggregates, or for all columns of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
import polars as pl

from titan_lab.asof import rows_at
from titan_lab.clock import Cut, Instant, check_cut, micros
from titan_lab.event import TIMESTAMP
from titan_lab.fold import Aggregate
from titan_lab.parallel import each
from titan_lab.reducers import key, step
from titan_lab.states import as_instants
from titan_lab.timeline import FOREVER, Timeline
from titan_lab.typed import Typed
from titan_lab.written import as_written

Columns: TypeAlias = dict[str, Callable[[], pl.Series]]
BLAMED = pl.Schema(
    {
        "aggregate_id": pl.String(),
        "field": pl.String(),
        "value": pl.String(),
        "version": pl.Int64(),
        "event_type": pl.String(),
        "timestamp": TIMESTAMP,
        "correlation_id": pl.String(),
        "upcast": pl.String(),
    }
)


def blame(
    book: Timeline,
    column: str,
    when: Instant | None = None,
    cut: Cut = "prefix",
    lives: np.ndarray | None = None,
) -> pl.DataFrame:
    """Find the event that set the value of a column; see ``Book.blame``. lives: only these aggregates."""
    column = book.aggregate.column(column)
    book, standing = look(book, when, cut, lives)
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
        **events_at(book.typed, sources),
        "upcast": lambda: _upcasts(book, column, sources),
    }
    return together(columns, len(lives))


def blame_all(
    book: Timeline, column: str | None, when: Instant | None, cut: Cut, lives: np.ndarray | None
) -> pl.DataFrame:
    """Find the events behind all columns, or behind one; values of several dtypes become text."""
    names = compared(book.aggregate, None) if column is None else [column]
    found = [blame(book, name, when, cut, lives) for name in names]
    if len({one.schema["value"] for one in found}) > 1:
        found = [one.with_columns(value=as_written(one["value"])) for one in found]
    named = [
        one.insert_column(1, pl.lit(name).alias("field")) for one, name in zip(found, names, strict=True)
    ]
    return pl.concat(named) if named else BLAMED.to_frame()  # of an aggregate without columns


def compared(aggregate: type[Aggregate], columns: str | Iterable[str] | None) -> list[str]:
    """Name the columns to compare, in order of declaration; one that shows the id never differs."""
    asked = {aggregate.column(name) for name in aggregate.columns(columns)}
    return [n for n, one in aggregate.reducers.items() if n in asked and not isinstance(one, key)]


# --- what is told of an event -----------------------------------------------------------------------------


def together(columns: Columns, size: int) -> pl.DataFrame:
    """Compute the columns of a frame side by side, the slowest first."""
    slowest_first = sorted(columns, key=lambda name: name != "correlation_id")
    found = each(lambda name: columns[name]().alias(name), slowest_first, size)
    return pl.DataFrame(found).select(*columns)


def events_at(typed: Typed, rows: np.ndarray) -> Columns:
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


def look(
    book: Timeline, when: Instant | None, cut: Cut, lives: np.ndarray | None = None
) -> tuple[Timeline, np.ndarray]:
    """Find the row after which each aggregate stands, -1 for none, and the timeline that has these rows."""
    check_cut(cut)
    if when is not None and refolds(book, cut):
        book, when = until(book, micros(when, book.zone)), None
    bound = FOREVER if when is None else micros(when, book.zone)
    return book, standing_at(book, book.rows.counted(cut), bound, lives)


def standing_at(book: Timeline, stamps: np.ndarray, bound: int, lives: np.ndarray | None) -> np.ndarray:
    """Find each aggregate's last row whose stamp is within the bound; -1 for none."""
    if lives is None and bound == FOREVER:
        return book.rows.last.astype(np.intp)
    if lives is not None:
        starts, ends = book.typed.starts[lives], book.typed.ends[lives]
        return rows_at(stamps, starts, ends, np.full(len(lives), bound))
    rows, owners = book.rows.prefixes(stamps, bound)
    found = np.full(len(book), -1)
    found[owners] = rows
    return found


def refolds(book: Timeline, cut: Cut) -> bool:
    """Tell whether what a cut lets through is no prefix of some life, so that it must be folded by itself."""
    return cut == "filter" and bool(book.rows.stepping_back.any())


def until(book: Timeline, moment: int) -> Timeline:
    """Fold only what is stamped at or before a moment."""
    rows = np.flatnonzero(book.typed.timestamp <= moment)
    return Timeline(book.aggregate, book.typed.take(rows), zone=book.zone)


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
