"""Jobs: a notebook runs headless, and its record tells the truth about how that went."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import nbformat
import pytest

from titan_lab.errors import InstantError, JobError
from titan_lab.jobs.record import read_run, write_atomically
from titan_lab.jobs.run import jobs, parameters_of_job, run_job

PACKAGE = str(Path(__file__).parents[1])


def notebook(*cells: str, parameters: str | None = None) -> nbformat.NotebookNode:
    """Make a notebook of code cells, and of Markdown where one begins with #; it names no language."""
    v4 = nbformat.v4
    made = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    if parameters is not None:
        made.cells.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for cell in cells:
        text = textwrap.dedent(cell).strip()
        made.cells.append(v4.new_markdown_cell(text) if text.startswith("# ") else v4.new_code_cell(text))
    return made


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project to run jobs in, with a writer of notebooks."""
    (tmp_path / "pipelines").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TITAN_ROOT", raising=False)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)  # so that kernels find this very code, installed or not

    def write(name: str, *cells: str, parameters: str | None = None) -> Path:
        path = tmp_path / "pipelines" / f"{name}.ipynb"
        nbformat.write(notebook(*cells, parameters=parameters), path)
        return path

    return write


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Wait a moment for a process to be gone."""
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def partial(folder: Path) -> list[Path]:
    """List what no finished run may leave behind."""
    return [p for p in folder.rglob("*") if p.name.startswith(".")]


LOOK = """
    import json, os, subprocess
    from ipykernel.connect import get_connection_file
    from titan_lab.notebook.glue import glue
    child = subprocess.Popen(["sleep", "60"])
    glue(
        cwd=os.getcwd(), who=who, n=n, as_of=as_of, out=out, pid=os.getpid(), child=child.pid,
        root=os.environ["TITAN_ROOT"], wire=sorted(json.load(open(get_connection_file()))),
    )
    open(os.path.join(out, "states.csv"), "w").write("aggregate_id")
"""


def test_a_run_leaves_notebook_report_and_record_and_no_process(project, tmp_path, capfd):
    """Parameters as given, the notebook's own folder, an encrypted wire, nothing left behind."""
    source = project(
        "look",
        "# A look",
        LOOK,
        parameters='who: str = ""\nn: int = 3  # how many\nas_of: str = ""\nout: str = ""',
    )
    before = source.read_bytes()

    run = run_job("look", {"who": "00123", "as-of": "2025-01-15"})

    folder = tmp_path / "runs" / "look" / "2025-01-15"
    assert (run.status, run.exit_code, run.error) == ("ok", 0, None)
    assert {f"{run.run_id}{end}" for end in (".ipynb", ".html", ".json", "")} == {
        p.name for p in folder.iterdir()
    }
    seen = run.results
    assert (seen["who"], seen["n"], seen["as_of"]) == ("00123", 3, "2025-01-15")
    assert str(tmp_path / "pipelines") == seen["cwd"]
    assert str(tmp_path) == seen["root"]
    assert str(folder / run.run_id) == seen["out"]
    assert (folder / run.run_id / "states.csv").exists()
    assert any("curve" in word for word in seen["wire"])
    assert "without encryption" not in capfd.readouterr().err
    assert gone(seen["pid"])
    assert gone(seen["child"])
    assert before == source.read_bytes()
    assert partial(tmp_path) == []


def test_the_record_says_what_ran_with_what(project):
    """Hash of the input, versions, parameters with defaults, both instants; it reads back as the same run."""
    source = project("small", "1 + 1", parameters="n: int = 3\nlater: int = len('ab')")

    run = run_job("small", {}, timeout="5m")

    record = json.loads(run.record.read_text())
    assert hashlib.sha256(source.read_bytes()).hexdigest() == record["input_sha256"]
    assert record["input"] == "pipelines/small.ipynb"
    assert record["parameters"] == {"n": 3, "later": "(computed)"}
    assert metadata.version("polars") == record["versions"]["polars"]
    assert run.started <= run.finished <= datetime.now(UTC)
    assert run == read_run(run.record)
    assert nbformat.read(run.notebook, as_version=4).metadata.titan.status == "ok"


def test_as_of_falls_to_the_default_and_then_to_the_start_of_the_run(project):
    """The instant is always on record, and always the one that the notebook saw."""
    project(
        "with_default",
        "from titan_lab.notebook.glue import glue; glue(seen=as_of)",
        parameters="as_of = '2025-02-01'",
    )
    project(
        "without", "from titan_lab.notebook.glue import glue; glue(seen=as_of)", parameters="as_of: str = ''"
    )

    default, start = run_job("with_default"), run_job("without")

    assert "2025-02-01" == default.as_of == default.results["seen"] == default.folder.name
    assert start.started.replace(microsecond=0) == datetime.fromisoformat(start.as_of)
    assert start.as_of == start.results["seen"]


