"""One aggregate's life, as a timeline."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from titan_lab.notebook.figures.family import (
    SENTENCE,
    cells,
    colour_of,
    figure,
    moment_text,
    safe,
    see_through,
    utc,
)
from titan_lab.notebook.html import shown

if TYPE_CHECKING:
    import plotly.graph_objects as go

MARKS = 300  # events that are drawn one by one
TINTS = ("#3a8fd6", "#1f9d78", "#d98a5f", "#7d6fc4")


def story(tale: Any, *, title: str | None = None) -> go.Figure:
    """Draw one order's life: its states as a band, its events as marks on it, its amounts as steps below.

    tale: a Story, `book["order-id"]`. Amounts are those of its state columns that are decimals. Events are
    placed at the instant from which they count, which is later than their timestamp where a predecessor is
    stamped later. Of more than 300 events, those of one type that lie close together share a mark, and
    amounts are drawn as they were at as many instants.
    """
    log, history = tale.log(), tale.history()
    amounts = [name for name, dtype in history.schema.items() if dtype.is_decimal()]
    first, last = history["valid_from"][0], max(history["valid_from"][-1], *log["timestamp"])
    pad = max((last - first) * 0.06, timedelta(minutes=1))
    many = len(log) > MARKS
    note = f"{len(log):,} events; marks that lie close together are drawn as one" if many else ""
    made = figure(title or f"{tale.aggregate.__name__} {tale.aggregate_id}", "instant (UTC)", "", note)
    states = next((name for name, dtype in history.schema.items() if isinstance(dtype, pl.Enum)), None)
    if states is not None:
        _band(made, history.rename({states: "status"}), last + pad)
    cell = max((last - first) / MARKS, timedelta(microseconds=1))
    marks = _together(log, first, cell) if many else _one_by_one(log)
    made.add_scatter(
        x=utc(marks["counted_from"]),
        y=[1] * marks.height,
        yaxis="y2",
        mode="markers",
        name="events",
        showlegend=False,
        marker={
            "size": 11,
            "color": [colour_of([k])[k] for k in marks["event_type"]],
            "line": {"width": 1.5, "color": "#ffffff"},
        },
        customdata=[
            [v if isinstance(v, int) else safe(v), safe(k, SENTENCE), safe(c, SENTENCE), t]
            for v, k, c, t in marks.select("version", "event_type", "changed", "recorded").iter_rows()
        ],
        hovertemplate="%{customdata[0]}. <b>%{customdata[1]}</b><br>changed %{customdata[2]}"
        "<br>recorded %{customdata[3]}<extra></extra>",
    )
    if many:
        history = history.group_by(
            cells(pl.col("valid_from"), first, cell).alias("cell"), maintain_order=True
        ).last()
    # Lines of one amount each, drawn on to the right edge: a state holds until the next event.
    for place, (name, tint) in enumerate(zip(amounts, TINTS, strict=False)):
        values = history[name].cast(pl.Float64).to_list()
        made.add_scatter(
            x=[*utc(history["valid_from"]), moment_text(last + pad)],
            y=[*values, values[-1]],
            name=safe(name),
            mode="lines",
            line={
                "shape": "hv",
                "width": 5 if place == 0 else 2,
                "color": tint,
            },  # equal amounts stay visible
            hovertemplate="%{y:,.2f}",
        )
    made.update_layout(
        height=400,
        yaxis={"domain": [0, 0.66], "title": {"text": "amount"}, "rangemode": "tozero"},
        yaxis2={"domain": [0.76, 1], "range": [0, 2], "visible": False, "fixedrange": True},
        xaxis={"anchor": "y", "range": [moment_text(first - pad / 2), moment_text(last + pad)]},
    )
    return made


def _one_by_one(log: pl.DataFrame) -> pl.DataFrame:
    return log.with_columns(
        changed=pl.when(pl.col("changed").list.len() > 0)
        .then(pl.col("changed").list.join(", "))
        .otherwise(pl.lit("nothing")),
        recorded=pl.col("timestamp").map_elements(shown, return_dtype=pl.String),
    )


def _together(log: pl.DataFrame, start: datetime, cell: timedelta) -> pl.DataFrame:
    """Give one mark to the events of one type that lie within a cell."""
    first, last = pl.col("version").min(), pl.col("version").max()
    return (
        log.group_by(
            cells(pl.col("counted_from"), start, cell).alias("cell"),
            "event_type",
            maintain_order=True,
        )
        .agg(
            counted_from=pl.col("counted_from").first(),
            count=pl.len(),
            first=first,
            last=last,
            fields=pl.col("changed").explode().drop_nulls().unique().sort().str.join(", "),
            recorded=pl.col("timestamp").first(),
        )
        .select(
            "counted_from",
            "event_type",
            version=pl.when(pl.col("count") == 1)
            .then(pl.col("first").cast(pl.String))
            .otherwise(pl.format("{} to {} ({} events)", "first", "last", "count")),
            changed=pl.when(pl.col("fields") == "").then(pl.lit("nothing")).otherwise("fields"),
            recorded=pl.col("recorded").map_elements(shown, return_dtype=pl.String),
        )
    )


def _band(made: go.Figure, history: pl.DataFrame, edge: datetime) -> None:
    """Draw the state column as stretches, with their names where there is room."""
    colours = colour_of(s for s in history["status"].to_list() if s)
    ends = [*history["valid_from"].to_list()[1:], None]
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
        made.add_shape(
            type="rect", x0=moment_text(start), x1=moment_text(end), y0=0.55, y1=1.45, yref="y2",
            layer="below", fillcolor=see_through(colours[status]), line={"width": 0},
        )  # fmt: skip
        if (end - start) / full > 0.09:
            made.add_annotation(
                x=moment_text(start + (end - start) / 2), y=1.62, yref="y2", text=safe(status),
                showarrow=False, yanchor="bottom", font={"size": 11, "color": colours[status]},
            )  # fmt: skip
