"""Take snapshots of the aggregates that are long enough, and say beforehand whether that is worth it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from titan_lab import saved
from titan_lab.advice import Advice, compare, concluded
from titan_lab.backends.contract import SNAPSHOTS
from titan_lab.book import Book, find
from titan_lab.errors import ReadOnly, SnapshotError
from titan_lab.event import records
from titan_lab.fold import ROW, Aggregate, State
from titan_lab.log import EventLog
from titan_lab.notebook import html
from titan_lab.reducers import step
from titan_lab.saved import Saved
from titan_lab.states import as_instants

AT_ONCE = 1_000_000  # events that are folded at a time


@dataclass(frozen=True, slots=True)
class Taken:
    """What ``Snapshots.take`` did, in numbers of aggregates.

    saved: have a new snapshot. present: had it already. short: have fewer events than a snapshot takes.
    broken: have a gap in their versions, or a rejected event, so that none of the wanted version or a later
    one than before can be taken. foreign: have a snapshot that another program saved, and that is left.
    """

    saved: int
    present: int
    short: int
    broken: int
    foreign: int

    def _repr_html_(self) -> str:
        return html.card("Snapshots taken", dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class Wanted:
    """An aggregate that is to have a snapshot of version `target`, and of none before `least`."""

    aggregate_id: str
    events: int
    target: int
    least: int


def take(log: EventLog, aggregate: type[Aggregate], every: int) -> Taken:
    """Save the state of every aggregate that is long enough, as ``Snapshots.take`` says."""
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise SnapshotError(f"every {every!r} events is no distance", hint="take(every=100)")
    if not log.writable:
        raise ReadOnly(f"{log.url} is open for reading only", hint="tl.open(url, writable=True)")
    if not hasattr(log.reader, "save_snapshots"):
        raise SnapshotError(
            f"{log.url} keeps no snapshots", hint="stores in SQLite, PostgreSQL and CockroachDB keep them"
        )
    saved.check_savable(aggregate)
    heads, there = _heads(log), _there(log, aggregate)
    long = heads.filter(pl.col("version") >= every).sort("aggregate_id")
    wanted, present, foreign = [], 0, 0
    for name, events, head in long.iter_rows():
        version, found = there.get(name, (0, ""))
        target = head // every * every
        if found == saved.NO_FINGERPRINT:
            foreign += 1
        elif isinstance(found, Saved) and version >= target:
            present += 1
        else:
            # Never an earlier version than what is there: whoever wrote that may know more.
            least = version + 1 if isinstance(found, Saved) else max(version, 1)
            wanted.append(Wanted(name, events, max(target, least), least))
    states = [row for part in _parts(wanted) for row in _states(log, aggregate, part, every)]
    if states:
        log.reader.save_snapshots(pl.DataFrame(states, SNAPSHOTS, orient="row"))
    broken = len(wanted) - len(states)
    return Taken(len(states), present, len(heads) - len(long), broken, foreign)


def advise(log: EventLog, aggregate: type[Aggregate], every: Sequence[int | None]) -> Advice:
    """Say what snapshots would buy, as ``Snapshots.advise`` does."""
    if not all(one is None or (isinstance(one, int) and one >= 1) for one in every):
        raise SnapshotError(f"{list(every)!r} are no distances", hint="advise([None, 10, 100])")
    lengths = _heads(log)["events"].to_numpy()
    conclusion = concluded(lengths, aggregate.__name__)
    return Advice(compare(lengths, every), conclusion, told(log, aggregate))


def told(log: EventLog, aggregate: type[Aggregate]) -> str:
    """Say what is saved in the store, and how much of it is used."""
    there = _there(log, aggregate)
    if not there:
        return "the store holds no snapshot"
    ours = sum(isinstance(found, Saved) for _, found in there.values())
    foreign = sum(found == saved.NO_FINGERPRINT for _, found in there.values())
    return (
        f"snapshots in the store: {ours:,} of this fold, which are used,"
        f" {len(there) - ours - foreign:,} of another, {foreign:,} of another program, which are not"
    )


def _there(log: EventLog, aggregate: type[Aggregate]) -> dict[str, tuple[int, Saved | str]]:
    """Read what is saved: its version, and the state or why it is not used."""
    if not hasattr(log.reader, "snapshots"):
        return {}
    rows = log.reader.snapshots().iter_rows()
    return {name: (version or 0, saved.read(aggregate, version, text)) for name, version, text in rows}


def _heads(log: EventLog) -> pl.DataFrame:
    """Give each aggregate's number of events and its last version, from the store where it can tell."""
    if hasattr(log.reader, "heads"):
        found: pl.DataFrame = log.reader.heads().drop_nulls()
    else:
        groups = log.read().group_by("aggregate_id")
        found = groups.agg(events=pl.len().cast(pl.Int64), version=pl.col("version").max())
    return found.select("aggregate_id", "events", "version")


