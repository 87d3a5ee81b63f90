"""One notebook through papermill and our engine, watched from outside: how it went, told by what was seen.

Nothing here is read off papermill's metadata. A run ended well if papermill raised nothing; otherwise the
exception, the watch's own reason for stopping it, or the way the kernel's process ended says what happened.
"""

from __future__ import annotations

import logging
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan_lab.errors import MissingExtra
from titan_lab.jobs.artefacts import told
from titan_lab.jobs.plan import Plan
from titan_lab.notebook.nothing import NothingToDo
from titan_lab.paths import ROOT_VARIABLE

if TYPE_CHECKING:
    from titan_lab.jobs.engine import Watch


@contextmanager
def watched(limit: float | None, progress: Callable[[int, int], None] | None) -> Iterator[Watch]:
    """Give what follows and stops one run: by itself after `limit` seconds, or when a signal comes.

    Raises MissingExtra without papermill.
    """
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


def execute(
    plan: Plan,
    partial: Path,
    values: Mapping[str, Any],
    watch: Watch,
    run_id: str,
    start_timeout: float,
    limit: float | None,
) -> tuple[str, dict[str, Any] | None]:
    """Run a plan's notebook to its end, its executed copy to `partial`; tell its status and its error."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    # Its parser warns about parameters it cannot read, such as `x: str | None`; ours has checked them all.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        notebook = execute_notebook(
            _literal_path(plan.source),
            _literal_path(partial),
            parameters=dict(values),
            engine_name="titan",
            kernel_name=plan.kernel,
            language="python",  # papermill wants to be told; the parameters were read as Python anyway
            progress_bar=False,
            start_timeout=start_timeout,
            watch=watch,
            folder=str(plan.source.parent),
            variables={
                ROOT_VARIABLE: str(plan.root.resolve()),
                "TITAN_RUN_ID": run_id,
                "TITAN_PROGRESS": "0",
            },
        )
    except PapermillExecutionError as error:
        if watch.stopped_by is None and error.ename == NothingToDo.__name__:
            return "nothing", {"kind": error.ename, "message": told(error.evalue), "cell": error.cell_index}
        if watch.stopped_by is None:
            return "failed", {
                "kind": error.ename,
                "message": told(f"{error.ename}: {error.evalue}"),
                "cell": error.cell_index,
                "source": told(error.source),
                "traceback": [told(line) for line in error.traceback],
            }
    except DeadKernelError:
        pass
    except Exception as error:
        # The kernel did not come up, the disk is full: whatever it is, the record says so.
        if watch.stopped_by is None:
            kind, never = type(error).__name__, watch.kernel is None or watch.cell is None
            what = f"the kernel did not start: {error}" if never else str(error)
            return ("died" if never else "failed"), {
                "kind": kind,
                "message": told(what),
                "traceback": [told(line) for line in traceback.format_exception(error)],
            }
    else:
        if watch.stopped_by is None:
            left = _left_early(notebook)
            return ("ok", None) if left is None else ("failed", left)
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


def _left_early(notebook: Any) -> dict[str, Any] | None:
    """Tell of the cell that ended its notebook by ``SystemExit(0)``, which papermill lets pass."""
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and output.ename == "SystemExit":
                message = "SystemExit: the cells below did not run; tl.nothing_to_do(reason) ends a run well"
                return {"kind": "SystemExit", "message": message, "cell": place, "source": told(cell.source)}
    return None


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
