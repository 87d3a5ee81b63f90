"""States on a grid of instants, in one pass over transitions: what enters a cell, less what leaves it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from titan_lab.clock import Instant, instant, zone_of
from titan_lab.errors import InstantError

LIMB = 22  # bits; a double adds two thousand million numbers of 22 bits without rounding
EXACT = 2**53


def instants(step: str | timedelta, since: Instant, until: Instant, zone: str | None) -> pl.Series:
    """Lay out instants from `since` to `until`, both inclusive, in steps of the calendar of `zone`.

    A step of "1d" is a day of that zone, 23 or 25 hours long where its clocks change; "1mo" is a month.
    """
    start, end = instant(since, zone), instant(until, zone)
    if end < start:
        raise InstantError(f"the grid ends at {end.isoformat()}, before it begins at {start.isoformat()}")
    where = zone or "UTC"
    zone_of(where)
    local = pl.Series([start, end]).dt.convert_time_zone(where)
    try:
        grid = pl.datetime_range(local[0], local[1], step, time_unit="us", time_zone=where, eager=True)
    except pl.exceptions.PolarsError as error:
        raise InstantError(f"{step!r} is no step: {error}", hint="use '15m', '1h', '1d', '1w', '1mo'") from error
    return grid.dt.convert_time_zone("UTC").alias("instant")


def occupancy(
    cells: tuple[np.ndarray, np.ndarray] | None,
    group: np.ndarray,
    groups: int,
    width: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Count (or add up the int64 weights of) what lies in each of width cells, by group: width x groups numbers.

    Each thing is in cells [enter, leave), and only in cell 0 when `cells` is None. Sums are exact.
    """
    if cells is None:
        return exact_sums(group, weights, groups)
    enter, leave = cells
    size = groups * (width + 1)
    come = exact_sums(enter * groups + group, weights, size)
    gone = exact_sums(leave * groups + group, weights, size)
    return np.cumsum((come - gone).reshape(width + 1, groups), axis=0)[:width].reshape(-1)


def exact_sums(keys: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    """Add up int64 weights by key without rounding; no weights means count."""
    if weights is None:
        return np.bincount(keys, minlength=size)
    if not len(weights) or float(np.abs(weights).max()) * len(weights) < EXACT:
        return np.bincount(keys, weights, minlength=size).astype(np.int64)
    sums = np.zeros(size, dtype=np.int64)
    for shift in range(0, 64, LIMB):
        limb = weights >> shift
        if shift + LIMB < 64:
            limb = limb & ((1 << LIMB) - 1)
        sums += np.bincount(keys, limb.astype(np.float64), minlength=size).astype(np.int64) << shift
    return sums