def test_a_failing_cell_ends_the_run_with_code_1_and_a_record_of_where(project):
    """The report is written all the same, and no password of an error message gets into any file."""
    project(
        "bad",
        "x = 1",
        "raise ValueError('no answer from postgresql://titan:' + 's3' + 'cret@db/orders')",
        "y = 2",
    )

    run = run_job("bad")

    assert (run.status, run.exit_code) == ("failed", 1)
    assert (run.error["kind"], run.error["cell"]) == ("ValueError", 1)
    assert "titan:***@db" in run.error["message"]
    assert "did not end well" in run.report.read_text()
    executed = nbformat.read(run.notebook, as_version=4)
    assert executed.metadata.papermill.exception is True
    assert not [path for path in (run.record, run.report, run.notebook) if "s3cret" in path.read_text()]


@pytest.mark.parametrize(
    "cell", ["%nosuchmagic", "import sys; sys.exit(3)", "raise SystemExit(0)", "%%nosuchcellmagic\nx"]
)
def test_what_other_tools_wave_through_is_a_failure_here(project, cell):
    """A magic that fails prints to a stream in place of an error message; the run failed nevertheless."""
    project("magic", cell)

    assert (run_job("magic").status, run_job("magic").exit_code) == ("failed", 1)


def test_a_killed_kernel_is_reported_as_killed(project, tmp_path):
    """Nothing claims success, not even cell by cell in the notebook; what it started is gone too."""
    child = "import subprocess; open('pid', 'w').write(str(subprocess.Popen(['sleep', '60']).pid))"
    project("killed", child, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "y = 2")

    run = run_job("killed")

    assert (run.status, run.exit_code) == ("died", 4)
    assert "SIGKILL" in run.error["message"]
    assert run.error["cell"] == 1
    executed = nbformat.read(run.notebook, as_version=4)
    assert executed.metadata.papermill.exception is True
    assert [c.metadata.papermill.status for c in executed.cells] == ["completed", "failed", "pending"]
    assert gone(int((tmp_path / "pipelines" / "pid").read_text()))


def test_a_kernel_that_exits_by_itself_is_reported_with_its_code(project):
    """`os._exit(7)` is neither a failed cell nor a success."""
    project("left", "import os; os._exit(7)")

    run = run_job("left")

    assert (run.status, run.exit_code) == ("died", 4)
    assert "exit code 7" in run.error["message"]


def test_the_timeout_is_of_the_whole_run_and_kills_what_hangs(project):
    """Two cells that each take less than the limit still run out of it together."""
    project("slow", "import time, os", "time.sleep(2)", "time.sleep(60)")

    started = time.monotonic()
    run = run_job("slow", timeout=9)

    assert time.monotonic() - started < 60
    assert (run.status, run.exit_code) == ("timeout", 3)
    assert run.error["cell"] == 2
    assert "9 s" in run.error["message"]


RUNNER = "import sys; from titan_lab.jobs.run import run_job; sys.exit(run_job('long').exit_code)"


def start_long(project, tmp_path) -> tuple[subprocess.Popen, Path, int]:
    """Run a long job in a process of its own; return it, the run's folder and the kernel's pid."""
    project("long", "import os; open('pid', 'w').write(str(os.getpid())); import time; time.sleep(60)")
    runner = subprocess.Popen([sys.executable, "-c", RUNNER], cwd=tmp_path)
    pid_file = tmp_path / "pipelines" / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()):
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return runner, tmp_path / "runs" / "long", int(pid_file.read_text())


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_interrupts_the_run_and_is_recorded(project, tmp_path, signum, code):
    """An eviction or Ctrl-C ends the kernel, saves the notebook and says so."""
    runner, folder, kernel = start_long(project, tmp_path)

    runner.send_signal(signum)

    assert code == runner.wait(timeout=30)
    (record,) = folder.rglob("*.json")
    run = read_run(record)
    assert ("interrupted", code, signum.name) == (run.status, run.exit_code, run.error["kind"])
    assert run.notebook.exists()
    assert gone(kernel)
    assert partial(folder) == []


def test_a_run_that_was_killed_outright_never_looks_finished(project, tmp_path):
    """kill -9 leaves "running" on record, which reading reports as no end; and the kernel goes by itself."""
    runner, folder, kernel = start_long(project, tmp_path)

    runner.kill()
    runner.wait(timeout=30)

    (record,) = folder.rglob("*.json")
    with pytest.raises(JobError, match="no end on record"):
        read_run(record)
    assert list(folder.rglob("[!.]*.ipynb")) == []
    assert gone(kernel)


