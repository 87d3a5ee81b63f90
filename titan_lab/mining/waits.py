"""Waits: lengths of time by group, with means and quantiles that are exact to the microsecond.

All in whole microseconds, so that no sum overflows, no order of adding matters, and the same events give the
same bytes: a mean and a quantile are rounded down.
"""

from __future__ import annotations

import numpy as np
import polars as pl

LIMB = 32  # bits: halves of this size add up without leaving 64


class Waits:
    """Lengths of time, none negative, each in one of `size` groups."""

    def __init__(self, groups: np.ndarray, lengths: np.ndarray, size: int) -> None:
        self.counts = np.bincount(groups, minlength=size)
        self._ends = np.cumsum(self.counts)
        bits = int(lengths.max(initial=0)).bit_length()
        if bits + size.bit_length() < 64:  # then one number sorts by both
            keys = groups.astype(np.int64) << bits
            keys |= lengths
            keys.sort()
            keys &= (1 << bits) - 1
            self._sorted = keys
        else:
            self._sorted = lengths[np.lexsort((lengths, groups))]

    def mean(self) -> pl.Series:
        """Give each group's mean as Duration(us), null for an empty group."""
        sums = [self._sums(self._sorted >> LIMB), self._sums(self._sorted & ((1 << LIMB) - 1))]
        means = [
            None if not count else ((int(high) << LIMB) + int(low)) // int(count)
            for high, low, count in zip(*sums, self.counts, strict=True)
        ]
        return pl.Series(means, dtype=pl.Int64).cast(pl.Duration("us"))

    def quantile(self, tenths: int) -> pl.Series:
        """Give what so many tenths of each group do not exceed, in a straight line between neighbours.

        The definition of numpy's and SQL's (``percentile_cont``); 5 is the median. Null for an empty group.
        """
        some = np.flatnonzero(self.counts)
        place, tenth = np.divmod((self.counts[some] - 1) * tenths, 10)
        low = self._sorted[(self._ends - self.counts)[some] + place]
        high = self._sorted[(self._ends - self.counts)[some] + place + (tenth > 0)]
        found = np.zeros(len(self.counts), dtype=np.int64)
        found[some] = _between(low, high, tenth)
        return pl.Series(found).cast(pl.Duration("us")).set(pl.Series(self.counts == 0), None)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        running = np.append(0, np.cumsum(values))
        return running[self._ends] - running[self._ends - self.counts]


def quantile(lengths: np.ndarray, tenths: int) -> int | None:
    """Give what so many tenths of all lengths do not exceed, as `Waits.quantile` does of each group."""
    if not len(lengths):
        return None
    place, tenth = divmod((len(lengths) - 1) * tenths, 10)
    # To put one in its place is many times faster than to sort, and the next is the least of those after it.
    parted = np.partition(lengths, place)
    return int(_between(parted[place], parted[place + 1 :].min() if tenth else parted[place], tenth))


def _between(low: np.ndarray, high: np.ndarray, tenth: np.ndarray | int) -> np.ndarray:
    # In two parts, so that years of microseconds times ten stay within 64 bits, too.
    whole, rest = np.divmod(high - low, 10)
    return low + whole * tenth + rest * tenth // 10
