"""Take events out of a history and put others in, sharing whatever stays as it was.

The events that stay are not decoded again, and payloads are only copied for event types from which one was
taken. So a what-if history costs little more than the row numbers that moved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from titan_lab.asof import rows_at
from titan_lab.event import EVENTS
from titan_lab.lists import ranges
from titan_lab.parallel import each
from titan_lab.typed import Part, Typed

NO_ROWS = np.zeros(0, dtype=np.int64)


class Later(Typed):
    """A history whose metadata are only gathered when somebody asks for them; hardly anybody does."""

    def __init__(self, *, metadata: Callable[[], pl.Series] | pl.Series, **columns: Any) -> None:
        self._told = metadata
        for name, column in columns.items():
            setattr(self, name, column)

    @cached_property
    def metadata(self) -> pl.Series:  # type: ignore[override]
        return self._told() if callable(self._told) else self._told


class Spliced(NamedTuple):
    """A history, and where its rows come from: rows of the old one, or ~ rows of the new; None: all old."""

    typed: Typed
    origin: np.ndarray | None

    def parted(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell rows of the old history from rows of the new one, and number them as these do."""
        if self.origin is None:
            return rows, NO_ROWS
        origin = self.origin[rows]
        return origin[origin >= 0], ~origin[origin < 0]


class Places(NamedTuple):
    """Where a history's aggregates stand in another one's sorted ids, and which of them it knows."""

    number: np.ndarray
    known: np.ndarray


def nothing() -> Typed:
    """Give a history without events."""
    return Typed(
        ids=pl.Series([], dtype=pl.String),
        starts=NO_ROWS,
        version=NO_ROWS,
        timestamp=NO_ROWS,
        kind=np.zeros(0, dtype=np.uint8),
        kinds=[],
        metadata=pl.Series([], dtype=EVENTS["metadata"]),
    )


def places(ids: pl.Series, wanted: pl.Series) -> Places:
    """Find ids among sorted ids: each one's number, or the number before which it would stand."""
    if not len(ids) or not len(wanted):
        return Places(np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool))
    number = ids.search_sorted(wanted).to_numpy().astype(np.int64)
    there = ids.gather(np.minimum(number, len(ids) - 1)) == wanted
    return Places(number, there.to_numpy() & (number < len(ids)))


