"""What Prometheus sees of the jobs: one file of text for node_exporter's textfile collector.

It is made anew from the ledger after every run. The format is a line per value, so it is written here and not
by a client library, which would cost every run its import.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from titan_lab.jobs.ledger import STATUSES, Ledger
from titan_lab.jobs.locks import FileLocks
from titan_lab.jobs.record import write_atomically

if TYPE_CHECKING:
    Sample = tuple[dict[str, str], float]

NAME: Final = "metrics.prom"
HELP: Final = {
    "titan_job_last_success_timestamp_seconds": "When the last run that ended well was done.",
    "titan_job_last_success_scheduled_timestamp_seconds": "The latest instant that is done.",
    "titan_job_last_run_timestamp_seconds": "When the last run began.",
    "titan_job_last_run_duration_seconds": "How long the last run took that is over.",
    "titan_job_status": "1 for how the last run stands, 0 for how it could.",
    "titan_job_rows": "What the last run that ended well handed over as `rows`.",
}


def write_metrics(ledger: Ledger, jobs: Iterable[str]) -> Path:
    """Write the file for some jobs into the folder of runs, whole or not at all; give its path."""
    path = ledger.folder / NAME
    with FileLocks(ledger.folder / f"{NAME}.locks").alone():  # what is read last is written last
        write_atomically(path, metrics(ledger, jobs))
    return path


def metrics(ledger: Ledger, jobs: Iterable[str]) -> str:
    """Tell how jobs stand, in Prometheus' text format; a job that never ran is not in it."""
    found: dict[str, list[Sample]] = {name: [] for name in HELP}
    for job in sorted(set(jobs)):
        for name, labels, value in _of(ledger, job):
            found[name].append(({"job": job} | labels, value))
    lines = []
    for name, samples in found.items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{{{_labels(labels)}}} {value!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _of(ledger: Ledger, job: str) -> Iterator[tuple[str, dict[str, str], float]]:
    recent = ledger.listed(job, limit=20)
    if not recent:
        return
    last = recent[0]
    yield "titan_job_last_run_timestamp_seconds", {}, _seconds(last["started"])
    for status in STATUSES:
        yield "titan_job_status", {"status": status}, float(last["status"] == status)
    over = next((run for run in recent if run["finished"]), None)
    if over:
        took = over["finished"] - over["started"]
        yield "titan_job_last_run_duration_seconds", {}, took.total_seconds()
    best: dict[str, Any] | None = ledger.last_success(job)
    if best:
        yield "titan_job_last_success_scheduled_timestamp_seconds", {}, _seconds(best["scheduled"])
        done = next((run for run in recent if run["status"] in ("ok", "nothing")), None)
        results = (done or best)["results"]
        yield "titan_job_last_success_timestamp_seconds", {}, _seconds((done or best)["finished"])
        rows = results.get("rows")
        if isinstance(rows, int | float):
            yield "titan_job_rows", {}, float(rows)


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
