"""Chains: how far each life comes along given steps, and the rows that prove it.

For every step and row it is written down which row takes that step next, so that a chain goes on by one look,
and all chains at once. Work goes in pieces of whole lives, each small enough for the processor's cache. All
order is row order, which is version order: equal timestamps are no ties, and a row proves one step only, also
where the same step stands twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from titan_lab.asof import rows_at
from titan_lab.parallel import each, joined
from titan_lab.rows import PIECE, Rows

Step = bytes  # one byte for each kind: whether an event of it takes the step


class Chains(NamedTuple):
    """Chains in order of aggregate and row, each at least one step long.

    lives: the aggregate's number; depth: how many steps; both one per chain. rows: for each step, the rows
    that take it, one for each chain that is so deep; waits: the microseconds since the step before (0 for the
    first).
    """

    lives: np.ndarray
    depth: np.ndarray
    rows: list[np.ndarray]
    waits: list[np.ndarray]


@dataclass(frozen=True)
class Course:
    """What makes a chain: steps, each in order, one right after the other where `strict`.

    any_order: the steps may come in any. within: microseconds that a chain may last. reentry: all chains of a
    life that do not overlap count; otherwise its longest, of equally long ones the first.
    """

    steps: Sequence[Step]
    within: int | None = None
    strict: bool = False
    any_order: bool = False
    reentry: bool = False

    @property
    def one_begin(self) -> bool:
        """Tell whether no chain can be better than the one from a life's first possible begin."""
        return self.within is None and not self.strict and not self.reentry


def chains(rows: Rows, course: Course) -> Chains:
    """Find the chains of all lives."""
    bounds = rows.typed.bounds
    moments, owners = rows.counted("prefix"), rows.owners  # worked out once, before the threads ask for them
    cuts = np.searchsorted(bounds, np.arange(0, len(rows.typed), PIECE))
    edges = np.unique(np.append(cuts, len(bounds) - 1))
    lives = [slice(int(start), int(stop)) for start, stop in pairwise(edges)]
    found = each(lambda some: _look(_Piece(rows, moments, owners, some), course), lives, len(rows.typed))

    def whole(step: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            joined([one.rows[step] for one in found], np.int64),
            joined([one.waits[step] for one in found], np.int64),
        )

    steps = each(whole, range(len(course.steps)), len(rows.typed))
    return Chains(
        joined([one.lives for one in found], np.int64),
        joined([one.depth for one in found], np.int64),
        [taken for taken, _ in steps],
        [waits for _, waits in steps],
    )


class _Taken(NamedTuple):
    """The rows that take a step, and for each row, itself included, the next of them."""

    rows: np.ndarray
    next: np.ndarray


class _Piece:
    """Some whole lives, their rows numbered from 0."""

    def __init__(self, rows: Rows, moments: np.ndarray, owners: np.ndarray, lives: slice) -> None:
        bounds = rows.typed.bounds[lives.start : lives.stop + 1]
        self.first_life, self.first_row = lives.start, int(bounds[0])
        some = slice(self.first_row, int(bounds[-1]))
        self.bounds = bounds - self.first_row
        self.kind = rows.typed.kind[some]
        self.moments = moments[some]
        self.owners = owners[some] - lives.start
        self.none = len(self.kind)  # the row that stands for "there is none"
        self._taken: dict[Step, _Taken] = {}

    def taken(self, step: Step) -> _Taken:
        if step not in self._taken:
            codes = np.flatnonzero(np.frombuffer(step, dtype=bool))
            # Most steps are one type, and to compare with one is many times faster than to look each up.
            marks = self.kind == codes[0] if len(codes) == 1 else np.frombuffer(step, dtype=bool)[self.kind]
            rows = np.flatnonzero(marks)
            following = np.full(self.none + 2, self.none, dtype=np.int32)
            upto = int(rows[-1]) + 1 if len(rows) else 0
            following[:upto] = np.repeat(rows.astype(np.int32), np.diff(rows, prepend=-1))
            self._taken[step] = _Taken(rows, following)
        return self._taken[step]

    def begins(self, step: Step, one: bool) -> np.ndarray:
        """Give the rows at which a chain may begin: all that take the step, or each life's first."""
        taken = self.taken(step)
        if not one:
            return taken.rows
        firsts = taken.next.take(self.bounds[:-1])
        return firsts[firsts < self.bounds[1:]]


