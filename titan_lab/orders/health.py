"""Whether the orders' history is in order: what broke a rule lately, and is that more than is allowed.

Only what had happened by the instant asked about counts, so the answer for an instant of the past stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from titan_lab.book import Book
from titan_lab.clock import Instant, instant, iso
from titan_lab.errors import Unhealthy
from titan_lab.log import EventLog

INVERSION = "clock inversion"
FINDINGS = ("kind", "aggregate_id", "version", "event_type", "timestamp", "detail")


def findings(log: EventLog, book: Book, since: Instant, until: Instant, wait: timedelta) -> pl.DataFrame:
    """List what broke a rule after one instant and up to another: by `book.conform()`, and by `log.audit()`.

    wait: a clock inversion (an event stamped before its predecessor) of no more than this is none: a
    timestamp is when a transaction began, and that one waited for another.

    Returns kind, aggregate_id, version, event_type, timestamp, detail; sorted by kind, aggregate_id, version.
    A version gap is told at the event after it.
    """
    begin, end = instant(since), instant(until)
    events = log.read(until=end).select("aggregate_id", "version", "event_type", "timestamp")
    stamped = events.select("aggregate_id", pl.col("version") + 1, before="timestamp")
    inverted = (
        log.audit()
        .filter(pl.col("kind") == INVERSION)
        .join(events, on=["aggregate_id", "version"])
        .join(stamped, on=["aggregate_id", "version"], how="left")
        .filter((pl.col("before") - pl.col("timestamp") > wait).fill_null(True))
    )
    broken = pl.concat([book.conform().findings.select(FINDINGS), inverted.select(FINDINGS)])
    lately = (pl.col("timestamp") > begin) & (pl.col("timestamp") <= end)
    return broken.filter(lately).sort("kind", "aggregate_id", "version", maintain_order=True)


def verdict(found: pl.DataFrame, allowed: Mapping[str, int]) -> pl.DataFrame:
    """Hold findings against how many of each kind are allowed; a kind not named is not allowed at all.

    Returns check String, found Int64, allowed Int64, healthy Boolean; unhealthy ones first, then by check.
    """
    counts = dict(found.group_by("kind").len().iter_rows())
    rows = [
        (kind, counts.get(kind, 0), allowed.get(kind, 0), counts.get(kind, 0) <= allowed.get(kind, 0))
        for kind in sorted({*counts, *allowed})
    ]
    schema = {"check": pl.String, "found": pl.Int64, "allowed": pl.Int64, "healthy": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("healthy", "check")


def require_health(found: pl.DataFrame, allowed: Mapping[str, int], until: datetime) -> None:
    """Raise Unhealthy where more was found than is allowed: what, and which order to look at first."""
    told = []
    for kind, count, most, healthy in verdict(found, allowed).iter_rows():
        if not healthy:
            first = found.filter(pl.col("kind") == kind).row(0, named=True)
            told.append(
                f"{count} × {kind} ({most} allowed), first at {first['aggregate_id']} v{first['version']}: "
                f"{first['detail']}"
            )
            where = first
    if told:
        raise Unhealthy(
            f"the orders are not in order as of {iso(until)}: {'; '.join(told)}",
            hint=f"look at book[{where['aggregate_id']!r}].log(), or raise what is allowed",
        )
