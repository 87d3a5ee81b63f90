"""Notebooks are run as a person and as a scheduler would, and kept as the house keeps them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import polars as pl
import pytest

from titan_lab.job import run_job
from titan_lab.job_parameters import parameters_of

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIPELINES = sorted((ROOT / "pipelines").glob("*.ipynb"))


def name(path: Path) -> str:
    return path.stem


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.fixture
def here(monkeypatch):
    """Kernels find this very code, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_runs_from_start_to_end(path, tmp_path, here):
    """nbval alone passes a cell whose magic failed, so each example is executed as well."""
    run = run_job(path, out=tmp_path, timeout="5m")

    assert run.status == "ok", run.error


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_shows_its_outputs(path):
    """nbval compares nothing in a cell that was never run; one that was stripped would pass unseen."""
    cells = code_cells(path)

    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)


@pytest.mark.parametrize("path", PIPELINES, ids=name)
def test_a_pipeline_is_kept_without_outputs_and_declares_its_parameters(path):
    """Outputs belong to runs; a parameter without a help comment is half a parameter."""
    cells = code_cells(path)

    assert not [cell for cell in cells if cell.outputs or cell.execution_count]
    parameters = parameters_of(nbformat.read(path, as_version=4))
    assert {"as_of", "out"} <= {p.name for p in parameters}
    assert all(p.help for p in parameters)


@pytest.mark.parametrize("path", EXAMPLES + PIPELINES, ids=name)
def test_a_notebook_is_kept_as_the_house_keeps_them(path):
    """A heading first, any environment's kernel, ids, short cells, nobody's home, not large."""
    text = path.read_text("utf-8")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor >= 5) == (4, True)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert not re.findall(r"/(?:home|Users|root|work)/\w+|/tmp/\w+|(?:sqlite:///|parquet://)/\w", text)
    assert max(len(cell.source.splitlines()) for cell in code_cells(path)) <= 20
    assert len(text) < 1_000_000


@pytest.mark.parametrize("as_of", ["2025-01-15", "2024-01-01", "2025-01-20T17:30:00+01:00", "2030-01-01"])
def test_the_morning_report_is_right_at_any_instant(as_of, tmp_path, here):
    """On an ordinary day, before the first order, within a day, and long after the last event."""
    run = run_job("daily_orders", {"as_of": as_of}, out=tmp_path, timeout="5m")

    assert run.status == "ok", run.error
    states = pl.read_csv(run.folder / run.run_id / "states.csv")
    still_open = states.filter(pl.col("status").is_in(["CREATED", "PAID", "SHIPPED"]))
    assert run.results["open_orders"] == len(still_open)
    page = run.report.read_text("utf-8")
    assert page.count('class="figure"') == 2
    assert "Orders this morning" in page


def test_two_runs_of_one_question_give_the_same_answer(tmp_path, here):
    """Same instant, same store: the same states to the byte, and the same results."""
    first, second = (run_job("daily_orders", {"as_of": "2025-01-15"}, out=tmp_path) for _ in range(2))

    texts = [(run.folder / run.run_id / "states.csv").read_bytes() for run in (first, second)]
    assert texts[0] == texts[1]
    assert first.results == second.results
    assert first.folder == second.folder


@pytest.mark.parametrize(("stored", "code"), [("4", 1), ("3", 0)])
def test_nbval_still_notices_a_wrong_output(tmp_path, stored, code):
    """A canary: the checker of the examples is itself checked, with one wrong output and with a right one."""
    v4 = nbformat.v4
    result = v4.new_output("execute_result", data={"text/plain": stored}, execution_count=1)
    cell = v4.new_code_cell("1 + 2", execution_count=1, outputs=[result])
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=[cell], metadata={"kernelspec": spec}), tmp_path / "canary.ipynb")
    shutil.copy(ROOT / "tests" / "nbval.cfg", tmp_path)

    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-sanitize-with=nbval.cfg",
        "-q",
        "canary.ipynb",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == code, done.stdout
