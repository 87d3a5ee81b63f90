"""`titan run --dry-run` and `titan jobs`: what a person asks about runs, and what a machine reads."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

from titan_lab.cli import main
from titan_lab.errors import LedgerError
from titan_lab.jobs.history import prune
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.run import run_job

PACKAGE = str(Path(__file__).parents[1])
PARAMETERS = (
    'as_of: str = "2025-01-15"  # when\nby: int = 2  # what to divide by\nwho: str = ""\nout: str = ""'
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with one job, which ran three times: well, badly, and well for another instant."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pipelines").mkdir()
    v4 = nbformat.v4
    made = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    made.cells = [
        v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        v4.new_code_cell("print('dividing', who)\nopen(out + '/a.csv', 'w').write('a' * 100)\n6 / by"),
    ]
    nbformat.write(made, folder / "pipelines" / "divide.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", PACKAGE)
        for name in ("TITAN_ROOT", "TITAN_LEDGER"):
            patch.delenv(name, raising=False)
        run_job("divide", {"who": "00123"})
        run_job("divide", {"by": 0})
        run_job("divide", {"as_of": "2025-01-16"})
    return folder


@pytest.fixture
def titan(project, monkeypatch, capsys):
    """The command line in that project; gives its exit code and what it printed."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("TITAN_ROOT", "TITAN_LEDGER"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["titan", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


def files(folder: Path) -> dict[str, int]:
    """When each file was written last; a database makes files of its own while somebody reads it."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_tells_everything_and_touches_nothing(titan, project):
    """Parameters with types, where they come from, files, kernel, lock and the attempts before."""
    before = files(project)

    code, out, err = titan("run", "divide", "--by", "3", "--dry-run")

    assert code == 0
    assert re.search(r"^by +int +3 +given$", out, re.MULTILINE)
    assert re.search(r"^as_of +str +'2025-01-15' +default$", out, re.MULTILINE)
    assert re.search(r"^out +str +'.*/runs/divide/2025-01-15/RUN' +filled in$", out, re.MULTILINE)
    assert re.search(r"^lock +free$", out, re.MULTILINE)
    assert re.search(r"^kernel +python3$", out, re.MULTILINE)
    assert re.search(r"^earlier +ok, failed$", out, re.MULTILINE)
    assert "nothing was run" in err
    assert files(project) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--by", "many"], "'by' is declared int"),
        (["--bye", "3"], "Did you mean 'by'?"),
        (["--as-of", "2999-01-01"], "--as-of 20"),
        (["-p", "api_token=x"], "looks like a secret"),
        (["-p", "who=postgresql://u:pw@h/db"], "URL with a password"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(titan, arguments, told):
    """With the same words, and 2."""
    code, _, err = titan("run", "divide", "--dry-run", *arguments)

    assert code == 2
    assert told in err


def test_jobs_alone_lists_each_job_with_its_last_run(titan):
    """And as JSON for machines."""
    code, out, _ = titan("jobs")
    rows = json.loads(titan("jobs", "--json")[1])

    assert code == 0
    assert re.search(r"^divide +ok +2025-01-16 00:00:00Z", out, re.MULTILINE)
    assert [(row["job"], row["status"], row["scheduled"]) for row in rows] == [
        ("divide", "ok", "2025-01-16T00:00:00Z")
    ]


def test_runs_are_listed_and_shown(titan):
    """Newest first, filtered, and one with all that is known."""
    rows = json.loads(titan("jobs", "list", "divide", "--json")[1])
    failed = json.loads(titan("jobs", "list", "--status", "failed", "--json")[1])
    shown = json.loads(titan("jobs", "show", failed[0]["run_id"], "--json")[1])

    assert [(row["status"], row["attempt"]) for row in rows] == [("ok", 1), ("failed", 2), ("ok", 1)]
    assert rows[-1]["parameters"]["who"] == "00123"
    assert len(failed) == 1
    assert (shown["failing_cell"], shown["error"]) == (2, "ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in titan("jobs", "list")[1]
    code, _, err = titan("jobs", "show", "nothing")
    assert (code, "no run 'nothing'" in err) == (2, True)
    code, _, err = titan("jobs", "list", "--status", "fail")
    assert (code, "'failed'" in err) == (2, True)


def test_logs_are_what_the_cells_printed_and_where_it_failed(titan):
    """Cell by cell."""
    (failed,) = json.loads(titan("jobs", "list", "--status", "failed", "--json")[1])

    _, out, _ = titan("jobs", "logs", failed["run_id"])

    lines = out.splitlines()
    assert "dividing " in lines
    assert "ZeroDivisionError: division by zero" in lines
    assert lines[-1] == "--- failed: ZeroDivisionError: division by zero"


def test_a_retry_is_the_same_run_once_more_and_pruning_takes_old_files_only(titan, project):
    """Ids keep their zeros, the instant stays, the attempt counts on; then the files of all but one go."""
    first = json.loads(titan("jobs", "list", "--json")[1])[-1]
    code, out, _ = titan("jobs", "retry", first["run_id"])
    again = json.loads(titan("jobs", "list", "--json")[1])[0]

    assert code == 0
    assert Path(out.strip()).is_file()
    assert (again["attempt"], again["scheduled"]) == (3, first["scheduled"])
    assert again["parameters"]["who"] == "00123"
    assert again["run_id"] in again["parameters"]["out"]

    runs = project / "runs"
    before = files(runs / "divide")
    _, told, _ = titan("jobs", "prune", "--keep", "1", "--dry-run")
    assert "of 3 runs would be removed" in told
    assert files(runs / "divide") == before
    _, told, _ = titan("jobs", "prune", "--keep", "1", "--older-than", "1d")
    assert "of 0 runs removed" in told
    _, told, _ = titan("jobs", "prune", "--keep", "1")
    assert "of 3 runs removed" in told
    kept = {path.name for path in (runs / "divide").rglob("*")}
    assert kept == {
        "2025-01-15",
        again["run_id"],
        "a.csv",
        *(f"{again['run_id']}.{end}" for end in ("json", "ipynb", "html")),
    }
    rows = json.loads(titan("jobs", "list", "--json")[1])
    assert [bool(row["pruned"]) for row in rows] == [False, True, True, True]
    code, _, err = titan("jobs", "logs", first["run_id"])
    assert (code, "was pruned" in err) == (2, True)
    assert titan("jobs", "prune")[0] == 2
    assert titan("jobs", "prune", "--keep", "1", "--json")[1].strip() == "[]"


def test_what_runs_now_is_never_pruned(tmp_path):
    """However old, and whatever is asked."""
    sys.path.insert(0, str(Path(__file__).parent))
    from test_job_ledger import DAY, record

    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", runs=tmp_path)
    with ledger.claim("daily", DAY):
        ledger.begin(record(record="daily/r1.json"))
        (tmp_path / "daily").mkdir()
        (tmp_path / "daily" / "r1.json").write_text("{}")
        assert prune(ledger, keep=0, older_than="1s").is_empty()
        assert (tmp_path / "daily" / "r1.json").exists()
    with pytest.raises(LedgerError, match="nothing says which"):
        prune(ledger)
