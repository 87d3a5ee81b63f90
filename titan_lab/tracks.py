"""Tracks: the value of one column after every event, without writing it down for every event.

Only the events that a reducer listens to carry a value, so a track keeps those values alone, in row order,
and for every row which of them had been *seen* last by then. A running count over the sorted table needs no
group-by: an aggregate that has counted no more than there was before its first row has seen nothing.

    row  aggregate  event         counted  before  latest   value after the row
    0    a          Created(5)    1        0       0        values[0] = 5
    1    a          Shipped       1        0       0        values[0] = 5
    2    b          Shipped       1        1       2        values[2] = null, the one past the last
    3    b          Created(7)    2        1       1        values[1] = 7

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

from titan_lab.amounts import Wide, from_units, is_exact, to_units
from titan_lab.errors import DeclarationError, EventsError, StepError
from titan_lab.event import TIMESTAMP, Event
from titan_lab.lists import Lists, lists_together, ranges
from titan_lab.payload import EventType
from titan_lab.typed import Typed

CALM = 2**62  # a running sum beyond this many units could leave 64 bits


class Seen(NamedTuple):
    """Of some rows: the latest up to every row, every aggregate's first, and whether each begins with one.

    Rows are numbered from 0 in their order; `latest` is the number past the last where there was none yet.
    """

    latest: np.ndarray
    first: np.ndarray
    from_start: bool


class Shared:
    """What the tracks of one history share: which of the rows that carry a value was seen last."""

    def __init__(self, typed: Typed) -> None:
        self.typed = typed
        self._seen: dict[bytes, Seen] = {}
        self._counting: defaultdict[bytes, Lock] = defaultdict(Lock)  # tracks are made in threads

    def seen(self, rows: np.ndarray, signature: bytes) -> Seen:
        """Find the latest of `rows` up to every row in its aggregate, and every aggregate's first."""
        with self._counting[signature]:
            if signature not in self._seen:
                starts, one = self.typed.starts, np.uint32(1)
                marks = np.zeros(len(self.typed), dtype=bool)
                marks[rows] = True
                latest = np.cumsum(marks, dtype=np.uint32)
                first = latest[starts] - marks[starts]
                from_start = bool(marks[starts].all())
                nothing = None if from_start else latest == np.repeat(first, np.diff(self.typed.bounds))
                latest -= one
                if nothing is not None:
                    latest[nothing] = len(rows)
                self._seen[signature] = Seen(latest, first, from_start)
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
        self.seen = shared.seen(self.rows, signature)
        self.values = self.prepare(values).rechunk()  # for gathering from several chunks is slow

    @classmethod
    def kept(cls, typed: Typed, **made: Any) -> Track:
        """Take up a track that was made before: what it knows, and nothing is computed."""
        track = cls.__new__(cls)
        vars(track).update(typed=typed, order=None, **made)
        return track

    def prepare(self, values: pl.Series) -> pl.Series:
        """Bring the values into the form that `at` gathers from."""
        return _as(self.dtype, values)

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        """Gather the values after these rows."""
        raise NotImplementedError

    def places(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Give the place in `values` of the value after each row; one past the last for none."""
        return self.seen.latest[rows]

    def sources(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Give the row of the event that set the value after each row, as int64; -1 where none has."""
        if not len(self.rows):
            return np.full(len(rows), -1)
        places = self.places(rows, owners)
        found = self.setters.take(places, mode="clip")
        found[places == len(self.rows)] = -1
        return found

    @property
    def setters(self) -> np.ndarray:
        """Give the row of the event that set each of the values."""
        return self.rows

    def units(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Gather exact numbers as int64 of their smallest unit, 0 for null, for adding up."""
        if not is_exact(self.dtype):
            raise DeclarationError(
                f"{self.dtype} cannot be added up exactly", hint="measure a Decimal or whole-number column"
            )
        return to_units(self.at(rows, owners))

    @property
    def groups(self) -> pl.Series:
        """Give the distinct values, sorted."""
        return self._numbered[0]

    def grouped(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Give the place among `groups` of the value after each row."""
        return self._numbered[1][rows]

    @cached_property
    def _numbered(self) -> tuple[pl.Series, np.ndarray]:
        everything = np.arange(len(self.typed))
        return _numbers_of(self.at(everything, self.typed.aggregate_of(everything)))


class Latest(Track):
    """A track whose value after a row is one of the values that its events carry."""

    def prepare(self, values: pl.Series) -> pl.Series:
        nothing_yet = pl.Series(values.name, [None], self.dtype)
        return pl.concat([super().prepare(values), nothing_yet])

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        places = self.places(rows, owners)
        if self._laid_out is not None:
            return self._laid_out.gather(places)
        return self.values.gather(pl.Series(places))

    def units(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self._units[self.places(rows, owners)] if is_exact(self.dtype) else super().units(rows, owners)

    def grouped(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self._numbered[1][self.places(rows, owners)]

    @cached_property
    def _numbered(self) -> tuple[pl.Series, np.ndarray]:
        groups, numbers = _numbers_of(self.values)
        # Lists do not stand in row order; what stands for "nothing seen yet" is the last in either.
        return groups, numbers if self.order is None else numbers[np.append(self.order, len(self.order))]

    @cached_property
    def _units(self) -> np.ndarray:
        return to_units(self.values)

    @cached_property
    def _laid_out(self) -> Lists | Wide | None:
        if isinstance(self.dtype, pl.List):
            return Lists(self.values, self.order)
        return Wide(self.values) if isinstance(self.dtype, pl.Decimal | pl.Datetime) else None


class First(Latest):
    def places(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        first = self.seen.first[owners]
        if not self.seen.from_start:
            nothing = len(self.values) - 1
            first[self.seen.latest[rows] == nothing] = nothing
        return first


class Count(Track):
    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return pl.Series(self.numbers(rows, owners))

    def numbers(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Count the events seen in the aggregate up to each row."""
        latest = self.seen.latest[rows].astype(np.int64)
        return np.where(latest == len(self.rows), 0, latest + 1 - self.seen.first[owners])


class States(Latest):
    def __init__(
        self, typed: Typed, shared: Shared, sources: Mapping[str, str], dtype: pl.Enum, states: dict[str, str]
    ) -> None:
        self.states = states
        super().__init__(typed, shared, sources, dtype)

    def prepare(self, values: pl.Series) -> pl.Series:
        self.names = names = list(dict.fromkeys(self.states.values()))
        code_of = [names.index(self.states[k]) if k in self.states else 0 for k in self.typed.kinds]
        codes = np.append(np.array(code_of, dtype=np.uint8)[self.typed.kind[self.rows]], len(names)).astype(
            np.uint8
        )
        self._codes = codes[self.seen.latest]  # a byte for every row is less than what would lead to it
        return pl.Series(codes)

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return self._named(self._codes[rows])

    @property
    def groups(self) -> pl.Series:
        return self._named(np.arange(len(self.names) + 1))

    def grouped(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self._codes[rows].astype(np.intp)

    def _named(self, codes: np.ndarray) -> pl.Series:
        """Turn codes into the names of the states; one past the last is null."""
        return pl.Series(codes.astype(np.uint8, copy=False)).cat.to(self.dtype, strict=False)


class Total(Latest):
    def prepare(self, values: pl.Series) -> pl.Series:
        units = to_units(_as(self.dtype, values))
        # The running sum may wrap around, differences within an aggregate come out right as long as they fit.
        sizes = np.abs(units.astype(np.float64))
        if sizes.sum() > CALM and np.bincount(self.typed.aggregate_of(self.rows), sizes).max() > CALM:
            raise EventsError(
                "the amounts of one aggregate add up to more than 64 bits of their smallest unit hold",
                hint="look for amounts that cannot be right in log.read()",
            )
        running, first = np.concatenate([[0], np.cumsum(units)]), self.seen.first
        before = np.repeat(running[first], np.diff(first, append=np.uint32(len(units))))
        return from_units(np.append(running[1:] - before, 0), self.dtype)


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

    @cached_property
    def setters(self) -> np.ndarray:
        values, owners = self.values.head(len(self.rows)), self.typed.aggregate_of(self.rows)
        brought = values.ne_missing(values.shift(1)).to_numpy(writable=True)
        brought[:1] = True
        brought[1:] |= owners[1:] != owners[:-1]
        return np.maximum.accumulate(np.where(brought, self.rows, 0))


class Collected(Count):
    def prepare(self, values: pl.Series) -> pl.Series:
        values = _as(self.dtype.inner, values)  # type: ignore[attr-defined]
        if self.order is not None:
            values, self.order = values.gather(self.order), None
        return values

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        lengths = self.numbers(rows, owners)
        values = self.values.gather(ranges(self.seen.first[owners], lengths))
        return lists_together(lengths, values).cast(self.dtype)


class Key(Track):
    def __init__(self, typed: Typed, shared: Shared, sources: Mapping[str, str], dtype: pl.DataType) -> None:
        self.typed = typed
        self.dtype = dtype

    def at(self, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
        return self.typed.ids.gather(owners)

    def sources(self, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return self.typed.starts[owners]


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
        after, setters = [], []
        value, setter, life = self.start(), -1, None
        for row, event in zip(self.rows, self.typed.events(self.declared, self.rows), strict=True):
            if event.aggregate_id != life:
                value, setter, life = self.start(), -1, event.aggregate_id
            before, value = value, self._next(value, event)
            setter = setter if value == before else int(row)
            after.append(value)
            setters.append(setter)
        self._setters = np.array(setters, dtype=np.int64)
        return pl.Series([*after, self.start()], dtype=self.dtype)

    def _next(self, value: Any, event: Event) -> Any:
        try:
            return self.step(value, event)
        except Exception as error:
            raise StepError(
                f"a step failed with {type(error).__name__}: {error}, at {event.event_type} "
                f"{event.aggregate_id} version {event.version}",
                hint="it is given every event of its types, and the value after the one before",
                aggregate_id=event.aggregate_id,
                version=event.version,
            ) from error

    @property
    def setters(self) -> np.ndarray:
        return self._setters


def _numbers_of(values: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """Give the distinct values, sorted, and the place of each value among them."""
    distinct = values.alias("value").unique().sort(nulls_last=True)
    places = distinct.to_frame().with_columns(place=np.arange(len(distinct)))
    found = (
        values.alias("value")
        .to_frame()
        .join(places, on="value", how="left", nulls_equal=True, maintain_order="left")
    )
    return distinct, found["place"].to_numpy()


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
