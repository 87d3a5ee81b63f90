"""The first moment at which something holds: found by halving, and not believed where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from titan_lab.clock import Instant, from_micros, interval, iso, micros
from titan_lab.errors import InstantError, NotMonotone, PredicateError
from titan_lab.timeline import FOREVER, NEVER, Timeline

PROBES = 8  # looks spread over the range before it is halved: what comes and goes again is noticed by them
MOST_LOOKS = 10_000  # that a scan takes without being told a narrower range


def bisect(
    book: Timeline,
    predicate: Callable[[pl.DataFrame], Any],
    since: Instant | None = None,
    until: Instant | None = None,
    columns: str | Iterable[str] | None = None,
    scan: bool = False,
) -> datetime | None:
    """Find the first instant at which a predicate over all states holds; see ``Book.bisect``."""
    wanted = book.wanted(columns)
    moments = _moments(book, since, until)

    def holds(place: int) -> bool:
        moment = from_micros(moments[place])
        states = book.at(moment, columns=wanted)
        return verdict(predicate, states, f"at {iso(moment)}, of {len(states):,} states")

    if scan:
        if len(moments) > MOST_LOOKS:
            raise InstantError(
                f"a scan would look at {len(moments):,} instants, more than {MOST_LOOKS:,}",
                hint="narrow the range with since= and until=",
                instants=len(moments),
            )
        found = next((place for place in range(len(moments)) if holds(place)), None)
    else:
        found = _halved(moments, holds)
    return None if found is None else from_micros(moments[found])


def verdict(predicate: Callable[[Any], Any], subject: Any, where: str) -> bool:
    """Ask a predicate, and raise PredicateError for anything but true or false."""
    try:
        answer = predicate(subject)
    except Exception as error:
        raise PredicateError(
            f"the predicate raised {type(error).__name__} {where}: {error}",
            hint="it must answer for every moment, also for one at which nothing exists yet",
        ) from error
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    many = isinstance(answer, pl.Series | pl.DataFrame | pl.Expr | np.ndarray)
    raise PredicateError(
        f"the predicate returned {type(answer).__name__} {where}, not True or False"
        + ("" if many else f": {answer!r}"),
        hint="end it with .any() or .all()" if many else "compare what it returns: ... > 0",
        returned=answer,
    )


def _moments(book: Timeline, since: Instant | None, until: Instant | None) -> np.ndarray:
    """List the instants at which something changes, and `since` itself, in order."""
    if since is not None and until is not None:
        low, high = interval(since, until, book.zone, "book.bisect(predicate, {}, {})")
    else:
        low = NEVER if since is None else micros(since, book.zone)
        high = FOREVER if until is None else micros(until, book.zone)
    counted = book.rows.counted("prefix")
    within = np.unique(counted[(counted > low) & (counted <= high)])
    return within if since is None else np.append(low, within)


def _halved(moments: np.ndarray, holds: Callable[[int], bool]) -> int | None:
    """Halve the range between the last probe that fails and the first that holds."""
    answers: dict[int, bool] = {}

    def ask(place: int) -> bool:
        if place not in answers:
            answers[place] = holds(place)
        return answers[place]

    probes = np.unique(np.linspace(0, len(moments) - 1, PROBES).astype(int)).tolist() if len(moments) else []
    high = next((place for place in probes if ask(place)), None)
    for place in probes:
        ask(place)
    low = -1
    if high is not None:
        low = max((place for place in probes if place < high), default=-1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if ask(middle) else (middle, high)
    asked = sorted(answers)
    if any(answers[earlier] and not answers[later] for earlier, later in pairwise(asked)):
        told = ", ".join(f"{iso(from_micros(moments[p]))} {'yes' if answers[p] else 'no'}" for p in asked)
        raise NotMonotone(
            f"the predicate holds and later holds no more, so halving cannot find its first instant: {told}",
            hint=f"book.bisect(..., scan=True) looks at all {len(moments):,} instants of the range",
            instants=len(moments),
            answers={from_micros(moments[place]): answers[place] for place in asked},
        )
    return high
