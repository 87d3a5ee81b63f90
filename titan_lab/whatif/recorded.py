"""Rows of a history as the events that they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import polars as pl

from titan_lab.errors import BranchError
from titan_lab.event import EVENTS, TIMESTAMP
from titan_lab.typed import Typed

KEY = ["aggregate_id", "version"]

Stored = Callable[[Iterable[str] | None], pl.DataFrame]  # reads the events of these aggregates; None: of all


def events_at(
    history: Typed, rows: np.ndarray, names: Iterable[str], stored: Stored | None = None
) -> pl.DataFrame:
    """Give columns of EVENTS for some rows; payloads are not kept in a history, so the store is asked.

    Raises BranchError where the store no longer has one of them.
    """
    names = list(names)
    columns = {
        "aggregate_id": lambda: history.ids.gather(history.aggregate_of(rows)),
        "version": lambda: pl.Series(history.version[rows]),
        "event_type": lambda: pl.Series(history.kinds, dtype=pl.String).gather(
            history.kind[rows].astype(np.uint32)
        ),
        "metadata": lambda: history.metadata.gather(rows),
        "timestamp": lambda: pl.Series(history.timestamp[rows]).cast(TIMESTAMP),
    }
    wanted = {*names, *KEY} if "payload" in names else {*names}
    frame = pl.DataFrame({name: column() for name, column in columns.items() if name in wanted})
    if "payload" in names:
        assert stored is not None
        ids = frame["aggregate_id"].unique(maintain_order=True)
        # To look for most of the ids is slower than to read them all.
        found = stored(ids if 2 * len(ids) < len(history.ids) else None).select(*KEY, "payload")
        frame = frame.join(found, on=KEY, how="left", maintain_order="left")
        if lost := frame["payload"].null_count():
            raise BranchError(
                f"{lost:,} of {len(frame):,} events are not in the store any more",
                hint="open the log again, and fold it anew",
            )
    return frame.select(pl.col(name).cast(EVENTS[name]) for name in names)
