"""The oracle of stays: one life after the other, one event after the other, in fractions."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from titan_lab.fold import Aggregate
from titan_lab.testing.slow import Lives, held, plain

MICROSECOND = timedelta(microseconds=1)


def stays(aggregate: type[Aggregate], lives: Lives, column: str, horizon: datetime) -> list[dict[str, Any]]:
    """Walk through every life, and note each time that the column's value became another."""
    found: list[dict[str, Any]] = []
    for aggregate_id in sorted(lives, key=str.encode):
        life = lives[aggregate_id]
        mine: list[dict[str, Any]] = []
        for state, (since, _) in zip(aggregate.states(life), held(life), strict=True):
            value = plain(state.as_dict()[column])
            if since > horizon:
                break
            if not mine or mine[-1]["state"] != value:
                if mine:
                    mine[-1]["left_at"] = since
                mine.append(
                    {
                        "aggregate_id": aggregate_id,
                        "version": state.version,
                        "state": value,
                        "entered_at": since,
                        "left_at": None,
                    }
                )
        for stay in mine:
            stay["duration"] = (stay["left_at"] or horizon) - stay["entered_at"]
        found += mine
    return found


def dwell(stays: list[dict[str, Any]], state: Any) -> dict[str, Any]:
    """Estimate how long a state is stayed in: step down at each length at which a stay ended."""
    mine = [
        (one["duration"] // MICROSECOND, one["left_at"] is not None) for one in stays if one["state"] == state
    ]
    share, area, before = Fraction(1), Fraction(0), 0
    median = p90 = None
    for length in sorted({length for length, _ in mine}):
        area += share * (length - before)
        before = length
        at_risk = sum(other >= length for other, _ in mine)
        ended = sum(other == length and over for other, over in mine)
        share *= 1 - Fraction(ended, at_risk)
        if ended and median is None and share <= Fraction(1, 2):
            median = length
        if ended and p90 is None and share <= Fraction(1, 10):
            p90 = length
    return {
        "state": state,
        "entered": len(mine),
        "finished": sum(over for _, over in mine),
        "open": sum(not over for _, over in mine),
        "median": None if median is None else median * MICROSECOND,
        "mean": area,
        "p90": None if p90 is None else p90 * MICROSECOND,
        "total": timedelta(milliseconds=round(Fraction(sum(length for length, _ in mine), 1000))),
    }
