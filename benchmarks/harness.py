"""Time ours and its peers side by side: warm up, check equal, then interleave, then one JSON line each.

The order of things is the point. Each engine answers each question once, untimed, and the answers are
compared with ours; a difference raises `Disagreement` and no time is printed for anybody. Only then the
engines take turns (A B C A B C ...), so that a slow moment of the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.data import CACHE
from benchmarks.machine import forget_peak, machine, memory

OURS = "titan_lab"
THREADS = 2  # every engine gets the same: `python -m benchmarks` also pins the processes to two cores


class Disagreement(AssertionError):
    """Two engines gave different answers, so neither time means anything."""


@dataclass(frozen=True)
class Options:
    """What a benchmark is asked for; `report` gets each finished line."""

    events: int = 1_000_000
    runs: int = 5
    cache: Path = CACHE
    report: Callable[[dict], None] = field(default=lambda line: print(json.dumps(line), flush=True))


@dataclass(frozen=True)
class Engine:
    """One way to answer the question.

    `answer` is what is timed. `plain` brings its answer into the form that is compared, and is not timed.
    """

    name: str
    answer: Callable[[], Any]
    plain: Callable[[Any], Any] = lambda answer: answer


def compare(
    bench: str,
    what: str,
    engines: Sequence[Engine],
    options: Options,
    *,
    events: int,
    orders: int,
    promise: float | None = None,
    same: Callable[[Any, Any], str | None] | None = None,
) -> list[dict]:
    """Check that all engines agree with the first, time them in turns, and report one line for each.

    `same` says how two plain answers differ, or None; `promise` is how many seconds ours may take.
    Raises Disagreement before any time is taken.
    """
    same = same or difference
    peaks = []
    expected: Any = None
    for place, engine in enumerate(engines):
        forget_peak()
        before = memory("VmRSS")
        answer = engine.answer()
        peaks.append((memory("VmHWM"), before))
        plain = engine.plain(answer)
        del answer
        if place == 0:
            expected = plain
        elif (told := same(expected, plain)) is not None:
            raise Disagreement(f"{bench} / {what}: {engines[0].name} and {engine.name} differ: {told}")
        del plain
    del expected

    seconds: list[list[float]] = [[] for _ in engines]
    for _ in range(options.runs):
        for engine, taken in zip(engines, seconds, strict=True):
            taken.append(timed(engine.answer))

    ours = statistics.median(seconds[0])
    lines = []
    for place, (engine, taken, (peak, before)) in enumerate(zip(engines, seconds, peaks, strict=True)):
        middle = statistics.median(taken)
        line = {
            "bench": bench,
            "what": what,
            "engine": engine.name,
            "events": events,
            "orders": orders,
            "seconds": digits(middle),
            "min": digits(min(taken)),
            "max": digits(max(taken)),
            "runs": len(taken),
            "ratio_to_ours": digits(middle / ours),
            "equal": True,
            "promise": promise if place == 0 else None,
            "peak_rss_mb": peak,
            "extra_rss_mb": peak - before,
            "machine": machine(),
        }
        options.report(line)
        lines.append(line)
    return lines


def timed(answer: Callable[[], Any]) -> float:
    """Return the seconds one call takes; collecting before and freeing after are not part of it."""
    gc.collect()
    start = time.perf_counter()
    result = answer()
    taken = time.perf_counter() - start
    del result
    return taken


def difference(a: Any, b: Any) -> str | None:
    """Say how two answers differ, frames by their first differing cell; None if they do not."""
    if not (isinstance(a, pl.DataFrame) and isinstance(b, pl.DataFrame)):
        return None if a == b else f"{a!r} and {b!r}"
    if a.schema != b.schema:
        return f"schemas {dict(a.schema)} and {dict(b.schema)}"
    if a.height != b.height:
        return f"{a.height} and {b.height} rows"
    for name in a.columns:
        left, right = a[name], b[name]
        if left.equals(right, null_equal=True):
            continue
        row = next(i for i, (x, y) in enumerate(zip(left, right, strict=True)) if differs(x, y))
        return f"column {name!r}, row {row}: {left[row]!r} and {right[row]!r} in {a.row(row)}"
    return None


def differs(x: Any, y: Any) -> bool:
    if isinstance(x, pl.Series) and isinstance(y, pl.Series):
        return not x.equals(y, null_equal=True)
    return x != y


def promised(options: Options, seconds: float) -> float | None:
    """Return the promise where it applies: the promises are about ten million events."""
    return seconds if options.events == 10_000_000 else None


def digits(number: float) -> float:
    """Round to four significant digits: more would only pretend."""
    return float(f"{number:.4g}")


# --- one script -----------------------------------------------------------------------------------


def script(measure: Callable[[Options], Iterable[dict]], arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark from the command line."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--events", type=count, default=Options.events)
    parser.add_argument("--runs", type=int, default=Options.runs)
    chosen = parser.parse_args(arguments)
    for _ in measure(Options(events=chosen.events, runs=chosen.runs)):
        pass


def count(text: str) -> int:
    """Read a number of events: 1000000, 1_000_000 or 1e6."""
    return int(float(text.replace("_", "")))
