"""Check notebooks: each is reviewed, executed, and compared with the outputs that it is kept with.

One tool alone is not enough. nbval compares, but passes a cell whose magic only printed its error, and a cell
that was never run. nbclient sees the first, `review` the second.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import polars as pl

from titan_lab.errors import MissingExtra, NotebookError
from titan_lab.notebook.refresh import TIMEOUT, execute
from titan_lab.notebook.review import Finding, printed, review

SANITIZERS: Final = Path(__file__).with_name("nbval.cfg")
FINDINGS: Final = pl.Schema(
    {
        "notebook": pl.String,
        "cell": pl.Int64,
        "id": pl.String,
        "level": pl.String,
        "finding": pl.String,
        "detail": pl.String,
    }
)
_COLOUR: Final = re.compile(r"\x1b\[[\d;]*m")
_DETAIL: Final = 300  # characters of a difference that are told


def check(paths: Iterable[str | os.PathLike[str]], timeout: int = TIMEOUT) -> pl.DataFrame:
    """Check notebooks, or all those of a folder; no file is changed.

    timeout: seconds for one cell. Each notebook is executed twice in its own folder, by nbclient and by
    nbval, so what it writes is written.

    Returns one row for each finding: notebook String (the path), cell Int64 (of the code cells, from 1; null
    for the whole notebook), id String (of the cell), level String ("error" or "advice"), finding and detail
    String; sorted by notebook as given, cell with null first, level and finding. No row: all is well.

    Raises NotebookError for what is no notebook, MissingExtra without nbval.
    """
    found: list[pl.DataFrame] = [FINDINGS.to_frame()]
    for path in notebooks(paths):
        rows = [(str(path), *one) for one in check_one(path, timeout)]
        frame = pl.DataFrame(rows, schema=FINDINGS, orient="row").unique()
        order = pl.col("level") == "advice"
        found.append(frame.sort("cell", order, "finding", "detail", "id", nulls_last=False))
    return pl.concat(found)


def check_one(path: str | os.PathLike[str], timeout: int = TIMEOUT) -> list[Finding]:
    """Check one notebook; see ``check``. What comes after a cell that fails is not compared.

    Neither is anything of a notebook whose kernel dies or hangs: nbval would wait for each cell in turn.
    """
    for package, extra in (("nbclient", "run"), ("nbval", "test")):
        if find_spec(package) is None:
            raise MissingExtra(package, extra, "checking a notebook")
    path = Path(path)
    notebook = read(path)
    found = review(notebook)
    ran, stuck = _run(path, timeout)
    found += ran
    if not stuck:
        failed = next((one.cell for one in ran if one.finding == "fails"), None)
        known = {one.cell for one in found if one.finding == "prints an error"}
        found += (
            one
            for one in _compare(path, notebook, timeout)
            if one.cell not in known and (failed is None or (one.cell or 0) < failed)
        )
    return found


def notebooks(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List notebooks, where a folder stands for those in it and below. Raises NotebookError for none.

    >>> notebooks(["notebooks"])[0].name
    '01_time_travel.ipynb'
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [path] if path.is_file() else sorted(path.rglob("*.ipynb"))
        inside = [one for one in inside if ".ipynb_checkpoints" not in one.parts]
        if not inside:
            raise NotebookError(
                f"there is no notebook at {path}", hint="name an .ipynb file, or a folder of some"
            )
        found += inside
    return found


def read(path: Path) -> Any:
    """Read a notebook. Raises NotebookError for what is none, MissingExtra without nbformat."""
    try:
        import nbformat
    except ImportError as error:
        raise MissingExtra("nbformat", "run", "reading a notebook") from error
    try:
        return nbformat.read(path, as_version=4)
    except OSError:
        raise
    except Exception as error:  # nbformat raises whatever its parts raise
        first = str(error).partition("\n")[0][:200]
        raise NotebookError(
            f"{path} is no notebook: {first}", hint="open it in JupyterLab and save it"
        ) from error


def strip_colour(text: str) -> str:
    """Take the escape codes of a terminal out of a text.

    >>> strip_colour("\\x1b[31mred\\x1b[0m")
    'red'
    """
    return _COLOUR.sub("", text)


def _run(path: Path, timeout: int) -> tuple[list[Finding], bool]:
    """Execute a notebook; tell where it fails or prints an error, and whether its kernel died or hung."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    started: list[Any] = []
    failed, stuck = None, True
    try:
        execute(notebook, path.parent, timeout, on_cell_execute=lambda cell, cell_index: started.append(cell))
        stuck = False
    except CellExecutionError as error:
        failed, stuck = f"{error.ename}: {error.evalue}", False
    except CellTimeoutError:
        failed = f"it takes longer than {timeout} s"
    except DeadKernelError:
        failed = "its kernel died"
    found = []
    for number, cell in enumerate(cells, start=1):
        if failed is not None and cell is started[-1]:
            found.append(Finding(number, cell.get("id"), "error", "fails", failed))
        elif line := printed(cell.outputs):
            found.append(Finding(number, cell.get("id"), "error", "prints an error", line))
    return found, stuck


def _compare(path: Path, notebook: Any, timeout: int) -> list[Finding]:
    """Let nbval execute a notebook and compare, out of reach of the settings of any pytest around it."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    with tempfile.TemporaryDirectory() as folder:
        settings, told = Path(folder, "pytest.ini"), Path(folder, "told.xml")
        settings.write_text("[pytest]\n", "utf-8")
        command = [
            sys.executable, "-m", "pytest", "-q", "-c", str(settings), f"--rootdir={path.parent.resolve()}",
            "--noconftest", "-p", "nbval.plugin", "-p", "no:cacheprovider",
            "--nbval", "--nbval-current-env", f"--nbval-sanitize-with={SANITIZERS}",
            f"--nbval-cell-timeout={timeout}", "--nbval-kernel-startup-timeout=120", f"--junitxml={told}",
            path.name,
        ]  # fmt: skip
        # Plugins, too, are somebody else's: one that shuffles tests would shuffle cells.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        done = subprocess.run(
            command, cwd=path.parent, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1, 5) or not told.exists():  # 5: it holds no code
            raise NotebookError(
                f"nbval could not compare {path}: {(done.stderr or done.stdout).strip()[-500:]}",
                hint=f"{Path(sys.executable).name} -m pytest --nbval {path} shows all that it says",
            )
        report = ET.parse(told)  # noqa: S314  (our own file)
    found = []
    for case in report.iter("testcase"):
        number = re.search(r"\d+$", case.get("name", ""))
        for failure in (*case.iter("failure"), *case.iter("error")):
            place = int(number[0]) if number else None
            cell = cells[place] if place is not None and place < len(cells) else {}
            detail = _difference(failure.text or "")
            found.append(
                Finding(None if place is None else place + 1, cell.get("id"), "error", "differs", detail)
            )
    return found


def _difference(text: str) -> str:
    """Shorten what nbval says of a cell to the difference."""
    text = strip_colour(text.replace("#x1B", "\x1b"))  # as pytest writes an escape in XML
    plain = text.partition("Traceback:")[2] or text
    said = " ".join(
        plain.replace("assert reference_output == test_output failed:", "expected == found:").split()
    )
    return said if len(said) <= _DETAIL else said[: _DETAIL - 1] + "…"
