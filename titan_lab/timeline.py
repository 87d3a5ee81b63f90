"""Timeline: every state of every aggregate, and the questions that are one look at it.

One row per event, sorted by (aggregate_id, version). A row is the state after that event; it holds from
`counted` (see clock.py) until the next row's. A question about the past is then a filter over one array of
integers, and the columns that were asked for are gathered for the rows that pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from titan_lab import grid as grids
from titan_lab.asof import IdIndex, rows_at, spine_frame
from titan_lab.clock import (
    CUTS,
    MICROSECOND,
    Cut,
    Instant,
    check_cut,
    counted_from,
    duration,
    from_micros,
    iso,
    micros,
    stepping_back,
)
from titan_lab.errors import InstantError, SpineError
from titan_lab.event import REJECTED
from titan_lab.fold import ROW, Aggregate
from titan_lab.tracks import Shared, States, Track, from_units
from titan_lab.typed import Typed

MANY = 200_000  # rows from which on working in threads pays
PIECES = 8
LABELS = 32_768  # labels looked up at a time: what they touch stays in the processor's cache
NEVER = -(2**63)  # a moment before all others


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer rests on: the same basis gives the same bytes.

    source: where the events came from. frontier: up to when they are known to be complete, and how.
    fingerprint: of the aggregate's declaration. events: how many were folded. cut: which events count.
    """

    source: str
    frontier: str
    fingerprint: str
    events: int
    cut: Cut = "prefix"


