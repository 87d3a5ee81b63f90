"""`titan lab`: what it starts, what it proves, and notebook 01 as a person sees it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import nbformat
import polars as pl
import pytest
from click.testing import CliRunner

from titan_lab import cli
from titan_lab.errors import MissingExtra
from titan_lab.notebook import lab
from titan_lab.orders import sample

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CHROMIUM = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
)
TOKEN = "a-token-of-this-test"


@pytest.fixture(autouse=True)
def _here(monkeypatch) -> None:
    """Kernels find this very code, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def titan(*words: object):
    return CliRunner(env={"COLUMNS": "120"}).invoke(cli.titan, ["lab", *map(str, words)])


# --- WHAT IT STARTS ----------------------------------------------------------------------------------------


def test_the_command_keeps_to_this_machine_and_the_user_has_the_last_word(tmp_path) -> None:
    """This interpreter's JupyterLab, on the project, encrypted to its kernels, with its token."""
    words = lab.command(tmp_path, ["--no-browser", "--ServerApp.ip=0.0.0.0"])

    assert words[:3] == [sys.executable, "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={tmp_path}" in words
    assert "--KernelManager.transport_encryption=auto" in words
    assert words.index("--ServerApp.ip=127.0.0.1") < words.index("--ServerApp.ip=0.0.0.0")
    assert not [word for word in words if "token" in word or "default_url" in word or "config" in word]


def test_it_opens_on_the_first_notebook_where_there_is_one() -> None:
    """And its kernels know where the project's paths begin."""
    assert "--LabApp.default_url=/lab/tree/notebooks/01_time_travel.ipynb" in lab.command(ROOT)
    assert lab.environment(ROOT, {"A": "1"}) == {"A": "1", "TITAN_ROOT": str(ROOT)}


def test_without_jupyterlab_the_error_is_the_command_that_brings_it(tmp_path, monkeypatch) -> None:
    """Nothing is started half."""
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'titan-lab\[lab\]'"):
        lab.command(tmp_path)


@pytest.fixture
def started(monkeypatch) -> list:
    """Note what would take this process's place."""
    seen: list = []
    monkeypatch.setattr(os, "execve", lambda *words: seen.append(words))
    monkeypatch.setattr(os, "chdir", lambda folder: seen.append(folder))
    return seen


@pytest.mark.skipif(os.name == "nt", reason="a child process there")
def test_outside_of_a_project_it_opens_the_folder_and_says_how_to_begin(
    started, tmp_path, monkeypatch
) -> None:
    """An empty folder is no error."""
    monkeypatch.setattr("titan_lab.paths.project_root", lambda: tmp_path)

    done = titan("--", "--no-browser")

    assert "titan lab --here makes a folder with both" in done.stderr
    assert started[0] == tmp_path
    assert started[1][1][-1] == "--no-browser"


@pytest.mark.skipif(os.name == "nt", reason="a child process there")
def test_here_makes_a_folder_to_begin_in_and_leaves_alone_what_is_there(
    started, tmp_path, monkeypatch
) -> None:
    """The samples are those of the seed, the notebooks those of the package; a second time adds nothing."""
    monkeypatch.setattr(Path, "cwd", lambda: tmp_path)
    few = sample.sample_events(5, long_order=20)
    monkeypatch.setattr(sample, "sample_events", lambda: few)

    assert titan("--here").exit_code == 0
    made = tmp_path / "titan-lab"
    (made / "notebooks" / "01_time_travel.ipynb").write_text("mine")
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert titan("--here").exit_code == 0

    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    assert made / "data/samples/orders.db" in before
    assert {path.name for path in made.glob("notebooks/*")} == {
        p.name for p in lab.examples().glob("0*.ipynb")
    }
    assert (made / "pipelines").is_dir()
    assert started[0] == made


# --- WHAT IT PROVES ----------------------------------------------------------------------------------------


def test_the_check_starts_a_kernel_that_folds_the_samples_by_the_magics() -> None:
    """All is well here, or these tests would not run."""
    found = lab.checks(ROOT)

    told = dict(found.select("check", "found").iter_rows())
    assert found.filter(~pl.col("ok")).rows() == []
    assert "500 aggregates, 12,123 events" in told["samples"]
    assert "186 by %at" in told["samples"]
    assert {"Python", "titan_lab", "polars", "jupyterlab", "kernel", "extension", "own scripts"} <= set(told)


@pytest.fixture
def no_kernel(monkeypatch) -> None:
    monkeypatch.setattr(lab, "_kernel", lambda root: [("kernel", "runs", True, None)])


@pytest.mark.usefixtures("no_kernel")
@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("no-such-thing>=1; extra == 'lab'", ("no-such-thing", "not installed", "'titan-lab[lab]'")),
        ("polars>=99", ("polars", pl.__version__, "titan-lab")),
    ],
)
def test_a_missing_or_old_package_is_told_with_the_command_and_an_exit_code(
    monkeypatch, wanted, told
) -> None:
    """A table for people, JSON for programs."""
    monkeypatch.setattr(lab.metadata, "requires", lambda name: [wanted, "unheard-of; extra == 'kafka'"])

    done, shown = titan("--check", "--json"), titan("--check")

    (bad,) = [row for row in json.loads(done.stdout) if not row["ok"]]
    assert (bad["check"], bad["found"]) == told[:2]
    assert told[2] in bad["hint"]
    assert (done.exit_code, shown.exit_code) == (1, 1)
    assert f"✗  {told[0]}" in shown.stdout
    assert f"hint: {bad['hint']}" in shown.stderr


