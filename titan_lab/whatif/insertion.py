"""Where events that are put into a history may stand, and which of its own make room for them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from titan_lab.asof import rows_at
from titan_lab.errors import BranchError, nearest
from titan_lab.event import EVENTS, check, in_order, part_duplicates
from titan_lab.frames import as_frame
from titan_lab.lists import ranges
from titan_lab.typed import Typed
from titan_lab.whatif.edits import refuse
from titan_lab.whatif.splice import NO_ROWS, Places, places

NEAR = 20_000  # ids among which near ones are looked for


class Room(NamedTuple):
    """Events to be put into a history, and which of its rows move up, by how many versions, to make room."""

    events: pl.DataFrame
    moved: np.ndarray
    by: np.ndarray


def room_for(frame: Any, history: Typed, zone: str | None, shift: bool) -> Room:
    """Check events that are to be inserted against the history that they are to be part of.

    Raises BranchError where a row is no event, is of an aggregate nobody has (unless it begins one at version
    1), has a version that is taken (unless `shift`), or one that leaves a gap after the last.
    """
    raw = as_frame(frame, "what is inserted", BranchError)
    if raw.is_empty():
        return Room(EVENTS.to_frame(), NO_ROWS, NO_ROWS)
    unnumbered = "version" not in raw.columns or raw["version"].null_count() == len(raw)
    events, rejected = check(raw.with_columns(version=pl.lit(1)) if unnumbered else raw, zone)
    refuse(rejected, "inserted")
    if unnumbered:
        events = events.with_columns(version=_after_the_last(events["aggregate_id"], history))
    found, doubled = part_duplicates(in_order(events))
    if len(doubled):
        first = doubled.row(0, named=True)
        raise BranchError(
            f"the frame has version {first['version']} of {first['aggregate_id']} more than once",
            hint="give each event a version of its own, or none any: they are appended in row order",
            rejected=doubled,
        )
    places_found = places(history.ids, found.events["aggregate_id"])
    _refuse_strangers(found.events, found.first, places_found, history)
    return _room(found.events, found.first, places_found, history, shift)


def _after_the_last(ids: pl.Series, history: Typed) -> pl.Series:
    """Number events onwards from their aggregates' last, in the order of their rows."""
    found = places(history.ids, ids)
    if not found.known.all():
        raise _nobody(ids.filter(~found.known)[0], "", history)
    nth = ids.to_frame().select(pl.int_range(1, pl.len() + 1).over("aggregate_id")).to_series()
    return nth + history.version[history.ends[found.number] - 1]


def _refuse_strangers(events: pl.DataFrame, first: np.ndarray, found: Places, history: Typed) -> None:
    strange = np.flatnonzero(~found.known & first & (events["version"].to_numpy() != 1))
    if len(strange):
        aggregate_id, version = events.select("aggregate_id", "version").row(int(strange[0]))
        raise _nobody(aggregate_id, f", and the frame begins it at version {version}", history)


def _nobody(aggregate_id: str, told: str, history: Typed) -> BranchError:
    near = nearest(aggregate_id, history.ids.head(NEAR))
    return BranchError(
        f"nobody has the aggregate {aggregate_id!r}{told}",
        hint=" ".join(filter(None, [near, "A new one begins with an event of version 1"])),
        aggregate_id=aggregate_id,
    )


def _room(events: pl.DataFrame, first: np.ndarray, found: Places, history: Typed, shift: bool) -> Room:
    """Compare the versions of the new events, in order, with those of the history, life by life."""
    version = events["version"].to_numpy()
    begin = np.flatnonzero(first)
    life = np.cumsum(first) - 1
    nth = np.arange(len(events)) - begin[life]
    # With shift, the n-th that comes in finds that what follows those before it has moved up already.
    wanted = version - nth if shift else version
    last = np.zeros(len(events), dtype=np.int64)
    moved = by = NO_ROWS
    known = np.flatnonzero(found.known)
    if len(known):
        owner = found.number[known]
        low, high = history.bounds[owner].astype(np.int64), history.bounds[owner + 1].astype(np.int64)
        last[known] = history.version[high - 1]
        at = rows_at(history.version, low, high, wanted[known] - shift)
        if shift:
            start = np.where(at < 0, low, at + 1)
            lives, heads = np.unique(owner, return_index=True)
            lengths = history.ends[lives] - start[heads]
            moved = ranges(start[heads], lengths)
            by = np.searchsorted(start, moved, side="right") - np.repeat(heads, lengths)
        else:
            taken = np.flatnonzero((at >= 0) & (history.version[at] == wanted[known]))
            if len(taken):
                raise _taken(events, int(known[taken[0]]), history, int(at[taken[0]]))
    _refuse_gaps(events, life, nth, wanted > last, last, shift)
    return Room(events, moved, by)


def _taken(events: pl.DataFrame, place: int, history: Typed, row: int) -> BranchError:
    aggregate_id, version = events.select("aggregate_id", "version").row(place)
    return BranchError(
        f"version {version} of {aggregate_id} is taken by {history.kinds[history.kind[row]]}",
        hint="insert(frame, shift=True) moves it and all that follow it up by one;"
        " without a version, the event is appended after the last",
        aggregate_id=aggregate_id,
        version=version,
    )


def _refuse_gaps(
    events: pl.DataFrame, life: np.ndarray, nth: np.ndarray, beyond: np.ndarray, last: np.ndarray, shift: bool
) -> None:
    """Refuse an event that comes after its aggregate's last, but not right after it."""
    inside = np.bincount(life[~beyond], minlength=life[-1] + 1)[life]
    follows = last + nth + 1 - (0 if shift else inside)
    wrong = np.flatnonzero(beyond & (events["version"].to_numpy() != follows))
    if len(wrong):
        aggregate_id, version = events.select("aggregate_id", "version").row(int(wrong[0]))
        expected = int(follows[wrong[0]])
        raise BranchError(
            f"version {version} of {aggregate_id} would follow version {expected - 1} and leave a gap",
            hint=f"the next version is {expected}; without a version, the event is appended after the last",
            aggregate_id=aggregate_id,
            version=version,
        )
