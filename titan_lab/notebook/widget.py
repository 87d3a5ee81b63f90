"""The scrubber: a slider over time that needs no kernel once it is drawn.

What it shows travels once, as JSON (see `deltas.py`); `scrubber.js` does the rest, in JupyterLab as a widget
and in a report as a script of the page. Where neither is, there is a table, and where that is not, a line.
"""

from __future__ import annotations

import json
from functools import cache, cached_property
from importlib import resources
from typing import Any, Final

from titan_lab.errors import MissingExtra
from titan_lab.notebook.html import Html

MEDIA_TYPE: Final = "application/vnd.titan-lab.scrubber+json"


class Scrubber:
    """A life, or a whole book, to drag through time. Made by ``story.scrub()`` and ``book.scrub()``.

    data: what travels to the browser. table: what is shown where no script runs.
    """

    def __init__(self, data: dict[str, Any], table: Html, said: str) -> None:
        self.data = data
        self.table = table
        self.said = said
        _model()

    @cached_property
    def widget(self) -> Any:
        """Give the Jupyter widget itself, for layouts of ipywidgets; all views of it share one place."""
        return _model()(data=json.dumps(self.data, ensure_ascii=False, separators=(",", ":")))

    @property
    def place(self) -> int:
        """Tell where the slider was left: after how many events, or at which instant, counted from 1."""
        return int(self.widget.place)

    def __repr__(self) -> str:
        return f"<Scrubber of {self.said}>"

    def _repr_html_(self) -> str:
        return str(self.table)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shown: Any = self.widget._repr_mimebundle_()
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        kept = {"text/plain": repr(self), "text/html": self._repr_html_(), MEDIA_TYPE: self.data}
        return {**data, **kept}, metadata


@cache
def script() -> str:
    """Give the text of the script: an ES module whose default export renders a widget's model."""
    return _asset("scrubber.js")


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
        raise MissingExtra(error.name or "anywidget", "lab", "a scrubber") from error

    class Model(anywidget.AnyWidget):
        # As text: a path would be watched for changes, and would keep every widget alive.
        _esm = script()
        _css = style()
        data = traitlets.Unicode().tag(sync=True)
        place = traitlets.Int(0).tag(sync=True)

        def __repr__(self) -> str:
            return "<Scrubber widget>"

    return Model
