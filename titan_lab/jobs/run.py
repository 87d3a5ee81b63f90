"""Scheduled notebooks: one run from a notebook's name to its record and its report.

    run = run_job("daily_orders", {"as_of": "2025-01-15"})
    run.status, run.report          # 'ok', runs/daily_orders/2025-01-15/20250116T060002Z-1f9c3a.html

A run leaves three files side by side, all named by its run_id, and a folder of that name for what it wrote:

    RUN.ipynb   the executed notebook: the record of what was computed, with outputs or the traceback
    RUN.html    the report: one file that draws its figures offline
    RUN.json    the run's own record: status, exit code, error, parameters, hash of the input, versions
    RUN/        where the notebook's `out` parameter points

The record is what to trust, and the ledger's row is made of it. It is written before the first cell runs, as
"running", and again at the very end. Nothing in it is read off papermill's metadata, which calls cells
completed whose kernel was killed.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from titan_lab.clock import Instant, duration, iso
from titan_lab.errors import JobError, LedgerError, TitanError
from titan_lab.jobs.artefacts import keep, outputs, told, warm_up
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
    unfinished,
    versions,
    write_atomically,
)

if TYPE_CHECKING:
    from titan_lab.jobs.engine import Watch

# Bytes held back on the disk while a notebook runs: whatever it fills, record and ledger can still say so.
RESERVE: Final = 262_144

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
    held = nullcontext() if attempt is not None else book.hold(plan.job, plan.scheduled)
    with watched(limit, progress) as watch, held:
        return _run(plan, book, attempt, watch, start_timeout, limit)


def _run(
    plan: Plan,
    ledger: Ledger,
    attempt: Attempt | None,
    watch: Watch,
    start_timeout: float,
    limit: float | None,
) -> JobRun:
    run_id = f"{plan.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    folder = plan.folder
    own_folder, record_path = folder / run_id, folder / f"{run_id}.json"
    partial, reserve = unfinished(folder, run_id)
    _clear(folder)
    _room(own_folder)
    record = _record(plan, run_id)

    def enter() -> None:
        mine = attempt or ledger.attempt(plan.job, plan.scheduled)
        record["attempt"] = mine.number
        write_atomically(record_path, as_json(record))
        reserve.write_bytes(bytes(RESERVE))
        ledger.begin(record)

    with _meanwhile(watch, enter) as entered:
        status, error = execute(plan, partial, plan.values(own_folder), watch, run_id, start_timeout, limit)
        try:
            entered()
        except BaseException:
            for path in (partial, reserve, record_path):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                own_folder.rmdir()
            raise
    record |= {"status": status, "exit_code": CODES.get(status, 128 + (watch.signum or 0)), "error": error}
    record["finished"] = iso(datetime.now(UTC))
    try:
        if partial.exists():
            keep(partial, folder / f"{run_id}.ipynb", record, own_folder)
        with suppress(OSError):
            own_folder.rmdir()  # when the notebook wrote nothing
        record["outputs"] = outputs(record, folder, plan.runs)
        reserve.unlink(missing_ok=True)
        write_atomically(record_path, as_json(record))
    except (OSError, ValueError) as failure:  # no room, or what papermill wrote is cut off for want of it
        for path in (partial, reserve, folder / f"{run_id}.ipynb"):
            path.unlink(missing_ok=True)  # which makes the room that the record needs
        record |= {"status": "failed", "exit_code": FAILED, "notebook": None, "report": None}
        message = told(f"what the notebook did could not be kept: {failure}")
        record["error"] = record["error"] or {"kind": type(failure).__name__, "message": message}
        record["outputs"] = outputs(record, folder, plan.runs)
        write_atomically(record_path, as_json(record))
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


@contextmanager
def _meanwhile(watch: Watch, enter: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Enter a run while its kernel starts, where importing SQLAlchemy costs no time, before its first cell.

    What the report needs is loaded in the same wait. Gives what waits for the run to be entered, and raises
    what stood in the way of that.
    """
    begun: list[Future[None]] = []

    def begin() -> None:
        if not begun:
            begun.append(pool.submit(enter))
            pool.submit(warm_up)

    def entered() -> None:
        begin()
        begun[0].result()

    with ThreadPoolExecutor(1, "titan-run") as pool:
        watch.meanwhile, watch.ready = begin, entered
        yield entered


# --- BEFORE THE RUN ----------------------------------------------------------------------------------------


def _seconds(timeout: str | float | timedelta | None) -> float | None:
    if timeout is None:
        return None
    seconds = float(timeout) if isinstance(timeout, int | float) else duration(timeout).total_seconds()
    if seconds <= 0:
        raise JobError(f"a timeout of {timeout!r} leaves no time", hint="give seconds, or text such as '30m'")
    return seconds


def _record(plan: Plan, run_id: str) -> dict[str, Any]:
    values = plan.values(plan.folder / run_id)
    return {
        "run_id": run_id,
        "job": plan.job,
        "status": "running",
        "exit_code": None,
        "error": None,
        "as_of": plan.as_of,
        "scheduled": iso(plan.scheduled),
        "attempt": None,
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


def _clear(folder: Path) -> None:
    """Remove what a run left that was killed before it was entered: whoever holds the lock is alone here."""
    for partial in folder.glob(".*.partial.ipynb"):
        run_id = partial.name[1:].partition(".")[0]
        if not (folder / f"{run_id}.json").exists():
            for path in unfinished(folder, run_id):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                (folder / run_id).rmdir()


def _room(own_folder: Path) -> None:
    try:
        own_folder.mkdir(parents=True)
    except OSError as error:
        raise JobError(
            f"no run can be written to {own_folder.parent}: {error.strerror or error}",
            hint="name another folder for runs (`out`), or make this one writable",
            folder=own_folder.parent,
        ) from error
