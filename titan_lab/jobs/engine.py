"""The papermill engine of titan_lab: encrypted to its kernel, truthful about how a run ended, and stoppable.

It is registered as the papermill engine `titan`, so `papermill --engine titan in.ipynb out.ipynb` uses it as
well. This module imports papermill, which takes two seconds: import it only to run.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import output_from_msg
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger

from titan_lab.jobs.bounded import Printed


class Watch:
    """Follow one run, and stop it from another thread or a signal handler.

    A kernel that hangs cannot be asked to stop, and nbclient's own timeout is per cell. Killing the kernel's
    process group is the one thing that always ends a run: nbclient notices within a second.
    """

    def __init__(self, progress: Callable[[int, int], None] | None = None) -> None:
        self.meanwhile: Callable[[], None] | None = None  # called when the kernel's process is there
        self.ready: Callable[[], None] | None = (
            None  # called before the first cell; what it raises ends the run
        )
        self.stopped_by: str | None = None  # "timeout" or "interrupted"
        self.signum: int | None = None
        self.cell: int | None = None  # index of the cell that runs, or ran last
        self.kernel: AsyncKernelManager | None = None
        self.kernel_code: int | None = None  # how the kernel ended, if it ended by itself; negative: a signal
        self._group: int | None = None
        self._progress = progress
        self._lock = threading.RLock()

    def attach(self, kernel: AsyncKernelManager) -> None:
        """Take hold of a kernel that was just started; kill it at once if the run was stopped meanwhile."""
        with self._lock:
            self.kernel = kernel
            self._group = getattr(kernel.provisioner, "pgid", None)
            stopped = self.stopped_by
        if stopped:
            self.kill()
        if self.meanwhile:
            self.meanwhile()

    def stop(self, why: str, signum: int | None = None) -> None:
        """End the run: `why` is what its record will say. The first reason counts."""
        with self._lock:
            if self.stopped_by is None:
                self.stopped_by, self.signum = why, signum
        self.kill()

    def kill(self) -> None:
        """Kill the kernel and whatever it started. Again is fine."""
        with self._lock:
            if self._group is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._group, signal.SIGKILL)
            elif self.kernel is not None and getattr(self.kernel.provisioner, "process", None) is not None:
                with suppress(OSError):
                    self.kernel.provisioner.process.kill()

    def cell_starts(self, cell: Any, cell_index: int, of: int) -> None:
        """Note the cell that runs now. Raises DeadKernelError when the run was stopped meanwhile."""
        if self.ready:
            self.ready()
            self.ready = None
        self.cell = cell_index
        if self.stopped_by:
            raise DeadKernelError("the run was stopped")
        if self._progress:
            self._progress(cell_index, of)

    def note_end_of_kernel(self) -> None:
        """Read how the kernel's process ended, before its manager forgets it."""
        process = getattr(getattr(self.kernel, "provisioner", None), "process", None)
        if process is not None:
            self.kernel_code = process.poll()


class TitanKernelManager(AsyncKernelManager):
    """Start kernels with encrypted traffic, under this very interpreter, in a given folder."""

    watch: Watch | None = None
    folder: str | None = None
    variables: Mapping[str, str] | None = None
    _kernel_spec: Any = None

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("transport_encryption", "auto")
        super().__init__(**kwargs)

    @property
    def kernel_spec(self) -> KernelSpec | None:
        # A `python3` kernel spec in the user's home may name another environment's interpreter, and then the
        # notebook imports other versions than the record says. Ours is always the one that runs this.
        if self.kernel_name == NATIVE_KERNEL_NAME and self._kernel_spec is None:
            self._kernel_spec = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
        return super().kernel_spec

    async def start_kernel(self, **kwargs: Any) -> None:
        if self.folder:
            kwargs["cwd"] = self.folder
        if self.variables:
            kwargs["env"] = {**os.environ, **kwargs.get("env", {}), **self.variables}
        await super().start_kernel(**kwargs)
        if self.watch:
            self.watch.attach(self)

    async def is_alive(self) -> bool:
        alive = await super().is_alive()
        if not alive and self.watch:
            self.watch.note_end_of_kernel()
        return alive


class TitanClient(PapermillNotebookClient):
    """Execute cells as papermill does; join what a cell prints in one go, and keep it within bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._printed: dict[int, tuple[Any, Printed]] = {}  # by the identity of the output

    def execute_cell(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().execute_cell(*args, **kwargs)
        finally:
            for output, printed in self._printed.values():
                output["text"] = printed.text()
            self._printed.clear()

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        hooked = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        if msg["msg_type"] != "stream" or hooked or self.clear_before_next_output:
            return super().output(outs, msg, display_id, cell_index)
        added = output_from_msg(msg)
        output = _same_stream(outs, added["name"])
        if output is None:
            output = output_from_msg(msg)
            output["text"] = ""
            outs.append(output)
        _, printed = self._printed.setdefault(id(output), (output, Printed()))
        if printed.add(added["text"]):
            output["text"] = printed.text()
        return added  # what papermill logs, if it is asked to


def _same_stream(outs: list[Any], name: str) -> Any:
    """Find what was printed to a stream since something else was last shown."""
    for output in reversed(outs):
        if output["output_type"] != "stream":
            return None
        if output["name"] == name:
            return output
    return None


class TitanEngine(NBClientEngine):
    """Execute through nbclient as papermill does, and mark the cell that was running when a kernel died.

    Papermill by itself calls that cell "completed", and every cell after it too.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        watch: Watch | None = None,
        folder: str | None = None,
        variables: Mapping[str, str] | None = None,
        start_timeout: float = 60,
        execution_timeout: float | None = None,
        timeout: float | None = None,
        input_path: str | None = None,  # papermill hands it to every engine
        **kwargs: Any,
    ) -> Any:
        watch = watch or Watch()
        bound = {"watch": watch, "folder": folder, "variables": variables}
        cells = len(nb_man.nb.cells)
        try:
            return TitanClient(
                nb_man,
                kernel_name=kernel_name,
                kernel_manager_class=type("TitanKernelManager", (TitanKernelManager,), bound),
                on_cell_start=lambda cell, cell_index: watch.cell_starts(cell, cell_index, cells),
                startup_timeout=start_timeout,
                timeout=execution_timeout or timeout,
                log=logger,
                **kwargs,
            ).execute()
        except BaseException:
            _mark_failed(nb_man, watch.cell)
            raise
        finally:
            watch.kill()


def _mark_failed(nb_man: NotebookExecutionManager, cell: int | None) -> None:
    nb_man.nb.metadata.papermill["exception"] = True
    if cell is not None:
        nb_man.cell_exception(nb_man.nb.cells[cell], cell_index=cell)


# By hand as well as by entry point: the package may run from a checkout that was never installed.
papermill_engines.register("titan", TitanEngine)
