"""An executed notebook as a report: one HTML file that needs nothing but a browser.

Plotly keeps a figure in the notebook as data (7 kB), not as a drawing; most HTML exporters drop that data, or
draw it with a script from another server, which is one more thing to be down on the morning the report is
needed. Here plotly.js is inside the file, once, and a content security policy forbids the page every request,
so "offline" is held by the browser and not by our care. It also names the scripts that may run by their
hashes: a script that arrives in an event's payload does nothing, even if a cell failed to escape it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final

from titan_lab.clock import instant
from titan_lab.errors import MissingExtra
from titan_lab.notebook.glue import MEDIA_TYPE, glued
from titan_lab.notebook.html import escape, json_in_html, shown
from titan_lab.notebook.masked import masked
from titan_lab.notebook.nothing import NothingToDo
from titan_lab.notebook.widget import PLACE, inline

FIGURE: Final = "application/vnd.plotly.v1+json"
_WIDGET: Final = "application/vnd.jupyter.widget-view+json"
_PAPERMILL_REMARK: Final = "papermill-error-cell-tag"
_DEFAULT_HEIGHT: Final = 450  # plotly's own
# Around all that may differ between two reports on the same instant.
FOOT: Final = ("<!-- provenance -->", "<!-- end of provenance -->")


def report(notebook: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> str:
    """Turn an executed notebook into one self-contained HTML page, as text.

    Code is hidden, figures draw offline, light or dark follows the reader's system, and it prints. The title
    is the notebook's first heading.

    record: the run's record (see `titan_lab.jobs.run`); its run, attempt, code, parameters, basis, results
    and versions go to the foot, and a run that did not end well says so at the top. Without one, the foot has
    what the notebook itself handed to `glue`. Two reports on the same instant differ between the two marks of
    `FOOT`, and nowhere else.

    Raises MissingExtra without nbconvert or plotly.
    """
    try:
        import nbformat
        from nbconvert import HTMLExporter
    except ImportError as error:
        raise MissingExtra(error.name or "nbconvert", "run", "writing a report") from error
    shown_notebook = nbformat.from_dict(copy.deepcopy(dict(notebook)))
    figures = _draw_by_script(shown_notebook)
    _drop_what_cannot_show(shown_notebook)
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(shown_notebook)
    record = dict(record) if record else {"results": glued(notebook)}
    title = title_of(notebook) or str(record.get("job") or "Report")
    scripts = [_plotly_js(), _asset("report.js")] if figures else []
    # A scrubber brings its script along: of those in the page, the policy lets run the one that is known.
    brought = [inline()] if any(_has_scrubber(output) for output in _outputs(shown_notebook)) else []
    return _PAGE.format(
        policy=_policy(scripts + brought),
        title=escape(f"{title} · {_day(record['as_of'])}" if record.get("as_of") else title),
        style=_asset("report.css"),
        top=_top(record),
        body=body,
        foot=_foot(record),
        scripts="".join(f"<script>{text}</script>\n" for text in scripts),
    )


def title_of(notebook: Mapping[str, Any]) -> str | None:
    """Find the notebook's first heading, without its marks; None when it has none."""
    for cell in notebook.get("cells", []):
        if cell.get("cell_type") == "markdown":
            heading = re.search(r"^#{1,3} +(.+?)\s*#*$", _source(cell["source"]), re.MULTILINE)
            if heading:
                return re.sub(r"[*_`]|<[^>]*>", "", heading[1]).strip()
    return None


# --- FIGURES -----------------------------------------------------------------------------------------------


def _draw_by_script(notebook: Any) -> int:
    """Replace each figure's data by a place to draw it, with the data beside; return how many there are."""
    number = 0
    for output in _outputs(notebook):
        data = output.get("data", {})
        if FIGURE in data:
            number += 1
            data["text/html"] = _place(data.pop(FIGURE), number)
    return number


def _has_scrubber(output: Mapping[str, Any]) -> bool:
    return PLACE in _source(output.get("data", {}).get("text/html", ""))


def _place(figure: Mapping[str, Any], number: int) -> str:
    layout = figure.get("layout", {})
    inherited = layout.get("template", {}).get("layout", {})
    height = int(layout.get("height") or inherited.get("height") or _DEFAULT_HEIGHT)
    title = layout.get("title")
    name = (title.get("text") if isinstance(title, Mapping) else title) or f"Figure {number}"
    label = escape(re.sub(r"<[^>]*>", " ", str(name)))
    return (
        f'<figure class="figure" id="figure-{number}" style="min-height:{height}px" '
        f'role="img" aria-label="{label}">'
        f'<script type="application/json">{json_in_html(figure)}</script>'
        "<noscript>This figure is drawn by JavaScript, which is switched off here.</noscript></figure>"
    )


