"""Figures, all of one family: one template, one colour per status everywhere, times in UTC and said so.

Each function takes frames or objects as the package returns them and gives a `plotly.graph_objects.Figure`,
which is for the caller to show, change or save; nothing here shows anything. Plotly is imported on the first
call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from titan_lab.clock import Instant, instant
from titan_lab.errors import EventsError, MissingExtra

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
_OTHERS: Final = ("#5f86a6", "#b58a2f", "#6f9a5b", "#a4648f", "#4f9a9a", "#9a7b5c", "#7a7fb0", "#8a8f98")
_INK: Final = "#6c7786"  # readable on white and on near-black alike, where a page does not set its own
_GRID: Final = "rgba(127,140,155,0.22)"
_FONT: Final = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'


def colour_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name its colour: the fixed one where there is one, else one by its place among the rest."""
    fixed = COLOURS | EVENT_COLOURS
    wanted = list(dict.fromkeys(names))
    rest = sorted(name for name in wanted if name not in fixed)
    return {n: fixed[n] if n in fixed else _OTHERS[rest.index(n) % len(_OTHERS)] for n in wanted}


def states_over_time(
    grid: pl.DataFrame,
    *,
    measure: str = "count",
    only: Sequence[str] | None = None,
    title: str = "Orders by status",
) -> go.Figure:
    """Draw how many aggregates were in each state, stacked, over a grid from `book.every`.

    grid: instant, one column of states, count, and the measure if it is another. The value at an instant
    holds until the next one, so the lines are steps. measure: the column to draw; amounts lose their
    exactness here, being drawn.
    only: the states to draw, bottom first; without it all, in the order of the column's categories.
    """
    _need(grid, "instant", measure)
    by = next((c for c in grid.columns if c not in ("instant", "count", measure)), None)
    groups = [("", grid)] if by is None else _grouped(grid, by, only)
    colours = colour_of(name for name, _ in groups)
    figure = _figure(title, "instant (UTC)", "orders" if measure == "count" else measure)
    for name, part in groups:
        figure.add_scatter(
            x=_utc(part["instant"]),
            y=part[measure]
            .cast(pl.Float64 if part[measure].dtype.is_decimal() else part[measure].dtype)
            .to_numpy(),
            name=name or measure,
            stackgroup="states",
            mode="lines",
            line={"shape": "hv", "width": 0.6, "color": colours[name]},
            fillcolor=_see_through(colours[name]),
            hovertemplate="%{y:,}",
        )
    figure.update_layout(hovermode="x unified")
    return figure


def events_by_hour(
    events: pl.DataFrame, *, since: Instant, until: Instant, title: str = "Events by hour"
) -> go.Figure:
    """Draw how many events of each type were written in each hour from `since` to `until`, in UTC.

    events: any frame with event_type and timestamp; rows outside the window are left out. A bar covers its
    hour. Hours without events keep their place.
    """
    _need(events, "event_type", "timestamp")
    start, end = instant(since), instant(until)
    hours = pl.datetime_range(
        _hour(start),
        _hour(end - timedelta(microseconds=1)),
        "1h",
        time_zone="UTC",
        time_unit="us",
        eager=True,
    ).alias("hour")
    counted = (
        events.filter(pl.col("timestamp").is_between(start, end))
        .group_by(pl.col("timestamp").dt.truncate("1h").alias("hour"), "event_type")
        .len("count")
    )
    kinds = _by_custom(counted["event_type"].unique().to_list())
    colours = colour_of(kinds)
    figure = _figure(title, "hour (UTC)", "events")
    for kind in kinds:
        part = hours.to_frame().join(counted.filter(pl.col("event_type") == kind), on="hour", how="left")
        figure.add_bar(
            x=_utc(part["hour"]),
            y=part["count"].fill_null(0).to_numpy(),
            name=kind,
            marker={"color": colours[kind], "line": {"width": 0}},
            offset=0,
            width=3_600_000 * 0.92,  # milliseconds
            hovertemplate="%{y:,}",
        )
    figure.update_layout(barmode="stack", hovermode="x unified")
    figure.update_xaxes(
        range=[_plain(hours[0]), _plain(hours[-1] + timedelta(hours=1))], hoverformat="%d %b %H:00"
    )
    return figure


