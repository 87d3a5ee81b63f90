"""From EVENTS to typed columns: payloads decoded, upcast and checked, whole columns at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from titan_lab.decoding import NOT_JSON, decode_payloads
from titan_lab.errors import SchemaTooNew
from titan_lab.event import (
    NO_OBJECT,
    REJECTED,
    TIMESTAMP,
    Event,
    InOrder,
    check,
    in_order,
    parse_object,
    part_duplicates,
    reject,
)
from titan_lab.jsontext import decode, in_pieces, not_objects
from titan_lab.marks import marks, nulls
from titan_lab.metadata import correlation_ids
from titan_lab.parallel import joined, together
from titan_lab.payload import EventType
from titan_lab.upcast import Chain

WhenNewer = Literal["raise", "reject"]

FEW = 8  # an eighth of all rows is no longer few


@dataclass(frozen=True)
class Part:
    """The events of one type that were stored with one schema_version: row numbers and decoded fields.

    filled: by the name of a `fill` step, into which of these rows it wrote something.
    """

    event_type: str
    rows: np.ndarray
    fields: pl.DataFrame
    schema_version: int = 1
    filled: Mapping[str, np.ndarray] = field(default_factory=dict)

    def renumbered(self, rows: np.ndarray) -> Part:
        """Give its rows new numbers, and leave out those whose number is negative."""
        keep = rows >= 0
        filled = {name: wrote[keep] for name, wrote in self.filled.items()}
        return dataclasses.replace(self, rows=rows[keep], fields=self.fields.filter(keep), filled=filled)


@dataclass
class Typed:
    """A history as columns, one row per event, sorted by (aggregate_id, version).

    ids: each aggregate's id; starts: its first row. version, timestamp (microseconds), kind (a code into
    `kinds`) and metadata (JSON text) have one value per row; `parts` hold the payloads' fields. clock: the
    instants, in microseconds, that rows are ordered and counted by, where those are not their timestamps.
    """

    ids: pl.Series
    starts: np.ndarray
    version: np.ndarray
    timestamp: np.ndarray
    kind: np.ndarray
    kinds: list[str]
    metadata: pl.Series
    parts: list[Part] = field(default_factory=list)
    clock: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.version)

    @cached_property
    def bounds(self) -> np.ndarray:
        """The first row of each aggregate, and the row after the last one's."""
        return np.append(self.starts, len(self))

    @property
    def ends(self) -> np.ndarray:
        """The row after each aggregate's last."""
        return self.bounds[1:]

    def aggregate_of(self, rows: np.ndarray) -> np.ndarray:
        """Number the aggregate that each row belongs to."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    @cached_property
    def correlations(self) -> pl.Series:
        """The correlation_id that each row's metadata tells, or null."""
        return correlation_ids(self.metadata)

    def correlations_of(self, rows: np.ndarray) -> pl.Series:
        """Give the correlation_id of some rows; once many are asked for, all are read and kept."""
        if FEW * len(rows) > len(self) or "correlations" in vars(self):
            return self.correlations.gather(rows)
        needed, place = np.unique(rows, return_inverse=True)
        return correlation_ids(self.metadata_of(needed)).gather(place)

    def metadata_of(self, rows: np.ndarray) -> pl.Series:
        """Gather metadata texts."""
        if self.metadata.n_chunks() > 1:  # gathering from several is ten times slower
            self.metadata = self.metadata.rechunk()
        return self.metadata.gather(rows)

    def take(self, rows: np.ndarray) -> Typed:
        """Keep only these rows (ascending), and the aggregates that still have one."""
        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        owners = self.aggregate_of(rows)
        first = np.ones(len(rows), dtype=bool)
        first[1:] = owners[1:] != owners[:-1]
        parts = [part.renumbered(place[part.rows]) for part in self.parts]
        return Typed(
            ids=self.ids.gather(owners[first]),
            starts=np.flatnonzero(first),
            version=self.version[rows],
            timestamp=self.timestamp[rows],
            kind=self.kind[rows],
            kinds=self.kinds,
            metadata=self.metadata.gather(rows),
            parts=[part for part in parts if len(part.rows)],
            clock=None if self.clock is None else self.clock[rows],
        )

    def by_clock(self, clock: np.ndarray) -> Typed:
        """Put each aggregate's rows in order of another clock, and of version where that ties."""
        order = np.lexsort((self.version, clock, self.aggregate_of(np.arange(len(self)))))
        place = np.empty(len(self), dtype=np.int64)
        place[order] = np.arange(len(self))
        return dataclasses.replace(
            self,
            version=self.version[order],
            timestamp=self.timestamp[order],
            kind=self.kind[order],
            metadata=self.metadata.gather(order),
            parts=[dataclasses.replace(part, rows=place[part.rows]) for part in self.parts],
            clock=clock[order],
        )

    def events(self, declared: Mapping[str, type[EventType]], rows: np.ndarray) -> list[Event]:
        """Give rows as Event records, with the declared types' payloads as their EventType."""
        payloads: dict[int, Any] = {}
        wanted = np.zeros(len(self), dtype=bool)
        wanted[rows] = True
        for part in self.parts:
            keep = wanted[part.rows]
            if not keep.any():
                continue
            shape = declared[part.event_type].shape
            found = (
                part.fields.filter(keep).iter_rows(named=True)
                if shape.slots
                else ({} for _ in range(keep.sum()))
            )
            payloads.update(
                (int(row), shape.build(fields)) for row, fields in zip(part.rows[keep], found, strict=True)
            )
        owners = self.ids.gather(self.aggregate_of(rows))
        stamps = pl.Series(self.timestamp[rows]).cast(TIMESTAMP)
        texts = self.metadata.gather(rows)
        return [
            Event(
                aggregate_id=owner,
                version=int(self.version[row]),
                event_type=self.kinds[self.kind[row]],
                payload=payloads.get(int(row)),
                metadata=parse_object(text) if text else {},
                timestamp=stamp,
            )
            for row, owner, stamp, text in zip(rows, owners, stamps, texts, strict=True)
        ]


