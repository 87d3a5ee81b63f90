"""Time ours and its peers side by side: warm up, check equal, then interleave, then one JSON line each.

The order of things is the point. Each engine answers each question once, untimed, and the answers are
compared with ours; a difference raises `Disagreement` and no time is printed for anybody. Only then the
engines take turns (A B C A B C ...), so that a slow moment of the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.data import CACHE

OURS = "titan_lab"
THREADS = 2  # every engine gets the same: `python -m benchmarks` also pins the processes to two cores
PACKAGES = ("titan-lab", "polars", "numpy", "pyarrow", "duckdb", "pandas", "eventsourcing")


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
    same: Callable[[Any, Any], str | None] | None = None,
) -> list[dict]:
    """Check that all engines agree with the first, time them in turns, and report one line for each.

    `same` says how two plain answers differ, or None. Raises Disagreement before any time is taken.
    """
    same = same or difference
    peaks = []
    expected: Any = None
    for place, engine in enumerate(engines):
        forget_peak()
        answer = engine.answer()
        peaks.append(peak_rss())
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
    for engine, taken, peak in zip(engines, seconds, peaks, strict=True):
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
            "peak_rss_mb": peak,
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


def digits(number: float) -> float:
    """Round to four significant digits: more would only pretend."""
    return float(f"{number:.4g}")


# --- the machine -----------------------------------------------------------------------------------------------


@functools.cache
def machine() -> dict[str, Any]:
    """Describe what a time was measured on."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": pl.thread_pool_size(),
        **{name: found for name in PACKAGES if (found := installed(name))},
    }


def cpu_name() -> str:
    """Name the processor; where the system hides the name, its family and model tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def forget_peak() -> None:
    """Start a new peak of resident memory, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_rss() -> int:
    """Return the largest resident memory in MB since `forget_peak` (elsewhere than on Linux: since the start)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2


# --- one script --------------------------------------------------------------------------------------------------


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
