"""The cuts of an instant, where they differ: lives in which a later version is stamped earlier."""

from __future__ import annotations

import numpy as np
import polars as pl

from titan_lab.clock import CUTS
from titan_lab.states import States, as_instants


def differing(states: States, moment: int) -> pl.DataFrame:
    """List the aggregates on which the cuts differ, as ``Timeline.cuts`` says."""
    rows, typed = states.rows, states.typed
    suspects = np.flatnonzero(rows.stepping_back)
    told: dict[str, np.ndarray] = {}
    for cut in CUTS:
        stamps = typed.timestamp if cut == "filter" else rows.counted(cut)
        told[cut], told[f"{cut}_events"] = _counts(states, stamps <= moment, suspects)
    frame = pl.DataFrame({"aggregate_id": typed.ids.gather(suspects), **told})
    same = (pl.col("prefix_events") == pl.col("filter_events")) & (
        pl.col("prefix_events") == pl.col("latest_events")
    )
    frame = frame.filter(~(same & (pl.col("prefix") == pl.col("filter"))))
    return frame.with_columns(pl.when(pl.col(cut) > 0).then(cut) for cut in CUTS)


def filtered(states: States, moment: int, wanted: list[str]) -> pl.DataFrame:
    """Fold what plain ``timestamp <= T`` lets through; only lives that step back need folding again."""
    counted = states.rows.counted("prefix")
    rows, owners = states.rows.prefixes(counted, moment)
    calm = ~states.rows.stepping_back[owners]
    disturbed = states.rows.stepping_back[states.rows.owners]
    seen = np.flatnonzero(disturbed & (states.typed.timestamp <= moment))
    again = States(states.aggregate, states.typed.take(seen))
    last = again.typed.ends - 1
    refolded = again.frame(last, np.arange(len(again)), wanted, again.rows.counted("prefix"))
    if "valid_to" in wanted:
        later = np.flatnonzero(disturbed & (states.typed.timestamp > moment))
        after = pl.DataFrame(
            {
                "aggregate_id": states.ids_of(states.rows.owners[later]),
                "valid_to": as_instants(states.typed.timestamp[later]),
            }
        )
        ends = after.group_by("aggregate_id").agg(pl.col("valid_to").min())
        columns = refolded.columns
        refolded = (
            refolded.drop("valid_to")
            .join(ends, on="aggregate_id", how="left", maintain_order="left")
            .select(columns)
        )
    return pl.concat([states.frame(rows[calm], owners[calm], wanted, counted), refolded]).sort("aggregate_id")


def _counts(states: States, counts: np.ndarray, aggregates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give, for some aggregates, the last version of the rows that count (0: none), and their number."""
    ends = states.typed.ends
    versions, numbers = [], []
    for aggregate in aggregates:
        life = slice(states.typed.starts[aggregate], ends[aggregate])
        counted = states.typed.version[life][counts[life]]
        versions.append(counted.max(initial=0))
        numbers.append(len(counted))
    return np.array(versions, dtype=np.int64), np.array(numbers, dtype=np.int64)
