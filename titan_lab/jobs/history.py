"""Runs that are over: read what they printed, run them again, and put their files away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan_lab.clock import duration
from titan_lab.errors import JobError, LedgerError
from titan_lab.jobs.artefacts import REMARK
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.plan import declaration_of_job, jobs
from titan_lab.jobs.record import JobRun
from titan_lab.jobs.run import run_job
from titan_lab.paths import project_root

if TYPE_CHECKING:
    import polars as pl


def printed(ledger: Ledger, run_id: str) -> Iterator[str]:
    """Give what a run's notebook printed and showed as text, a line at a time, with the cells it came from.

    Raises LedgerError where there is no such run, or its notebook is gone or never was.
    """
    run = ledger.run(run_id)
    notebook = next((path for path in run["outputs"] if path.endswith(f"{run['run_id']}.ipynb")), None)
    if run["pruned"] or notebook is None:
        why = f"was pruned at {run['pruned']}" if run["pruned"] else f"has none ({run['status']})"
        raise LedgerError(
            f"the executed notebook of {run['run_id']} {why}",
            hint=run["error"] or "titan jobs show RUN tells what is left",
        )
    try:
        cells = json.loads((ledger.folder / notebook).read_text("utf-8"))["cells"]
    except OSError as error:
        raise LedgerError(
            f"the executed notebook of {run['run_id']} is not here: {error.strerror}",
            hint=f"it ran on {run['host']}",
        ) from error
    ours = [cell for cell in cells if REMARK not in cell["metadata"].get("tags", [])]
    for number, cell in enumerate(ours, start=1):
        lines = [line for output in cell.get("outputs", []) for line in _lines(output)]
        if lines:
            yield f"--- cell {number}"
            yield from lines
    if run["error"]:
        yield f"--- {run['status']}: {run['error']}"


def again(
    ledger: Ledger,
    run_id: str,
    *,
    timeout: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> JobRun:
    """Run a job once more as a run was: the same instant, the same parameters, a new attempt.

    Raises what `run_job` raises; JobError where the notebook is not where it was.
    """
    run = ledger.run(run_id)
    record = _record(ledger, run)
    given = {
        name: value
        for name, value in run["parameters"].items()
        if value != "(computed)" and not (name == "out" and str(value).endswith(run["run_id"]))
    }
    return run_job(
        project_root() / record["input"],
        given,
        out=ledger.folder,
        ledger=ledger,
        scheduled=run["scheduled"],
        beyond_frontier=True,  # it was looked at when this instant was first asked for
        timeout=timeout,
        progress=progress,
    )


def prune(
    ledger: Ledger,
    job: str | None = None,
    *,
    keep: int | None = None,
    older_than: str | timedelta | None = None,
    dry_run: bool = False,
) -> pl.DataFrame:
    """Remove the files of old runs, never of one that runs; the ledger keeps their rows, marked `pruned`.

    job: of this one only. keep: let so many of each job be, the newest. older_than: only what started longer
    ago, such as "90d". Both: what neither protects. dry_run: remove nothing.

    Returns run_id, job, status String; started Datetime[us, UTC]; bytes Int64; oldest first.

    Raises LedgerError without keep and older_than.
    """
    import polars as pl

    if keep is None and older_than is None:
        raise LedgerError("nothing says which runs may go", hint="keep=100, older_than='90d', or both")
    runs = ledger.runs(job).with_columns(place=pl.int_range(pl.len()).over("job"))
    chosen = runs.filter((pl.col("status") != "running") & pl.col("pruned").is_null())
    if keep is not None:
        chosen = chosen.filter(pl.col("place") >= keep)
    if older_than is not None:
        before = datetime.now(UTC) - duration(older_than)
        chosen = chosen.filter(pl.col("started") < before)
    chosen = chosen.sort("started", "run_id")
    sizes = []
    for row in chosen.iter_rows(named=True):
        files = _files(ledger.folder, row)
        sizes.append(sum(path.stat().st_size for path in files))
        if not dry_run:
            # First the row: files without a row would never be found again.
            ledger.mark_pruned(row["run_id"])
            _remove(ledger.folder, row, files)
    columns = ["run_id", "job", "status", "started"]
    return chosen.select(columns).with_columns(bytes=pl.Series(sizes, dtype=pl.Int64))


def prune_as_declared(
    ledger: Ledger,
    job: str | None = None,
    *,
    pipelines: str | os.PathLike[str] = "pipelines",
    dry_run: bool = False,
) -> pl.DataFrame:
    """Remove the files of old runs, as `prune` does, by the [keep] beside each job, or beside this one."""
    import polars as pl

    gone = []
    for name in jobs(pipelines) if job is None else [job]:
        keep = declaration_of_job(name, pipelines=pipelines).keep
        if keep.runs is not None or keep.age is not None:
            gone.append(prune(ledger, name, keep=keep.runs, older_than=keep.age, dry_run=dry_run))
    if not gone:
        raise LedgerError(
            "no job says which of its runs may go", hint="[keep] in NAME.toml, or --keep N, --older-than 90d"
        )
    return pl.concat(gone).sort("started", "run_id")


def _record(ledger: Ledger, run: dict[str, Any]) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((ledger.folder / run["record"]).read_text("utf-8"))
    except (OSError, TypeError, ValueError) as error:
        raise JobError(
            f"the record of {run['run_id']} is not here, so its notebook is not known",
            hint=f"titan run {run['job']} with the parameters of `titan jobs show {run['run_id']}`",
        ) from error
    return record


def _files(folder: Path, row: dict[str, Any]) -> list[Path]:
    """List the files of a run. Nothing outside of its own names is ever touched."""
    if not row["record"]:
        return []
    record = folder / row["record"]
    named = [record.with_suffix(end) for end in (".json", ".ipynb", ".html")]
    own = [path for path in record.with_suffix("").rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in named if path.is_file()] + own


def _remove(folder: Path, row: dict[str, Any], files: list[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
    if row["record"]:
        own = (folder / row["record"]).with_suffix("")
        shutil.rmtree(own, ignore_errors=True)
        with suppress(OSError):  # other runs for the same instant are there
            own.parent.rmdir()


def _lines(output: dict[str, Any]) -> list[str]:
    if output["output_type"] == "error":
        return [f"{output['ename']}: {output['evalue']}"]
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return ("".join(text) if isinstance(text, list) else text).splitlines()
