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
from titan_lab.rows import PIECE, STEPS, Rows

Step = bytes  # one byte for each kind: whether an event of it takes the step


class Taken(NamedTuple):
    """What takes one step: chains by their number, ascending, the row of each, and what it waited for it.

    waits: microseconds since the step before; 0 for the first step.
    """

    chains: np.ndarray
    rows: np.ndarray
    waits: np.ndarray


class Chains(NamedTuple):
    """Chains of some lives, in order of aggregate and row, each at least one step long.

    lives: each chain's aggregate, by number; steps: what takes each of the steps.
    """

    lives: np.ndarray
    steps: list[Taken]

    @property
    def depth(self) -> np.ndarray:
        """Count the steps of each chain."""
        depth = np.zeros(len(self.lives), dtype=np.int64)
        for step in self.steps:
            depth[step.chains] += 1
        return depth


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


def chains(rows: Rows, course: Course) -> list[Chains]:
    """Find the chains of all lives, piece by piece; see `whole`."""
    bounds = rows.typed.bounds
    moments, owners = rows.counted("prefix"), rows.owners  # worked out once, before the threads ask for them
    cuts = np.searchsorted(bounds, np.arange(0, len(rows.typed), PIECE))
    edges = np.unique(np.append(cuts, len(bounds) - 1))
    lives = [slice(int(start), int(stop)) for start, stop in pairwise(edges)]
    return each(lambda some: _look(_Piece(rows, moments, owners, some), course), lives, len(rows.typed))


