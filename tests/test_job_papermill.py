"""A job stays a plain notebook: papermill runs it as other schedulers call it, with our engine or its own."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import nbformat
import papermill
import pytest

import titan_lab.jobs.engine  # registers it, where the package is not installed  # noqa: F401

pytestmark = pytest.mark.slow

V4 = nbformat.v4


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    """A notebook with typed parameters, of which some cannot be read by papermill's own parser."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    made = V4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    made.cells = [
        V4.new_code_cell("n: int = 3\nwho: str | None = None", metadata={"tags": ["parameters"]}),
        V4.new_code_cell("print('hello', who)\nn + 1"),
    ]
    nbformat.write(made, tmp_path / "job.ipynb")
    return tmp_path / "job.ipynb"


@pytest.mark.parametrize("engine", [None, "titan"])
def test_as_airflows_operator_calls_it(job, tmp_path, engine):
    """PapermillOperator of its provider 3.13, argument by argument; by itself it names no engine."""
    papermill.execute_notebook(
        str(job),
        str(tmp_path / "out.ipynb"),
        parameters={"n": 4, "who": "00123"},
        progress_bar=False,
        report_mode=True,
        log_output=True,
        kernel_name="python3",
        language="python",
        engine_name=engine,
    )

    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert [output.get("text") or output.data["text/plain"] for output in cells[-1].outputs] == [
        "hello 00123\n",
        "5",
    ]
    assert cells[-1].metadata.papermill.status == "completed"
    assert cells[-1].metadata.jupyter.source_hidden is True


def test_as_dagster_calls_it(job, tmp_path, caplog):
    """dagstermill 0.29: by keywords, parameters in the notebook already, output logged as it comes."""
    with caplog.at_level(logging.INFO, "papermill"):
        papermill.execute_notebook(
            input_path=str(job),
            output_path=str(tmp_path / "out.ipynb"),
            engine_name="titan",
            log_output=True,
            start_timeout=120,
        )

    assert "hello None" in caplog.text
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[-1].data["text/plain"] == "4"


def test_what_a_cell_prints_goes_where_papermill_is_told_and_once(job, tmp_path):
    """Joined outputs must not be written again for each piece."""
    made = nbformat.read(job, as_version=4)
    made.cells.append(
        V4.new_code_cell("import time\nfor n in range(3): print(n, flush=True); time.sleep(0.3)")
    )
    nbformat.write(made, job)
    told = io.StringIO()

    papermill.execute_notebook(
        str(job), None, engine_name="titan", progress_bar=False, stdout_file=told, execution_timeout=60
    )

    assert told.getvalue() == "hello None\n0\n1\n2\n"


@pytest.mark.parametrize("engine", [None, "titan"])
def test_a_failure_is_papermills_own_exception(job, tmp_path, engine):
    """What existing operators catch."""
    made = nbformat.read(job, as_version=4)
    made.cells.append(V4.new_code_cell("1 / 0"))
    nbformat.write(made, job)

    with pytest.raises(papermill.PapermillExecutionError, match="division by zero"):
        papermill.execute_notebook(str(job), "out.ipynb", engine_name=engine, progress_bar=False)
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata.papermill.exception is True
