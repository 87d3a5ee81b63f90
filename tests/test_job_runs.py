"""Runs and the ledger together: killed, refused, full disks, and the same files for the same instant."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import pytest

import titan_lab as tl
from titan_lab.errors import JobError, LedgerError, Locked, TooSoon
from titan_lab.jobs.bounded import FIRST, LAST, Printed
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.run import run_job
from titan_lab.notebook.export import FOOT

pytestmark = pytest.mark.slow

PACKAGE = str(Path(__file__).parents[1])
SAMPLE = f"sqlite:///{PACKAGE}/data/samples/orders.db"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project to run jobs in, with a writer of notebooks."""
    (tmp_path / "pipelines").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("TITAN_ROOT", "TITAN_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)

    def write(name: str, *cells: str, parameters: str | None = None, kernel: str = "python3") -> Path:
        v4 = nbformat.v4
        made = v4.new_notebook(
            metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        )
        if parameters is not None:
            made.cells.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        made.cells += [v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in cells]
        path = tmp_path / "pipelines" / f"{name}.ipynb"
        nbformat.write(made, path)
        return path

    return write


def titan(*arguments: str, **options) -> subprocess.Popen:
    """Start the command line in a process of its own."""
    code = "from titan_lab.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def done(*arguments: str, **options) -> tuple[int, str, str]:
    """Run the command line to its end."""
    process = titan(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def until(holds, seconds: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def agrees(runs: Path = Path("runs")) -> list[dict]:
    """Check that every row and its record say the same, and that nothing is half written; give the rows."""
    ledger = Ledger(runs=runs.absolute())
    rows = [ledger.run(run_id) for run_id in ledger.runs()["run_id"]]
    records = {path.stem: json.loads(path.read_text()) for path in runs.rglob("*.json")}
    assert {row["run_id"] for row in rows} == set(records)
    for row in rows:
        record = records[row["run_id"]]
        error = (record["error"] or {}).get("message")
        assert (row["status"], row["exit_code"], row["attempt"], row["error"]) == (
            record["status"],
            record["exit_code"],
            record["attempt"],
            error,
        )
        assert row["status"] != "running"
        assert all((runs / path).is_file() for path in row["outputs"])
    for path in runs.rglob("*.ipynb"):
        if not path.name.startswith("."):
            assert records[path.stem]["finished"]
            nbformat.read(path, as_version=4)
    for path in runs.rglob("*.html"):
        assert path.read_text().endswith("</html>\n")
    assert not list(runs.rglob("*.tmp"))
    return rows


# --- WHAT A RUN ENTERS -------------------------------------------------------------------------------------


def test_a_run_is_in_the_ledger_as_its_record_says(project):
    """Status, cell, basis, outputs, attempt: of a good and of a bad run."""
    project(
        "good",
        f"import titan_lab as tl; from titan_lab.notebook.glue import glue; log = tl.open({SAMPLE!r})",
        "open(out + '/a.csv', 'w').write('a'); glue(n=3, basis=log.fold(tl.Order).basis)",
        parameters="as_of: str = '2025-01-15'\nout: str = ''",
    )
    project("bad", "1", "1 / 0")

    good, bad = run_job("good"), run_job("bad")

    second, first = agrees()
    assert (first["job"], first["status"], first["attempt"]) == ("good", "ok", 1)
    assert first["basis"]["events"] == 12_123
    assert first["basis"]["source"].endswith("orders.db")
    place = f"good/2025-01-15/{good.run_id}"
    assert first["outputs"] == [f"{place}.ipynb", f"{place}.html", f"{place}/a.csv"]
    assert first["results"]["n"] == 3
    assert (second["status"], second["exit_code"], second["failing_cell"]) == ("failed", 1, 1)
    assert "division by zero" in second["error"]
    assert bad.attempt == 1
    assert run_job("good").attempt == 2
    foot = good.report.read_text().partition(FOOT[0])[2]
    assert all(f"<dt>{name}</dt>" in foot for name in ("run", "attempt", "as of", "events", "source", "out"))


def test_a_notebook_that_has_nothing_to_do_says_so_with_a_code_of_its_own(project):
    """Neither a success nor a failure: the cells below do not run, and the report gives the reason."""
    project("idle", "import titan_lab as tl", "tl.nothing_to_do('no new hours <since> noon')", "1 / 0")

    run = run_job("idle")

    assert (run.status, run.exit_code, run.error["message"]) == ("nothing", 6, "no new hours <since> noon")
    (row,) = agrees()
    assert (row["status"], row["exit_code"]) == ("nothing", 6)
    assert Ledger().last_success("idle")["run_id"] == run.run_id
    page = run.report.read_text()
    assert "no new hours &lt;since&gt; noon" in page
    assert "did not end well" not in page
    with pytest.raises(Exception, match="enough") as caught:
        tl.nothing_to_do("enough")
    assert type(caught.value).__name__ == "NothingToDo"


def test_the_same_instant_gives_the_same_files_but_for_the_marked_block(project):
    """Clocks, random ids, folders and which stream was first: all of it in the foot, or gone."""
    project(
        "same",
        "import sys, time, plotly.graph_objects as go; print('a'); print('b', file=sys.stderr)",
        "for n in range(3): print(n, flush=True); print(-n, file=sys.stderr, flush=True); time.sleep(0.2)",
        "go.Figure(go.Bar(x=[1], y=[n]))",
        parameters="as_of: str = '2025-01-15'\nout: str = ''\nn: int = 1",
    )

    one, two = run_job("same", {"n": 2}), run_job("same", {"n": 2})

    pages = [run.report.read_text() for run in (one, two)]
    block = re.compile(f"{FOOT[0]}.*{FOOT[1]}", re.DOTALL)
    assert pages[0] != pages[1]
    assert len(block.findall(pages[0])) == 1
    assert block.sub("", pages[0]) == block.sub("", pages[1])
    books = [nbformat.read(run.notebook, as_version=4) for run in (one, two)]
    told = [book.metadata.pop("titan") for book in books]
    assert told[0]["run_id"] != told[1]["run_id"]
    assert nbformat.writes(books[0]) == nbformat.writes(books[1])
    assert one.run_id not in nbformat.writes(books[0])


# --- WHAT IS REFUSED BEFORE ANYTHING STARTS ----------------------------------------------------------------


def test_an_instant_that_cannot_be_reported_on_yet_is_refused(project):
    """In the future, or beyond what the source holds, unless that is said to be meant."""
    project("look", "as_of", parameters=f"as_of: str = '2025-01-15'\nsource: str = {SAMPLE!r}")

    with pytest.raises(TooSoon, match="2999-01-01 has not come yet") as caught:
        run_job("look", {"as_of": "2999-01-01"})
    assert caught.value.hint.startswith("--as-of 20")
    with pytest.raises(TooSoon, match="lies beyond sqlite") as caught:
        run_job("look", {"as_of": "2025-03-01"})
    assert "--as-of 2025-02-10T21:14:41.519814Z" in caught.value.hint
    assert not Path("runs").exists()
    assert run_job("look", {"as_of": "2025-03-01"}, beyond_frontier=True).status == "ok"


def test_a_source_that_does_not_open_here_is_the_notebooks_business(project):
    """The kernel may reach what this process cannot."""
    project("far", "1", parameters="as_of: str = '2025-01-15'\nsource: str = 'sqlite:///nowhere.db'")

    assert run_job("far", {"as_of": "2025-01-16"}).status == "ok"


def test_a_kernel_that_is_not_installed_is_told_with_those_that_are(project):
    """Before anything is written."""
    project("strange", "1", kernel="python2.4")

    with pytest.raises(JobError, match=r"kernel 'python2\.4', which is not installed") as caught:
        run_job("strange")
    assert "python3" in caught.value.hint
    assert not Path("runs").exists()


def test_two_parameters_cells_and_none(project):
    """Two are one too many; without one nothing can be given, but the job runs."""
    path = project("two", "n", parameters="n: int = 1")
    made = nbformat.read(path, as_version=4)
    made.cells.append(nbformat.v4.new_code_cell("m = 2", metadata={"tags": ["parameters"]}))
    nbformat.write(made, path)
    project("none", "1")

    with pytest.raises(JobError, match="2 cells tagged 'parameters'"):
        run_job("two")
    with pytest.raises(JobError, match="has no parameter 'n'"):
        run_job("none", {"n": 3})
    assert run_job("none").status == "ok"


def test_a_folder_that_cannot_be_written_is_told_before_the_kernel_starts(project, tmp_path):
    """Here a file is in its place; a missing permission reads the same."""
    project("small", "1")
    (tmp_path / "runs").write_text("not a folder")

    with pytest.raises(JobError, match=r"Not a directory|File exists|cannot be used"):
        run_job("small")


def test_a_ledger_that_fails_when_the_run_is_entered_leaves_nothing(project, tmp_path):
    """The kernel was up already; no cell ran, and no file stays."""
    project("small", "open('ran', 'w')")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "ledger.db").write_text(
        "no database at all, and long enough to be taken for one" * 9
    )

    with pytest.raises(LedgerError, match="not a database"):
        run_job("small")
    assert not (tmp_path / "pipelines" / "ran").exists()
    assert [p.name for p in (tmp_path / "runs" / "small").rglob("*") if p.is_file()] == []


# --- TWO AT ONCE -------------------------------------------------------------------------------------------


def test_a_second_run_for_the_same_instant_is_locked_out_with_75(project, tmp_path):
    """It names who has it; another instant is free; afterwards it may run again."""
    project(
        "slow",
        "open('up', 'w').close(); import time, os\nwhile not os.path.exists('go'): time.sleep(0.05)",
        parameters="as_of: str = '2025-01-15'",
    )
    first = titan("run", "slow")
    until((tmp_path / "pipelines" / "up").exists)

    code, _, told = done("run", "slow")
    with pytest.raises(Locked) as caught:
        run_job("slow")
    plan = done("run", "slow", "--dry-run")[1]
    (tmp_path / "pipelines" / "go").touch()
    assert first.wait(timeout=60) == 0
    first.communicate()

    assert (code, caught.value.data["pid"]) == (75, first.pid)
    assert f"process {first.pid}" in told
    assert f"held by {caught.value.data['run_id']} (process {first.pid})" in plan
    assert [row["status"] for row in agrees()] == ["ok"]
    assert done("run", "slow", "--as-of", "2025-01-16")[0] == 0


# --- KILLED ------------------------------------------------------------------------------------------------

FOUR = [f"open('cell{n}', 'w').close(); import time; time.sleep(0.4)" for n in range(4)]


def test_killed_at_any_moment_the_ledger_says_so_and_the_next_run_goes_on(project, tmp_path):
    """kill -9 of the process at random moments, before the kernel, in each cell, in the report."""
    project("victim", *FOUR, "import os; print(os.getpid())", parameters="as_of: str = '2025-01-15'")
    chance = random.Random(int(os.environ.get("TITAN_TEST_SEED", "4")))
    moments = [
        ("cell0", 0.0),
        ("cell2", chance.random()),
        ("cell3", 0.4 + chance.random()),
        (None, 3 * chance.random()),
    ]
    died = 0

    for mark, delay in moments:
        for path in (tmp_path / "pipelines").glob("cell?"):
            path.unlink()
        process = titan("run", "victim")
        if mark:
            until((tmp_path / "pipelines" / mark).exists)
        time.sleep(delay)
        process.kill()
        process.communicate()
        rows = agrees() if (tmp_path / "runs" / "ledger.db").exists() else []
        died = sum(row["status"] == "died" for row in rows)

    assert died >= 2
    assert all("was killed" in row["error"] for row in agrees() if row["status"] == "died")
    run = run_job("victim")
    assert run.status == "ok"
    assert run.attempt == len(agrees())
    assert not list((tmp_path / "runs").rglob(".*"))
    assert not alive(int(nbformat.read(run.notebook, as_version=4).cells[-1].outputs[0].text))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_entered_as_interrupted(project, tmp_path, signum):
    """With 128 + its number, the notebook kept up to there, and the place freed."""
    project("victim", *FOUR)
    process = titan("run", "victim")
    until((tmp_path / "pipelines" / "cell1").exists)
    process.send_signal(signum)
    process.communicate(timeout=60)

    (row,) = agrees()
    assert (row["status"], row["exit_code"], row["failing_cell"]) == ("interrupted", 128 + signum, 1)
    assert process.returncode == 128 + signum


def test_a_killed_kernel_is_entered_as_died_with_4(project):
    """By a signal from outside or from itself; the cell is known."""
    project("victim", "1", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    run_job("victim")

    (row,) = agrees()
    assert (row["status"], row["exit_code"], row["failing_cell"]) == ("died", 4, 1)


def test_a_run_whose_end_did_not_reach_the_ledger_is_entered_from_its_record(project, monkeypatch, caplog):
    """The database was away at the end of a run: the record has the end, and who lists next enters it."""
    project("small", "1")
    with monkeypatch.context() as broken:

        def away(self, record):
            raise LedgerError("gone fishing")

        broken.setattr(Ledger, "finish", away)
        assert run_job("small").status == "ok"

    assert "gone fishing" in caplog.text
    (row,) = agrees()
    assert (row["status"], row["exit_code"]) == ("ok", 0)


# --- TOO MUCH ----------------------------------------------------------------------------------------------


def test_a_million_lines_are_cut_to_the_first_and_the_last(project):
    """The run stays quick, the files small, and what is left out is counted."""
    project("loud", "for n in range(1_000_000): print('line', n)", "print('short')")

    run = run_job("loud", timeout="60s")

    assert run.status == "ok"
    text = nbformat.read(run.notebook, as_version=4).cells[0].outputs[0].text
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("line 0", "line 999999")
    (gap,) = [n for n, line in enumerate(lines) if "left out" in line]
    missing = int(re.search(r"([\d,]+) lines", lines[gap])[1].replace(",", ""))
    assert missing == 1_000_001 - len(lines)
    assert run.notebook.stat().st_size < 300_000


def test_short_text_is_kept_as_it_is_and_one_endless_line_is_cut_too():
    """Whatever the pieces in which it came."""
    for piece in (1, 7, 1000, 10**6):
        for text in (
            "",
            "a\nb",
            "x" * (FIRST + LAST),
            "line\n" * 50_000,
            "y" * 300_000,
            "ab\n" * 33_000 + "z" * 99,
        ):
            printed = Printed()
            for start in range(0, len(text), piece):
                if printed.add(text[start : start + piece]):
                    printed.text()
            kept = printed.text()
            if len(text) <= FIRST + LAST:
                assert kept == text
            else:
                head, gap, tail = re.fullmatch(
                    r"(.*?)\n?(\[… [^\n]*left out here …\])\n(.*)", kept, re.DOTALL
                ).groups()
                left = int(re.search(r"([\d,]+) characters", gap)[1].replace(",", ""))
                assert text.startswith(head)
                assert text.endswith(tail)
                assert len(kept) < FIRST + LAST + 200
                assert 0 <= len(text) - left - len(head) - len(tail) <= 1


def test_a_full_disk_is_told_and_nothing_is_half_written(project, tmp_path):
    """On a disk of one megabyte, which the notebook's own output fills."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True
    ).returncode:
        pytest.skip("NOT PROVEN HERE: a small file system can only be mounted by root")
    try:
        project("big", "from IPython.display import HTML\nHTML('x' * 3_000_000)", "2")
        project("own", "open(out + '/big', 'wb').write(bytes(3_000_000))", parameters="out: str = ''")

        big, own = run_job("big", out=disk), run_job("own", out=disk)

        assert (big.status, own.status) == ("failed", "failed")
        assert "No space left" in big.error["message"]
        assert "No space left" in own.error["message"]
        rows = agrees(disk)
        assert {row["status"] for row in rows} == {"failed"}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_limit_on_the_size_of_files_is_told_too(project, tmp_path):
    """As a quota would: the record fits, the notebook does not."""
    project("big", "from IPython.display import HTML\nHTML('x' * 3_000_000)")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000));"
        "from titan_lab.cli import main; import sys; sys.argv = ['titan', 'run', 'big']; main()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    (row,) = agrees()
    assert (process.returncode, row["status"]) == (1, "failed")
    assert "File too large" in row["error"]
