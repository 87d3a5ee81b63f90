"""States on a grid of instants, in one pass over transitions: what enters a cell, less what leaves it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

import numpy as np
import polars as pl

from titan_lab.clock import Instant, instant, zone_of
from titan_lab.errors import InstantError
from titan_lab.event import moments
from titan_lab.rows import Rows
from titan_lab.tracks import Track

Cells: TypeAlias = (
    tuple[np.ndarray, np.ndarray] | None
)  # first cell, and the one after the last; None: cell 0 alone

LIMB = 22  # bits; a double adds two thousand million numbers of 22 bits without rounding
EXACT = 2**53


def instants(step: str | timedelta, since: Instant, until: Instant, zone: str | None) -> pl.Series:
    """Lay out instants from `since` to `until`, both inclusive, in steps of the calendar of `zone`.

    A step of "1d" is a day of that zone, 23 or 25 hours long where its clocks change; "1mo" is a month. A
    local time that was skipped when clocks went forward is the moment they did so, as in ``clock.instant``.
    """
    start, end = instant(since, zone), instant(until, zone)
    if end < start:
        raise InstantError(f"the grid ends at {end.isoformat()}, before it begins at {start.isoformat()}")
    where = zone or "UTC"
    zone_of(where)
    ends = pl.Series([start, end], dtype=pl.Datetime("us", "UTC"))
    calendar = isinstance(step, str) and re.search("[dwqy]|mo", step)
    if calendar:
        ends = ends.dt.convert_time_zone(where).dt.replace_time_zone(None)
    try:
        grid = pl.datetime_range(ends[0], ends[1], step, time_unit="us", eager=True)
    except pl.exceptions.PolarsError as error:
        raise InstantError(
            f"{step!r} is no step: {error}", hint="use '15m', '1h', '1d', '1w', '1mo'"
        ) from error
    if calendar:
        grid = moments(grid, where).clip(start)
        grid = grid.filter(grid <= end)
    return grid.cast(pl.Datetime("us", "UTC")).alias("instant")


def tally(
    grid: pl.Series, rows: Rows, by: Track | None, measure: Track | None
) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """Count the states on a grid of instants, and add up the smallest units of a measure over them.

    Returns the values of `by` that occur, sorted, and counts and sums (no sums without a measure) as int64
    arrays of instants x values.
    """
    counted, stamps = rows.counted("prefix"), grid.to_physical().to_numpy()
    groups = pl.Series([None]) if by is None else by.groups
    shape = (len(grid), len(groups))

    def add_up(some: np.ndarray, owners: np.ndarray, cells: Cells = None) -> np.ndarray:
        group = np.zeros(len(some), dtype=np.intp) if by is None else by.grouped(some, owners)
        weights = None if measure is None else measure.units(some, owners)
        counts = occupancy(cells, group, shape)
        return np.stack([counts, counts if weights is None else occupancy(cells, group, shape, weights)])

    if len(grid) == 1:
        parts = rows.last_within(counted, stamps[0], add_up)
    else:
        enter = np.searchsorted(stamps, counted, side="left")
        leave = rows.until(enter, len(grid))
        some = np.flatnonzero(enter < leave)  # what came and went between two instants is in no cell
        parts = [add_up(some, rows.owners[some], (enter[some], leave[some]))]
    counts, sums = np.sum(parts, axis=0) if parts else np.zeros((2, *shape), dtype=np.int64)
    # Of all together there is always a count, be it 0.
    occurs = np.flatnonzero(counts.any(axis=0) | (by is None))
    return groups.gather(occurs), counts[:, occurs], sums[:, occurs]


def occupancy(
    cells: Cells, group: np.ndarray, shape: tuple[int, int], weights: np.ndarray | None = None
) -> np.ndarray:
    """Count (or add up the int64 weights of) what lies in each cell, by group: an array of cells x groups.

    What enters a cell is added, what leaves before it is taken off, and the running sum is what is there.
    """
    width, groups = shape
    if cells is None:
        return exact_sums(group, weights, groups).reshape(1, groups)
    enter, leave = cells
    size = groups * (width + 1)
    come = exact_sums(enter * groups + group, weights, size)
    gone = exact_sums(leave * groups + group, weights, size)
    return np.cumsum((come - gone).reshape(width + 1, groups), axis=0)[:width]


def exact_sums(keys: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    """Add up int64 weights by key without rounding; no weights means count."""
    if weights is None:
        return np.bincount(keys, minlength=size)
    if not len(weights) or max(float(weights.max()), -float(weights.min())) * len(weights) < EXACT:
        return np.bincount(keys, weights, minlength=size).astype(np.int64)
    sums = np.zeros(size, dtype=np.int64)
    for shift in range(0, 64, LIMB):
        limb = weights >> shift
        if shift + LIMB < 64:
            limb = limb & ((1 << LIMB) - 1)
        sums += np.bincount(keys, limb.astype(np.float64), minlength=size).astype(np.int64) << shift
    return sums
