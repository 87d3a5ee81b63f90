"""Tracks: the value of one column after every event, without writing it down for every event.

Only the events that a reducer listens to carry a value, so a track keeps those values alone, in row order,
and for every row how many of them had been *seen* by then. A running count over the sorted table needs no
group-by: what an aggregate has seen is the difference to what was seen before its first row (`base`).

    row  aggregate  event         seen   base   value after the row
    0    a          Created(5)    1      0      values[0] = 5
    1    a          Shipped       1      0      values[0] = 5
    2    b          Shipped       1      1      nothing seen in b: null
    3    b          Created(7)    2      1      values[1] = 7

Reducers over the same events share one `seen`, and values are gathered for the rows that were asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from titan_lab.amounts import from_halves, from_units, halves_of, is_exact, to_units
from titan_lab.errors import DeclarationError, EventsError
from titan_lab.event import TIMESTAMP, Event
from titan_lab.lists import Lists, lists_together, ranges
from titan_lab.payload import EventType
from titan_lab.typed import Typed

CALM = 2**62  # a running sum beyond this many units could leave 64 bits


class Seen(NamedTuple):
    """Counts of some rows: up to every row, before every aggregate; and whether each begins with one."""

    upto: np.ndarray
    base: np.ndarray
    from_start: bool


class Shared:
    """What the tracks of one history share: counts of seen events by the rows that were counted."""

    def __init__(self, typed: Typed) -> None:
        self.typed = typed
        self._seen: dict[bytes, Seen] = {}
        self._counting: defaultdict[bytes, Lock] = defaultdict(Lock)  # tracks are made in threads

    def seen(self, rows: np.ndarray, signature: bytes) -> Seen:
        """Count, for every row, how many of `rows` came up to it; and for every aggregate, before it."""
        with self._counting[signature]:
            if signature not in self._seen:
                marks = np.zeros(len(self.typed), dtype=bool)
                marks[rows] = True
                seen = np.cumsum(marks, dtype=np.uint32)
                base = seen[self.typed.starts] - marks[self.typed.starts]
                self._seen[signature] = Seen(seen, base, bool(marks[self.typed.starts].all()))
            return self._seen[signature]


class Track:
    """The values of one column after every event.

    `at(rows, owners)` gathers them: rows are row numbers, owners the aggregates they belong to.
    """

    def __init__(self, typed: Typed, shared: Shared, sources: Mapping[str, str], dtype: pl.DataType) -> None:
        self.typed = typed
        self.dtype = dtype
        rows, values, signature = _values_of(typed, sources)
        self.order = None if (rows[1:] > rows[:-1]).all() else np.argsort(rows, kind="stable")
        self.rows = rows if self.order is None else rows[self.order]
        # Parts come type by type. Plain values are put into row order here and now; lists, which are slow to
        # move, stay where they are, and `order` leads from the n-th value in row order to its place.
        if self.order is not None and not isinstance(values.dtype, pl.List):
            values, self.order = values.gather(self.order), None
        self.values = self.prepare(values)
        self.seen = shared.seen(self.rows, signature)

    def prepare(self, values: pl.Series) -> pl.Series:
        """Bring the values into the form that `at` gathers from."""
        # A null at the end stands for "nothing seen yet"; in one chunk, for gathering from several is slow.
        return _as(self.dtype, values).extend_constant(None, 1).rechunk()

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        """Gather the values after these rows."""
        raise NotImplementedError

    def units(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Gather exact numbers as int64 of their smallest unit, 0 for null, for adding up."""
        if not is_exact(self.dtype):
            raise DeclarationError(
                f"{self.dtype} cannot be added up exactly", hint="measure a Decimal or whole-number column"
            )
        return to_units(self.at(rows, owners))


