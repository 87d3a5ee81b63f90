"""Two clocks: what held at an instant, and what was known of it at another.

An event is *recorded* at its timestamp. It is *effective* at its `metadata.effective_at`, where it says so,
else at its timestamp. A correction that is recorded on Friday and effective since Monday leaves Tuesday alone
as seen from Wednesday, and rewrites it as seen from Saturday.

    version  event            recorded  effective     Tuesday, as known on Wednesday: v1
    1        Created(5)       Monday    Monday        Tuesday, as known on Saturday:  v1, v3
    2        Paid             Thursday  Thursday
    3        Corrected(4)     Friday    Monday

Within an aggregate the effective order is (effective_at, version). Most aggregates have the same order on
both clocks; the others, the *moved* ones, are folded again in effective order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from titan_lab.clock import Cut
from titan_lab.event import TIMESTAMP, moments
from titan_lab.fold import ROW
from titan_lab.jsontext import decode
from titan_lab.marks import marks, nulls
from titan_lab.states import as_instants
from titan_lab.timeline import Timeline
from titan_lab.typed import Typed

TOLD = pl.Struct({"effective_at": pl.String, "correlation_id": pl.String})


class Effective:
    """The second clock of one history: when each event is effective, and which aggregates it moves."""

    def __init__(self, typed: Typed, zone: str | None = None) -> None:
        self.typed = typed
        self.rows = np.flatnonzero(marks(typed.metadata.str.contains("effective_at", literal=True)))
        told, _ = decode(typed.metadata.gather(self.rows), TOLD)
        self.told = told.struct.unnest() if len(self.rows) else pl.DataFrame(schema=TOLD.to_schema())
        self.at = moments(self.told["effective_at"], zone)
        self.clock = typed.timestamp.copy()
        said = np.flatnonzero(~nulls(self.at))
        self.clock[self.rows[said]] = self.at.gather(said).to_physical().to_numpy()
        moved = np.zeros(len(typed), dtype=bool)
        moved[1:] = self.clock[1:] < self.clock[:-1]
        moved[typed.starts] = False
        moved |= self.clock != typed.timestamp
        owners = np.unique(typed.aggregate_of(np.flatnonzero(moved)))
        self.moved = np.zeros(len(typed.ids), dtype=bool)
        self.moved[owners] = True

    def report(self) -> pl.DataFrame:
        """List the events whose metadata names another instant than their timestamp; see Book.backdated."""
        typed, rows = self.typed, self.rows
        stamps = as_instants(typed.timestamp[rows])
        frame = pl.DataFrame(
            {
                "aggregate_id": typed.ids.gather(typed.aggregate_of(rows)),
                "version": typed.version[rows],
                "event_type": pl.Series(typed.kinds, dtype=pl.String).gather(typed.kind[rows]),
                "timestamp": stamps,
                "effective_at": self.at,
                "by": stamps - self.at,
                "correlation_id": self.told["correlation_id"],
                "written": self.told["effective_at"],
            }
        )
        return frame.filter(pl.col("written").is_not_null() & (pl.col("by").is_null() | (pl.col("by") != 0)))


def at_known(
    book: Timeline, effective: Effective, moment: int, known: int, cut: Cut, wanted: list[str]
) -> pl.DataFrame:
    """Give the states effective at a moment, of the events that were recorded by another, as Timeline.at."""
    counted = book.rows.counted(cut)
    rows, owners = book.rows.prefixes(counted, min(moment, known))
    calm = np.flatnonzero(~effective.moved[owners])
    rows, owners = rows[calm], owners[calm]
    frame = book.frame(rows, owners, wanted, counted)
    if "valid_to" in wanted:  # what ended it may not have been known yet
        known_end = pl.col("valid_to") <= pl.lit(known).cast(TIMESTAMP)
        frame = frame.with_columns(pl.when(known_end).then("valid_to"))
    again, numbers = _moved_as_known(book, effective, known, cut)
    rows, theirs = again.rows.prefixes(again.rows.counted("prefix"), moment)
    moved = again.frame(rows, theirs, wanted, again.rows.counted("prefix"))
    order = np.argsort(np.concatenate([owners, numbers[theirs]]), kind="stable")
    return pl.concat([frame, moved]).select(pl.all().gather(order))


def _moved_as_known(
    book: Timeline, effective: Effective, known: int, cut: Cut
) -> tuple[Timeline, np.ndarray]:
    """Fold the moved aggregates in effective order, of what was known; and tell which aggregates they are."""
    stamps = book.typed.timestamp if cut == "filter" else book.rows.counted(cut)
    seen = np.flatnonzero(effective.moved[book.rows.owners] & (stamps <= known))
    typed = book.typed.take(seen).by_clock(effective.clock[seen])
    return Timeline(book.aggregate, typed, zone=book.zone), np.unique(book.rows.owners[seen])


def believed(now: pl.DataFrame, then: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """Lay what was believed beside what the log says, column by column; see Book.believed."""
    columns = [name for name in columns if name not in ROW]
    both = now.join(then, on="aggregate_id", how="full", suffix="_believed", coalesce=True)
    pairs = [name for column in ["version", *columns] for name in (column, f"{column}_believed")]
    differs = [pl.col(column).ne_missing(pl.col(f"{column}_believed")) for column in columns]
    return both.select(
        "aggregate_id", *pairs, pl.any_horizontal(differs or [pl.lit(False)]).alias("differs")
    ).sort("aggregate_id")
