"""Notebooks are run as a person and as a scheduler would, and kept as the house keeps them."""

from __future__ import annotations

import ast
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import polars as pl
import pytest

from titan_lab.jobs.parameters import parameters_of
from titan_lab.jobs.run import run_job
from titan_lab.notebook.check import SANITIZERS
from titan_lab.notebook.export import FIGURE
from titan_lab.notebook.refresh import executed
from titan_lab.notebook.review import PATHS, SECRETS, review

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIPELINES = sorted((ROOT / "pipelines").glob("*.ipynb"))


def name(path: Path) -> str:
    return path.stem


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


@pytest.fixture
def here(monkeypatch):
    """Kernels find this very code, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


# --- AN EXAMPLE IS TRUE ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_shows_what_it_would_show_today(path, here):
    """nbval alone passes a cell whose magic failed, so each example is also executed and compared."""
    kept, today = code_cells(path), [c for c in executed(path).cells if c.cell_type == "code"]

    for before, now in zip(kept, today, strict=True):
        assert now.outputs == before.outputs, f"cell {now.id!r} is out of date: make notebooks"
        assert now.execution_count == before.execution_count


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_every_cell_of_an_example_was_run_and_shows_something(path):
    """nbval compares nothing in a cell that was never run, so one that was stripped would pass unseen."""
    cells = code_cells(path)

    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.id for cell in cells if not cell.outputs and "parameters" not in tags(cell)]
    for cell in cells:
        if "nbval-ignore-output" in tags(cell):
            assert "# not compared: " in cell.source, f"cell {cell.id!r} does not say why it is not compared"


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_a_bold_number_in_the_text_is_a_number_in_the_outputs(path):
    """Prose is not executed. What it claims in bold stands in an output of the same section."""
    section: list = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.source.startswith("## "):
            claims_hold(section)
            section = []
        section.append(cell)
    claims_hold(section)


def claims_hold(section: list) -> None:
    shown = " ".join(
        html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", str(text), flags=re.DOTALL))
        for cell in section
        for output in cell.get("outputs", [])
        for text in output.get("data", {}).values()
    )
    numbers = set(re.findall(r"\d+(?:\.\d+)?", shown.replace(",", "")))
    for cell in section:
        if cell.cell_type == "markdown":
            for claim in re.findall(r"\*\*([\d,.]*\d)\*\*", cell.source):
                assert claim.replace(",", "") in numbers, f"{cell.id!r} says {claim}, which no output says"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_runs_as_a_job_on_another_store_and_another_moment(path, tmp_path, here):
    """Its parameters are real: nothing below them is tied to the day or to the file of the stored outputs."""
    other = {"source": "parquet://data/samples/orders.parquet", "as_of": "2025-02-01T09:30:00+01:00"}
    declared = {p.name for p in parameters_of(nbformat.read(path, as_version=4), path.name)}
    asked = {name: value for name, value in other.items() if name in declared}

    run = run_job(path, asked, out=tmp_path, timeout="5m")

    assert run.status == "ok", run.error


# --- NBVAL, WHICH `make test` RUNS ON ALL OF THEM, WOULD NOTICE ---------------------------------------------


def nbval(path: Path, notebook, folder: Path) -> tuple[int, set[int], str]:
    """Check a notebook in a project of its own, out of reach of this one's pytest settings."""
    (folder / "notebooks").mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "data").symlink_to(ROOT / "data")
    nbformat.write(notebook, folder / "notebooks" / path.name)
    options = [
        "--nbval",
        "--nbval-current-env",
        "--nbval-cell-timeout=120",
        "--nbval-kernel-startup-timeout=120",
    ]
    sanitised = f"--nbval-sanitize-with={SANITIZERS}"
    plain = ["-q", "--tb=short", "-rf", "-p", "no:cacheprovider", "notebooks"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, sanitised, *plain],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    failed = {int(number) for number in re.findall(r"^FAILED .*::Cell (\d+)", done.stdout, re.MULTILINE)}
    return done.returncode, failed, done.stdout