def test_a_job_runs_from_a_thread_too(project):
    """A service that runs jobs beside other work has no main thread to give; only signals need it."""
    project("threaded", "1 + 1")
    runs = []
    thread = threading.Thread(target=lambda: runs.append(run_job("threaded")))
    thread.start()
    thread.join(timeout=60)

    assert [run.status for run in runs] == ["ok"]


def test_a_job_runs_from_a_notebook_too(project):
    """A cell runs inside an event loop already; a second one is not started in it."""
    project("inner", "1 + 1")

    async def cell():
        return run_job("inner")

    assert asyncio.run(cell()).status == "ok"


def test_progress_is_told_cell_by_cell(project):
    """For a bar on the command line."""
    project("three", "1", "2", "3")
    told = []

    run_job("three", progress=lambda begun, of: told.append((begun, of)))

    assert told == [(0, 3), (1, 3), (2, 3)]


def test_braces_and_spaces_in_paths_are_no_templates(project, tmp_path):
    """Papermill formats paths with the parameters; ours stay as they are."""
    odd = tmp_path / "a {n} b"
    odd.mkdir()
    nbformat.write(notebook("n", parameters="n: int = 3"), odd / "job {n}.ipynb")

    run = run_job(odd / "job {n}.ipynb", {"n": 4}, out=odd / "runs")

    assert run.status == "ok"
    assert odd / "runs" / "job {n}" == run.folder.parent


def test_a_mistake_before_the_run_writes_nothing(project, tmp_path):
    """An unknown job, parameter, type, instant or timeout is told at once, and no kernel starts for it."""
    project("daily_orders", "1", parameters="as_of: str = ''\nn: int = 1")
    (tmp_path / "pipelines" / "torn.ipynb").write_text('{"cells": [')

    with pytest.raises(JobError, match="no job 'daily_order'") as caught:
        run_job("daily_order")
    assert "'daily_orders'" in caught.value.hint
    with pytest.raises(JobError, match="no notebook"):
        run_job("elsewhere/x.ipynb")
    with pytest.raises(JobError, match="'n' is declared int"):
        run_job("daily_orders", {"n": "many"})
    with pytest.raises(InstantError):
        run_job("daily_orders", {"as_of": "2025-01-15T10:00"})
    with pytest.raises(JobError, match="leaves no time"):
        run_job("daily_orders", timeout=0)
    with pytest.raises(JobError, match="no notebook: "):
        run_job("torn")
    assert not (tmp_path / "runs").exists()


def test_jobs_and_their_parameters_can_be_listed(project):
    """For help on the command line, without running anything."""
    project("b", "1", parameters="n: int = 3  # how many")
    project("a", "1")

    assert jobs() == ["a", "b"]
    assert [(p.name, p.kind, p.default, p.help) for p in parameters_of_job("b")] == [
        ("n", "int", 3, "how many")
    ]


def test_papermill_itself_can_use_the_engine(project, tmp_path):
    """By its own command line, as an existing scheduler calls it; whichever of the two is imported first."""
    if not any(p.name == "titan" for p in metadata.entry_points(group="papermill.engine")):
        pytest.skip(
            "NOT PROVEN HERE: papermill finds its engine only when titan-lab is installed (pip install -e .)"
        )
    source = project("plain", "x = n + 1\nx", parameters="n: int = 3")
    source.write_text(
        source.read_text().replace('"name": "python3"', '"name": "python3", "language": "python"')
    )
    command = ["-m", "papermill", "--engine", "titan", str(source), "out.ipynb", "-p", "n", "4"]

    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    first = subprocess.run(
        [sys.executable, "-c", "import titan_lab.jobs.engine"], capture_output=True, check=False
    )

    assert done.returncode == first.returncode == 0, done.stderr
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].data["text/plain"] == "5"
    assert "without encryption" not in done.stderr


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path):
    """Neither half a file nor a stray temporary one."""
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")

    assert path.read_text() == "old"
    assert [path] == list(tmp_path.iterdir())


def test_a_run_shows_itself(project):
    """Short as text, with its report and results as HTML, escaped."""
    project("shown", "from titan_lab.notebook.glue import glue; glue(note='<b>12</b>')")

    run = run_job("shown", {})

    assert repr(run).startswith("JobRun(shown ")
    assert "&lt;b&gt;12&lt;/b&gt;" in run._repr_html_()
