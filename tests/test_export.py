"""Reports: one file that draws its figures with the network closed, and runs nobody else's script."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import socketserver
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import pytest

from titan_lab.notebook.export import report, title_of
from titan_lab.notebook.glue import MEDIA_TYPE

v4 = nbformat.v4
CHROMIUM = next(
    (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
)
RECORD = {
    "run_id": "20250116T060002Z-1f9c3a",
    "job": "daily_orders",
    "status": "ok",
    "error": None,
    "as_of": "2025-01-15",
    "started": "2025-01-16T06:00:02.123456Z",
    "finished": "2025-01-16T06:00:09Z",
    "parameters": {"source": "sqlite:///a.db", "out": "/somewhere/runs/20250116T060002Z-1f9c3a", "top": 12},
    "input": "pipelines/daily_orders.ipynb",
    "input_sha256": "ab" * 32,
    "revision": "0123456789ab",
    "versions": {"python": "3.11.7", "polars": "2.1.0"},
    "results": {"open_orders": 71, "basis": {"source": "sqlite:///a.db", "frontier": "2025-02-10T21:14:41Z"}},
}


def figure(title: str = "Open orders") -> dict:
    drawn = go.Figure(go.Scatter(x=[1, 2, 3], y=[2, 1, 3]), layout={"title": {"text": title}})
    return v4.new_output("display_data", data={"application/vnd.plotly.v1+json": drawn.to_dict()})


def shows(**data: object) -> dict:
    return v4.new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})


def executed(*outputs: dict, source: str = "secret_recipe = 1", heading: str = "# Orders *this* morning"):
    cells = [v4.new_markdown_cell(f"{heading}\n\nSome words.")]
    return v4.new_notebook(cells=[*cells, *(v4.new_code_cell(source, outputs=[o]) for o in outputs)])


class Loads(HTMLParser):
    """Collect what a page would fetch by itself; a link that a reader may click is none of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self._script: dict | None = None
        self._style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        for name in ("src", "srcset", "data", "poster", "background", "action", "formaction", "ping"):
            if given.get(name) and not given[name].startswith("data:"):
                self.found.append((tag, given[name]))
        if given.get("href") and tag != "a":
            self.found.append((tag, given["href"]))
        if re.search(r"url\(\s*['\"]?(?!data:)|@import", given.get("style") or ""):
            self.found.append((tag, given["style"]))
        self._script = given if tag == "script" else None
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._script, self._style = None, False

    def handle_data(self, data: str) -> None:
        if self._script is not None and self._script.get("type") != "application/json":
            self.scripts.append(data)
        if self._style and re.search(r"url\(\s*['\"]?(?!data:)|@import", data):
            self.found.append(("style", data[:80]))


def test_the_page_loads_nothing_from_elsewhere():
    """Not a script, not a font, not a picture: every src and href of the file is in the file."""
    page = report(executed(figure(), shows(text_html="<table><tr><td>1</td></tr></table>")), RECORD)

    assert Loads(page).found == []
    assert "default-src 'none'" in page


def test_the_checker_of_loads_sees_loads():
    """A test of the test: each way to fetch something is noticed."""
    bad = (
        '<img src="http://x/a.png"><link href="//x/b.css"><script src="c.js"></script>'
        '<div style="background:url(http://x)"></div><style>@import "x.css"</style><a href="http://fine">y</a>'
    )

    assert [tag for tag, _ in Loads(bad).found] == ["img", "link", "script", "div", "style"]