@pytest.mark.parametrize("path", EXAMPLES[:1], ids=name)
def test_nbval_notices_one_wrong_character_in_a_table_a_figure_or_a_text(path, tmp_path, here):
    """A canary: the checker is hardly maintained, and a sanitiser that says too much would blind it."""
    notebook = nbformat.read(path, as_version=4)
    planted = {
        plant(
            notebook, "text/html", lambda table: re.sub(r"\d(?=\D*$)", lambda d: str(9 - int(d[0])), table)
        ),
        plant(
            notebook, FIGURE, lambda figure: figure["layout"]["title"].update(text="Another title") or figure
        ),
        plant(notebook, "text/plain", lambda text: text[:-1] + "?"),
    }
    assert len(planted) == 3

    code, failed, told = nbval(path, notebook, tmp_path)

    assert (code, failed) == (1, planted), told


def plant(notebook, media_type: str, change) -> int:
    """Change the last output that has this and nothing richer; return the number of its cell."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in reversed(list(enumerate(cells))):
        for output in cell.outputs:
            data = output.get("data", {})
            if media_type in data and (media_type != "text/plain" or len(data) == 1):
                data[media_type] = change(data[media_type])
                return number
    pytest.fail(f"no cell shows {media_type}")


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_a_reviewer_has_nothing_to_say_of_an_example(path):
    """What `titan nb check` tells users of their notebooks holds for ours: run, shown, no path, no secret."""
    assert review(nbformat.read(path, as_version=4)) == []


# --- HOW THEY ARE KEPT -------------------------------------------------------------------------------------


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
    """A heading first, then the parameters; any environment's kernel, ids of words, nobody's home, small."""
    text = path.read_text("utf-8")
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(path)
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor >= 5) == (4, True)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert [number for number, cell in enumerate(cells) if "parameters" in tags(cell)] == [0]
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert not [cell.id for cell in notebook.cells if re.fullmatch(r"[0-9a-f-]{8,}", cell.id)]
    assert not PATHS.findall(text)
    assert len(text) < 300_000


@pytest.mark.parametrize("path", EXAMPLES + PIPELINES, ids=name)
def test_a_notebook_holds_no_secret(path):
    """Parameters and outputs are kept for good; a secret belongs to the environment."""
    text = path.read_text("utf-8").replace('\\"', '"')

    assert not [found for pattern in SECRETS.values() for found in re.findall(pattern, text)]


@pytest.mark.parametrize(
    "secret", ['password = "x1"', "API_KEY: 'x1'", "postgresql://ann:pw@db/orders", "AKIA" + "A" * 16]
)
def test_a_secret_would_be_noticed(secret):
    """The search above can fail."""
    assert any(re.search(pattern, secret) for pattern in SECRETS.values())


@pytest.mark.parametrize("path", EXAMPLES + PIPELINES, ids=name)
def test_a_notebook_reads_from_top_to_bottom(path):
    """Short cells, and what would need a function is in the package, with its tests.

    A predicate that is asked, and a declaration that is folded, are part of the question.
    """
    for cell in code_cells(path):
        lines = cell.source.splitlines()
        defined = [
            n
            for n in ast.walk(ast.parse(cell.source))
            if isinstance(n, ast.FunctionDef)
            or (isinstance(n, ast.ClassDef) and [ast.unparse(base) for base in n.bases] != ["tl.Order"])
        ]
        assert len(lines) <= 15, f"cell {cell.id!r} has {len(lines)} lines"
        assert not defined, f"cell {cell.id!r} defines something"
        assert not cell.source.rstrip().endswith(";"), "it hides an output from the eye, and not from nbval"


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_the_last_cell_of_an_example_says_what_must_hold(path):
    """So that a run on other data fails where it must."""
    assert code_cells(path)[-1].source.count("assert ") >= 3


# --- THE MORNING REPORT ------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_of", ["2025-01-15", "2024-01-01", "2025-01-20T17:30:00+01:00", "2026-01-01"])
def test_the_morning_report_is_right_at_any_instant(as_of, tmp_path, here):
    """On an ordinary day, before the first order, within a day, and long after the last event."""
    run = run_job("daily_orders", {"as_of": as_of}, out=tmp_path, timeout="5m", beyond_frontier=True)

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