class Picking(Track):
    """A track whose value after a row is one of the values that its events carry."""

    def picked(self, rows: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Give the place, in row order, of each row's value, and where there is one (None: everywhere)."""
        raise NotImplementedError

    def places(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Give the place in `values` of the value after each row; the last place, which is null, for none."""
        places, there = self.picked(rows, owners)
        if self.order is not None:
            places = self.order[places if there is None else np.where(there, places, 0)]
        return places if there is None else np.where(there, places, len(self.values) - 1)

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        places = self.places(rows, owners)
        if self._lists is not None:
            return self._lists.gather(places)
        if not isinstance(self.dtype, pl.Decimal):
            return self.values.gather(places)
        found = from_halves(self._halves[places], self.dtype.scale)
        nothing = places == len(self.values) - 1
        return found.set(pl.Series(nothing), None) if nothing.any() else found

    def units(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self._units[self.places(rows, owners)] if is_exact(self.dtype) else super().units(rows, owners)

    @cached_property
    def _units(self) -> np.ndarray:
        return to_units(self.values)

    @cached_property
    def _halves(self) -> np.ndarray:
        return halves_of(self._units)

    @cached_property
    def _lists(self) -> Lists | None:
        return Lists(self.values) if isinstance(self.dtype, pl.List) else None


class Latest(Picking):
    def picked(self, rows: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        upto = self.seen.upto[rows]
        there = None if self.seen.from_start else upto > self.seen.base[owners]
        upto -= np.uint32(1)
        return upto, there


class First(Picking):
    def picked(self, rows: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        base = self.seen.base[owners]
        return base, None if self.seen.from_start else self.seen.upto[rows] > base


class Count(Track):
    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return pl.Series((self.seen.upto[rows] - self.seen.base[owners]).astype(np.int64))


class States(Latest):
    def __init__(
        self, typed: Typed, shared: Shared, sources: Mapping[str, str], dtype: pl.Enum, states: dict[str, str]
    ) -> None:
        self.states = states
        super().__init__(typed, shared, sources, dtype)

    def prepare(self, values: pl.Series) -> pl.Series:
        names = list(dict.fromkeys(self.states.values()))
        self.size = len(names)
        code_of = [names.index(self.states[k]) if k in self.states else 0 for k in self.typed.kinds]
        codes = np.append(np.array(code_of, dtype=np.uint8)[self.typed.kind[self.rows]], len(names)).astype(
            np.uint8
        )
        self._codes = codes
        return pl.Series(codes)

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return self.named(self.codes(rows, owners))

    def named(self, codes: np.ndarray) -> pl.Series:
        """Turn codes into the names of the states; one past the last is null."""
        return pl.Series(codes.astype(np.uint8, copy=False)).cat.to(self.dtype, strict=False)

    def codes(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Give the states as codes into the Enum's categories; one past the last for none."""
        return self._codes[self.places(rows, owners)]


class Total(Track):
    def prepare(self, values: pl.Series) -> pl.Series:
        units = to_units(_as(self.dtype, values))
        # The running sum may wrap around, differences within an aggregate come out right as long as they fit.
        sizes = np.abs(units.astype(np.float64))
        if sizes.sum() > CALM and np.bincount(self.typed.aggregate_of(self.rows), sizes).max() > CALM:
            raise EventsError(
                "the amounts of one aggregate add up to more than 64 bits of their smallest unit hold",
                hint="look for amounts that cannot be right in log.read()",
            )
        return pl.Series(np.concatenate([[0], np.cumsum(units)]))

    def units(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Give the sums as int64 of the dtype's smallest unit."""
        running = self.values.to_numpy()
        return running[self.seen.upto[rows]] - running[self.seen.base[owners]]

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return from_units(self.units(rows, owners), self.dtype)


class Extreme(Latest):
    def __init__(
        self, typed: Typed, shared: Shared, sources: Mapping[str, str], dtype: pl.DataType, largest: bool
    ) -> None:
        self.largest = largest
        super().__init__(typed, shared, sources, dtype)

    def prepare(self, values: pl.Series) -> pl.Series:
        values = values.cast(self.dtype)
        rank = values.rank("dense").to_numpy().astype(np.int64)
        best = int(rank.max(initial=0)) + 1
        height = rank if self.largest else best - rank
        # One running maximum over all aggregates: a later one's keys are all larger than an earlier one's.
        running = np.maximum.accumulate(self.typed.aggregate_of(self.rows) * (best + 1) + height) % (best + 1)
        of_rank = np.zeros(best + 1, dtype=np.int64)
        of_rank[rank] = np.arange(len(rank))
        return values.gather(of_rank[running if self.largest else best - running]).extend_constant(None, 1)


class Collected(Track):
    def prepare(self, values: pl.Series) -> pl.Series:
        return values if self.order is None else values.gather(self.order)

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        base = self.seen.base[owners]
        lengths = (self.seen.upto[rows] - base).astype(np.int64)
        return lists_together(lengths, self.values.gather(ranges(base, lengths))).cast(self.dtype)


class Key(Track):
    def __init__(self, typed: Typed, shared: Shared, sources: Mapping[str, str], dtype: pl.DataType) -> None:
        self.typed = typed

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return self.typed.ids.gather(owners)


class Stepped(Latest):
    def __init__(
        self,
        typed: Typed,
        shared: Shared,
        sources: Mapping[str, str],
        dtype: pl.DataType,
        declared: Mapping[str, type[EventType]],
        start: Callable[[], Any],
        step: Callable[[Any, Event], Any],
    ) -> None:
        self.declared = declared
        self.start = start
        self.step = step
        super().__init__(typed, shared, sources, dtype)

    def prepare(self, values: pl.Series) -> pl.Series:
        after = []
        value, life = self.start(), None
        for event in self.typed.events(self.declared, self.rows):
            if event.aggregate_id != life:
                value, life = self.start(), event.aggregate_id
            value = self.step(value, event)
            after.append(value)
        return pl.Series([*after, self.start()], dtype=self.dtype)


def _as(dtype: pl.DataType, values: pl.Series) -> pl.Series:
    return values if values.dtype == dtype else values.cast(dtype)


def _values_of(typed: Typed, sources: Mapping[str, str]) -> tuple[np.ndarray, pl.Series, bytes]:
    """Take the rows at which the sources carry a value, part by part, with those values."""
    rows, values, whole = [], [], True
    for part in typed.parts:
        if part.event_type not in sources:
            continue
        field = sources[part.event_type]
        if field in part.fields.columns:
            column = part.fields[field]
        else:
            column = _envelope(typed, field, part.rows)
        there = part.rows
        if column.null_count():
            whole = False
            present = column.is_not_null()
            there, column = there[present.to_numpy()], column.filter(present)
        rows.append(there)
        values.append(column.rename(""))
    signature = repr((sorted(sources), None if whole else sorted(sources.items()))).encode()
    if not rows:
        return np.zeros(0, dtype=np.int64), pl.Series("", [], pl.Null), signature
    return np.concatenate(rows), pl.concat(values, rechunk=True), signature


def _envelope(typed: Typed, field: str, rows: np.ndarray) -> pl.Series:
    if field == "timestamp":
        return pl.Series(typed.timestamp[rows]).cast(TIMESTAMP)
    if field == "version":
        return pl.Series(typed.version[rows])
    if field == "aggregate_id":
        return typed.ids.gather(typed.aggregate_of(rows))
    return pl.Series(typed.kinds, dtype=pl.String).gather(typed.kind[rows].astype(np.uint32))
