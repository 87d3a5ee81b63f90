"""Scheduled notebooks: one run from a notebook's name to its record and its report.

    run = run_job("daily_orders", {"as_of": "2025-01-15"})
    run.status, run.report          # 'ok', runs/daily_orders/2025-01-15/20250116T060002Z-1f9c3a.html

A run leaves three files side by side, all named by its run_id, and a folder of that name for what it wrote:

    RUN.ipynb   the executed notebook: the record of what was computed, with outputs or the traceback
    RUN.html    the report: one file that draws its figures offline
    RUN.json    the run's own record: status, exit code, error, parameters, hash of the input, versions
    RUN/        where the notebook's `out` parameter points

The record is what to trust. It is written before the kernel starts, as "running", and again at the very end.
Nothing in it is read off papermill's metadata, which calls cells completed whose kernel was killed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan_lab.clock import duration, instant, iso
from titan_lab.errors import JobError, MissingExtra, nearest
from titan_lab.jobs.parameters import Parameter, parameters_of, redact, resolve
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
from titan_lab.notebook.glue import glued
from titan_lab.paths import ROOT_VARIABLE, project_root

if TYPE_CHECKING:
    from titan_lab.jobs.engine import Watch


def jobs(pipelines: str | os.PathLike[str] = "pipelines") -> list[str]:
    """List the jobs by name, sorted: the notebooks of a folder."""
    return sorted(p.stem for p in _under_root(pipelines).glob("*.ipynb"))


def parameters_of_job(job: str, *, pipelines: str | os.PathLike[str] = "pipelines") -> list[Parameter]:
    """Read which parameters a job declares: names, types, defaults and help, in the order of its source."""
    source = _find(job, pipelines)
    return parameters_of(_load(source.read_bytes(), source), source.name)


def run_job(
    job: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    pipelines: str | os.PathLike[str] = "pipelines",
    out: str | os.PathLike[str] = "runs",
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
    timeout: for the whole run, as seconds, a timedelta or text such as "30m"; None waits for ever. When it is
    over the kernel is killed. start_timeout: seconds for the kernel to come up.
    progress: called with (cells begun, cells in all) as each cell begins.

    Returns a JobRun whatever became of the notebook; look at its `status`. Raises JobError, before anything
    is written, for a job nobody has, parameters that do not fit, or a notebook that cannot be read. SIGTERM
    and SIGINT end the kernel, and the run is recorded as interrupted; this needs the main thread.
    """
    limit = _seconds(timeout)
    source = _find(job, pipelines)
    content = source.read_bytes()
    notebook = _load(content, source)
    declared = parameters_of(notebook, source.name)
    given = resolve(declared, parameters or {}, source.name)

    started = datetime.now(UTC)
    run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    as_of = _as_of(declared, given, started)
    folder = _under_root(out) / source.stem / _slug(as_of)
    own_folder = folder / run_id
    values = _filled(declared, given, as_of, own_folder)
    root = Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else project_root(source.parent)
    record = {
        "run_id": run_id,
        "job": source.stem,
        "status": "running",
        "exit_code": None,
        "error": None,
        "as_of": as_of,
        "started": iso(started),
        "finished": None,
        "parameters": {
            p.name: values.get(p.name, "(computed)" if p.computed else p.default) for p in declared
        },
        "input": relative(source, root),
        "input_sha256": hashlib.sha256(content).hexdigest(),
        "revision": revision(source.parent),
        "versions": versions(),
        "pid": os.getpid(),
        "results": {},
        "notebook": None,
        "report": None,
    }
    record_path = folder / f"{run_id}.json"
    partial = folder / f".{run_id}.partial.ipynb"
    variables = {ROOT_VARIABLE: str(root.resolve()), "TITAN_RUN_ID": run_id, "TITAN_PROGRESS": "0"}
    with _watched(limit, progress) as watch:
        own_folder.mkdir(parents=True)
        write_atomically(record_path, as_json(record))
        status, error = _execute(source, partial, values, watch, variables, start_timeout, limit)
        record |= {
            "status": status,
            "exit_code": CODES.get(status, 128 + (watch.signum or 0)),
            "error": error,
        }
        record["finished"] = iso(datetime.now(UTC))
        if partial.exists():
            _keep(partial, folder / f"{run_id}.ipynb", record)
        with suppress(OSError):
            own_folder.rmdir()  # when the notebook wrote nothing
        write_atomically(record_path, as_json(record))
    return run_of(record, folder)


