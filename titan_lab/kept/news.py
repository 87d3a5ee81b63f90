"""What has happened in a store since its history was kept, told as cheaply as the store allows.

A store of files tells from its files (`facts`) that nothing has happened, and from those that were added
(`ids_since`) which aggregates have new events. A store whose rows can change in place is asked for a mark of
each aggregate's rows (`marks`); without any of these, all rows are read and marked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from titan_lab.backends.contract import Reader
from titan_lab.event import EVENTS, as_json, as_text
from titan_lab.scope import EVERYTHING

MARKS = pl.Schema({"aggregate_id": pl.String(), "mark": pl.Int64()})
CHECKED = 1_000_000  # rows that are marked at a time
HALF = 2**32


@dataclass(frozen=True)
class News:
    """What is new: `touched` lists the aggregates whose rows differ, None where that cannot be told.

    facts and marks: of the store as it is now; events that arrive later are news again.
    """

    touched: pl.Series | None
    facts: dict[str, list[int]] | None
    marks: pl.DataFrame

    @property
    def none(self) -> bool:
        """Tell whether nothing has happened."""
        return self.touched is not None and not len(self.touched)


def since(reader: Reader, facts: dict[str, list[int]] | None, marks: pl.DataFrame | None) -> News:
    """Compare a store with the facts and the marks of an earlier look at it; None: there was none."""
    now = facts_of(reader)
    if now is not None and now == facts and marks is not None:
        return News(pl.Series([], dtype=pl.String), now, marks)
    if hasattr(reader, "ids_since"):
        return News(None if facts is None else reader.ids_since(facts), now, MARKS.to_frame())
    found: pl.DataFrame = reader.marks() if hasattr(reader, "marks") else marks_of(reader)
    if marks is None:
        return News(None, now, found)
    both = marks.join(found, on="aggregate_id", how="full", coalesce=True, nulls_equal=True)
    touched = both.filter(pl.col("mark").ne_missing(pl.col("mark_right")))["aggregate_id"]
    return News(None if touched.null_count() else touched, now, found)


def facts_of(reader: Any) -> dict[str, list[int]] | None:
    """Ask a store for what is another whenever its content is; None where it has no such thing."""
    return reader.facts() if hasattr(reader, "facts") else None


def marks_of(reader: Reader) -> pl.DataFrame:
    """Read everything, and give each aggregate a number that is another whenever one of its rows is.

    The numbers of two editions of polars may differ, and then all aggregates count as touched.
    """
    marks = [MARKS.to_frame()]
    for frame in reader.frames(EVERYTHING, CHECKED):
        rows = frame.select(
            as_json(frame[name]) if name in ("payload", "metadata") else as_text(frame[name])
            for name in EVENTS
            if name in frame.columns
        )
        hashes = rows.hash_rows(seed=len(EVENTS)).alias("hash")
        marked = pl.DataFrame([rows["aggregate_id"], hashes]).group_by("aggregate_id")
        # Half of each hash, so that the sum of very many stays within 64 bits; and how many there are.
        marks.append(
            marked.agg(mark=(pl.col("hash") // HALF).cast(pl.Int64).sum() + pl.len().cast(pl.Int64) * HALF)
        )
    return pl.concat(marks, how="vertical_relaxed").group_by("aggregate_id").agg(pl.col("mark").sum())