def _drop_what_cannot_show(notebook: Any) -> None:
    """Leave out what is told elsewhere (results, papermill's remarks), and widgets, which need a kernel."""
    for cell in notebook["cells"]:
        if _PAPERMILL_REMARK in cell["metadata"].get("tags", []):
            # It puts one remark at the top and one before the cell that failed; ours is at the top already.
            cell["source"] = '<a id="failed"></a>' if 'id="papermill-error-cell"' in cell["source"] else ""
        if "outputs" in cell:
            cell["outputs"] = [
                output
                for output in cell["outputs"]
                if MEDIA_TYPE not in output.get("data", {}) and output.get("ename") != NothingToDo.__name__
            ]
    for output in _outputs(notebook):
        output.get("data", {}).pop(_WIDGET, None)
    notebook["metadata"].pop("widgets", None)


def _source(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


@cache
def _plotly_js() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtra("plotly", "viz", "drawing figures in a report") from error
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return resources.files("titan_lab.notebook").joinpath(name).read_text("utf-8").strip()


# --- THE PAGE ----------------------------------------------------------------------------------------------

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{top}
<main>
{body}
</main>
{foot}
{scripts}</body>
</html>
"""


def _policy(scripts: list[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; form-action 'none'; base-uri 'none'"
    )


def _top(record: Mapping[str, Any]) -> str:
    if not record.get("run_id"):
        return ""
    status = str(record["status"])
    line = f"<strong>{escape(record['job'])}</strong> · as of {escape(shown(instant(record['as_of'])))}"
    chip = f'<span class="status status-{escape(status)}">{escape(status)}</span>'
    top = f'<header><p class="run">{chip} {line}</p>'
    error = record.get("error") or {}
    if status == "nothing":
        top += f"<p><strong>There was nothing to do:</strong> {escape(error['message'])}</p>"
    elif error:
        where = (
            "" if error.get("cell") is None else f' in <a href="#failed">cell {int(error["cell"]) + 1}</a>'
        )
        top += (
            f'<div class="failure" role="alert"><strong>This run did not end well{where}.</strong> '
            f"What is below is all that was computed.<pre>{escape(error['message'])}</pre></div>"
        )
    return top + "</header>"


def _foot(record: Mapping[str, Any]) -> str:
    results = dict(record.get("results") or {})
    basis = results.pop("basis") if isinstance(results.get("basis"), dict) else record.get("basis") or {}
    sections = [
        ("Run", _run_facts(record)),
        ("Basis", basis),
        ("Parameters", _parameters(record)),
        ("Results", results),
        ("Versions", dict(record.get("versions") or {})),
    ]
    boxes = "".join(
        f"<section><h2>{name}</h2><dl>"
        + "".join(f"<dt>{escape(k)}</dt><dd>{escape(_fact(masked(v, k)))}</dd>" for k, v in facts.items())
        + "</dl></section>"
        for name, facts in sections
        if facts
    )
    if not boxes:
        return ""
    return f"{FOOT[0]}\n<footer><p>Where this comes from</p><div>{boxes}</div></footer>\n{FOOT[1]}"


def _run_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    if not record.get("run_id"):
        return {}
    facts = {
        "run": record["run_id"],
        "notebook": record["input"],
        "its sha256": str(record["input_sha256"])[:16] + "…",
        "revision": record.get("revision"),
        "as of": record["as_of"],
        "attempt": record.get("attempt"),
        "started": _moment(record["started"]),
        "finished": _moment(record["finished"]) if record.get("finished") else None,
    }
    return {k: v for k, v in facts.items() if v is not None}


def _parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(record.get("parameters") or {})
    run_id = record.get("run_id")
    if run_id and str(given.get("out", "")).endswith(run_id):
        given["out"] = f"{run_id}/"  # beside the report; the rest is this machine's business
    return given


def _fact(value: object) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value) if isinstance(value, str) else shown(value)


def _moment(text: str) -> str:
    return shown(datetime.fromisoformat(text).replace(microsecond=0))


def _day(text: str) -> str:
    return re.sub(r"T00:00(:00)?Z?$", "", text).replace("T", " ")
