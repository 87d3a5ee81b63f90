"""Story: one aggregate's life."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from titan_lab.clock import Cut, Instant
from titan_lab.errors import InstantError
from titan_lab.fold import ROW, State
from titan_lab.notebook import html
from titan_lab.timeline import Timeline, as_instants


class Story:
    """One aggregate's life: its events, and the state after each of them. Made by ``book["id"]``."""

    def __init__(self, life: Timeline, read_events: Any = None) -> None:
        self.life = life
        self.aggregate = life.aggregate
        self.aggregate_id: str = life.typed.ids[0]
        self._read_events = read_events

    def at(self, when: Instant | None = None, *, version: int | None = None, cut: Cut = "prefix") -> State:
        """Give the state at an instant (inclusive) or after its version n.

        Before the first event the state is falsy, with version 0 and every column as it starts. A version
        beyond the last gives the last. Raises InstantError for a naive or unreadable instant.
        """
        if isinstance(when, int):
            raise InstantError(f"{when} is no instant", hint=f"for a version write .at(version={when})")
        found = self.life.at(when, version=version, cut=cut)
        if found.is_empty():
            return self.aggregate.initial(self.aggregate_id)
        return self._state(found.row(0, named=True))

    @property
    def now(self) -> State:
        """Give the state after the last event."""
        return self.at(version=int(self.life.typed.version[-1]))

    def log(self) -> pl.DataFrame:
        """List the events, one row each in order of version.

        Returns version Int64, event_type String, timestamp and counted_from Datetime(us, UTC) (the instant
        from which the default cut counts the event: later than its timestamp where an earlier version is stamped
        later), changed List(String) (the columns of the state that it changed), payload String (JSON as stored)
        and metadata String.
        """
        typed = self.life.typed
        history = self.history(columns=list(self.aggregate.reducers))
        payload = None
        if self._read_events is not None:
            stored = self._read_events(self.aggregate_id).select("version", "payload")
            versions = pl.DataFrame({"version": typed.version})
            payload = versions.join(stored, on="version", how="left", maintain_order="left")["payload"]
        return pl.DataFrame(
            {
                "version": typed.version,
                "event_type": pl.Series(typed.kinds, dtype=pl.String).gather(typed.kind.astype(np.uint32)),
                "timestamp": as_instants(typed.timestamp),
                "counted_from": as_instants(self.life.rows.counted("prefix")),
                "changed": self._changed(history),
                "payload": payload if payload is not None else pl.Series([None] * len(typed), dtype=pl.String),
                "metadata": typed.metadata,
            }
        )

    def history(self, columns: Any = None) -> pl.DataFrame:
        """Give the state after each event, in order of version, with valid_from and valid_to."""
        return self.life.history(columns=columns)

    def __len__(self) -> int:
        """Count the events."""
        return len(self.life.typed)

    def __repr__(self) -> str:
        return f"<Story of {self.aggregate.__name__} {self.aggregate_id}: {len(self)} events, now {self.now!r}>"

    def _repr_html_(self) -> str:
        told = self.log().select("version", "event_type", "timestamp", "changed").tail(SHOWN)
        skipped = len(self) - len(told)
        note = f"{skipped:,} earlier events are not shown; .log() has them all" if skipped else ""
        return html.table(told, caption=f"{self.aggregate.__name__} {self.aggregate_id}", note=note)

    def _state(self, row: dict[str, Any]) -> State:
        fields = {name: value for name, value in row.items() if name not in ROW}
        return State(row["aggregate_id"], row["version"], fields, row.get("valid_from"), row.get("valid_to"))

    def _changed(self, history: pl.DataFrame) -> pl.Series:
        start = self.aggregate.initial(self.aggregate_id).as_dict()
        marks = []
        for name in self.aggregate.reducers:
            column = history[name]
            if isinstance(column.dtype, pl.List):  # lists of structs compare by their text
                column = pl.Series([repr(value) for value in column], dtype=pl.String)
                first = repr(start[name])
            else:
                first = start[name]
            before = column.shift(1)
            changed = column.ne_missing(before)
            changed[0] = column[0] != first if first is not None else column[0] is not None
            marks.append(pl.select(pl.when(changed).then(pl.lit(name))).to_series().alias(name))
        if not marks:
            return pl.Series([[]] * len(self), dtype=pl.List(pl.String))
        return pl.DataFrame(marks).select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()


SHOWN = 50
