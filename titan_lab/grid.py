"""States on a grid of instants, in one pass over transitions: what enters a cell, less what leaves it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from titan_lab.clock import MICROSECOND, Instant, instant, micros, zone_of
from titan_lab.errors import EventsError, InstantError
from titan_lab.event import TIMESTAMP, moments
from titan_lab.parallel import each, spans
from titan_lab.rows import PIECE, Rows
from titan_lab.tracks import Track

MOST = 10_000_000  # cells of one grid: beyond that, nobody reads them and memory runs out
UNITS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}
STEP = re.compile(r"(?:\d+(?:us|ms|s|mo|m|h|d|w|q|y))+")
CALENDAR = re.compile("[dwqy]|mo")
LIMB = 22  # bits; a double adds two thousand million numbers of 22 bits without rounding
FULL, HALF = 2**63, 32  # what 64 bits do not hold, and the bits in half of them
FEW = 400  # instants of a grid whose step nobody chose
SECOND = 1_000_000  # microseconds
STEPS = {
    step: SECOND * seconds
    for step, seconds in {
        "1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "1d": 86_400, "1w": 604_800,
    }.items()
}  # fmt: skip
EXACT = 2**53
LOW = 20  # bits of a birth that are added up apart from the rest: all of them together leave 64 bits


def instants(step: str | timedelta, since: Instant, until: Instant, zone: str | None) -> pl.Series:
    """Lay out instants from `since` to `until`, both inclusive, in steps of the calendar of `zone`.

    A step of "1d" is a day of that zone, 23 or 25 hours long where its clocks change; "1mo" is a month. A
    local time that was skipped when clocks went forward is later by as much as they went, as in
    ``clock.instant``.
    Raises InstantError for a step that is none, and for more than `MOST` instants.
    """
    start, end = instant(since, zone), instant(until, zone)
    if end < start:
        raise InstantError(f"the grid ends at {end.isoformat()}, before it begins at {start.isoformat()}")
    where = zone or "UTC"
    zone_of(where)
    width = _width(step)
    if width is not None:
        count = (end - start) // MICROSECOND // width + 1
        refuse_many(count)
        return pl.Series("instant", micros(start) + np.arange(count) * width).cast(TIMESTAMP)
    ends = pl.Series([start, end], dtype=TIMESTAMP)
    ends = ends.dt.convert_time_zone(where).dt.replace_time_zone(None)
    try:
        grid = pl.datetime_range(ends[0], ends[1], step, time_unit="us", eager=True)
    except pl.exceptions.PolarsError as error:
        raise _no_step(step, str(error)) from error
    grid = moments(grid, where).clip(start)
    return grid.filter(grid <= end).cast(TIMESTAMP).alias("instant")


def step_for(start: int, end: int) -> str:
    """Choose the shortest step whose grid, over these microseconds, has no more than some 400 instants."""
    return next((step for step, width in STEPS.items() if end - start <= width * FEW), "1mo")


def _width(step: str | timedelta) -> int | None:
    """Give a step's length in microseconds, or None for one that the calendar measures."""
    width: int | None
    if isinstance(step, timedelta):
        width = step // MICROSECOND
    elif not isinstance(step, str) or not STEP.fullmatch(step.strip()):
        raise _no_step(step, "it does not go forward" if str(step).startswith("-") else "it cannot be read")
    elif CALENDAR.search(step):
        width = None if re.search("[1-9]", step) else 0  # of the calendar, or none at all
    else:
        width = sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([a-z]+)", step))
    if width is not None and width <= 0:
        raise _no_step(step, "it does not go forward")
    return width


def _no_step(step: object, why: str) -> InstantError:
    return InstantError(f"{step!r} is no step: {why}", hint="use '15m', '1h', '1d', '1w', '1mo'")


