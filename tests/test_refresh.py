"""Refreshing a notebook changes its outputs, and nothing else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from titan_lab.notebook.refresh import normal, refresh

ROOT = Path(__file__).parents[1]
v4 = nbformat.v4


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "small.ipynb"


def write(path: Path, *sources: str) -> bytes:
    cells = [v4.new_code_cell(source, id=f"step-{n}") for n, source in enumerate(sources)]
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path.read_bytes()


def test_a_second_refresh_changes_nothing(path):
    """Equal answers are equal bytes, so that a difference in a commit is a difference in an answer."""
    write(path, "print('one')\nprint('two')", "import os\nos.getcwd()")

    assert refresh(path) is True
    first = path.read_bytes()
    assert refresh(path) is False

    assert path.read_bytes() == first
    said, folder = nbformat.read(path, as_version=4).cells
    assert said.outputs == [v4.new_output("stream", name="stdout", text="one\ntwo\n")]
    assert folder.outputs[0].data["text/plain"] == repr(str(path.parent))
    assert [cell.id for cell in (said, folder)] == ["step-0", "step-1"]
    assert [cell.execution_count for cell in (said, folder)] == [1, 2]


def test_a_notebook_that_fails_stays_as_it_was(path):
    """The old outputs are better than half of the new ones."""
    before = write(path, "1", "1 / 0")

    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        refresh(path)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_tells_of_the_run_is_taken_off():
    """Times, front ends and releases differ from run to run and say nothing about the answer."""
    cell = v4.new_code_cell(
        "x",
        id="kept",
        metadata={
            "tags": ["parameters"],
            "execution": {"shell.execute_reply": "2025-01-01T10:00:00Z"},
            "collapsed": True,
        },
    )
    about = {
        "kernelspec": {"name": "mine", "display_name": "Mine"},
        "language_info": {"name": "python", "version": "3.11.7"},
        "widgets": {},
    }

    made = normal(v4.new_notebook(cells=[cell], metadata=about))

    assert made.cells[0].metadata == {"tags": ["parameters"]}
    assert made.cells[0].id == "kept"
    assert made.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_a_cell_without_an_id_gets_the_same_one_each_time():
    """Older notebooks have none, and random ones would make every refresh a difference."""
    old = [
        v4.new_markdown_cell("## Look, a *heading*"),
        v4.new_markdown_cell("## Look, a *heading*"),
        v4.new_code_cell(""),
    ]
    for cell in old:
        del cell["id"]

    made = normal(v4.new_notebook(cells=old, nbformat_minor=4))

    assert [cell.id for cell in made.cells] == ["look-a-heading", "look-a-heading-2", "cell"]
    nbformat.validate(made)
