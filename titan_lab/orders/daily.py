"""What an operations lead asks in the morning, as frames: what is open, what moved, what waits too long.

Everything is read off the Timeline at one or two instants; nothing here loops over events.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

from titan_lab.backends.contract import Frontier
from titan_lab.notebook.html import shown
from titan_lab.timeline import Timeline

OPEN = ("CREATED", "PAID", "SHIPPED")  # an order in one of these still needs somebody to do something
DAY, WEEK = timedelta(days=1), timedelta(days=7)

# what moved -> the state column that says when
MOVES = {
    "created": "created_at",
    "paid": "paid_at",
    "shipped": "shipped_at",
    "delivered": "delivered_at",
    "cancelled": "cancelled_at",
}


def open_orders(states: pl.DataFrame) -> dict[str, int]:
    """Count the open orders by status, in the order of a life; a status nobody has counts 0."""
    found = dict(states.group_by(pl.col("status").cast(pl.String)).len().iter_rows())
    return {status: found.get(status, 0) for status in OPEN}


def money_in_flight(states: pl.DataFrame) -> Decimal:
    """Add up what was paid, less what was refunded, of orders paid or shipped and not yet delivered."""
    held = states.filter(pl.col("status").cast(pl.String).is_in(["PAID", "SHIPPED"]))
    return _sum(held["paid"]) - _sum(held["refunded"])


def refunded_between(book: Timeline, after: datetime, until: datetime) -> Decimal:
    """Add up the refunds after one instant, up to and including another: two looks and a difference."""
    before, at = (book.at(t, columns=["refunded"])["refunded"] for t in (after, until))
    return _sum(at) - _sum(before)


def moves(states: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Count what orders did in the last day and week before `now`, each beside the one before it.

    states: `book.at(now)`. Windows end inclusive and begin exclusive. Returns moved String; last_24h,
    day_before, last_7d, week_before Int64; in the order of a life.
    """
    windows = {
        "last_24h": (now - DAY, now),
        "day_before": (now - 2 * DAY, now - DAY),
        "last_7d": (now - WEEK, now),
        "week_before": (now - 2 * WEEK, now - WEEK),
    }
    rows = {"moved": list(MOVES)} | {
        name: [states.filter((pl.col(c) > after) & (pl.col(c) <= until)).height for c in MOVES.values()]
        for name, (after, until) in windows.items()
    }
    return pl.DataFrame(rows, schema={"moved": pl.String} | dict.fromkeys(windows, pl.Int64))


def oldest_open(states: pl.DataFrame, now: datetime, top: int) -> pl.DataFrame:
    """List the open orders that have waited longest in their status, at most `top`, longest first.

    states: `book.at(now)`. Returns aggregate_id, status, since Datetime(us, UTC) (when it came into its
    status), waiting and age Duration(us) at `now`, lines Int64 (of items), total Decimal; ties in order of
    aggregate_id.
    """
    status = pl.col("status").cast(pl.String)
    since = pl.coalesce(
        pl.when(status == "SHIPPED").then("shipped_at"),
        pl.when(status == "PAID").then("paid_at"),
        pl.col("created_at"),
    )
    moment = pl.lit(now, dtype=pl.Datetime("us", "UTC"))
    return (
        states.filter(status.is_in(OPEN))
        .select(
            "aggregate_id",
            "status",
            since=since,
            waiting=moment - since,
            age=moment - pl.col("created_at"),
            lines=pl.col("items").list.len().cast(pl.Int64),
            total="total",
        )
        .sort("since", "aggregate_id")
        .head(top)
    )


def flat(states: pl.DataFrame) -> pl.DataFrame:
    """Make states fit for CSV: `items` becomes `lines`, how many there are; instants stay ISO-8601 in UTC."""
    return states.with_columns(pl.col("items").list.len().cast(pl.Int64).alias("lines")).drop("items")


def freshness(frontier: Frontier, now: datetime) -> str:
    """Say whether the store is known to be complete up to a moment; if not, up to when it is.

    Of a store that reaches beyond it no more is said, so that the answer stays the same while it grows.
    """
    if frontier.instant is None:
        return "The store holds no event."
    if now <= frontier.instant:
        return "Complete: the store reaches beyond this moment."
    reach = f"{shown(frontier.instant.replace(microsecond=0))} ({frontier.how})"
    return f"Complete up to {reach}. What happened after that is not in here."


def _sum(amounts: pl.Series) -> Decimal:
    total = amounts.sum()
    return Decimal(total).quantize(Decimal("0.01")) if total is not None else Decimal("0.00")