def splice(old: Typed, gone: np.ndarray, new: Typed) -> Spliced:
    """Leave rows of a history out (ascending), and put the rows of another one where they belong.

    No row that stays may have the aggregate_id and version of a new one.
    """
    if not len(new) and not len(gone):
        return Spliced(old, None)
    if not len(old):
        return Spliced(new, ~np.arange(len(new)))
    keep = np.ones(len(old), dtype=bool)
    keep[gone] = False
    origin = np.flatnonzero(keep)
    found = places(old.ids, new.ids)
    before = _before(old, new, found)
    before -= np.searchsorted(gone, before)  # counted among those that stay
    added = before + np.arange(len(new))
    if len(new):
        origin = np.insert(origin, before, ~np.arange(len(new)))

    def merged(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        taken = ours.take(origin, mode="clip")
        taken[added] = theirs
        return taken

    def metadata() -> pl.Series:
        if not len(new):
            return old.metadata.gather(origin)
        both = pl.concat([old.metadata, new.metadata])
        return both.gather(np.where(origin < 0, len(old) + ~origin, origin))

    kinds = sorted({*old.kinds, *new.kinds})
    moved = _mover(old, gone, origin)
    work: list[Callable[[], Any]] = [
        lambda: merged(old.version, new.version),
        lambda: merged(old.timestamp, new.timestamp),
        lambda: merged(_codes(old, kinds), _codes(new, kinds)),
        *(partial(moved, part) for part in old.parts),
    ]
    version, timestamp, kind, *parts = each(lambda column: column(), work, len(old))
    parts += [dataclasses.replace(part, rows=added[part.rows]) for part in new.parts]
    ids, starts = _aggregates(old, gone, new, found)
    spliced = Later(
        ids=ids,
        starts=starts,
        version=version,
        timestamp=timestamp,
        kind=kind,
        kinds=kinds,
        metadata=metadata,
        parts=[part for part in parts if len(part.rows)],
    )
    return Spliced(spliced, origin)


def lives(history: Typed, numbers: np.ndarray) -> tuple[Typed, np.ndarray]:
    """Keep some aggregates (ascending), and tell the rows that they had."""
    lengths = (history.ends - history.starts)[numbers]
    rows = ranges(history.starts[numbers], lengths)
    wanted = np.zeros(len(history), dtype=bool)
    wanted[rows] = True
    place = np.empty(len(history), dtype=np.int32 if len(history) < 2**31 else np.int64)
    place[rows] = np.arange(len(rows))

    def some(part: Part) -> Part:
        kept = np.flatnonzero(wanted.take(part.rows))
        fields = (
            part.fields.select(pl.all().gather(kept)) if part.fields.width else pl.DataFrame(height=len(kept))
        )
        rows = place.take(part.rows.take(kept)).astype(np.int64)
        filled = {step: wrote[kept] for step, wrote in part.filled.items()}
        return dataclasses.replace(part, rows=rows, fields=fields, filled=filled)

    parts = [part for part in each(some, history.parts, len(history)) if len(part.rows)]
    found = Later(
        ids=history.ids.gather(numbers),
        starts=np.cumsum(lengths) - lengths,
        version=history.version.take(rows),
        timestamp=history.timestamp.take(rows),
        kind=history.kind.take(rows),
        kinds=history.kinds,
        metadata=lambda: history.metadata.gather(rows),
        parts=parts,
    )
    return found, rows


def _before(old: Typed, new: Typed, found: Places) -> np.ndarray:
    """Give for each new row the old row before which it comes."""
    owner = new.aggregate_of(np.arange(len(new)))
    number, known = found.number[owner], found.known[owner]
    before = old.bounds[number].astype(np.int64)
    if not known.any():
        return before
    low, high = before[known], old.bounds[number[known] + 1]
    last = rows_at(old.version, low, high, new.version[known])
    before[known] = np.where(last < 0, low, last + 1)
    return before


def _aggregates(old: Typed, gone: np.ndarray, new: Typed, found: Places) -> tuple[pl.Series, np.ndarray]:
    """Give the ids that have an event, and each one's first row."""
    lengths = np.diff(old.bounds)
    lengths -= np.bincount(old.aggregate_of(gone), minlength=len(lengths))
    more, strange = np.diff(new.bounds), ~found.known
    lengths[found.number[found.known]] += more[found.known]
    alive = np.flatnonzero(lengths)
    order = np.insert(
        alive,
        np.searchsorted(alive, found.number[strange]),
        len(lengths) + np.arange(int(strange.sum())),
    )
    lengths = np.concatenate([lengths, more[strange]])[order]
    starts = np.cumsum(lengths) - lengths
    if len(order) == len(old.ids) and not strange.any():
        return old.ids, starts
    return pl.concat([old.ids, new.ids.filter(strange)], rechunk=True).gather(order), starts


def _mover(old: Typed, gone: np.ndarray, origin: np.ndarray) -> Callable[[Part], Part]:
    """Give a function that moves a part of the old history to where its rows are in the spliced one."""
    place = np.full(len(old), -1, dtype=np.int64)
    stay = np.flatnonzero(origin >= 0)
    place[origin[stay]] = stay
    touched = {old.kinds[code] for code in np.unique(old.kind[gone])}

    def moved(part: Part) -> Part:
        rows = place.take(part.rows)
        return part.renumbered(rows) if part.event_type in touched else dataclasses.replace(part, rows=rows)

    return moved


def _codes(typed: Typed, kinds: list[str]) -> np.ndarray:
    """Give the event types as codes into other kinds, which hold these."""
    if typed.kinds == kinds:
        return typed.kind
    width = np.promote_types(typed.kind.dtype, np.min_scalar_type(len(kinds)))
    if not typed.kinds:
        return typed.kind.astype(width)
    return np.array([kinds.index(kind) for kind in typed.kinds], dtype=width)[typed.kind]
