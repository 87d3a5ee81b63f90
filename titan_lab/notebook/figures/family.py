"""What all figures share: colours, the template, how names and instants are written, how much is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from titan_lab.clock import instant
from titan_lab.errors import EventsError, MissingExtra
from titan_lab.notebook.html import shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Told apart in print, on a dark page and with red-green blindness: they differ in lightness, not only in hue.
COLOURS: Final = {
    "CREATED": "#8b98a9",
    "PAID": "#e0a015",
    "SHIPPED": "#3a8fd6",
    "DELIVERED": "#1f9d78",
    "CANCELLED": "#b8406a",
}
# An event has the colour of the state it leads to; what leads to none has its own.
EVENT_COLOURS: Final = {
    "OrderCreated": COLOURS["CREATED"],
    "PaymentAuthorized": COLOURS["PAID"],
    "OrderShipped": COLOURS["SHIPPED"],
    "OrderDelivered": COLOURS["DELIVERED"],
    "OrderCancelled": COLOURS["CANCELLED"],
    "OrderModified": "#7d6fc4",
    "OrderCorrected": "#4d5a6b",
    "ItemsReturned": "#a9744f",
    "RefundIssued": "#d98a5f",
}
OTHERS: Final = ("#5f86a6", "#b58a2f", "#6f9a5b", "#a4648f", "#4f9a9a", "#9a7b5c", "#7a7fb0", "#8a8f98")
UP, DOWN = "#3a8fd6", "#d0762f"  # blue and orange: told apart with every kind of colour blindness
INK: Final = "#6c7786"  # readable on white and on near-black alike, where a page does not set its own
FAINT: Final = "rgba(127,140,155,0.22)"
FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'

NAME, SENTENCE = 36, 160  # characters of a name beside a mark, and in a hover text
FEW = 12  # kinds of things in one figure: nobody tells more colours apart
# Plotly reads some HTML, and TeX between dollars where a page has MathJax; a name may hold either.
_AS_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def colour_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name its colour: the fixed one where there is one, else one by its place among the rest."""
    fixed = COLOURS | EVENT_COLOURS
    wanted = list(dict.fromkeys(names))
    rest = sorted(name for name in wanted if name not in fixed)
    return {n: fixed[n] if n in fixed else OTHERS[rest.index(n) % len(OTHERS)] for n in wanted}


def see_through(colour: str, share: float = 0.72) -> str:
    """Let what lies below a colour shine through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


@cache
def plotly() -> Any:
    """Import plotly and register the template; raise MissingExtra where it is not installed."""
    try:
        import plotly.graph_objects as graph_objects
        import plotly.io
    except ImportError as error:
        raise MissingExtra("plotly", "viz", "drawing a figure") from error
    axis = {
        "gridcolor": FAINT,
        "linecolor": FAINT,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": FAINT,
        "title": {"standoff": 10, "font": {"size": 12}},
        "automargin": True,
    }
    plotly.io.templates["titan"] = graph_objects.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12.5, "color": INK},
            "title": {"x": 0, "xref": "container", "xanchor": "left", "y": 0.97, "font": {"size": 16}},
            "colorway": [*COLOURS.values(), *OTHERS],
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 56, "r": 16, "t": 52, "b": 52},
            "height": 400,
            "bargap": 0.08,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
                "traceorder": "normal",
            },
            "hoverlabel": {"font": {"family": FONT}},
            "xaxis": {**axis, "showgrid": False},
            "yaxis": {**axis, "rangemode": "tozero", "ticks": ""},
        }
    )
    return graph_objects


def figure(title: str, x_title: str, y_title: str, note: str = "") -> go.Figure:
    """Begin a figure of the family. note: a smaller line below the title, such as what is not drawn."""
    made = plotly().Figure()
    made.update_layout(
        template="titan",
        title={"text": safe(title, SENTENCE)},
        xaxis={"title": {"text": safe(x_title)}},
        yaxis={"title": {"text": safe(y_title)}},
        uirevision=safe(title, SENTENCE),  # zoom and hidden traces survive a redraw of the same figure
    )
    if note:
        made.update_layout(title={"subtitle": {"text": safe(note, SENTENCE), "font": {"size": 12}}})
        made.update_layout(margin={"t": 74})
    return made


def empty(title: str, sentence: str) -> go.Figure:
    """Draw a sentence where there is nothing to draw."""
    made = figure(title, "", "")
    made.add_annotation(
        text=safe(sentence, SENTENCE), showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper"
    )
    made.update_layout(height=160, xaxis={"visible": False}, yaxis={"visible": False})
    return made


def bare(made: go.Figure) -> None:
    """Take the axes off a figure whose places mean nothing by themselves."""
    made.update_xaxes(visible=False, fixedrange=True)
    made.update_yaxes(visible=False, fixedrange=True)


def safe(text: object, most: int = NAME) -> str:
    """Write any text so that plotly shows it as it is, and cut it where it is longer than `most`."""
    told = str(text)
    return (told if len(told) <= most else told[: most - 1] + "…").translate(_AS_TEXT)


def percent(share: float | None) -> str:
    """Write a share as a percentage, as short as its size allows."""
    if share is None:
        return "–"
    if 0 < share < 0.0005:
        return "&lt;0.1%"
    return f"{share:.1%}" if 0 < share < 0.9995 else f"{share:.0%}"


def lasting(length: timedelta | None) -> str:
    """Write a length of time beside a mark: from ten seconds on without a fraction."""
    if length is None or abs(length) < timedelta(seconds=10):
        return shown(length)
    return shown(timedelta(seconds=round(length.total_seconds())))


def cells(moments: pl.Expr, first: datetime, width: timedelta) -> pl.Expr:
    """Number the stretch of time that each moment lies in, each so wide, from the first on."""
    return (moments - first).dt.total_microseconds() // (width // timedelta(microseconds=1))


def need(frame: pl.DataFrame, *columns: str, source: str = "book.every(...) or log.read(...)") -> None:
    """Raise EventsError where a frame lacks columns. source: where the right one comes from."""
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise EventsError(
            f"the frame has no column {', '.join(missing)}; it has {', '.join(frame.columns)}",
            hint=f"hand over what {source} returned",
            missing=missing,
        )


def by_custom(kinds: Iterable[str]) -> list[str]:
    """Sort event types in the order of a life, unknown ones after them by name."""
    order = {kind: place for place, kind in enumerate(EVENT_COLOURS)}
    return sorted(kinds, key=lambda kind: (order.get(kind, len(order)), kind))


def leading(counts: dict[str, int], most: int = FEW) -> set[str]:
    """Choose the names that count most, of equals the first by name; the others are for one mark together."""
    return set(sorted(counts, key=lambda name: (-counts[name], name))[:most])


def utc(instants: Sequence[datetime] | pl.Series) -> list[str]:
    """Give instants as plotly wants them: without a zone, and it then shows what it is given."""
    return [moment_text(moment) for moment in instants]


def moment_text(moment: datetime) -> str:
    """Write one instant for plotly."""
    # As text: plotly writes datetimes one way with orjson and another way without, and outputs are compared.
    return instant(moment).replace(tzinfo=None).isoformat()
