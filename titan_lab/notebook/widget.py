"""The scrubber: a slider over time that needs no kernel.

What it shows travels once, as JSON (see `deltas.py`), and `scrubber.js` does the rest. A cell that ends with
a Scrubber shows HTML that brings both along: it is alive in JupyterLab, also when a notebook is opened again
without a kernel, in what nbconvert exports and in our reports; where no script may run, a table is left.
A widget whose kernel is gone is drawn by JupyterLab as an error, whatever else the output holds; so the
widget is for those who ask for it: `scrubber.widget`.
"""

from __future__ import annotations

import json
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final

from titan_lab.errors import MissingExtra
from titan_lab.notebook.html import Html, json_in_html, line

PLACE: Final = '<div class="titan-scrubber">'  # how the HTML of a scrubber begins


class Scrubber:
    """A life, or a whole book, to drag through time. Made by ``story.scrub()`` and ``book.scrub()``.

    data: what travels to the browser. table: what is shown where no script runs.
    """

    def __init__(self, data: dict[str, Any], table: Html, said: str) -> None:
        self.data = data
        self.table = table
        self.said = said

    @cached_property
    def widget(self) -> Any:
        """Give it as a Jupyter widget (anywidget), for layouts of ipywidgets and to hear where it is left.

        Its trait `place` is the position at which the slider was let go: after how many events, or at which
        instant, counted from 1; 0 before that. Raises MissingExtra without anywidget.
        """
        return _model()(data=json.dumps(self.data, ensure_ascii=False, separators=(",", ":")))

    def __repr__(self) -> str:
        return f"<Scrubber of {line(self.said, 'id')}>"

    def _repr_html_(self) -> str:
        return str(self.table)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        data = f'<script type="application/json">{json_in_html(self.data)}</script>'
        live = f"{PLACE}{data}{self.table}</div><style>\n{style()}\n</style><script>{inline()}</script>"
        return {"text/plain": repr(self), "text/html": live}


@cache
def module() -> str:
    """Give the script as an ES module, whose default export renders a widget's model."""
    return f"{_asset('scrubber.js')}\nexport default {{ render }};"


@cache
def inline() -> str:
    """Give the script as one to stand in a page, behind the places that it draws."""
    return f"(() => {{\n{_asset('scrubber.js')}\ndrawAll();\n}})();"


@cache
def style() -> str:
    """Give the text of the style sheet."""
    return _asset("scrubber.css")


def _asset(name: str) -> str:
    return resources.files("titan_lab.notebook").joinpath(name).read_text("utf-8").strip()


@cache
def _model() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise MissingExtra(error.name or "anywidget", "lab", "a scrubber as a widget") from error

    class Model(anywidget.AnyWidget):
        # As text: a path would be watched for changes, and would keep every widget alive.
        _esm = module()
        _css = style()
        data = traitlets.Unicode().tag(sync=True)
        place = traitlets.Int(0).tag(sync=True)

        def __repr__(self) -> str:
            return "<Scrubber widget>"

    return Model
