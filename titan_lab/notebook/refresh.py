"""Bring a notebook's outputs up to date: execute it in place, and keep everything else as it was.

    python -m titan_lab.notebook.refresh notebooks/*.ipynb

Two runs on the same data give the same bytes: cells keep their ids, and what tells of the run and not of
the answer (times, the interpreter's patch release, a front end's marks on a cell) is left out. So a
difference in a commit is a difference in an answer.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import click

from titan_lab.errors import MissingExtra

TIMEOUT: Final = 300  # seconds for one cell
KERNEL: Final = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_KEPT: Final = ("tags", "jupyter")  # of a cell's metadata: what a person set


def executed(path: str | os.PathLike[str]) -> Any:
    """Execute a notebook in its own folder, and return it with the new outputs; the file is left alone.

    Raises what ``execute`` raises.
    """
    path = Path(path)
    notebook = normal(_nbformat().read(path, as_version=4))
    execute(notebook, path.parent)
    return normal(notebook)


def execute(
    notebook: Any, folder: str | os.PathLike[str], timeout: int = TIMEOUT, **hooks: Callable[..., Any]
) -> None:
    """Execute a notebook in place, in a folder, until a cell fails. timeout: seconds for one cell.

    Its kernel is this interpreter, whatever the notebook says, and speaks encrypted to us. hooks: nbclient's,
    such as on_cell_start. Raises MissingExtra without nbclient, and nbclient's CellExecutionError where a
    cell fails.
    """
    try:
        from nbclient import NotebookClient

        from titan_lab.jobs.engine import TitanKernelManager
    except ImportError as error:
        raise MissingExtra(error.name or "nbclient", "run", "executing a notebook") from error
    _clear(notebook)
    client = NotebookClient(
        notebook,
        kernel_manager_class=TitanKernelManager,
        kernel_name=KERNEL["name"],
        timeout=timeout,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(Path(folder).resolve())}},
        **hooks,
    )
    client.execute()


def normal(notebook: Any) -> Any:
    """Take off a notebook, in place, what is not its text and not its answers; return it.

    A cell without an id gets one made from its first words, the same each time.
    """
    notebook.nbformat, notebook.nbformat_minor = 4, max(notebook.nbformat_minor, 5)
    notebook.metadata = type(notebook.metadata)(kernelspec=dict(KERNEL), language_info={"name": "python"})
    taken = {cell.id for cell in notebook.cells if "id" in cell}
    for cell in notebook.cells:
        cell.metadata = type(cell.metadata)({k: v for k, v in cell.metadata.items() if k in _KEPT and v})
        if "id" not in cell:
            cell["id"] = _new_id(cell.source, taken)
        for output in cell.get("outputs", []):
            output.pop("transient", None)
    return notebook


def refresh(path: str | os.PathLike[str]) -> bool:
    """Execute a notebook in place. Returns whether its file is another now. A failed run writes nothing."""
    path = Path(path)
    text = _nbformat().writes(executed(path)) + "\n"
    if path.read_text("utf-8") == text:
        return False
    # A crash while writing must not leave half a notebook.
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
    return True


def _nbformat() -> Any:
    try:
        import nbformat
    except ImportError as error:
        raise MissingExtra("nbformat", "run", "reading a notebook") from error
    return nbformat


def _clear(notebook: Any) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def _new_id(source: str, taken: set[str]) -> str:
    stem = "-".join(re.findall(r"[a-z0-9]+", source.lower())[:4])[:40] or "cell"
    made = next(name for n in range(1, 10_000) if (name := stem if n == 1 else f"{stem}-{n}") not in taken)
    taken.add(made)
    return made


def main(paths: Iterable[str]) -> None:
    """Refresh each notebook, and say which ones changed."""
    for path in paths:
        click.echo(f"{'changed ' if refresh(path) else 'the same'}  {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