def typed(
    events: pl.DataFrame,
    declared: Mapping[str, type[EventType]],
    chain: Chain,
    newer: WhenNewer = "raise",
) -> tuple[Typed, pl.DataFrame]:
    """Decode EVENTS, in whatever order they come, and give the typed columns beside the rejected rows.

    Types nobody declared stay in, with no fields. newer="reject" sets payloads aside whose schema_version is
    newer than the code; "raise" raises SchemaTooNew for the first of them.
    """
    found, rejected = _one_for_each_key(events)
    events = found.events
    faults = _Faults(events)
    columns, schema_version, payloads = together(
        lambda: assemble(found),
        lambda: _schema_versions(events["metadata"], faults),
        events["payload"].rechunk,  # for gathering from several chunks is slow
        rows=len(events),
    )
    for code, name in enumerate(columns.kinds):
        rows = np.flatnonzero(columns.kind == code)
        if name not in declared:
            broken = not_objects(payloads, rows)
            faults.add(rows[broken], NOT_JSON.path, NOT_JSON.reason)
            continue
        for stored, same in _by_value(schema_version, rows):
            try:
                steps = chain.steps_for(name, stored)
            except SchemaTooNew as error:
                if newer == "reject":
                    faults.add(same, "metadata.schema_version", error.message)
                    continue
                raise _too_new(error, events.row(int(same[0]), named=True), len(same)) from None
            fields = decode_payloads(payloads, declared[name].shape, steps, same)
            for place, fault in fields.faults:
                faults.add(same[place : place + 1], fault.path, fault.reason)
            kept = same if fields.good.all() else same[fields.good]
            columns.parts.append(Part(name, kept, fields.frame, stored, fields.filled))
    if faults:
        columns = columns.take(np.flatnonzero(~faults.rows))
    return columns, pl.concat([rejected, faults.rejected()])


def _one_for_each_key(events: pl.DataFrame) -> tuple[InOrder, pl.DataFrame]:
    """Put events in order and keep one for each key, chosen among those that are JSON, as reading does."""
    found = in_order(events)
    if not found.again.any():
        return found, REJECTED.to_frame()
    sharing = found.again | np.append(found.again[1:], False)
    readable, broken = check(found.events.filter(sharing))
    kept, doubled = part_duplicates(in_order(pl.concat([found.events.filter(~sharing), readable])))
    return kept, pl.concat([broken, doubled])


