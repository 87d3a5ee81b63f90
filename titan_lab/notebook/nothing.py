"""How a notebook says that there is nothing to do, which is neither a result nor a failure."""

from __future__ import annotations

from typing import NoReturn


class NothingToDo(Exception):
    """There is nothing to do; a job that says so ends here, with an exit code of its own."""

    def _render_traceback_(self) -> list[str]:
        # Asked by IPython: whoever opens the notebook wants the reason, not the stack.
        return [f"Nothing to do: {self}"]


def nothing_to_do(reason: str) -> NoReturn:
    """End this notebook here: there is nothing to do. Public as ``tl.nothing_to_do``.

    As a job, the run is recorded as `nothing` with the reason and exits with 6; the cells below do not run.
    Elsewhere (JupyterLab, plain papermill) it is an exception as any other, which shows only its reason.

    >>> from titan_lab.notebook.nothing import nothing_to_do
    >>> nothing_to_do("no new hours since 2025-01-15T00:00:00Z")
    Traceback (most recent call last):
    titan_lab.notebook.nothing.NothingToDo: no new hours since 2025-01-15T00:00:00Z
    """
    raise NothingToDo(reason)