def _parts(wanted: list[Wanted]) -> Iterator[list[Wanted]]:
    part: list[Wanted] = []
    events = 0
    for one in wanted:
        if part and events + one.events > AT_ONCE:
            yield part
            part, events = [], 0
        part.append(one)
        events += one.events
    if part:
        yield part


def _states(
    log: EventLog, aggregate: type[Aggregate], part: list[Wanted], every: int
) -> Iterator[tuple[str, int, str]]:
    """Fold some aggregates and write their states down: rows of SNAPSHOTS."""
    book = log.fold(aggregate, aggregates=[one.aggregate_id for one in part])
    places = [place for one in part if (place := _place(book, one, every)) is not None]
    rows, owners = np.array(places, dtype=np.intp).reshape(-1, 2).T
    states = book.frame(rows, owners, book.wanted(None), book.rows.counted("prefix"))
    stamps = as_instants(book.typed.timestamp[rows])
    for row, timestamp, fields in zip(rows, stamps, states.iter_rows(named=True), strict=True):
        name, version, since, _ = (fields.pop(own) for own in ROW)
        state = State(name, version, fields, since)
        _check_steps(log, aggregate, state)
        event_type = book.typed.kinds[book.typed.kind[row]]
        yield name, version, saved.write(aggregate, state, event_type, timestamp)


def _place(book: Book, one: Wanted, every: int) -> tuple[int, int] | None:
    """Find the row of the state to save, and its owner; None where there is no such state."""
    number = find(book.ids, one.aggregate_id)
    if number is None:
        return None
    start, end = book.typed.bounds[number : number + 2]
    unbroken = _unbroken(book.typed.version[start:end])
    version = one.target if one.target <= unbroken else unbroken // every * every
    return (start + version - 1, number) if version >= one.least else None


def _unbroken(versions: np.ndarray) -> int:
    """Count the events before the first gap: what comes into it later changes all states after it."""
    return int(np.argmin(np.append(versions == np.arange(1, len(versions) + 1), False)))


def _check_steps(log: EventLog, aggregate: type[Aggregate], state: State) -> None:
    """Refuse what a function of a `step` would not find again as it left it, such as a set."""
    steps = [name for name, reducer in aggregate.reducers.items() if isinstance(reducer, step)]
    if not steps:
        return
    life = log.read(aggregates=state.aggregate_id).head(state.version)
    left = aggregate.fold(records(life))
    for name in steps:
        dtype = aggregate.reducers[name].dtype
        again = saved.from_json(saved.as_json(state[name], dtype), dtype)
        if not _alike(left[name], again):
            raise SnapshotError(
                f"the step {name} of {state.aggregate_id} leaves {left[name]!r} after version"
                f" {state.version}, and would find {again!r}",
                hint="let the step's function give what a column of its dtype gives back",
                column=name,
            )


def _alike(one: Any, other: Any) -> bool:
    """Tell whether two values are equal and of the same types, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    return bool(one == other)
