"""The oracle of the mining verbs: plain loops over one life after the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from fractions import Fraction
from itertools import combinations, permutations
from math import floor
from typing import Any

from titan_lab.event import Event
from titan_lab.testing.slow import Lives, held

MICROSECOND = timedelta(microseconds=1)


def clocks(life: Sequence[Event]) -> list[datetime]:
    """Give the moment at which each event of a life counts."""
    return [since for since, _ in held(life)]


def variants(lives: Lives) -> list[dict[str, Any]]:
    """Group lives by their types."""
    groups = defaultdict(list)
    for name, life in lives.items():
        groups[tuple(event.event_type for event in life)].append(name)
    rows = []
    for variant, names in groups.items():
        lasted = [clocks(lives[name])[-1] - clocks(lives[name])[0] for name in names]
        rows.append(
            {
                "variant": list(variant),
                "count": len(names),
                "share": len(names) / len(lives),
                "median_duration": quantile(lasted, 5),
                "example": min(names, key=str.encode),
            }
        )
    return sorted(rows, key=lambda row: (-row["count"], [name.encode() for name in row["variant"]]))


def flow(lives: Lives) -> list[dict[str, Any]]:
    """Walk every life, and note each step with its wait."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    waits = defaultdict(list)
    for life in lives.values():
        moments = clocks(life)
        names = [event.event_type for event in life]
        for place, move in enumerate(zip([None, *names], [*names, None], strict=True)):
            counts[move] += 1
            if None not in move:
                waits[move].append(moments[place] - moments[place - 1])
    rows = []
    for (before, after), count in counts.items():
        leaving = sum(n for (source, _), n in counts.items() if source == before)
        lasted = waits[before, after]
        rows.append(
            {
                "from_type": before,
                "to_type": after,
                "count": count,
                "share": count / leaving,
                "mean_wait": sum(lasted, timedelta()) // len(lasted) if lasted else None,
                "median_wait": quantile(lasted, 5),
                "p90_wait": quantile(lasted, 9),
            }
        )

    def place_of(row: dict[str, Any]) -> tuple:
        ends = [row["from_type"], row["to_type"]]
        return -row["count"], [(name is not None, (name or "").encode()) for name in ends]

    return sorted(rows, key=place_of)


def quantile(lengths: Sequence[timedelta], tenths: int) -> timedelta | None:
    """Interpolate between the two neighbours of a place among the sorted lengths, and round down."""
    if not lengths:
        return None
    ordered = sorted(length // MICROSECOND for length in lengths)
    place = Fraction((len(ordered) - 1) * tenths, 10)
    low, high = ordered[floor(place)], ordered[min(floor(place) + 1, len(ordered) - 1)]
    return floor(low + (high - low) * (place - floor(place))) * MICROSECOND


Takes = Callable[[str], bool]


def funnel(
    lives: Lives,
    steps: Sequence[Takes],
    within: timedelta | None = None,
    *,
    any_order: bool = False,
    strict: bool = False,
    reentry: bool = False,
) -> dict[str, list[tuple[int, ...]]]:
    """Try every chain of every life. Gives, by aggregate, the chains that count, as places in the life.

    Of all chains the longest counts, of equally long ones that which comes first.
    """
    found = {}
    for name, life in lives.items():
        moments, names = clocks(life), [event.event_type for event in life]
        good = [
            chain
            for size in range(1, min(len(steps), len(life)) + 1)
            for chain in combinations(range(len(life)), size)
            if (within is None or moments[chain[-1]] - moments[chain[0]] <= within)
            and (not strict or chain[-1] - chain[0] == size - 1)
            and (_fills if any_order else _follows)([names[place] for place in chain], steps)
        ]
        counting, after = [], -1
        while good := [chain for chain in good if chain[0] > after]:
            begin = min(chain[0] for chain in good)
            entering = [chain for chain in good if chain[0] == begin] if reentry else good
            best = min(entering, key=lambda chain: (-len(chain), chain))
            counting.append(best)
            if not reentry:
                break
            after = best[-1]
        if counting:
            found[name] = counting
    return found


def _follows(names: Sequence[str], steps: Sequence[Takes]) -> bool:
    return all(step(name) for name, step in zip(names, steps, strict=False))


def _fills(names: Sequence[str], steps: Sequence[Takes]) -> bool:
    """Tell whether some of the steps, in some order, are taken by these names."""
    return any(_follows(names, some) for some in permutations(steps, len(names)))


def retention(orders: Sequence[tuple[str | None, date]], by: str) -> list[tuple[date, int, int, int, float]]:
    """Note who ordered in which period, then ask of every cohort and period who is in both."""
    periods: dict[str, set[date]] = {}
    for user, day in orders:
        if user is not None:
            periods.setdefault(user, set()).add(begin_of(day, by))
    last = max((begin_of(day, by) for _, day in orders), default=date.min)
    rows = []
    for cohort in sorted({min(some) for some in periods.values()}):
        users = [some for some in periods.values() if min(some) == cohort]
        period, place = cohort, 0
        while period <= last:
            active = sum(period in some for some in users)
            rows.append((cohort, place, len(users), active, active / len(users)))
            period, place = (
                begin_of(period + timedelta(days={"d": 1, "w": 7, "m": 31, "q": 92, "y": 366}[by[1]]), by),
                place + 1,
            )
    return rows


def begin_of(day: date, by: str) -> date:
    """Give the first day of the period that a day lies in."""
    if by == "1w":
        return day - timedelta(days=day.weekday())
    months = {"1d": day.month, "1mo": day.month, "1q": (day.month - 1) // 3 * 3 + 1, "1y": 1}
    return day.replace(month=months[by], day=day.day if by == "1d" else 1)
