"""What a time was measured on, and how much memory it took."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

PACKAGES = ("titan-lab", "polars", "numpy", "pyarrow", "duckdb", "pandas", "eventsourcing")


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
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def memory(field: str) -> int:
    """Return this process's memory in MB: `VmRSS` what is resident now, `VmHWM` the peak since `forget_peak`.

    Where there is no /proc, both are the peak since the process began.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(field))) // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2