# --- BEFORE THE RUN ----------------------------------------------------------------------------------------


def _under_root(path: str | os.PathLike[str]) -> Path:
    return Path(path) if Path(path).is_absolute() else project_root() / path


def _find(job: str | os.PathLike[str], pipelines: str | os.PathLike[str]) -> Path:
    text = os.fspath(job)
    if text.endswith(".ipynb") or os.sep in text:
        path = Path(text).resolve()
        if path.is_file():
            return path
        raise JobError(f"there is no notebook {text}", hint=f"looked for {path}")
    folder = _under_root(pipelines)
    path = folder / f"{text}.ipynb"
    if path.is_file():
        return path.resolve()
    known = jobs(folder)
    raise JobError(
        f"there is no job {text!r} in {folder}",
        hint=nearest(text, known)
        or (f"the jobs are: {', '.join(known)}" if known else "the folder has no notebooks"),
        job=text,
        known=known,
    )


def _load(content: bytes, source: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(content)
        if not isinstance(notebook, dict) or not isinstance(notebook["cells"], list):
            raise TypeError("it has no list of cells")
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"{source} is no notebook: {error}", hint="open it in JupyterLab and save it in format 4"
        ) from error
    return notebook


def _seconds(timeout: str | float | timedelta | None) -> float | None:
    if timeout is None:
        return None
    seconds = float(timeout) if isinstance(timeout, int | float) else duration(timeout).total_seconds()
    if seconds <= 0:
        raise JobError(f"a timeout of {timeout!r} leaves no time", hint="give seconds, or text such as '30m'")
    return seconds


def _as_of(declared: list[Parameter], given: Mapping[str, Any], started: datetime) -> str:
    default = next((p.default for p in declared if p.name == "as_of"), None)
    return str(given.get("as_of") or default or iso(started.replace(microsecond=0)))


def _slug(as_of: str) -> str:
    text = iso(instant(as_of)).removesuffix("T00:00:00Z")
    return text.replace(":", "-")  # no colon: Windows, and tools that read host:path


def _filled(
    declared: list[Parameter], given: Mapping[str, Any], as_of: str, own_folder: Path
) -> dict[str, Any]:
    names = {p.name for p in declared}
    values = dict(given)
    if "as_of" in names:
        values["as_of"] = as_of
    if "out" in names and not values.get("out"):
        values["out"] = str(own_folder.resolve())
    return values


# --- THE RUN -----------------------------------------------------------------------------------------------


@contextmanager
def _watched(limit: float | None, progress: Callable[[int, int], None] | None) -> Iterator[Watch]:
    try:
        from titan_lab.jobs.engine import Watch
    except ImportError as error:
        raise MissingExtra(error.name or "papermill", "run", "running a notebook") from error
    watch = Watch(progress)
    timer = threading.Timer(limit, watch.stop, ("timeout",)) if limit is not None else None
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGTERM, signal.SIGINT):
            replaced[signum] = signal.signal(signum, lambda number, _: watch.stop("interrupted", number))
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield watch
    finally:
        if timer:
            timer.cancel()
        for signum, handler in replaced.items():
            signal.signal(signum, handler)
        if threading.current_thread() is not threading.main_thread():
            _close_loop()


def _close_loop() -> None:
    """Close the event loop that jupyter made for this thread, which would end with the thread unclosed."""
    from jupyter_core.utils import ensure_event_loop

    loop = ensure_event_loop()
    if not loop.is_running():
        loop.close()


