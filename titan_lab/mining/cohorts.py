"""Cohorts: who began when, and who of them came back.

Periods are those of a calendar in a zone, so that a month begins at its own midnight there.
"""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from titan_lab.clock import zone_of
from titan_lab.errors import InstantError
from titan_lab.event import TIMESTAMP

PERIOD = re.compile(r"([1-9]\d{0,3})(d|w|mo|q|y)")
MONTHS = {"mo": 1, "q": 3, "y": 12}
DAYS = {"d": 1, "w": 7}


def retention(users: pl.Series, began: np.ndarray, by: str, zone: str | None) -> pl.DataFrame:
    """Count, by cohort and period, the users of whose aggregates one began then. began: microseconds."""
    where = zone or "UTC"
    zone_of(where)
    length, unit = _period(by)
    days = pl.Series(began).cast(TIMESTAMP).dt.convert_time_zone(where).dt.date()
    active = (
        pl.DataFrame({"user": users, "since": days.dt.truncate(by)})
        .drop_nulls("user")
        .unique()
        .with_columns(cohort=pl.col("since").min().over("user"))
        .group_by("cohort", "since")
        .agg(active=pl.len().cast(pl.Int64))
    )
    seen = active.select(
        "cohort", "active", period=_between(pl.col("cohort"), pl.col("since"), unit) // length
    )
    last = days.dt.truncate(by).max()
    # A period in which nobody came back is told as well, up to the last one that the history knows.
    every = (
        seen.filter(pl.col("period") == 0)
        .with_columns(
            period=pl.int_ranges(0, _between(pl.col("cohort"), pl.lit(last, pl.Date), unit) // length + 1)
        )
        .rename({"active": "users"})
        .explode("period")
    )
    return (
        every.join(seen, on=["cohort", "period"], how="left")
        .select(
            "cohort",
            pl.col("period").cast(pl.Int64),
            "users",
            pl.col("active").fill_null(0),
            share=pl.col("active").fill_null(0) / pl.col("users"),
        )
        .sort("cohort", "period")
    )


def _period(by: str) -> tuple[int, str]:
    found = PERIOD.fullmatch(by) if isinstance(by, str) else None
    if found is None:
        raise InstantError(
            f"{by!r} is no period of a calendar", hint="use '1d', '1w', '1mo', '1q', '1y', or a multiple"
        )
    return int(found[1]), found[2]


def _between(start: pl.Expr, end: pl.Expr, unit: str) -> pl.Expr:
    """Count the units from one first day of a period to another."""
    if unit in DAYS:
        return (end - start).dt.total_days() // DAYS[unit]
    months = (end.dt.year().cast(pl.Int64) - start.dt.year()) * 12 + end.dt.month() - start.dt.month()
    return months // MONTHS[unit]