class Timeline:
    """Every state of every aggregate: made by ``log.fold(Aggregate)``, never changed."""

    def __init__(
        self,
        aggregate: type[Aggregate],
        typed: Typed,
        *,
        source: str = "memory",
        frontier: str = "",
        zone: str | None = None,
        rejected: pl.DataFrame | None = None,
        read_events: Callable[[str], pl.DataFrame] | None = None,
    ) -> None:
        self.aggregate = aggregate
        self.typed = typed
        self.zone = zone
        self.rejected = REJECTED.to_frame() if rejected is None else rejected
        self.basis = Basis(source, frontier, aggregate.fingerprint(), len(typed))
        self._read_events = read_events
        self._shared = Shared(typed)
        self._counted: dict[str, np.ndarray] = {}
        self._followed = np.ones(len(typed), dtype=bool)  # by another event of the same aggregate
        self._followed[typed.ends - 1] = False
        reducers = aggregate.reducers
        tracks = _each(lambda reducer: reducer.track(typed, self._shared), list(reducers.values()), len(typed))
        self.tracks: dict[str, Track] = dict(zip(reducers, tracks, strict=True))

    # ------------------------------------------------------------------ looking

    def at(
        self,
        when: Instant | None = None,
        *,
        version: int | None = None,
        cut: Cut = "prefix",
        columns: str | Iterable[str] | None = None,
    ) -> pl.DataFrame:
        """Give the state of every aggregate at an instant (inclusive), or after its version n.

        Returns one row per aggregate that existed, sorted by aggregate_id: aggregate_id String, version Int64,
        valid_from and valid_to Datetime(us, UTC) (null: still holds), then the state's columns. With
        `columns`, only aggregate_id, version and these. cut: which events count, see ``titan_lab.clock``.
        With version=n, an aggregate that is younger shows its last state.

        Raises InstantError for a naive or unreadable instant, NoSuchColumn.
        """
        check_cut(cut)
        wanted = self._wanted(columns)
        if (when is None) == (version is None):
            raise InstantError("at needs an instant or a version", hint="book.at('2025-01-15T14:00Z') or book.at(version=3)")
        if version is not None:
            rows, owners = self._prefixes(self.typed.version, version)
            return self.frame(rows, owners, wanted, self.counted("prefix"))
        moment = micros(when, self.zone)  # type: ignore[arg-type]
        if cut == "filter" and self.stepping_back.any():
            return self._filtered(moment, wanted)
        counted = self.counted(cut)
        rows, owners = self._prefixes(counted, moment)
        return self.frame(rows, owners, wanted, counted)

    def history(
        self,
        since: Instant | None = None,
        until: Instant | None = None,
        columns: str | Iterable[str] | None = None,
    ) -> pl.DataFrame:
        """Give every state, sorted by (aggregate_id, version), as ``at`` does for one instant.

        since, until: only states that held at some moment in between, both inclusive. A state that was
        overtaken within the same microsecond, or by an event stamped earlier, has valid_from == valid_to.
        """
        counted = self.counted("prefix")
        rows = np.arange(len(self.typed))
        if since is not None or until is not None:
            keep = np.ones(len(rows), dtype=bool)
            if until is not None:
                keep &= counted <= micros(until, self.zone)
            if since is not None:
                start = micros(since, self.zone)
                ended = np.append(counted[1:], 0)
                keep &= ~self._followed | (ended > start) | (counted >= start)
            rows = rows[keep]
        return self.frame(rows, self.owners[rows], self._wanted(columns), counted)

    def asof(
        self,
        spine: Any,
        on: str = "ts",
        by: str = "aggregate_id",
        ttl: str | timedelta | None = None,
        columns: str | Iterable[str] | None = None,
        prefix: str = "",
    ) -> pl.DataFrame:
        """Add to each row of a frame the state that its aggregate had at its moment (inclusive).

        spine: a polars, pandas or arrow frame with an id column `by` and an aware datetime column `on`. Its rows
        come back in their order, none dropped and none doubled, with the state's columns (each with
        `prefix`), `version`, and `state_age` Duration(us): how long the state had held. All are null where the
        aggregate did not exist yet or nobody has the id, and where the state was older than `ttl` ("7d").

        Raises SpineError for a missing column, naive moments, and names that would collide; NoSuchColumn.
        """
        spine = spine_frame(spine, on, by)
        wanted = [name for name in self._wanted(columns) if name not in ROW or columns is not None]
        added = [prefix + name for name in dict.fromkeys(["version", *wanted, "state_age"])]
        collide = [name for name in added if name in spine.columns]
        if collide:
            raise SpineError(
                f"the spine has columns of the same name already: {', '.join(collide)}",
                hint="set them apart with prefix='state_', or choose others with columns=[...]",
                columns=collide,
            )
        counted = self.counted("prefix")
        when, ids = spine[on].to_physical().fill_null(NEVER).to_numpy(), spine[by]
        rows, owners = self._rows_for(ids, when, counted)
        there = rows >= 0
        age = np.where(there, when - counted[rows] if len(counted) else 0, 0)
        if ttl is not None:
            there &= age <= duration(ttl) // MICROSECOND
        states = self.frame(rows[there], owners[there], wanted, counted).select(["version", *wanted])
        states = states.with_columns(state_age=pl.Series(age[there]).cast(pl.Duration("us")))
        if not there.all():
            place = pl.Series(np.cumsum(there) - 1).set(pl.Series(~there), None)
            states = states.select(pl.all().gather(place))
        return spine.hstack(states.rename(lambda name: prefix + name).get_columns())

    def every(
        self,
        step: str | timedelta,
        since: Instant | None = None,
        until: Instant | None = None,
        by: str | None = "status",
        measure: str | None = None,
        zone: str | None = None,
    ) -> pl.DataFrame:
        """Count the aggregates in each state at every instant of a grid, or add up a column over them.

        The grid runs from `since` to `until` (both inclusive; the history's own span without them) in steps
        such as "15m", "1h", "1d", "1mo" of the calendar of `zone`. Returns instant, the `by` column, count
        Int64, and the exact sum under the measure's own name, for every instant and every value of `by` that
        occurs, sorted by both. by=None counts all together.

        Raises InstantError for an unreadable instant or step, NoSuchColumn, DeclarationError for a measure
        that is no number.
        """
        names = self.aggregate.columns([name for name in (by, measure) if name is not None])
        start, end = self.span or (0, 0)
        zone = zone or self.zone
        grid = grids.instants(
            step, from_micros(start) if since is None else since, from_micros(end) if until is None else until, zone
        )
        stamps, counted = grid.to_physical().to_numpy(), self.counted("prefix")
        cells = None
        if len(grid) == 1:
            rows, owners = self._prefixes(counted, stamps[0])
        else:
            enter = np.searchsorted(stamps, counted, side="left")
            leave = np.append(enter[1:], 0)
            leave[~self._followed] = len(grid)
            rows = np.flatnonzero(enter < leave)
            cells, owners = (enter[rows], leave[rows]), self.owners[rows]
        groups, group = self._groups(by, rows, owners)
        columns = {"count": pl.Series(grids.occupancy(cells, group, len(groups), len(grid)))}
        if measure is not None:
            track = self.tracks[names[-1]]
            sums = grids.occupancy(cells, group, len(groups), len(grid), track.units(rows, owners))
            columns[measure] = from_units(sums, track.dtype)
        keys = {"instant": grid.gather(np.repeat(np.arange(len(grid)), len(groups)))}
        if by is not None:
            keys[by] = groups.gather(np.tile(np.arange(len(groups)), len(grid)))
        return pl.DataFrame(keys | columns)

    def cuts(self, when: Instant) -> pl.DataFrame:
        """List the aggregates on which the three cuts differ at an instant.

        Returns aggregate_id, and for each cut (prefix, filter, latest) the last version it counts and how
        many events (0 and null where it counts none), sorted by aggregate_id. Aggregates whose timestamps never step
        back are never in it.
        """
        moment = micros(when, self.zone)
        suspects = np.flatnonzero(self.stepping_back)
        told: dict[str, np.ndarray] = {}
        for cut in CUTS:
            stamps = self.typed.timestamp if cut == "filter" else self.counted(cut)
            told[cut], told[f"{cut}_events"] = self._counts(stamps <= moment, suspects)
        frame = pl.DataFrame({"aggregate_id": self.typed.ids.gather(suspects), **told})
        same = (pl.col("prefix_events") == pl.col("filter_events")) & (pl.col("prefix_events") == pl.col("latest_events"))
        frame = frame.filter(~(same & (pl.col("prefix") == pl.col("filter"))))
        return frame.with_columns(pl.when(pl.col(cut) > 0).then(cut) for cut in CUTS)

    # ------------------------------------------------------------------ what it knows of itself

    def __len__(self) -> int:
        """Count the aggregates."""
        return len(self.typed.ids)

    @property
    def undeclared(self) -> dict[str, int]:
        """Count the events whose type the aggregate does not declare: kept, and folded as no change."""
        names, counts = np.unique(self.typed.kind, return_counts=True)
        told = {self.typed.kinds[name]: int(n) for name, n in zip(names, counts, strict=True)}
        return {name: n for name, n in told.items() if name not in self.aggregate.events}

    @cached_property
    def owners(self) -> np.ndarray:
        """Number the aggregate of every row."""
        lengths = np.diff(self.typed.starts, append=len(self.typed))
        return np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)

    @cached_property
    def stepping_back(self) -> np.ndarray:
        """Tell which aggregates have an event stamped earlier than its predecessor."""
        return stepping_back(self.typed.timestamp, self.typed.starts)

    def counted(self, cut: Cut) -> np.ndarray:
        """Give the instant, in microseconds, from which each row counts under a cut that is a prefix."""
        if cut == "filter":
            cut = "prefix"  # the same where timestamps do not step back, and `_filtered` handles the rest
        if cut not in self._counted:
            self._counted[cut] = counted_from(self.typed.timestamp, self.typed.starts, cut)
        return self._counted[cut]

    @cached_property
    def _index(self) -> IdIndex:
        return IdIndex(self.typed.ids)

    @property
    def span(self) -> tuple[int, int] | None:
        """Give the first and the last timestamp in microseconds, or None where there is no event."""
        stamps = self.typed.timestamp
        return (int(stamps.min()), int(stamps.max())) if len(stamps) else None

    def __repr__(self) -> str:
        if self.span is None:
            return f"<Timeline of {self.aggregate.__name__}: no events from {self.basis.source}>"
        start, end = (iso(from_micros(moment)) for moment in self.span)
        rejected = f", {len(self.rejected):,} rejected" if len(self.rejected) else ""
        return (
            f"<Timeline of {self.aggregate.__name__}: {len(self):,} aggregates, {len(self.typed):,} events{rejected},"
            f" {start} to {end}>"
        )

    # ------------------------------------------------------------------ gathering

    def frame(self, rows: np.ndarray, owners: np.ndarray, wanted: list[str], counted: np.ndarray) -> pl.DataFrame:
        """Gather columns for rows: the states after these events, in the rows' order."""
        work: dict[str, Callable[[], pl.Series]] = {
            "aggregate_id": lambda: self._ids(owners),
            "version": lambda: pl.Series(self.typed.version[rows]),
        }
        for name in wanted:
            if name == "valid_from":
                work[name] = lambda: as_instants(counted[rows])
            elif name == "valid_to":
                work[name] = lambda: self._valid_to(rows, counted)
            elif name not in work:
                work[name] = lambda track=self.tracks[name]: track.at(rows, owners)  # type: ignore[misc]
        done = _each(lambda make: make(), list(work.values()), len(rows))
        return pl.DataFrame([column.alias(name) for name, column in zip(work, done, strict=True)])

    def _wanted(self, columns: str | Iterable[str] | None) -> list[str]:
        if columns is None:
            return ["valid_from", "valid_to", *self.aggregate.columns()]
        return self.aggregate.columns(columns)

    def _ids(self, owners: np.ndarray) -> pl.Series:
        everyone_once = len(owners) == len(self) and bool((owners[1:] > owners[:-1]).all())
        return self.typed.ids if everyone_once else self.typed.ids.gather(owners)

    def _valid_to(self, rows: np.ndarray, counted: np.ndarray) -> pl.Series:
        followed = self._followed[rows]
        return as_instants(counted[rows + followed], nulls=~followed)

    def _prefixes(self, stamps: np.ndarray, bound: int) -> tuple[np.ndarray, np.ndarray]:
        """Find each aggregate's last row whose stamp is within the bound; stamps never step back in an aggregate."""
        size = len(stamps)

        def last_rows(piece: tuple[int, int]) -> np.ndarray:
            start, stop = piece
            within = stamps[start:stop] <= bound
            followed = self._followed[start:stop].copy()
            followed[:-1] &= within[1:]
            followed[-1:] &= stamps[stop : stop + 1] <= bound if stop < size else False
            return np.flatnonzero(within > followed) + start

        rows = np.concatenate(_each(last_rows, _pieces(size), size))
        return rows, self.owners[rows]

    def _counts(self, counts: np.ndarray, aggregates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For some aggregates: the last version among the rows that count (0: none), and how many these are."""
        ends = self.typed.ends
        versions, numbers = [], []
        for aggregate in aggregates:
            life = slice(self.typed.starts[aggregate], ends[aggregate])
            counted = self.typed.version[life][counts[life]]
            versions.append(counted.max(initial=0))
            numbers.append(len(counted))
        return np.array(versions, dtype=np.int64), np.array(numbers, dtype=np.int64)

    def _rows_for(self, ids: pl.Series, when: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the row that held for each (id, microsecond); -1 where none did."""
        starts, ends = self.typed.starts, self.typed.ends

        def look(piece: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            owners = self._index.find(ids.slice(piece[0], piece[1] - piece[0]))
            known = owners >= 0
            if not len(starts):
                return np.full(len(owners), -1), owners
            low = np.where(known, starts[owners], 0)
            high = np.where(known, ends[owners], 0)
            return rows_at(counted, low, high, when[piece[0] : piece[1]]), owners

        self._index  # noqa: B018  built before the threads ask for it
        found = _each(look, _pieces(len(when), max(len(when) // LABELS, 1)), len(when))
        return np.concatenate([rows for rows, _ in found]), np.concatenate([owners for _, owners in found])

    def _groups(self, by: str | None, rows: np.ndarray, owners: np.ndarray) -> tuple[pl.Series, np.ndarray]:
        """Give the values of a column that occur on some rows, sorted, and each row's place among them."""
        if by is None:
            return pl.Series([None]), np.zeros(len(rows), dtype=np.int64)
        track = self.tracks[by]
        if isinstance(track, States):
            codes = track.codes(rows, owners)
            used = np.flatnonzero(np.bincount(codes, minlength=256))
            place = np.zeros(256, dtype=np.intp)
            place[used] = np.arange(len(used))
            return pl.Series(used.astype(np.uint8)).cat.to(track.dtype, strict=False), place[codes]
        values = track.at(rows, owners)
        groups = values.unique().sort(nulls_last=True)
        numbers = pl.DataFrame({"value": groups, "number": np.arange(len(groups))})
        codes = values.to_frame("value").join(numbers, on="value", how="left", nulls_equal=True, maintain_order="left")
        return groups, codes["number"].to_numpy()

    def _filtered(self, moment: int, wanted: list[str]) -> pl.DataFrame:
        """Fold what plain ``timestamp <= T`` lets through; only lives that step back need folding again."""
        counted = self.counted("prefix")
        rows, owners = self._prefixes(counted, moment)
        calm = ~self.stepping_back[owners]
        disturbed = self.stepping_back[self.owners]
        seen = np.flatnonzero(disturbed & (self.typed.timestamp <= moment))
        again = Timeline(self.aggregate, self.typed.take(seen), zone=self.zone)
        last = again.typed.ends - 1
        refolded = again.frame(last, np.arange(len(again)), wanted, again.counted("prefix"))
        if "valid_to" in wanted:
            later = np.flatnonzero(disturbed & (self.typed.timestamp > moment))
            after = pl.DataFrame({"aggregate_id": self._ids(self.owners[later]), "valid_to": as_instants(self.typed.timestamp[later])})
            ends = after.group_by("aggregate_id").agg(pl.col("valid_to").min())
            columns = refolded.columns
            refolded = refolded.drop("valid_to").join(ends, on="aggregate_id", how="left", maintain_order="left").select(columns)
        return pl.concat([self.frame(rows[calm], owners[calm], wanted, counted), refolded]).sort("aggregate_id")


def as_instants(stamps: np.ndarray, nulls: np.ndarray | None = None) -> pl.Series:
    """Turn int64 microseconds into a Datetime(us, UTC) column, null where `nulls` says so."""
    column = pl.Series(stamps).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return column if nulls is None or not nulls.any() else column.set(pl.Series(nulls), None)


def _pieces(size: int, number: int = PIECES) -> list[tuple[int, int]]:
    return [(i * size // number, (i + 1) * size // number) for i in range(number)] if size >= MANY else [(0, size)]


def _each(work: Callable[[Any], Any], pieces: list, size: int) -> list:
    """Do the work on every piece, in threads where there are many rows."""
    if size < MANY:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        return list(pool.map(work, pieces))