def whole(pieces: list[Chains], steps: int) -> Chains:
    """Put the chains of all pieces together."""
    firsts = np.cumsum([0, *(len(one.lives) for one in pieces)])[:-1]

    def step(place: int) -> Taken:
        numbers = [one.steps[place].chains + first for one, first in zip(pieces, firsts, strict=True)]
        rows, waits = ([one.steps[place][field] for one in pieces] for field in (1, 2))
        return Taken(joined(numbers, np.int64), joined(rows, np.int64), joined(waits, np.int64))

    return Chains(joined([one.lives for one in pieces], np.int64), [step(place) for place in range(steps)])


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
        self._marks: dict[Step, np.ndarray] = {}

    def marks(self, step: Step) -> np.ndarray:
        """Tell which rows take a step; the row that stands for none does."""
        if step not in self._marks:
            codes = np.flatnonzero(np.frombuffer(step, dtype=bool))
            marks = np.ones(self.none + 1, dtype=bool)
            # Most steps are one type, and to compare with one is many times faster than to look each up.
            marks[:-1] = (
                self.kind == codes[0] if len(codes) == 1 else np.frombuffer(step, dtype=bool)[self.kind]
            )
            self._marks[step] = marks
        return self._marks[step]

    def after(self, step: Step, rows: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Give the next row that takes a step after each of some; where a life has none, its end or later."""
        marks, found = self.marks(step), rows + 1
        on = np.flatnonzero(~marks.take(found) & (found < ends))
        # Most lives take a step soon after the one before, or end.
        for _ in range(STEPS):
            here = found.take(on) + 1
            found[on] = here
            on = on.take(np.flatnonzero(~marks.take(here) & (here < ends.take(on))))
        if len(on):
            takers = np.flatnonzero(marks)
            found[on] = takers.take(np.searchsorted(takers, found.take(on)))
        return found

    def begins(self, step: Step, one: bool) -> np.ndarray:
        """Give the rows at which a chain may begin: all that take the step, or each life's first."""
        if not one:
            return np.flatnonzero(self.marks(step)[:-1])
        ends = self.bounds[1:]
        firsts = self.after(step, self.bounds[:-1] - 1, ends)
        return firsts.take(np.flatnonzero(firsts < ends))


def _look(piece: _Piece, course: Course) -> Chains:
    begins, steps = (_in_any_order if course.any_order else _in_order)(piece, course)
    found = Chains(piece.owners.take(begins), steps)
    if not course.one_begin:
        chosen = _entries(found) if course.reentry else _longest(found)
        if len(chosen) < len(begins):
            found = Chains(found.lives.take(chosen), [_only(step, chosen, len(begins)) for step in steps])
    steps = [step._replace(rows=step.rows + piece.first_row) for step in found.steps]
    return Chains(found.lives + piece.first_life, steps)


def _in_order(piece: _Piece, course: Course) -> tuple[np.ndarray, list[Taken]]:
    """Give the rows at which chains begin, and what takes each step."""
    begins = piece.begins(course.steps[0], course.one_begin)
    on, here, stamps = np.arange(len(begins)), begins, piece.moments.take(begins)
    ends = piece.bounds[1:].take(piece.owners.take(begins))
    until = None if course.within is None else stamps + course.within
    steps = [Taken(on, here, np.zeros(len(on), dtype=np.int64))]
    for step in course.steps[1:]:
        # The earliest row that takes the step leaves most of the window to those that follow.
        following = piece.after(step, here, ends)
        goes_on = following < ends
        if course.strict:
            goes_on &= following == here + 1
        if until is not None:
            goes_on &= piece.moments.take(following, mode="clip") <= until
        some = np.flatnonzero(goes_on)
        on, here, ends, before = on.take(some), following.take(some), ends.take(some), stamps.take(some)
        until = None if until is None else until.take(some)
        stamps = piece.moments.take(here)
        steps.append(Taken(on, here, stamps - before))
    return begins, steps


def _in_any_order(piece: _Piece, course: Course) -> tuple[np.ndarray, list[Taken]]:
    """Give the rows at which chains begin, and what takes the first of the steps, the second, and so on."""
    marks = np.any([np.frombuffer(step, dtype=bool) for step in course.steps], axis=0)
    begins = piece.begins(marks.tobytes(), course.one_begin)
    ends = piece.bounds[1:].take(piece.owners.take(begins))
    if course.within is not None:
        ends = rows_at(piece.moments, begins, ends, piece.moments.take(begins) + course.within) + 1
    found = []
    for step, times in Counter(course.steps).items():
        here = begins - 1
        for _ in range(times):
            here = piece.after(step, np.minimum(here, piece.none - 1), ends)
            found.append(np.where(here < ends, here, piece.none))
    steps, before = [], begins
    for here in np.sort(np.array(found, dtype=np.int64), axis=0):
        on = np.flatnonzero(here < piece.none)
        waits = piece.moments.take(here.take(on)) - piece.moments.take(before.take(on))
        steps.append(Taken(on, here.take(on), waits))
        before = here
    return begins, steps


def _longest(found: Chains) -> np.ndarray:
    """Choose each life's longest chain, of equally long ones the first."""
    size, firsts = len(found.lives), _first_of_each(found.lives)
    if len(firsts) == size:
        return firsts
    keys = found.depth * size + np.arange(size - 1, -1, -1)
    return size - 1 - np.maximum.reduceat(keys, firsts) % size


def _entries(found: Chains) -> np.ndarray:
    """Choose each life's first chain, then the first that begins after its end, and so on."""
    owners, size, begins = found.lives, len(found.lives), found.steps[0].rows
    last = begins.copy()
    for step in found.steps[1:]:
        last[step.chains] = step.rows
    follows = np.append(np.searchsorted(begins, last, side="right"), size)
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


def _only(step: Taken, chosen: np.ndarray, size: int) -> Taken:
    """Keep what belongs to some chains, numbered anew."""
    number = np.full(size, -1)
    number[chosen] = np.arange(len(chosen))
    numbers = number.take(step.chains)
    kept = np.flatnonzero(numbers >= 0)
    return Taken(numbers.take(kept), step.rows.take(kept), step.waits.take(kept))


def _first_of_each(owners: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.append(True, owners[1:] != owners[:-1])[: len(owners)])
