"""What is known of one run: its record on disk, and the same as a value."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from titan_lab.clock import instant
from titan_lab.errors import JobError
from titan_lab.notebook.html import card
from titan_lab.paths import written

OK, FAILED, USAGE, TIMEOUT, DIED, NOTHING = 0, 1, 2, 3, 4, 6
LOCKED = 75  # EX_TEMPFAIL of sysexits.h: what mail and batch systems take for "try again later"
CODES: Final = {"ok": OK, "failed": FAILED, "timeout": TIMEOUT, "died": DIED, "nothing": NOTHING}
_RECORDED_PACKAGES: Final = (
    "titan-lab",
    "polars",
    "numpy",
    "pyarrow",
    "pandas",
    "plotly",
    "papermill",
    "nbclient",
    "nbconvert",
    "ipykernel",
)


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a notebook, over and done with."""

    job: str
    run_id: str  # sorts by start; unique
    status: str  # ok, nothing, failed, timeout, died, interrupted; in a record also: running
    exit_code: int  # 0 ok, 1 a cell failed, 3 out of time, 4 the kernel died, 6 nothing to do, 128 + signal
    as_of: str  # the instant the run is about, as it was given
    started: datetime
    finished: datetime
    parameters: dict[str, Any]  # every value the notebook saw, defaults too
    folder: Path  # where the files of the run lie
    notebook: Path | None  # executed; None when the kernel never started
    report: Path | None
    error: dict[str, Any] | None = None  # kind, message, and where it is known: cell, source, traceback
    results: dict[str, Any] = field(default_factory=dict)  # what the notebook handed to `glue`
    attempt: int = 1  # how often this job was run for this instant, this time included

    @property
    def record(self) -> Path:
        """Give the path of the run's own JSON record."""
        return self.folder / f"{self.run_id}.json"

    @property
    def took(self) -> timedelta:
        """Give how long the run took, wall clock."""
        return self.finished - self.started

    def __repr__(self) -> str:
        return f"JobRun({self.job} {self.as_of}: {self.status}, {self.took.total_seconds():.1f}s)"

    def _repr_html_(self) -> str:
        facts = {
            "status": self.status,
            "as of": self.as_of,
            "started": self.started,
            "took": self.took,
            "attempt": self.attempt,
            "report": self.report or None,
            **{f"result: {name}": value for name, value in self.results.items()},
        }
        return card(f"{self.job} · {self.run_id}", facts, self.error["message"] if self.error else "")


def read_run(record: str | os.PathLike[str]) -> JobRun:
    """Read the record of a finished run back.

    Raises JobError for a run that is still going, or was ended so that nothing could be written (kill -9,
    power).
    """
    path = Path(record)
    found = json.loads(path.read_text("utf-8"))
    if not found["finished"]:
        raise JobError(
            f"run {found['run_id']} of {found['job']} has no end on record (process {found['pid']})",
            hint="it is still running, or its process was killed; then run the job again",
        )
    return run_of(found, path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, even if the process is killed in between."""
    with written(path) as file:
        file.write(text)


def unfinished(folder: Path, run_id: str) -> tuple[Path, Path]:
    """Name the two files that are there only while a run runs: what papermill writes, and room held back."""
    return folder / f".{run_id}.partial.ipynb", folder / f".{run_id}.reserve"


def close_record(path: Path, told: str) -> dict[str, Any] | None:
    """Give the end of a run whose process is gone; where its record has none, write `died` into it.

    The half-executed notebook goes. Gives None where the record is not on this machine, or no more.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if record["status"] == "running":
            record |= {"status": "died", "error": {"kind": "Killed", "message": told}}
            write_atomically(path, as_json(record))
            for left in unfinished(path.parent, record["run_id"]):
                left.unlink(missing_ok=True)
    except (OSError, ValueError):
        return None
    return record


def run_of(record: Mapping[str, Any], folder: Path) -> JobRun:
    """Turn a finished record and its folder into a JobRun."""
    return JobRun(
        job=record["job"],
        run_id=record["run_id"],
        status=record["status"],
        exit_code=record["exit_code"],
        as_of=record["as_of"],
        started=instant(record["started"]),
        finished=instant(record["finished"]),
        parameters=dict(record["parameters"]),
        folder=folder,
        notebook=folder / record["notebook"] if record["notebook"] else None,
        report=folder / record["report"] if record["report"] else None,
        error=record["error"],
        results=dict(record["results"]),
        attempt=record.get("attempt", 1),
    )


def as_json(record: Mapping[str, Any]) -> str:
    """Write a record as the text of its file. Half a surrogate pair, which no file takes, stays an escape."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    return re.sub(r"[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def relative(path: Path, root: Path) -> str:
    """Write a path from the project's root on, or whole when it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def versions() -> dict[str, str]:
    """List the versions a run depends on, of what is installed."""
    found = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def revision(folder: Path) -> str | None:
    """Name the commit a folder is at, with `-dirty` when files differ from it; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no repository: the hash of the input still tells which notebook it was
    return answer.stdout.strip() or None
