"""`titan nb`: what a checker of notebooks must not let pass, planted one by one."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner

from titan_lab import cli
from titan_lab.errors import MissingExtra, NotebookError
from titan_lab.notebook import check as module
from titan_lab.notebook.check import check, notebooks
from titan_lab.notebook.refresh import refresh
from titan_lab.notebook.review import review

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
v4 = nbformat.v4
# Addresses differ from run to run; the last cell says by its tag that it fails on purpose.
GOOD = (
    "n = 20",
    "print('so many:', n)",
    "n + 1",
    "import random; hex(random.getrandbits(48) | 1 << 47)",
    "from titan_lab.notebook import html\nhtml.table([(n,)], ['orders'])",
    "1 / 0",
)


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Kernels find this very code, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def notebook(*sources: str, run: bool = True, tagged: bool = True):
    cells = [v4.new_code_cell(source, id=f"step-{n}") for n, source in enumerate(sources)]
    for number, cell in enumerate(cells, start=1):
        cell.execution_count = number if run else None
    if tagged and cells:
        cells[0].metadata["tags"] = ["parameters"]
    return v4.new_notebook(cells=[v4.new_markdown_cell("# A page", id="title"), *cells])


def saved(path: Path, made) -> Path:
    nbformat.write(made, path)
    return path


def found(path: Path) -> list[tuple[int | None, str, str]]:
    return check([path]).select("cell", "level", "finding").rows()


@pytest.fixture(scope="session")
def refreshed(tmp_path_factory) -> bytes:
    """A notebook that was refreshed: there is nothing to find."""
    made = notebook(*GOOD)
    made.cells[-1].metadata["tags"] = ["raises-exception"]
    path = saved(tmp_path_factory.mktemp("made") / "good.ipynb", made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        refresh(path)
    return path.read_bytes()


@pytest.fixture
def good(tmp_path, refreshed) -> Path:
    path = tmp_path / "good.ipynb"
    path.write_bytes(refreshed)
    return path


def change(path: Path, number: int, **fields) -> Path:
    made = nbformat.read(path, as_version=4)
    cell = [cell for cell in made.cells if cell.cell_type == "code"][number - 1]
    for name, value in fields.items():
        cell[name] = value
    return saved(path, made)


@pytest.fixture
def uncompared(monkeypatch) -> None:
    """Without nbval, which has nothing to say of these: that is why there is more than nbval."""
    monkeypatch.setattr(module, "_compare", lambda path, notebook, timeout: [])


# --- WHAT A RUN FINDS --------------------------------------------------------------------------------------


def test_a_notebook_that_shows_what_it_is_kept_with_is_fine(good, monkeypatch) -> None:
    """It is not touched; neither another style nor what configures a pytest around it is a finding."""
    good.write_text(good.read_text().replace("border-collapse", "border-style"))
    before = good.read_bytes()
    (good.parent / "conftest.py").write_text("raise SystemExit(1)\n")
    (good.parent / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--also-unknown")

    assert check([good]).is_empty()
    assert good.read_bytes() == before
    assert len(list(good.parent.iterdir())) == 3


def test_a_wrong_output_is_found(good) -> None:
    """One digit in a value, one in a text that was printed, and an output that was deleted."""
    outputs = [v4.new_output("execute_result", data={"text/plain": "22"}, execution_count=3)]
    change(good, 2, outputs=[v4.new_output("stream", text="so many: 21\n")])
    change(good, 3, outputs=outputs)
    change(good, 4, outputs=[])

    told = check([good])

    assert told.select("cell", "id", "level", "finding").rows() == [
        (2, "step-1", "error", "differs"),
        (3, "step-2", "error", "differs"),
        (4, "step-3", "error", "differs"),
    ]
    assert "'22' == '21'" in told["detail"][1]


def test_a_notebook_that_was_cleaned_of_its_outputs_fails(tmp_path) -> None:
    """A comparison that compares nothing would pass it."""
    path = saved(tmp_path / "cleaned.ipynb", notebook(*GOOD, run=False))

    told = found(path)

    assert told == [
        (None, "error", "shows nothing"),
        *((number, "error", "not run") for number in range(1, 6)),
        (6, "error", "fails"),
        (6, "error", "not run"),
    ]


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("%load_ext titan_lab\n%at 2025-01-15", "MagicError: no book is open"),
        ("%no_such_magic", "UsageError: Line magic function `%no_such_magic` not found."),
        ("import os\nos._exit(1)", "its kernel died"),
    ],
)
def test_a_cell_that_fails_is_found_although_it_kept_what_it_printed(
    uncompared, tmp_path, source, detail
) -> None:
    """Also a magic's UsageError, which gives no error message to those who compare outputs."""
    made = notebook("n = 1", source, "n")
    made.cells[2].outputs = [v4.new_output("stream", name="stderr", text="all is well\n")]

    told = check([saved(tmp_path / "fails.ipynb", made)])

    assert told.select("cell", "level", "finding").rows() == [(2, "error", "fails")]
    assert detail in told["detail"][0]


