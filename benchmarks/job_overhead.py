"""Promise: a job that does next to nothing takes at most 0.5 s longer than bare papermill on its notebook.

Each run is a fresh Python process that executes the same notebook of two cells. Ours enters the ledger,
takes the lock, writes the record, the executed notebook and the report; bare papermill writes the executed
notebook. The line `what ours adds` is the difference of each pair of runs, which take turns; the answer that
is compared first is what the notebook computed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import OURS, Disagreement, Engine, Options, compare, digits, script, timed
from benchmarks.machine import machine

BENCH = "job_overhead"
WHAT = "the trivial job"
PROMISE = 0.5
JOB = "import sys; from titan_lab.cli import main; sys.argv = ['titan', 'run', 'trivial', '--n', '4']; main()"
BARE = (
    "import papermill as pm; "
    "pm.execute_notebook('pipelines/trivial.ipynb', 'bare.ipynb', parameters={'n': 4}, progress_bar=False)"
)


def measure(options: Options) -> Iterator[dict]:
    """Time the job and bare papermill in turns, in fresh processes, and what the one adds to the other."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        write(project / "pipelines" / "trivial.ipynb")
        ours = Engine(OURS, fresh(JOB, project), lambda _: result(newest(project / "runs")))
        bare = Engine("papermill alone", fresh(BARE, project), lambda _: result(project / "bare.ipynb"))
        yield from compare(BENCH, WHAT, [ours, bare], options, events=0, orders=0)
        added = sorted(timed(ours.answer) - timed(bare.answer) for _ in range(options.runs))
        line = {
            "bench": BENCH,
            "what": "what a trivial job adds to papermill",
            "engine": OURS,
            "events": 0,
            "orders": 0,
            "seconds": digits(statistics.median(added)),
            "min": digits(added[0]),
            "max": digits(added[-1]),
            "runs": len(added),
            "ratio_to_ours": 1.0,
            "equal": True,
            "promise": PROMISE,
            "machine": machine(),
        }
        options.report(line)
        yield line


def write(path: Path) -> None:
    """Write a notebook of a parameter and a sum."""
    path.parent.mkdir(parents=True)
    cell = {"cell_type": "code", "execution_count": None, "outputs": [], "metadata": {}}
    cells = [
        cell | {"id": "parameters", "metadata": {"tags": ["parameters"]}, "source": "n: int = 3"},
        cell | {"id": "sum", "source": "n + 1"},
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))


def fresh(code: str, project: Path) -> Callable[[], None]:
    """Return a call that runs code in a new process, in the project's folder."""

    def run() -> None:
        # The package under test first, installed or not.
        path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        command = [sys.executable, "-c", path + code]
        done = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Disagreement(f"{code!r} fails: {done.stderr}")

    return run


def newest(runs: Path) -> Path:
    """Find the executed notebook that was written last."""
    return max(runs.rglob("*.ipynb"), key=lambda path: path.stat().st_mtime_ns)


def result(notebook: Path) -> str:
    """Read what the last cell showed."""
    cells = json.loads(notebook.read_text())["cells"]
    return "".join(cells[-1]["outputs"][0]["data"]["text/plain"])


if __name__ == "__main__":
    script(measure)
