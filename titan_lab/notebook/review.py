"""Read a notebook as a reviewer would, without running it: what cannot be checked, or must not be kept.

A finding is a row: in which cell, what is wrong, and whether it is an error or advice. The checks that need a
run are in `check`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

LINES: Final = 15  # of one cell
Level: TypeAlias = Literal["error", "advice"]
SECRETS: Final = {
    "a password or token in the text": r"(?i)\b(?:password|passwd|secret|token|api_?key)\b\s*[=:]\s*[\"']\w",
    "a password in a URL": r"\w+://[^\s/:@\"']+:[^\s/@\"']+@",
    "a key of AWS": r"AKIA[0-9A-Z]{16}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
}
PATHS: Final = re.compile(
    r"/(?:home|Users|root|work)/\w+|/tmp/\w+|(?:sqlite:///|parquet://)/\w+|\b[A-Z]:\\\\?Users\\"
)
# What a magic prints that does not raise, or a library logs and goes on: no exit code knows of it.
_PRINTED: Final = re.compile(
    r"^(?:\x1b\[[\d;]*m)*(?:Traceback \(most recent call last\)|(?:\w+\.)*[A-Z]\w*(?:Error|Exception)\b.*:)",
    re.MULTILINE,
)
_STYLE: Final = re.compile(r"<style.*?</style>", re.DOTALL)


class Finding(NamedTuple):
    """One thing that a check found; `cell` counts the code cells from 1, None is the whole notebook."""

    cell: int | None
    id: str | None
    level: Level
    finding: str
    detail: str


def review(notebook: Any) -> list[Finding]:
    """Find what is wrong with a notebook as it is kept.

    Errors: a cell with code that was not run, a notebook that shows nothing (both pass a comparison that
    compares nothing), an error that is kept or only printed, an absolute path, a secret, two cells tagged
    `parameters`. Advice: none tagged so, more than 15 lines in a cell, a `;` at the end of one.
    """
    found: list[Finding] = []
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, start=1):
        found += (Finding(number, cell.get("id"), *told) for told in _of_cell(cell))
    if cells and not any(cell.outputs for cell in cells):
        found.append(Finding(None, None, "error", "shows nothing", "no cell has an output to compare"))
    tagged = [number for number, cell in enumerate(cells, start=1) if "parameters" in tags(cell)]
    if not tagged:
        found.append(
            Finding(
                None,
                None,
                "advice",
                "no parameters",
                "tag its first code cell `parameters` to run it as a job",
            )
        )
    elif len(tagged) > 1:
        said = f"cells {', '.join(map(str, tagged))} are tagged `parameters`; a job fills in one"
        found.append(Finding(None, None, "error", "two parameters cells", said))
    for cell in notebook.cells:
        if cell.cell_type != "code":
            found += (Finding(None, cell.get("id"), "error", *told) for told in _kept([cell.source]))
    return found


def tags(cell: Any) -> list[str]:
    """List the tags of a cell."""
    return list(cell.metadata.get("tags", []))


def printed(outputs: Iterable[Any]) -> str | None:
    """Give the first line of a stream that tells of an error which was not raised, or None."""
    for output in outputs:
        if output.output_type == "stream" and (line := _PRINTED.search(output.text)):
            return output.text[line.start() :].partition("\n")[0]
    return None


def _of_cell(cell: Any) -> Iterator[tuple[Level, str, str]]:
    lines = cell.source.splitlines()
    if cell.source.strip() and cell.execution_count is None:
        yield "error", "not run", "it has no execution count, so nothing of it is compared"
    for output in cell.outputs:
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            yield "error", "keeps an error", f"{output.ename}: {output.evalue}"
    if line := printed(cell.outputs):
        yield "error", "prints an error", line
    for finding, detail in _kept([cell.source, *map(str, _texts(cell.outputs))]):
        yield "error", finding, detail
    if len(lines) > LINES:
        yield "advice", "long", f"{len(lines)} lines; {LINES} can be read at once"
    if lines and lines[-1].rstrip().endswith(";"):
        yield "advice", "ends with ;", "it hides an output from the eye, and not from the comparison"


def _kept(texts: list[str]) -> Iterator[tuple[str, str]]:
    """Find what must not be kept in a file that others get. A secret is named, and not shown once more."""
    whole = "\n".join(texts)
    if path := PATHS.search(whole):
        yield "absolute path", f"{path[0]}... is there on one machine only"
    for kind, pattern in SECRETS.items():
        if re.search(pattern, whole):
            yield "secret", f"{kind}: take it from the environment, and make it anew"


def _texts(outputs: Iterable[Any]) -> Iterator[Any]:
    for output in outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join(output.traceback)
        else:
            # A picture is no text, and the letters that it is written in may spell anything.
            data = output.get("data", {})
            yield from (_STYLE.sub("", str(v)) for kind, v in data.items() if not kind.startswith("image/"))
