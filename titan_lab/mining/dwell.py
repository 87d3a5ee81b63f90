"""Stays: how long aggregates are in each state, and what can be said of those that are in it still."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from titan_lab.clock import Instant, micros
from titan_lab.errors import DeclarationError
from titan_lab.event import TIMESTAMP
from titan_lab.parallel import each
from titan_lab.states import as_instants
from titan_lab.timeline import Timeline

MEDIAN, P90 = 0.5, 0.1  # the shares of stays that are longer
HAIR = 1e-9  # a product of shares that should be 0.5 may come out a little above
FEW = 256  # states that a column may have
DURATION = pl.Duration("us")
# Microseconds: all below a second together, then five lengths for each power of ten, up to thirty years.
LENGTHS = np.array([0, *(round(10 ** (6 + place / 5)) for place in range(46))], dtype=np.int64)
STAYS = {
    "aggregate_id": pl.String(),
    "version": pl.Int64(),
    "entered_at": TIMESTAMP,
    "left_at": TIMESTAMP,
    "duration": DURATION,
}


@dataclass(frozen=True)
class Stays:
    """Every stay up to a horizon, one per place, in order of row.

    rows: the event that began it. codes: its state, as a place in `states`, which are sorted. entered and
    length in microseconds; where it is `open`, the length is what had passed by the horizon.
    """

    states: pl.Series
    rows: np.ndarray
    codes: np.ndarray
    entered: np.ndarray
    length: np.ndarray
    open: np.ndarray

    def take(self, places: np.ndarray) -> Stays:
        """Keep only these."""
        rows, codes, entered, length, open_ = (
            one.take(places) for one in (self.rows, self.codes, self.entered, self.length, self.open)
        )
        return Stays(self.states, rows, codes, entered, length, open_)


def find(book: Timeline, column: str, until: Instant | None) -> Stays:
    """Find the stays in each value of a column: the longest runs of rows of an aggregate that have it."""
    track = book.track(column)
    if track.dtype.is_nested():
        raise DeclarationError(
            f"{column} holds {track.dtype}, and a list is no state to stay in", hint="use one of plain values"
        )
    horizon = (book.span or (0, 0))[1] if until is None else micros(until, book.zone)
    rows, counted = book.rows, book.rows.counted("prefix")
    codes = track.grouped(np.arange(len(counted)), rows.owners)
    begins = np.ones(len(counted), dtype=bool)
    begins[1:] = codes[1:] != codes[:-1]
    begins[book.typed.starts] = True
    places = np.flatnonzero(begins)
    last = np.ones(len(places), dtype=bool)  # of its aggregate
    last[:-1] = ~rows.followed.take(places[1:] - 1)
    entered = counted.take(places)
    left = np.append(entered, horizon)[1:]
    open_ = last | (left > horizon)
    np.copyto(left, horizon, where=open_)
    found = Stays(track.groups, places, codes.take(places), entered, left - entered, open_)
    return found if until is None else found.take(np.flatnonzero(entered <= horizon))


def stays(book: Timeline, column: str, until: Instant | None) -> pl.DataFrame:
    """List every stay; ``Book.stays`` tells the columns."""
    found = find(book, column, until)
    return pl.DataFrame(
        {
            "aggregate_id": book.typed.ids.gather(book.rows.owners.take(found.rows)),
            "version": book.typed.version.take(found.rows),
            "state": found.states.gather(found.codes),
            "entered_at": as_instants(found.entered),
            "left_at": as_instants(found.entered + found.length, nulls=found.open),
            "duration": pl.Series(found.length).cast(DURATION),
        },
        schema_overrides=STAYS,
    )


def dwell(book: Timeline, column: str, until: Instant | None) -> pl.DataFrame:
    """Sum the stays up by state; ``Book.dwell`` tells the columns and the formulas."""
    found = find(book, column, until)
    counts = np.bincount(found.codes, minlength=len(found.states))
    occurring = np.flatnonzero(counts)
    if len(occurring) > FEW:
        raise DeclarationError(
            f"{column} has {len(occurring):,} values, and dwell is for a column of up to {FEW:,} states",
            hint="book.stays() lists the stays of any column",
        )
    place = np.zeros(len(found.states), dtype=np.uint8)  # a byte is looked through faster
    place[occurring] = np.arange(len(occurring))
    codes = place.take(found.codes)

    def one(code: int) -> tuple[int, int, int | None, int, int | None, int]:
        some = np.flatnonzero(codes == code)
        length, open_ = found.length.take(some), found.open.take(some)
        finished, censored = (length.take(np.flatnonzero(kept)) for kept in (~open_, open_))
        median, mean, p90 = survival(finished, censored)
        return len(finished), len(censored), median, mean, p90, _milliseconds(length)

    told = each(one, range(len(occurring)), len(codes))
    finished, open_, medians, means, p90s, totals = zip(*told, strict=True) if told else [()] * 6
    return pl.DataFrame(
        {
            "state": found.states.gather(occurring),
            "entered": pl.Series(counts[occurring], dtype=pl.Int64),
            "finished": pl.Series(finished, dtype=pl.Int64),
            "open": pl.Series(open_, dtype=pl.Int64),
            "median": pl.Series(medians, dtype=pl.Int64).cast(DURATION),
            "mean": pl.Series(means, dtype=pl.Int64).cast(DURATION),
            "p90": pl.Series(p90s, dtype=pl.Int64).cast(DURATION),
            "total": pl.Series(totals, dtype=pl.Int64).cast(pl.Duration("ms")),
        }
    )


def spread(book: Timeline, column: str, until: Instant | None) -> pl.DataFrame:
    """Count the stays by state and by how long they last, or have lasted by the horizon.

    Returns state; from and to Duration(us), the lengths counted together, inclusive and exclusive (to is null
    for the longest of all); finished and open Int64, of stays that are over and that are not. Only lengths
    that occur, sorted by state, from. They are the same in every history: below a second, then five for each
    power of ten.
    """
    found = find(book, column, until)
    size = len(LENGTHS)
    cells = found.codes.astype(np.int64) * size + np.searchsorted(LENGTHS, found.length, side="right") - 1
    finished, open_ = (
        np.bincount(cells[kept], minlength=size * len(found.states)) for kept in (~found.open, found.open)
    )
    there = np.flatnonzero(finished + open_)
    states, lengths = np.divmod(there, size)
    ends = pl.Series(np.append(LENGTHS[1:], 0)[lengths]).cast(DURATION)
    return pl.DataFrame(
        {
            "state": found.states.gather(states),
            "from": pl.Series(LENGTHS[lengths]).cast(DURATION),
            "to": ends.set(pl.Series(lengths == size - 1), None),
            "finished": finished[there],
            "open": open_[there],
        },
        schema_overrides={"finished": pl.Int64, "open": pl.Int64},
    )


def survival(finished: np.ndarray, censored: np.ndarray) -> tuple[int | None, int, int | None]:
    """Estimate median, restricted mean and 90th percentile of lengths, some of them cut off by the horizon.

    S(t), the share of stays that are longer than t, is the product over the lengths up to t of 1 - ended /
    at risk; at risk is every stay that is as long or longer, cut off or not (Kaplan and Meier 1958, Journal
    of the American Statistical Association 53, 457-481). A percentile is the smallest length at
    which S is no more than what is left; None where S never falls that far. The mean is the area under S up
    to the longest stay of all (Klein and Moeschberger, Survival Analysis, 2nd edition, section 4.5).
    """
    finished, censored = np.sort(finished), np.sort(censored)
    longest = max(finished[-1] if len(finished) else 0, censored[-1] if len(censored) else 0)
    first = np.ones(len(finished), dtype=bool)
    first[1:] = finished[1:] != finished[:-1]
    places = np.flatnonzero(first)
    lengths = finished[places]
    ended = np.diff(np.append(places, len(finished)))
    at_risk = len(finished) - places
    if len(censored):
        at_risk = at_risk + len(censored) - np.searchsorted(censored, lengths)
    share = np.cumprod(1 - ended / at_risk)
    before, held = np.append(1.0, share), np.diff(np.concatenate([[0], lengths, [longest]]))
    return (
        _falls_to(MEDIAN, share, lengths),
        round(float((before * held).sum())),
        _falls_to(P90, share, lengths),
    )


def _falls_to(left: float, share: np.ndarray, lengths: np.ndarray) -> int | None:
    below = np.flatnonzero(share <= left + HAIR)
    return int(lengths[below[0]]) if len(below) else None


def _milliseconds(lengths: np.ndarray) -> int:
    """Add up microseconds, which together may leave 64 bits, to whole milliseconds, half to even."""
    seconds, rest = np.divmod(lengths, 10**6)
    return round(Fraction(int(seconds.sum()) * 10**6 + int(rest.sum()), 1000))
