"""What runs handed over, one row per instant: the ledger's answer to "how did this number go"."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import polars as pl

from titan_lab.clock import Instant, instant
from titan_lab.jobs.ledger import Ledger


def results(
    ledger: Ledger, job: str, since: Instant | None = None, until: Instant | None = None
) -> pl.DataFrame:
    """Lay out the numbers that a job's runs handed to `glue`, by the instants that they are about.

    since, until: only runs about these instants, both inclusive. Of several runs for an instant, the last one
    that ended `ok` counts.

    Returns scheduled Datetime[us, UTC], and a column for each number: Int64, Float64, or Decimal(38, 2) for
    amounts, which travel as text; null where a run has none. Other results are left out. Sorted by scheduled;
    columns in order of their names.
    """
    runs = ledger.runs(job, "ok").select("scheduled", "attempt", "results")
    if since is not None:
        runs = runs.filter(pl.col("scheduled") >= instant(since))
    if until is not None:
        runs = runs.filter(pl.col("scheduled") <= instant(until))
    last = runs.sort("scheduled", "attempt").unique("scheduled", keep="last", maintain_order=True)
    told = [json.loads(text) for text in last["results"]]
    columns = {}
    for name in sorted({name for one in told for name in one}):
        values = [_number(one.get(name)) for one in told]
        if any(value is not None for value in values):
            columns[name] = _column(values)
    return last.select("scheduled").with_columns(**columns)


def _number(value: Any) -> int | float | Decimal | None:
    if isinstance(value, str) and re.fullmatch(r"-?\d+\.\d\d", value, re.ASCII):
        return Decimal(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _column(values: list[int | float | Decimal | None]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pl.Series(values, dtype=pl.Int64)
    if kinds <= {int, Decimal}:
        return pl.Series([None if v is None else Decimal(v) for v in values], dtype=pl.Decimal(38, 2))
    return pl.Series([None if v is None else float(v) for v in values], dtype=pl.Float64)