def refuse_many(instants: int, values: int | None = None) -> None:
    """Raise InstantError for a grid of more than `MOST` cells, and say how many they are."""
    cells = instants * (1 if values is None else values)
    if cells > MOST:
        told = f"{instants:,} instants" + ("" if values is None else f" x {values:,} values")
        fitting = -(-cells // MOST)
        raise InstantError(
            f"a grid of {told} has {cells:,} cells, {cells - MOST:,} more than the {MOST:,} it may have",
            hint=f"take a step {fitting:,} times as long, a shorter span, or a `by` of fewer values",
            cells=cells,
        )


class Tally(NamedTuple):
    """What was found on a grid: the values that occur, sorted, and arrays of instants x values.

    sums: in smallest units, no sums without a measure. ages: the mean in microseconds, rounded half to even,
    or None where it was not asked for; it means nothing where the count is 0.
    """

    groups: pl.Series
    counts: np.ndarray
    sums: np.ndarray
    ages: np.ndarray | None


class High(NamedTuple):
    """The upper halves of a measure: their sums tell whether its own leave 64 bits, in which they wrap."""

    measure: Track | High

    def units(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Gather the upper 32 bits, whose sum is short of the whole one's by less than 1 for each."""
        return self.measure.units(rows, owners) >> HALF


def refuse_large(high: np.ndarray, counts: np.ndarray) -> None:
    """Raise EventsError where sums, of which the upper halves add up to `high`, are not within 64 bits."""
    if ((high < -(1 << HALF - 1)) | (high + counts > 1 << HALF - 1)).any():
        raise EventsError(
            "the amounts add up to more than 64 bits of their smallest unit hold",
            hint="look for amounts that cannot be right in log.read()",
        )


def peak(units: np.ndarray) -> int:
    """Give the largest size among numbers."""
    return max(int(units.max()), -int(units.min())) if len(units) else 0


def tally(
    grid: pl.Series, rows: Rows, by: Track | None, measure: Track | High | None, age: bool = False
) -> Tally:
    """Count the states on a grid of instants, add up a measure over them, and take their mean age."""
    counted, stamps = rows.counted("prefix"), grid.to_physical().to_numpy()
    groups = pl.Series([None]) if by is None else by.groups
    refuse_many(len(grid), len(groups))
    alone = len(grid) == 1
    shape = (len(grid) + (not alone), len(groups))  # what comes after the grid has a row of its own
    size = shape[0] * shape[1]

    peaks = [0]

    def look(some: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        numbers = np.zeros(len(some), dtype=np.intp) if by is None else by.grouped(some, owners)
        weights = [] if measure is None else [measure.units(some, owners)]
        peaks.extend(peak(one) for one in weights)
        if age:
            born = counted[rows.typed.starts[owners]] - stamps[0]
            weights += [born >> LOW, born & ((1 << LOW) - 1)]
        return numbers, weights

    def standing(some: np.ndarray, owners: np.ndarray) -> np.ndarray:
        numbers, weights = look(some, owners)
        return np.stack([exact_sums(numbers, one, size) for one in (None, *weights)])

    def turning(piece: slice) -> np.ndarray:
        with_before = slice(max(piece.start - 1, 0), piece.stop)
        numbers, weights = look(np.arange(with_before.start, piece.stop), rows.owners[with_before])
        places = cells.of(counted[with_before]) * len(groups)
        return _turnover(numbers, weights, places, rows.followed[with_before], piece.start == 0, size)

    if alone:
        parts = rows.last_within(counted, stamps[0], standing)
    else:
        cells = Cells(stamps)
        # A piece has no fewer rows than there are cells, or adding those up would cost more than itself.
        parts = each(turning, spans(len(counted), max(PIECE, size)), len(counted))
    totals = (
        np.sum(parts, axis=0) if parts else np.zeros((1 + (measure is not None) + 2 * age, size), np.int64)
    )
    counts, *rest = np.cumsum(totals.reshape(len(totals), *shape), axis=1)[:, : len(grid)]
    # Of all together there is always a count, be it 0.
    occurs = np.flatnonzero(counts.any(axis=0) | (by is None))
    sums = counts if measure is None else rest[0]
    if measure is not None and max(peaks) * int(counts.max(initial=0)) >= FULL:
        refuse_large(tally(grid, rows, by, High(measure)).sums, counts[:, occurs])
    ages = _mean_ages(stamps, counts, rest[-2], rest[-1])[:, occurs] if age else None
    return Tally(groups.gather(occurs), counts[:, occurs], sums[:, occurs], ages)


def _turnover(
    numbers: np.ndarray,
    weights: list[np.ndarray],
    cells: np.ndarray,
    followed: np.ndarray,
    first: bool,
    size: int,
) -> np.ndarray:
    """Add up what enters each cell, less what leaves it, on the rows at which something is another.

    Of a piece that is not the first, row 0 was counted in the piece before it.
    """
    turns = numbers[1:] != numbers[:-1]
    for values in weights:
        turns |= values[1:] != values[:-1]
    left = np.flatnonzero(turns & followed[:-1])  # rows that are over when their successor comes
    came = np.flatnonzero(turns | ~followed[:-1])
    came += 1
    if first:
        came = np.append(0, came)
    come, gone = cells.take(came), cells[1:].take(left)
    come += numbers.take(came)
    gone += numbers.take(left)
    return np.stack(
        [
            exact_sums(come, None if one is None else one.take(came), size)
            - exact_sums(gone, None if one is None else one.take(left), size)
            for one in (None, *weights)
        ]
    )


class Cells:
    """Find the first instant of a grid that is not before a moment."""

    def __init__(self, stamps: np.ndarray) -> None:
        self.stamps = np.append(stamps, np.iinfo(np.int64).max)
        gap = int(np.diff(stamps).min(initial=2**40))
        self.shift = max(gap.bit_length() - 1, 0)  # so that no two instants lie within 2**shift
        buckets = (int(stamps[-1] - stamps[0]) >> self.shift) + 2
        few = gap > 0 and buckets <= max(4 * len(stamps), 2**16)
        self.table = np.searchsorted(stamps, stamps[0] + (np.arange(buckets) << self.shift)) if few else None

    def of(self, moments: np.ndarray) -> np.ndarray:
        """Number the cells, from 0 on; one past the last for a moment after the grid."""
        if self.table is None:
            return np.searchsorted(self.stamps[:-1], moments)
        bucket = moments - self.stamps[0]
        bucket >>= self.shift
        cells = self.table.take(bucket, mode="clip")
        cells += self.stamps.take(cells) < moments
        return cells


def _mean_ages(stamps: np.ndarray, counts: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Divide the ages in each cell by their number: count x instant - births, exactly, half to even.

    Births are counted from the grid's first instant on, as high * 2**LOW + low.
    """
    many = np.maximum(counts, 1)
    whole, rest = np.divmod(high, many)
    more, rest = np.divmod((rest << LOW) + low, many)
    ages = (stamps - stamps[0])[:, None] - (whole << LOW) - more
    # The mean is `ages` less rest/many of a microsecond.
    down = (2 * rest > many) | ((2 * rest == many) & (ages % 2 == 1))
    return ages - down


def exact_sums(keys: np.ndarray, weights: np.ndarray | None, size: int) -> np.ndarray:
    """Add up int64 weights by key without rounding; no weights means count."""
    if weights is None:
        return np.bincount(keys, minlength=size)
    if peak(weights) * len(weights) < EXACT:
        return np.bincount(keys, weights, minlength=size).astype(np.int64)
    sums = np.zeros(size, dtype=np.int64)
    for shift in range(0, 64, LIMB):
        limb = weights >> shift
        if shift + LIMB < 64:
            limb = limb & ((1 << LIMB) - 1)
        sums += np.bincount(keys, limb.astype(np.float64), minlength=size).astype(np.int64) << shift
    return sums