def _execute(
    source: Path,
    partial: Path,
    values: Mapping[str, Any],
    watch: Watch,
    variables: Mapping[str, str],
    start_timeout: float,
    limit: float | None,
) -> tuple[str, dict[str, Any] | None]:
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    # Its parser warns about parameters it cannot read, such as `x: str | None`; ours has checked them all.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        execute_notebook(
            _literal_path(source),
            _literal_path(partial),
            parameters=dict(values),
            engine_name="titan",
            kernel_name=_kernel(source),
            language="python",  # papermill wants to be told; the parameters were read as Python anyway
            progress_bar=False,
            start_timeout=start_timeout,
            watch=watch,
            folder=str(source.parent),
            variables=variables,
        )
    except PapermillExecutionError as error:
        if watch.stopped_by is None:
            return "failed", {
                "kind": error.ename,
                "message": redact(f"{error.ename}: {error.evalue}"),
                "cell": error.cell_index,
                "source": redact(error.source),
                "traceback": [redact(_without_colours(line)) for line in error.traceback],
            }
    except DeadKernelError:
        pass
    except (
        Exception
    ) as error:  # the kernel did not come up, the disk is full: whatever it is, the record says so
        if watch.stopped_by is None:
            kind, never = type(error).__name__, watch.kernel is None or watch.cell is None
            what = f"the kernel did not start: {error}" if never else str(error)
            return ("died" if never else "failed"), {
                "kind": kind,
                "message": redact(what),
                "traceback": [redact(line) for line in traceback.format_exception(error)],
            }
    else:
        if watch.stopped_by is None:
            return "ok", None
    at = {} if watch.cell is None else {"cell": watch.cell}
    if watch.stopped_by == "timeout":
        return "timeout", {
            "kind": "Timeout",
            "message": f"not done after {limit:g} s; the kernel was killed",
            **at,
        }
    if watch.stopped_by == "interrupted":
        name = signal.Signals(watch.signum or signal.SIGTERM).name
        return "interrupted", {"kind": name, "message": f"{name} came; the kernel was ended", **at}
    return "died", {"kind": "DeadKernel", "message": _how_it_died(watch.kernel_code), **at}


def _kernel(source: Path) -> str:
    spec = json.loads(source.read_text("utf-8")).get("metadata", {}).get("kernelspec", {})
    return str(spec.get("name") or "python3")


def _literal_path(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")  # papermill formats paths with the parameters


def _how_it_died(code: int | None) -> str:
    if code is None:
        return "the kernel died"
    if code >= 0:
        return f"the kernel ended by itself with exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"the kernel was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"the kernel was killed by signal {-code}"


def _without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


# --- AFTER THE RUN -----------------------------------------------------------------------------------------


def _keep(partial: Path, final: Path, record: dict[str, Any]) -> None:
    """Put the executed notebook and the report in their places, and note both in the record."""
    import nbformat

    from titan_lab.notebook.export import report

    notebook = nbformat.read(partial, as_version=4)
    for output in (o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"):
        # Drivers like to name the address they could not reach, with all that is in it.
        output.evalue, output.traceback = redact(output.evalue), [redact(line) for line in output.traceback]
    record["results"] = glued(notebook)
    record["notebook"] = final.name
    notebook.metadata["titan"] = {k: v for k, v in record.items() if k not in ("pid", "report")}
    notebook.metadata.get("papermill", {}).update(input_path=record["input"], output_path=final.name)
    write_atomically(final, nbformat.writes(notebook))
    partial.unlink()
    try:
        write_atomically(final.with_suffix(".html"), report(notebook, record))
        record["report"] = final.with_suffix(".html").name
    except Exception as error:
        # A run without its report is not what was asked for, but the executed notebook must survive the
        # failure.
        if record["status"] == "ok":
            message = f"the notebook ran, its report could not be written: {error}"
            lines = traceback.format_exception(error)
            record |= {"status": "failed", "exit_code": FAILED}
            record["error"] = {"kind": type(error).__name__, "message": redact(message), "traceback": lines}
