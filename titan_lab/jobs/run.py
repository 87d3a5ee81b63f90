"""Scheduled notebooks: one run from a notebook's name to its record and its report.

    run = run_job("daily_orders", {"as_of": "2025-01-15"})
    run.status, run.report          # 'ok', runs/daily_orders/2025-01-15/20250116T060002Z-1f9c3a.html

A run leaves three files side by side, all named by its run_id, and a folder of that name for what it wrote:

    RUN.ipynb   the executed notebook: the record of what was computed, with outputs or the traceback
    RUN.html    the report: one file that draws its figures offline
    RUN.json    the run's own record: status, exit code, error, parameters, hash of the input, versions
    RUN/        where the notebook's `out` parameter points

The record is what to trust, and the ledger's row is made of it. It is written before the kernel starts, as
"running", and again at the very end. Nothing in it is read off papermill's metadata, which calls cells
completed whose kernel was killed.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan_lab.clock import Instant, duration, iso
from titan_lab.errors import JobError, LedgerError, TitanError
from titan_lab.jobs.artefacts import keep, outputs, told
from titan_lab.jobs.execution import execute, watched
from titan_lab.jobs.ledger import Attempt, Ledger
from titan_lab.jobs.metrics import write_metrics
from titan_lab.jobs.notify import notify
from titan_lab.jobs.plan import Plan, jobs, parameters_of_job, plan_of
from titan_lab.jobs.record import (
    CODES,
    FAILED,
    JobRun,
    as_json,
    relative,
    revision,
    run_of,
    versions,
    write_atomically,
)
from titan_lab.paths import ROOT_VARIABLE

if TYPE_CHECKING:
    from titan_lab.jobs.engine import Watch

__all__ = ["jobs", "parameters_of_job", "run_job"]


def run_job(
    job: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    pipelines: str | os.PathLike[str] = "pipelines",
    out: str | os.PathLike[str] = "runs",
    ledger: Ledger | str | None = None,
    scheduled: Instant | None = None,
    attempt: Attempt | None = None,
    beyond_frontier: bool = False,
    timeout: str | float | timedelta | None = None,
    start_timeout: float = 60,
    progress: Callable[[int, int], None] | None = None,
) -> JobRun:
    """Execute a notebook headless, and write its record, its executed copy and its report.

    job: a name in `pipelines`, or the path of a notebook. It runs in its own folder.
    parameters: by name; text is read by the type the notebook declares. Two are filled in when the notebook
    declares
    them and nobody gives them: `as_of`, when it has no default, is the start of the run; `out` is a new
    folder beside the report.
    out: the folder of all runs; files go to `{out}/{job}/{as_of}/{run_id}.*`. Like `pipelines`, a relative
    one is taken from the project's root.
    ledger: where the run is entered, as a `Ledger` or its URL; without one what TITAN_LEDGER names, else
    `{out}/ledger.db`. scheduled: the instant the run is about, where that is not `as_of`; it fills `as_of` in
    as well. attempt: from `Ledger.claim`, for who holds the claim already; its instant is then the scheduled
    one.
    beyond_frontier: allow an `as_of` that lies beyond what the job's `source` is known to hold.
    timeout: for the whole run, as seconds, a timedelta or text such as "30m"; None takes what stands beside
    the notebook, and waits for ever where nothing does. When it is over the kernel is killed.
    start_timeout: seconds for the kernel to come up.
    progress: called with (cells begun, cells in all) as each cell begins.

    Returns a JobRun whatever became of the notebook; look at its `status`. Raises, before anything is
    written, JobError for a job nobody has, parameters that do not fit, or a notebook that cannot be read;
    TooSoon for an instant that cannot be reported on yet; Locked where the job runs for this instant already;
    LedgerError where the ledger cannot be used. SIGTERM and SIGINT end the kernel, and the run is recorded as
    interrupted; this needs the main thread.
    """
    if attempt is not None:
        scheduled = attempt.scheduled
    plan = plan_of(
        job,
        parameters,
        pipelines=pipelines,
        out=out,
        scheduled=scheduled,
        beyond_frontier=beyond_frontier,
    )
    limit = _seconds(plan.declaration.run.timeout if timeout is None else timeout)
    book = ledger if isinstance(ledger, Ledger) else Ledger(ledger, runs=plan.runs)
    run_id = f"{plan.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    claim = nullcontext(attempt) if attempt is not None else book.claim(plan.job, plan.scheduled)
    with watched(limit, progress) as watch, claim as mine:
        record = _record(plan, run_id, mine)
        return _run(plan, record, book, watch, start_timeout, limit)


def _run(
    plan: Plan,
    record: dict[str, Any],
    ledger: Ledger,
    watch: Watch,
    start_timeout: float,
    limit: float | None,
) -> JobRun:
    folder, run_id = plan.folder, record["run_id"]
    partial, own_folder = folder / f".{run_id}.partial.ipynb", folder / run_id
    _room(own_folder)
    write_atomically(folder / f"{run_id}.json", as_json(record))
    ledger.begin(record)
    variables = {ROOT_VARIABLE: str(plan.root.resolve()), "TITAN_RUN_ID": run_id, "TITAN_PROGRESS": "0"}
    values = plan.values(own_folder)
    status, error = execute(plan, partial, values, watch, variables, start_timeout, limit)
    record |= {"status": status, "exit_code": CODES.get(status, 128 + (watch.signum or 0)), "error": error}
    record["finished"] = iso(datetime.now(UTC))
    try:
        if partial.exists():
            keep(partial, folder / f"{run_id}.ipynb", record, own_folder)
        with suppress(OSError):
            own_folder.rmdir()  # when the notebook wrote nothing
        record["outputs"] = outputs(record, folder, plan.runs)
        write_atomically(folder / f"{run_id}.json", as_json(record))
    except (OSError, ValueError) as failure:  # no room, or what papermill wrote is cut off for want of it
        partial.unlink(missing_ok=True)  # which makes the room that the record needs
        record |= {"status": "failed", "exit_code": FAILED, "notebook": None, "report": None}
        record["error"] = {
            "kind": type(failure).__name__,
            "message": told(f"what the notebook did could not be kept: {failure}"),
        }
        record["outputs"] = outputs(record, folder, plan.runs)
        write_atomically(folder / f"{run_id}.json", as_json(record))
    try:
        ledger.finish(record)
    except LedgerError as failure:
        # The run is over and its record says how; whoever lists next enters that.
        logging.getLogger("titan_lab.jobs").error("%s: not entered in the ledger yet: %s", run_id, failure)
    _tell_others(plan, record, ledger)
    return run_of(record, folder)


def _tell_others(plan: Plan, record: dict[str, Any], ledger: Ledger) -> None:
    """Tell the job's webhook and Prometheus how the run ended; what goes wrong here fails no run."""
    log = logging.getLogger("titan_lab.jobs")
    told_hook = notify(plan.declaration.notify, record)
    try:
        if told_hook:
            record["notified"] = told_hook
            write_atomically(plan.folder / f"{record['run_id']}.json", as_json(record))
            if told_hook.startswith("not"):
                log.warning("%s: %s", record["run_id"], told_hook)
        write_metrics(ledger, {plan.job, *jobs(plan.source.parent)})
    except (TitanError, OSError) as failure:
        log.warning("%s: %s", record["run_id"], failure)


