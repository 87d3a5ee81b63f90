"""JupyterLab on a project: how it is started, and the proof that everything it needs is there."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import polars as pl

from titan_lab.errors import MissingExtra
from titan_lab.paths import ROOT_VARIABLE

SAMPLES: Final = "data/samples/orders.db"
FIRST: Final = "notebooks/01_time_travel.ipynb"
EXTRAS: Final = ("lab", "viz", "run")  # what a notebook may ask for
CHECKS: Final = pl.Schema({"check": pl.String, "found": pl.String, "ok": pl.Boolean, "hint": pl.String})
WAIT: Final = 90  # seconds for a kernel to start, and to answer

# Each needs the file that draws it in the browser; the package, where its front end is.
_FRONT_ENDS: Final = {
    "anywidget": "anywidget",
    "ipywidgets": "@jupyter-widgets/jupyterlab-manager",
    "plotly": "jupyterlab-plotly",
}
_IN_KERNEL: Final = """
import json, sys
import titan_lab
shell = get_ipython()
shell.run_line_magic("load_ext", "titan_lab")
url = {url!r}
book = shell.run_line_magic("titan", "open " + url + " --as titan_lab_check") if url else None
told = dict(
    python=sys.executable,
    package=titan_lab.__file__,
    book=repr(book),
    states=shell.run_line_magic("at", "2025-01-15").height if url else None,
)
print("told:" + json.dumps(told))
"""


def examples() -> Path | None:
    """Find the notebooks that come with the package, or with the checkout that it runs from."""
    inside = Path(__file__).with_name("examples")
    beside = Path(__file__).parents[2] / "notebooks"
    return next((folder for folder in (inside, beside) if list(folder.glob("0*.ipynb"))), None)


def command(root: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Write the command that starts JupyterLab on a folder.

    It listens on this machine only, asks for its token as ever, talks encrypted to its kernels, and begins
    with the first notebook where there is one. The user's own configuration is read and left alone;
    `arguments` come last, and so have the last word. Raises MissingExtra without JupyterLab.
    """
    if find_spec("jupyterlab") is None:
        raise MissingExtra("jupyterlab", "lab", "titan lab")
    start = ["--LabApp.default_url=/lab/tree/" + FIRST] if (root / FIRST).exists() else []
    return [
        sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}", "--ServerApp.ip=127.0.0.1",
        "--KernelManager.transport_encryption=auto", *start, *arguments,
    ]  # fmt: skip


def environment(root: Path, known: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Give the variables that JupyterLab and its kernels are started with: they know the project's folder."""
    return {**known, ROOT_VARIABLE: str(root)}


def checks(root: Path) -> pl.DataFrame:
    """Prove the installation: packages, front ends, and a kernel that folds the samples by our magics.

    Returns one row for each check, in the order of the checks: check String, found String, ok Boolean, and
    hint String: what to do where it is not ok. The kernel is the one that JupyterLab would start.
    """
    rows = [*_packages(), *_files(), *_kernel(root)]
    return pl.DataFrame(rows, schema=CHECKS, orient="row")


Check = tuple[str, str, bool, str | None]


def _packages() -> Iterator[Check]:
    yield "Python", sys.version.split()[0], sys.version_info >= (3, 11), "titan_lab needs 3.11 or newer"
    try:
        wanted = metadata.requires("titan-lab") or []
        yield "titan_lab", metadata.version("titan-lab"), True, None
    except metadata.PackageNotFoundError:
        yield (
            "titan_lab",
            "not installed",
            False,
            "pip install 'titan-lab[lab]', or -e '.[lab]' in a checkout",
        )
        return
    seen = set()
    for line in wanted:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"](\w+)", line)
        if name is None or name[0] in seen or (extra is not None and extra[1] not in EXTRAS):
            continue
        seen.add(name[0])
        hint = (
            f"pip install --upgrade 'titan-lab[{extra[1]}]'" if extra else "pip install --upgrade titan-lab"
        )
        try:
            version = metadata.version(name[0])
        except metadata.PackageNotFoundError:
            yield name[0], "not installed", False, hint
        else:
            yield name[0], version, _fits(version, line), hint


def _fits(version: str, requirement: str) -> bool:
    if find_spec("packaging") is None:  # it comes with JupyterLab, whose absence is told already
        return True
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _files() -> Iterator[Check]:
    own = sorted(file.name for file in Path(__file__).parent.glob("*.js") if file.stat().st_size)
    found = ", ".join(own) or "none"
    yield "own scripts", found, bool(own), "pip install --force-reinstall titan-lab"
    if find_spec("jupyter_core") is None:
        return
    from jupyter_core.paths import jupyter_path

    for package, extension in _FRONT_ENDS.items():
        if find_spec(package) is not None:
            places = [Path(folder, extension, "package.json") for folder in jupyter_path("labextensions")]
            there = next((place for place in places if place.exists()), None)
            said = (
                f"version {json.loads(there.read_text('utf-8'))['version']}"
                if there
                else "no files for the browser"
            )
            hint = f"pip install --force-reinstall {package}"
            yield f"{package} in the browser", said, there is not None, hint


def _kernel(root: Path) -> Iterator[Check]:
    hint = "pip install 'titan-lab[lab]'"
    if find_spec("ipykernel") is None:
        yield "kernel", "no ipykernel", False, hint
        return
    there = (root / SAMPLES).exists()
    url = f"sqlite:///{(root / SAMPLES).as_posix()}" if there else ""
    try:
        told = _ask(root, _IN_KERNEL.format(url=url))
    except Exception as error:  # of a kernel, of its client, or of what it ran: whatever it is, it is told
        yield "kernel", str(error).strip().rpartition("\n")[2] or type(error).__name__, False, hint
        return
    same = Path(told["python"]).resolve() == Path(sys.executable).resolve()
    other = f"this is {sys.executable}: {Path(sys.executable).name} -m ipykernel install --sys-prefix"
    yield "kernel", f"runs {told['python']}", same, other
    ours = Path(__file__).resolve().parents[1]
    theirs = Path(told["package"]).resolve().parent
    said = "%load_ext titan_lab answers" if ours == theirs else f"the kernel imports {theirs}, this is {ours}"
    yield "extension", said, ours == theirs, "pip install titan-lab where the kernel finds it first"
    if there:
        yield "samples", f"{told['book']}, {told['states']} by %at 2025-01-15", told["states"] > 0, None
    else:
        yield (
            "samples",
            f"there is no {SAMPLES} in {root}",
            False,
            "titan lab --here makes a folder with them",
        )


def _ask(root: Path, code: str) -> dict[str, Any]:
    """Run code in the kernel that a notebook would get, and read what it told."""
    from jupyter_client.manager import KernelManager

    kernel = KernelManager(kernel_name="python3", transport_encryption="auto")
    kernel.start_kernel(cwd=str(root), env=environment(root))
    client = kernel.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=WAIT)
        printed: list[str] = []

        def listen(message: Mapping[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        reply = client.execute_interactive(code, timeout=WAIT, output_hook=listen, stop_on_error=True)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(
                f"{reply['content']['ename']}: {reply['content']['evalue']}".partition("\n")[0]
            )
        told: dict[str, Any] = json.loads("".join(printed).partition("told:")[2])
        return told
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