def test_plotly_is_inside_once_and_only_when_a_figure_needs_it():
    """Three figures share one library; a report of tables stays small."""
    three, none = (
        report(executed(figure(), figure(), figure())),
        report(executed(shows(text_html="<b>1</b>"))),
    )

    assert three.count("Plotly, Inc.") == report(executed(figure())).count("Plotly, Inc.") > 0
    assert [f'id="figure-{n}"' in three for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert len(none) < 40_000
    assert "script-src 'none'" in none


def test_only_the_two_scripts_named_by_their_hash_may_run():
    """The policy's hashes are those of the scripts in the page, byte for byte."""
    page = report(executed(figure()), RECORD)
    allowed = re.findall(r"'sha256-([^']+)'", page)
    scripts = Loads(page).scripts

    assert allowed == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(scripts) == 2


def test_a_payload_cannot_end_the_script_that_holds_a_figure():
    """`</script>` in an event's text stays text, inside the data and in the figure's label."""
    page = report(executed(figure("</script><script>alert(1)</script>")))

    assert "alert(1)</script>" not in page
    assert len(Loads(page).scripts) == 2


def test_code_is_hidden_and_results_and_tables_are_shown():
    """A reader of the report is no reader of the notebook."""
    page = report(executed(shows(text_html="<table><td>4711</td></table>")))

    assert "secret_recipe" not in page
    assert "<td>4711</td>" in page
    assert "Some words." in page


def test_the_title_is_the_first_heading_and_the_day():
    """Without marks; a notebook without a heading takes the job's name."""
    assert "<title>Orders this morning · 2025-01-15</title>" in report(executed(), RECORD)
    assert "<title>daily_orders · 2025-01-15</title>" in report(executed(heading="words"), RECORD)
    assert title_of(executed(heading="words\n\n## `A` <b>b</b> &")) == "A b &"
    assert "<title>&lt;Report&gt;" not in report(executed(heading="# 5 < 6"))
    assert "<title>5 &lt; 6</title>" in report(executed(heading="# 5 < 6"))


def test_the_foot_says_where_it_comes_from():
    """Run, notebook and its hash, revision, parameters, versions, and what the data rested on."""
    page = report(executed(), RECORD)
    foot = page[page.index("<footer>") :]

    for fact in (
        "20250116T060002Z-1f9c3a", "pipelines/daily_orders.ipynb", "abababababababab…", "0123456789ab",
        "sqlite:///a.db", "2025-02-10T21:14:41Z", "polars", "2.1.0", "open_orders", "71",
        "2025-01-16 06:00:02Z",
    ):  # fmt: skip
        assert fact in foot
    assert "/somewhere/" not in foot


def test_results_are_at_the_foot_even_without_a_record():
    """What `glue` wrote into the notebook is enough; as an output of its own it is not shown."""
    glued = v4.new_output("display_data", data={MEDIA_TYPE: {"n": 71}, "text/plain": "recorded: n"})

    page = report(executed(glued))

    assert "<dt>n</dt><dd>71</dd>" in page
    assert "recorded: n" not in page


def test_a_run_that_did_not_end_well_says_so_at_the_top():
    """With its message, escaped, and a way to the place; papermill's own remarks are left out."""
    failed = executed(shows(text_html="<p>so far</p>"))
    for remark in ("An Exception", '<span id="papermill-error-cell">Execution using papermill'):
        failed.cells.append(v4.new_markdown_cell(remark, metadata={"tags": ["papermill-error-cell-tag"]}))
    error = {"kind": "ValueError", "message": "ValueError: <odd>", "cell": 7}

    page = report(failed, RECORD | {"status": "failed", "error": error})

    assert "ValueError: &lt;odd&gt;" in page
    assert '<a href="#failed">cell 8</a>' in page
    assert 'id="failed"' in page
    assert "papermill encountered" not in page
    assert "An Exception" not in page
    assert page.index("did not end well") < page.index("so far")


def test_a_widget_shows_what_it_says_without_a_kernel():
    """Its table or its text, not an empty hole."""
    widget = v4.new_output(
        "display_data",
        data={
            "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
            "text/plain": "order-1 at 10:00",
        },
    )

    page = report(executed(widget))

    assert "order-1 at 10:00" in page
    assert "widget-view" not in page


def test_the_same_run_gives_the_same_bytes():
    """Nothing random, no clock: a report can be compared."""
    notebook = executed(figure())

    assert report(notebook, RECORD) == report(notebook, RECORD)


def test_the_notebook_is_not_changed_by_its_report():
    """The executed notebook is the record; the report is a look at it."""
    notebook = executed(figure(), shows(text_html="<b>1</b>"))
    before = nbformat.writes(notebook)

    report(notebook, RECORD)

    assert nbformat.writes(notebook) == before


class Counting(BaseHTTPRequestHandler):
    """A server that only counts who comes."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.skipif(
    CHROMIUM is None, reason="NOT PROVEN HERE: no Chromium to draw it with (apt install chromium)"
)
def test_a_browser_draws_the_figures_and_asks_nobody_for_anything(tmp_path):
    """Drawn as SVG in a real browser; what a payload smuggled in is not fetched and not run."""

    class Handler(Counting):
        asked: list[str] = []

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        smuggled = shows(
            text_html=f"<img src='{here}/a.png'><script>document.title='taken'</script>"
            f"<img src='data:x' onerror=\"document.title='taken'\"><style>@import '{here}/b.css';</style>"
        )
        page = tmp_path / "report.html"
        page.write_text(report(executed(figure(), figure("Second"), smuggled), RECORD), "utf-8")
        drawn = _dump(page, tmp_path)
        server.shutdown()

    assert 'data-figures="2"' in drawn
    assert drawn.count('class="main-svg"') >= 2
    assert drawn.count("Second</text>") == 1
    assert "<title>taken" not in drawn
    assert Handler.asked == []


def _dump(page: Path, home: Path) -> str:
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run",
        f"--user-data-dir={home / 'profile'}",
        "--virtual-time-budget=15000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