# --- BEFORE THE RUN ----------------------------------------------------------------------------------------


def _seconds(timeout: str | float | timedelta | None) -> float | None:
    if timeout is None:
        return None
    seconds = float(timeout) if isinstance(timeout, int | float) else duration(timeout).total_seconds()
    if seconds <= 0:
        raise JobError(f"a timeout of {timeout!r} leaves no time", hint="give seconds, or text such as '30m'")
    return seconds


def _record(plan: Plan, run_id: str, attempt: Attempt) -> dict[str, Any]:
    values = plan.values(plan.folder / run_id)
    return {
        "run_id": run_id,
        "job": plan.job,
        "status": "running",
        "exit_code": None,
        "error": None,
        "as_of": plan.as_of,
        "scheduled": iso(plan.scheduled),
        "attempt": attempt.number,
        "started": iso(plan.now),
        "finished": None,
        "parameters": {
            p.name: values.get(p.name, "(computed)" if p.computed else p.default) for p in plan.declared
        },
        "input": relative(plan.source, plan.root),
        "input_sha256": plan.sha256,
        "revision": revision(plan.source.parent),
        "versions": versions(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "record": relative(plan.folder / f"{run_id}.json", plan.runs),
        "basis": plan.basis,
        "results": {},
        "notebook": None,
        "report": None,
        "outputs": [],
    }


def _room(own_folder: Path) -> None:
    try:
        own_folder.mkdir(parents=True)
    except OSError as error:
        raise JobError(
            f"no run can be written to {own_folder.parent}: {error.strerror or error}",
            hint="name another folder for runs (`out`), or make this one writable",
            folder=own_folder.parent,
        ) from error