def test_a_cell_that_hangs_is_found(tmp_path) -> None:
    """After the time that a cell may take."""
    path = saved(tmp_path / "hangs.ipynb", notebook("1", "import time; time.sleep(60)"))

    told = check([path], timeout=2)

    assert (2, "fails", "it takes longer than 2 s") in told.select("cell", "finding", "detail").rows()


def test_an_error_that_is_only_printed_is_found(uncompared, tmp_path) -> None:
    """It is the same each time, so that a comparison is content with it."""
    cells = (f"import sys\nprint('RuntimeError: no table', file=sys.{name})" for name in ("stderr", "stdout"))
    made = notebook("n = 1", *cells, "n")
    for cell, name in zip(made.cells[2:4], ("stderr", "stdout"), strict=True):
        cell.outputs = [v4.new_output("stream", name=name, text="RuntimeError: no table\n")]
    made.cells[4].outputs = [v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=4)]

    assert found(saved(tmp_path / "prints.ipynb", made)) == [
        (2, "error", "prints an error"),
        (3, "error", "prints an error"),
    ]


# --- WHAT A READER FINDS -----------------------------------------------------------------------------------


def reviewed(*sources: str, tagged: bool = True) -> list[tuple[int | None, str, str]]:
    made = notebook(*sources, tagged=tagged)
    made.cells[1].outputs = [v4.new_output("stream", text="shown\n")]
    return [(one.cell, one.level, one.finding) for one in review(made)]


def test_long_cells_and_missing_parameters_are_advice() -> None:
    """Fifteen lines are fine, sixteen are told; so is a ; at the end."""
    lines = "\n".join(["n = 1"] * 15)

    assert reviewed(lines) == []
    assert reviewed(lines + "\nn") == [(1, "advice", "long")]
    assert reviewed("n;") == [(1, "advice", "ends with ;")]
    assert reviewed("n", tagged=False) == [(None, "advice", "no parameters")]


def test_two_cells_of_parameters_are_an_error() -> None:
    """A job could fill in only one of them."""
    made = notebook("n = 1", "m = 2")
    for cell in made.cells[1:]:
        cell.metadata["tags"] = ["parameters"]
        cell.outputs = [v4.new_output("stream", text="shown\n")]

    assert [one.finding for one in review(made)] == ["two parameters cells"]


@pytest.mark.parametrize(
    "text",
    [
        "open('/home/ann/x')",
        "'/tmp/x'",
        "tl.open('sqlite:////data/x.db')",
        "'parquet:///data'",
        r"'C:\Users\ann'",
    ],
)
def test_a_path_of_one_machine_is_found(text) -> None:
    """In the code, in the prose, and in what was printed."""
    assert reviewed(text) == [(1, "error", "absolute path")]
    made = notebook("n")
    made.cells[0].source = f"# See {text}"
    made.cells[1].outputs = [v4.new_output("stream", text=text)]
    assert [(one.id, one.finding) for one in review(made)] == [
        ("step-0", "absolute path"),
        ("title", "absolute path"),
    ]


