"""Open JupyterLab on a project, or prove that it would work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from titan_lab.cli.options import NO_ANSWER, json_option

FOLDER = "titan-lab"  # what --here makes


@click.command(short_help="Open JupyterLab on the project, or prove the installation.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGS]")
@click.option("--check", is_flag=True, help="Prove the installation, and open nothing.")
@click.option("--here", is_flag=True, help=f"Make {FOLDER}/ here, with samples and notebooks, and open that.")
@json_option
def lab(arguments: tuple[str, ...], check: bool, here: bool, form: str | None) -> None:
    """Open JupyterLab on the project that this folder is in, with the first notebook where there is one.

    It listens on this machine only and asks for its token; your own configuration stays as it is. What comes
    after -- goes to JupyterLab, such as titan lab -- --no-browser --port=9999. In a notebook, %load_ext
    titan_lab brings the magics.

    Outside of a project it opens the folder as it is; --here makes a new one to begin with.

    --check looks for packages of the right versions, starts a kernel, loads the extension in it and folds the
    samples, and looks for what draws in the browser. Exit codes: 0 all is there, 1 something is not.
    """
    from titan_lab import terminal
    from titan_lab.notebook.lab import FIRST, SAMPLES, checks, command, environment
    from titan_lab.paths import project_root

    root = project_root()
    if here:
        root = _make(Path.cwd() / FOLDER)
    if check:
        with terminal.Progress("starting a kernel"):
            found = checks(root)
        _tell(found, form)
        return
    words = command(root, arguments)
    if not (root / SAMPLES).exists() and not (root / FIRST).exists():
        terminal.say(f"{root} has no samples and no notebook 01: titan lab --here makes a folder with both")
    if os.name == "nt":  # where exec returns to the prompt at once
        sys.exit(subprocess.call(words, env=environment(root), cwd=root))
    os.chdir(root)
    os.execve(words[0], words, environment(root))  # noqa: S606  so that signals reach JupyterLab


def _make(folder: Path) -> Path:
    """Make a folder to begin in. What is there already stays as it is."""
    from titan_lab import terminal
    from titan_lab.notebook.lab import SAMPLES, examples
    from titan_lab.orders.sample import sample_events, write_sqlite

    # An empty `pipelines` is what makes it a project: paths in its notebooks begin here, and jobs go there.
    for name in ("notebooks", "pipelines"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not (folder / SAMPLES).exists():
        (folder / SAMPLES).parent.mkdir(parents=True, exist_ok=True)
        write_sqlite(sample_events(), folder / SAMPLES)
    for notebook in sorted((examples() or folder).glob("0*.ipynb")):
        if not (folder / "notebooks" / notebook.name).exists():
            shutil.copyfile(notebook, folder / "notebooks" / notebook.name)
    terminal.say(f"{folder}: samples in {SAMPLES}, {len(list(folder.glob('notebooks/*.ipynb')))} notebooks")
    return folder


def _tell(found, form: str | None) -> None:  # type: ignore[no-untyped-def]
    import polars as pl

    from titan_lab import terminal

    if form:
        terminal.show(found, form)
    else:
        mark = pl.when("ok").then(pl.lit("✓")).otherwise(pl.lit("✗")).alias(" ")
        terminal.show(found.select(mark, "check", "found"), "table")
        for row in found.filter(~pl.col("ok")).iter_rows(named=True):
            terminal.say(f"{row['check']}: {row['found']}\n  hint: {row['hint']}")
    if not found["ok"].all():
        sys.exit(NO_ANSWER)