def _look(piece: _Piece, course: Course) -> Chains:
    found = (_in_any_order if course.any_order else _in_order)(piece, course)
    if not course.one_begin:
        found = found[:, _entries(piece, found) if course.reentry else _longest(piece, found)]
    depth = np.count_nonzero(found < piece.none, axis=0)
    on, here = np.arange(len(depth)), found[0]
    rows, waits = [here + piece.first_row], [np.zeros(len(depth), dtype=np.int64)]
    for taken in found[1:]:
        deeper = np.flatnonzero(taken.take(on) < piece.none)
        on, before = on.take(deeper), here.take(deeper)
        here = taken.take(on)
        rows.append(here + piece.first_row)
        waits.append(piece.moments.take(here) - piece.moments.take(before))
    return Chains(piece.owners.take(found[0]) + piece.first_life, depth, rows, waits)


def _in_order(piece: _Piece, course: Course) -> np.ndarray:
    """Give the row that takes each step (rows) in each chain (columns)."""
    begins = piece.begins(course.steps[0], course.one_begin)
    found = np.full((len(course.steps), len(begins)), piece.none)
    found[0] = begins
    on, here = np.arange(len(begins)), begins
    ends = piece.bounds[1:].take(piece.owners.take(begins))
    until = None if course.within is None else piece.moments.take(begins) + course.within
    for place, step in enumerate(course.steps[1:], start=1):
        taken = piece.taken(step)
        # The earliest row that takes the step leaves most of the window to those that follow.
        here = taken.next.take(here + 1)
        goes_on = here < ends
        if course.strict:
            goes_on &= here == found[place - 1].take(on) + 1
        if until is not None:
            goes_on &= piece.moments.take(here, mode="clip") <= until
        some = np.flatnonzero(goes_on)
        on, here, ends = on.take(some), here.take(some), ends.take(some)
        until = None if until is None else until.take(some)
        found[place, on] = here
        if not len(on):
            break
    return found


def _in_any_order(piece: _Piece, course: Course) -> np.ndarray:
    """Give the rows that take the steps, by version (rows), in each chain (columns)."""
    marks = np.any([np.frombuffer(step, dtype=bool) for step in course.steps], axis=0)
    begins = piece.begins(marks.tobytes(), course.one_begin)
    ends = piece.bounds[1:].take(piece.owners.take(begins))
    if course.within is not None:
        ends = rows_at(piece.moments, begins, ends, piece.moments.take(begins) + course.within) + 1
    found = []
    for step, times in Counter(course.steps).items():
        taken, here = piece.taken(step), begins - 1
        for _ in range(times):
            here = taken.next.take(here + 1)
            found.append(np.where(here < ends, here, piece.none))
    return np.sort(np.array(found, dtype=np.int64), axis=0)


def _longest(piece: _Piece, found: np.ndarray) -> np.ndarray:
    """Choose each life's longest chain, of equally long ones the first."""
    size = found.shape[1]
    if not size:
        return np.zeros(0, dtype=np.intp)
    keys = np.count_nonzero(found < piece.none, axis=0) * size + np.arange(size - 1, -1, -1)
    return size - 1 - np.maximum.reduceat(keys, _first_of_each(piece.owners.take(found[0]))) % size


def _entries(piece: _Piece, found: np.ndarray) -> np.ndarray:
    """Choose each life's first chain, then the first that begins after its end, and so on."""
    size = found.shape[1]
    owners = piece.owners.take(found[0])
    last = np.where(found < piece.none, found, -1).max(axis=0, initial=-1)
    follows = np.append(np.searchsorted(found[0], last, side="right"), size)
    follows[:-1][np.append(owners, -1).take(follows[:-1]) != owners] = size
    chosen = np.zeros(size + 1, dtype=bool)
    chosen[_first_of_each(owners)] = True
    # With every round the leap doubles, so that a life of a million entries takes twenty.
    while True:
        ahead = follows.take(np.flatnonzero(chosen[:-1]))
        if (ahead == size).all():
            return np.flatnonzero(chosen[:-1])
        chosen[ahead] = True
        follows = follows.take(follows)


def _first_of_each(owners: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(True, owners[1:] != owners[:-1])[: len(owners)])