@pytest.mark.parametrize(
    ("code", "told"),
    [("raise ValueError('not today')", "ValueError: not today"), ("import os; os._exit(1)", "")],
)
def test_a_kernel_that_fails_is_told_and_left_behind_nowhere(tmp_path, monkeypatch, code, told) -> None:
    """Whatever it is that does not work."""
    monkeypatch.setattr(lab, "_IN_KERNEL", code)
    monkeypatch.setattr(lab, "WAIT", 5)

    ((check, found, ok, hint),) = lab._kernel(tmp_path)

    assert (check, ok) == ("kernel", False)
    assert told in found
    assert found
    assert hint


def test_a_widget_without_its_files_is_told(monkeypatch, tmp_path) -> None:
    """The package is there, and the browser would draw nothing."""
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda name: [str(tmp_path)])

    bad = [(check, found) for check, found, ok, _ in lab._files() if not ok]

    assert ("plotly in the browser", "no files for the browser") in bad


# --- NOTEBOOK 01, AS A PERSON SEES IT ----------------------------------------------------------------------


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with the first notebook, not run yet, and homes in which nobody's settings are."""
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    (folder / "data").symlink_to(ROOT / "data")
    notebook = nbformat.read(ROOT / lab.FIRST, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / lab.FIRST)
    return folder


@pytest.fixture
def server(project, tmp_path) -> Iterator[str]:
    """Start what `titan lab` starts, and stop it with all its kernels."""
    home = tmp_path / "home"
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # Else a question about news covers the page.
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
    }
    environment = {key: value for key, value in os.environ.items() if key != "TITAN_ROOT"}
    arguments = [
        "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "titan_lab", "lab", "--", *arguments],
            cwd=project, env=environment | {key: str(value) for key, value in homes.items()},
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        answers(f"{address}/api/status?token={TOKEN}", process, tmp_path / "lab.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.25)
    pytest.fail(log.read_text())


# The light in the corner says idle before the kernel is connected, and then nothing would ever run.
READY = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.revealed;
  const session = panel.context.sessionContext;
  await session.ready;
  const kernel = () => session.session?.kernel;
  while (!(kernel()?.connectionStatus === 'connected' && kernel().status === 'idle'))
    await new Promise(done => setTimeout(done, 100));
  await kernel().info;
}"""
RUN_ALL = (
    "() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }"  # not awaited: it may not end
)
# Cells out of sight are not in the page, so it is the notebook itself that is asked.
ALL_RAN = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells].filter(c => c.type === 'code');
  return cells.length > 0 && cells.every(c => c.executionCount !== null && c.executionState !== 'running');
}"""
FAILED = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .filter(cell => cell.type === 'code')
  .flatMap(cell => cell.outputs.toJSON())
  .filter(output => output.output_type === 'error')
  .map(output => output.ename + ': ' + output.evalue)"""


@pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None,
    reason="NOT PROVEN HERE: no browser to open JupyterLab in (apt install chromium; pip install playwright)",
)
def test_notebook_01_runs_in_jupyterlab_and_draws_its_figures(server, tmp_path) -> None:
    """As a person opens it: all cells run, plotly draws, and nothing is fetched from elsewhere."""
    from playwright.sync_api import expect, sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    broken: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=quiet)
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))

        # Where `titan lab` itself begins: its first page must be the notebook.
        page.goto(f"{server}/?token={TOKEN}")
        page.wait_for_url("**/lab/tree/notebooks/01_time_travel.ipynb**")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.evaluate(READY)
        page.evaluate(RUN_ALL)
        page.wait_for_function(ALL_RAN)
        failed = page.evaluate(FAILED)
        page.wait_for_selector(".js-plotly-plot .main-svg")
        figure = page.locator(".js-plotly-plot").first
        for _ in range(3):  # cells above it are still growing
            figure.evaluate("figure => figure.scrollIntoView({block: 'center'})")
            page.wait_for_timeout(400)
        expect(figure).to_be_in_viewport()
        page.screenshot(path=tmp_path / "notebook_01.png")
        browser.close()

    local = (server, server.replace("http:", "ws:"), "data:", "blob:")
    assert failed == []
    assert broken == []
    assert [url for url in asked if not url.startswith(local)] == []
    assert (tmp_path / "notebook_01.png").stat().st_size > 20_000