def story(tale: Any, *, title: str | None = None) -> go.Figure:
    """Draw one order's life: its status as a band, its events as marks on it, its amounts as steps below.

    tale: a Story, `book["order-id"]`. Amounts are those of its state columns that are decimals. Events are
    placed at the instant from which they count, which is later than their timestamp where a predecessor is
    stamped later.
    """
    from titan_lab.notebook.html import shown

    log, history = tale.log(), tale.history()
    amounts = [name for name, dtype in history.schema.items() if dtype.is_decimal()]
    figure = _figure(title or f"{tale.aggregate.__name__} {tale.aggregate_id}", "instant (UTC)", "")
    ends = [*history["valid_from"].to_list()[1:], None]
    first, last = history["valid_from"][0], max(history["valid_from"][-1], *log["timestamp"])
    pad = max((last - first) * 0.06, timedelta(minutes=1))
    if "status" in history.columns:
        _band(figure, history, ends, last + pad)
    figure.add_scatter(
        x=_utc(log["counted_from"]),
        y=[1] * log.height,
        yaxis="y2",
        mode="markers",
        name="events",
        showlegend=False,
        marker={
            "size": 11,
            "color": [colour_of([k])[k] for k in log["event_type"]],
            "line": {"width": 1.5, "color": "#ffffff"},
        },
        customdata=[
            [v, k, ", ".join(c or ["nothing"]), shown(t)]
            for v, k, c, t in log.select("version", "event_type", "changed", "timestamp").iter_rows()
        ],
        hovertemplate="%{customdata[0]}. <b>%{customdata[1]}</b><br>changed %{customdata[2]}"
        "<br>recorded %{customdata[3]}<extra></extra>",
    )
    # Lines of one amount each, drawn on to the right edge: a state holds until the next event.
    for place, (name, tint) in enumerate(
        zip(amounts, ("#3a8fd6", "#1f9d78", "#d98a5f", "#7d6fc4"), strict=False)
    ):
        values = history[name].cast(pl.Float64).to_list()
        figure.add_scatter(
            x=[*_utc(history["valid_from"]), _plain(last + pad)],
            y=[*values, values[-1]],
            name=name,
            mode="lines",
            line={
                "shape": "hv",
                "width": 5 if place == 0 else 2,
                "color": tint,
            },  # equal amounts stay visible
            hovertemplate="%{y:,.2f}",
        )
    figure.update_layout(
        height=400,
        yaxis={"domain": [0, 0.66], "title": {"text": "amount"}, "rangemode": "tozero"},
        yaxis2={"domain": [0.76, 1], "range": [0, 2], "visible": False, "fixedrange": True},
        xaxis={"anchor": "y", "range": [_plain(first - pad / 2), _plain(last + pad)]},
    )
    return figure


def _band(figure: go.Figure, history: pl.DataFrame, ends: list[Any], edge: datetime) -> None:
    colours = colour_of(s for s in history["status"].to_list() if s)
    spans: list[list[Any]] = []
    for status, start, end in zip(
        history["status"].to_list(), history["valid_from"].to_list(), ends, strict=True
    ):
        if spans and spans[-1][0] == status:
            spans[-1][2] = end
        elif status is not None:
            spans.append([status, start, end])
    full = edge - history["valid_from"][0]
    for status, start, end in spans:
        end = end or edge
        figure.add_shape(
            type="rect", x0=_plain(start), x1=_plain(end), y0=0.55, y1=1.45, yref="y2", layer="below",
            fillcolor=_see_through(colours[status]), line={"width": 0},
        )  # fmt: skip
        if (end - start) / full > 0.09:
            figure.add_annotation(
                x=_plain(start + (end - start) / 2), y=1.62, yref="y2", text=status, showarrow=False,
                yanchor="bottom", font={"size": 11, "color": colours[status]},
            )  # fmt: skip


# --- THE FAMILY --------------------------------------------------------------------------------------------


@cache
def _plotly() -> Any:
    try:
        import plotly.graph_objects as graph_objects
        import plotly.io
    except ImportError as error:
        raise MissingExtra("plotly", "viz", "drawing a figure") from error
    axis = {
        "gridcolor": _GRID,
        "linecolor": _GRID,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": _GRID,
        "title": {"standoff": 10, "font": {"size": 12}},
        "automargin": True,
    }
    plotly.io.templates["titan"] = graph_objects.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 12.5, "color": _INK},
            "title": {"x": 0, "xref": "container", "xanchor": "left", "y": 0.97, "font": {"size": 16}},
            "colorway": [*COLOURS.values(), *_OTHERS],
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
            "hoverlabel": {"font": {"family": _FONT}},
            "xaxis": {**axis, "showgrid": False},
            "yaxis": {**axis, "rangemode": "tozero", "ticks": ""},
        }
    )
    return graph_objects


def _figure(title: str, x_title: str, y_title: str) -> go.Figure:
    figure = _plotly().Figure()
    figure.update_layout(
        template="titan",
        title={"text": title},
        xaxis={"title": {"text": x_title}},
        yaxis={"title": {"text": y_title}},
        uirevision=title,  # zoom and hidden traces survive a redraw of the same figure
    )
    return figure


def _need(frame: pl.DataFrame, *columns: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise EventsError(
            f"the frame has no column {', '.join(missing)}; it has {', '.join(frame.columns)}",
            hint="hand over what book.every(...) or log.read(...) returned",
            missing=missing,
        )


def _grouped(grid: pl.DataFrame, by: str, only: Sequence[str] | None) -> list[tuple[str, pl.DataFrame]]:
    present = [str(v) for v in grid[by].unique(maintain_order=True).drop_nulls().to_list()]
    return [(n, grid.filter(pl.col(by).cast(pl.String) == n)) for n in (only or present) if n in present]


def _by_custom(kinds: Iterable[str]) -> list[str]:
    """Sort event types in the order of a life, unknown ones after them by name."""
    order = {kind: place for place, kind in enumerate(EVENT_COLOURS)}
    return sorted(kinds, key=lambda kind: (order.get(kind, len(order)), kind))


def _utc(instants: pl.Series) -> list[str]:
    """Give instants as plotly wants them: without a zone, and it then shows what it is given."""
    return [_plain(moment) for moment in instants]


def _plain(moment: datetime) -> str:
    # As text: plotly writes datetimes one way with orjson and another way without, and outputs are compared.
    return instant(moment).replace(tzinfo=None).isoformat()


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _see_through(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.72)"
