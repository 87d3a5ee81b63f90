"""What a run leaves: the executed notebook and the report, each there whole or not at all.

A second run for the same instant makes the same files, byte for byte, but for one marked place: the key
`titan` in the notebook's metadata, and the foot of the report. Whatever varies is moved there or dropped:
papermill's and the kernel's clocks, random cell ids, the folder that is named after the run.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from titan_lab.jobs.record import FAILED, relative, write_atomically
from titan_lab.notebook.glue import glued
from titan_lab.redacted import redact

INJECTED: Final = "injected-parameters"
REMARK: Final = "papermill-error-cell-tag"  # on what papermill adds to a notebook that failed
_KEPT_OF_CELL: Final = ("exception", "status")
_KEPT_OF_PAPERMILL: Final = ("default_parameters", "environment_variables", "exception", "version")
_OWN: Final = ("report", "outputs", "pid", "host")  # of a record: not known yet, or this machine's business
LONGEST: Final = 10_000  # characters of a message; a driver may put a whole query result into it


def keep(partial: Path, final: Path, record: dict[str, Any], own_folder: Path) -> None:
    """Put the executed notebook and the report in their places, and note both in the record.

    own_folder: where the notebook's `out` pointed.
    """
    import nbformat

    notebook = nbformat.read(partial, as_version=4)
    for output in (o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"):
        # Drivers like to name the address they could not reach, with all that is in it.
        output.evalue = told(output.evalue)
        output.traceback = [told(line) for line in output.traceback]
    record["results"] = glued(notebook)
    basis = record["results"].get("basis")
    record["basis"] = basis if isinstance(basis, dict) else record["basis"]
    record["notebook"] = final.name
    timings = _settle(notebook, record, own_folder)
    notebook.metadata["titan"] = {k: v for k, v in record.items() if k not in _OWN} | {"cells": timings}
    write_atomically(final, nbformat.writes(notebook))
    partial.unlink()
    try:
        from titan_lab.notebook.export import report

        write_atomically(final.with_suffix(".html"), report(notebook, record))
        record["report"] = final.with_suffix(".html").name
    except Exception as error:
        # A run without its report is not what was asked for, but the executed notebook must survive the
        # failure.
        if record["status"] == "ok":
            message = f"the notebook ran, its report could not be written: {error}"
            lines = traceback.format_exception(error)
            record |= {"status": "failed", "exit_code": FAILED}
            record["error"] = {"kind": type(error).__name__, "message": told(message), "traceback": lines}


def warm_up() -> None:
    """Load what a report is made with, by making one of nothing."""
    from titan_lab.notebook.export import report

    with suppress(Exception):  # it will be told when a report is really made
        report({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def outputs(record: Mapping[str, Any], folder: Path, runs: Path) -> list[str]:
    """List what a run left, as paths from the folder of runs on: notebook, report, then its own files."""
    named = [folder / record[what] for what in ("notebook", "report") if record[what]]
    own = (path for path in (folder / record["run_id"]).rglob("*") if path.is_file())
    return [relative(path, runs) for path in (*named, *sorted(own))]


def told(text: str) -> str:
    """Make an error's text fit to be kept: no colours, no password of a URL, no end of it left out unsaid."""
    plain = redact(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text))
    if len(plain) <= LONGEST:
        return plain
    half = LONGEST // 2
    return f"{plain[:half]} [… {len(plain) - LONGEST:,} characters left out …] {plain[-half:]}"


def _settle(notebook: Any, record: Mapping[str, Any], own_folder: Path) -> list[dict[str, Any]]:
    """Take out of a notebook what differs from run to run; return the times of its cells."""
    timings = []
    for place, cell in enumerate(notebook.cells):
        told_by_papermill = dict(cell.metadata.get("papermill") or {})
        cell.metadata.pop("execution", None)
        if told_by_papermill:
            names = ("start_time", "end_time", "duration")
            timings.append({"cell": place} | {name: told_by_papermill.get(name) for name in names})
            cell.metadata.papermill = {name: told_by_papermill.get(name) for name in _KEPT_OF_CELL}
        if "outputs" in cell:
            cell.outputs = _in_order(cell.outputs)
        tags = cell.metadata.get("tags", [])
        if INJECTED in tags or REMARK in tags:
            cell["id"] = tags[0] if INJECTED in tags else f"papermill-error-{place}"
        if INJECTED in tags:
            # Empty as in JupyterLab: who runs this copy by hand must not write over what the run left.
            cell.source = "\n".join(_without(line, own_folder) for line in cell.source.split("\n"))
    metadata = notebook.metadata.get("papermill") or {}
    parameters = {k: v for k, v in record["parameters"].items() if k in metadata.get("parameters", {})}
    if parameters.get("out") == str(own_folder.resolve()):
        parameters["out"] = ""
    notebook.metadata["papermill"] = {k: metadata[k] for k in _KEPT_OF_PAPERMILL if k in metadata} | {
        "input_path": record["input"],
        "parameters": parameters,
    }
    return timings


def _without(line: str, own_folder: Path) -> str:
    written = line.partition(" = ")
    own = written[0] == "out" and own_folder.name in written[2]
    return 'out = ""  # in the run itself: the folder beside this notebook' if own else line


def _in_order(outputs: list[Any]) -> list[Any]:
    """Put what was printed between two other outputs in one order: which stream came first is chance."""
    grouped = groupby(outputs, key=lambda output: output.output_type == "stream")
    return [
        output
        for printed, group in grouped
        for output in (sorted(group, key=lambda one: one.name, reverse=True) if printed else group)
    ]