def _by_value(values: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Part rows by the value that they have."""
    theirs = values[rows]
    if len(rows) and theirs.min() == theirs.max():
        yield int(theirs[0]), rows
        return
    for value in np.unique(theirs):
        yield int(value), rows[theirs == value]


class _Faults:
    """Rows found to be bad, in the order they were found; only a row's first fault is told."""

    def __init__(self, events: pl.DataFrame) -> None:
        self.events = events
        self.rows = np.zeros(len(events), dtype=bool)
        self.told: list[tuple[np.ndarray, str, str]] = []

    def __bool__(self) -> bool:
        return bool(self.told)

    def add(self, rows: np.ndarray, path: str, reason: str) -> None:
        rows = rows[~self.rows[rows]]
        if len(rows):
            self.rows[rows] = True
            self.told.append((rows, path, reason))

    def rejected(self) -> pl.DataFrame:
        if not self.told:
            return REJECTED.to_frame()
        bad = self.events[np.concatenate([rows for rows, _, _ in self.told])]
        paths = [path for rows, path, _ in self.told for _ in rows]
        reasons = [reason for rows, _, reason in self.told for _ in rows]
        return reject(bad, bad, pl.Series("path", paths, pl.String), pl.Series("reason", reasons, pl.String))


def _schema_versions(metadata: pl.Series, faults: _Faults) -> np.ndarray:
    pieces = in_pieces(metadata, _schema_version_piece)
    versions = joined([numbers for numbers, _, _ in pieces], np.int32)
    broken, wrong = (np.flatnonzero(joined([piece[fault] for piece in pieces], bool)) for fault in (1, 2))
    faults.add(broken, "metadata", f"metadata {NO_OBJECT}")
    faults.add(wrong, "metadata.schema_version", "schema_version is not a whole number from 1 on")
    return versions


def _schema_version_piece(texts: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the schema_version in each metadata text, and where the text or the number is none."""
    says = marks(texts.str.contains("schema_version", literal=True))
    silent, told = np.flatnonzero(~says & ~nulls(texts)), np.flatnonzero(says)
    versions = np.ones(len(texts), dtype=np.int32)
    broken, wrong = np.zeros((2, len(texts)), dtype=bool)
    broken[silent] = not_objects(texts if len(silent) == len(texts) else texts.gather(silent))
    if not len(told):
        return versions, broken, wrong
    structs, broken[told] = decode(texts.gather(told), pl.Struct({"schema_version": pl.String}))
    stored = structs.struct.field("schema_version")
    numbers = stored.cast(pl.Int32, strict=False)
    wrong[told] = marks(stored.is_not_null() & (numbers.is_null() | (numbers < 1)))
    versions[told] = numbers.fill_null(1).to_numpy()
    return versions, broken, wrong & ~broken


def coded(types: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Number event types by their place among the sorted names: a code for each, and the names."""
    names = types.unique().sort()
    codes = types.cast(pl.Enum(names)).to_physical().to_numpy() if len(names) else np.zeros(0, np.uint8)
    return codes, names.to_list()


def assemble(found: InOrder) -> Typed:
    """Lay the events that were found in order out as columns, with nothing decoded yet."""
    events, starts = found.events, np.flatnonzero(found.first)
    kind, kinds = coded(events["event_type"])
    return Typed(
        ids=events["aggregate_id"].gather(starts),
        starts=starts,
        version=events["version"].to_numpy(),
        timestamp=events["timestamp"].to_physical().to_numpy(),
        kind=kind,
        kinds=kinds,
        metadata=events["metadata"],
    )


def _too_new(error: SchemaTooNew, row: dict[str, Any], count: int) -> SchemaTooNew:
    return SchemaTooNew(
        f"{error.message} ({count} such, first {row['aggregate_id']} version {row['version']})",
        hint=f"{error.hint}; log.fold(..., newer='reject') sets such events aside",
        **error.data,
        aggregate_id=row["aggregate_id"],
        version=row["version"],
        count=count,
    )