@pytest.mark.parametrize(
    "text", ['password = "hunter2"', "'postgresql://ann:hunter2@db/orders'", "'AKIA" + "A" * 16 + "'"]
)
def test_a_secret_is_found_and_not_shown_once_more(text) -> None:
    """What a check prints is kept in the logs of others."""
    made = notebook(text)
    made.cells[1].outputs = [v4.new_output("stream", text="shown\n")]

    (told,) = review(made)

    assert (told.cell, told.level, told.finding) == (1, "error", "secret")
    assert "hunter2" not in told.detail
    assert "AKIA" not in told.detail


@pytest.mark.parametrize(
    "text", ["'data/samples/orders.db'", "'sqlite:///data/x.db'", "'https://db/orders'", "token"]
)
def test_what_only_looks_like_one_is_none(text) -> None:
    """A relative path, an address without a password, a word."""
    assert reviewed(text) == []


# --- THE COMMAND -------------------------------------------------------------------------------------------


def titan(*words: object):
    return CliRunner().invoke(cli.titan, ["nb", *map(str, words)], catch_exceptions=True)


@pytest.fixture
def quickly(monkeypatch) -> None:
    """What the command makes of findings is the same, whoever finds them."""
    monkeypatch.setattr(module, "check_one", lambda path, timeout: review(module.read(path)))


def test_the_exit_code_says_whether_all_is_well(good, quickly) -> None:
    """0 for a good notebook, 1 for an error, with --strict for advice, too."""
    assert titan("check", good).exit_code == 0

    change(good, 1, metadata={})
    advised = titan("check", good.parent)
    assert (advised.exit_code, titan("check", "--strict", good).exit_code) == (0, 1)
    assert "no parameters" in advised.stdout

    change(good, 1, execution_count=None)
    done = titan("check", good, "--json")
    assert done.exit_code == 1
    assert [row["finding"] for row in json.loads(done.stdout)] == ["no parameters", "not run"]
    assert "1 checked, 1 errors, 1 pieces of advice" in done.stderr


def test_refresh_repairs_what_check_found(good) -> None:
    """And tells which notebooks it changed; one that fails stays, and the others go on."""
    change(good, 3, outputs=[])
    bad = saved(good.parent / "bad.ipynb", notebook("1 / 0"))
    before = bad.read_bytes()

    done = titan("refresh", good.parent)

    assert done.exit_code == 1
    assert "changed" in done.stdout
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert bad.read_bytes() == before
    assert nbformat.read(good, as_version=4).cells[3].outputs[0].data["text/plain"] == "21"


def test_what_is_no_notebook_is_told_before_anything_runs(tmp_path) -> None:
    """A missing file, an empty folder, a file of something else."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.ipynb").write_text("{}")

    assert titan("check", tmp_path / "missing.ipynb").exit_code == 2
    for words in (["check", tmp_path / "empty"], ["refresh", tmp_path / "broken.ipynb"]):
        assert isinstance(titan(*words).exception, NotebookError)
    with pytest.raises(NotebookError, match=r"broken\.ipynb is no notebook"):
        check([tmp_path / "broken.ipynb"])


def test_checkpoints_are_nobodys_notebooks(good) -> None:
    """JupyterLab's copies lie in a folder of their own."""
    (good.parent / ".ipynb_checkpoints").mkdir()
    (good.parent / ".ipynb_checkpoints" / "good-checkpoint.ipynb").write_bytes(good.read_bytes())

    assert notebooks([good.parent]) == [good]


def test_a_missing_checker_is_named_with_the_command_that_brings_it(good, monkeypatch) -> None:
    """Nothing is said to be fine that was not compared."""
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "nbval" else name)
    with pytest.raises(MissingExtra, match=r"pip install 'titan-lab\[test\]'"):
        check([good])
