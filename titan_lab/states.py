"""States: the values of a history's columns, gathered after any of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from titan_lab.event import TIMESTAMP
from titan_lab.fold import ROW, Aggregate
from titan_lab.parallel import each
from titan_lab.rows import Rows
from titan_lab.tracks import Shared, Track
from titan_lab.typed import Typed


class States:
    """Every state of every aggregate: one row per event, sorted by (aggregate_id, version)."""

    def __init__(
        self,
        aggregate: type[Aggregate],
        typed: Typed,
        made: tuple[Rows, Mapping[str, Track]] | None = None,
    ) -> None:
        self.aggregate = aggregate
        self.typed = typed
        self.rows: Rows
        self.tracks: Mapping[str, Track]
        self.rows, self.tracks = made or (Rows(typed), tracks_of(aggregate, typed))

    def __len__(self) -> int:
        """Count the aggregates."""
        return len(self.typed.ids)

    def frame(
        self, rows: np.ndarray, owners: np.ndarray, names: list[str], counted: np.ndarray
    ) -> pl.DataFrame:
        """Gather columns by name: the states after these rows, which belong to these aggregates."""

        def gather(name: str) -> pl.Series:
            if name == "aggregate_id":
                column = self.ids_of(owners)
            elif name == "version":
                column = pl.Series(self.typed.version[rows])
            elif name == "valid_from":
                column = as_instants(counted[rows])
            elif name == "valid_to":
                column = self._valid_to(rows, counted)
            else:
                column = self.tracks[name].at(rows, owners)
            return column.alias(name)

        # What takes longest goes first, so that no thread is left with it at the end.
        longest_first = sorted(names, key=self._width, reverse=True)
        columns = dict(zip(longest_first, each(gather, longest_first, len(rows)), strict=True))
        return pl.DataFrame([columns[name] for name in names])

    def _width(self, name: str) -> int:
        dtype = self.tracks[name].dtype if name in self.tracks else pl.String if name == ROW[0] else pl.Int64
        return 2 if dtype.is_nested() else int(dtype == pl.String or dtype.is_decimal())

    def wanted(self, columns: str | Iterable[str] | None) -> list[str]:
        """Give the names of the columns that a frame of states is to have; None means all."""
        named = [*ROW, *self.aggregate.reducers] if columns is None else self.aggregate.columns(columns)
        return list(dict.fromkeys(["aggregate_id", "version", *named]))

    def ids_of(self, owners: np.ndarray) -> pl.Series:
        """Gather the ids of these aggregates."""
        everyone_once = len(owners) == len(self) and bool((owners[1:] > owners[:-1]).all())
        return self.typed.ids if everyone_once else self.typed.ids.gather(owners)

    def _valid_to(self, rows: np.ndarray, counted: np.ndarray) -> pl.Series:
        followed = self.rows.followed[rows]
        return as_instants(counted[rows + followed], nulls=~followed)

    def track(self, column: str) -> Track:
        """Find a column of the state by name. Raises NoSuchColumn."""
        return self.tracks[self.aggregate.column(column)]


def tracks_of(
    aggregate: type[Aggregate], typed: Typed, known: Mapping[str, Track] | None = None
) -> dict[str, Track]:
    """Fold a history: make each column's track, but for those that are known."""
    shared, known = Shared(typed), known or {}

    def track(name: str) -> Track:
        return known[name] if name in known else aggregate.reducers[name].track(typed, shared)

    return dict(zip(aggregate.reducers, each(track, aggregate.reducers, len(typed)), strict=True))


def as_instants(stamps: np.ndarray, nulls: np.ndarray | None = None) -> pl.Series:
    """Turn int64 microseconds into a Datetime(us, UTC) column, null where `nulls` says so."""
    column = pl.Series(stamps).cast(TIMESTAMP)
    return column if nulls is None or not nulls.any() else column.set(pl.Series(nulls), None)
