"""Dwell: how long stays in each state last, as distributions."""

from __future__ import annotations

from datetime import timedelta
from math import log10
from typing import TYPE_CHECKING

import polars as pl

from titan_lab.notebook.figures.family import (
    INK,
    SENTENCE,
    colour_of,
    empty,
    figure,
    lasting,
    leading,
    need,
    safe,
    see_through,
)
from titan_lab.notebook.masked import masked

if TYPE_CHECKING:
    import plotly.graph_objects as go

ROW = 74  # pixels
NONE = "no value yet"
# Lengths at which the axis is marked, in seconds.
MARKS = {
    "1 s": 1, "10 s": 10, "1 min": 60, "10 min": 600, "1 h": 3600, "6 h": 21_600, "1 d": 86_400,
    "1 w": 604_800, "30 d": 2_592_000, "180 d": 15_552_000, "1 y": 31_536_000, "5 y": 157_680_000,
}  # fmt: skip


def dwell(
    found: pl.DataFrame, lengths: pl.DataFrame, *, column: str = "status", title: str = "How long they stay"
) -> go.Figure:
    """Draw for each state how long stays in it last, on an axis that grows by powers of ten.

    found: `book.dwell(...)`, for the medians. lengths: how many stays are how long, as `book.plot.dwell()`
    counts them: state, from and to Duration(us) (inclusive and exclusive; of the last, null), finished and
    open Int64. Stays that are not over lie on top, faint: they are at least that long. Each row is scaled by
    itself. Of more than 12 states those with most stays are drawn. column: whose states they are.
    """
    need(found, "state", "entered", "finished", "open", "median", source="book.dwell(...)")
    need(lengths, "state", "from", "to", "finished", "open", source="mining.dwell.spread(...)")
    if found.is_empty() or lengths.is_empty():
        return empty(title, "No stays: nothing was in any state.")
    named = found.with_columns(pl.col("state").cast(pl.String).fill_null(NONE))
    counts = lengths.with_columns(pl.col("state").cast(pl.String).fill_null(NONE))
    kept = leading(dict(named.select("state", "entered").iter_rows()))
    rows = named.filter(pl.col("state").is_in(list(kept))).rows(named=True)
    note = "faint: not over yet, so at least that long"
    if len(rows) < len(named):
        note += f"; the {len(rows)} largest of {len(named)} states"
    made = figure(title, "how long", "", note)
    colours = colour_of(row["state"] for row in rows)
    edges = _edges(counts)
    left, right = min(edges.values()), max(edges.values()) + 0.25
    for place, row in enumerate(rows):
        part = counts.filter(pl.col("state") == row["state"]).rows(named=True)
        most = max(one["finished"] + one["open"] for one in part)
        bottom = len(rows) - 1 - place
        starts = [edges[one["from"]] for one in part]
        ends = [edges[one["from"]] + _width(one["from"], one["to"]) for one in part]
        base = [float(bottom)] * len(part)
        for name, fill in (("finished", 0.9), ("open", 0.35)):
            heights = [0.82 * one[name] / most for one in part]
            made.add_bar(
                x=starts,
                y=heights,
                base=base,
                offset=0,
                width=[(end - start) * 0.96 for start, end in zip(starts, ends, strict=True)],
                name=f"{safe(masked(row['state'], column))}, {name}",
                showlegend=False,
                marker={"color": see_through(colours[row["state"]], fill), "line": {"width": 0}},
                customdata=[
                    [
                        safe(masked(row["state"], column), SENTENCE),
                        _span(one["from"], one["to"]),
                        f"{one['finished']:,}",
                        f"{one['open']:,}",
                    ]
                    for one in part
                ],
                hovertemplate="<b>%{customdata[0]}</b> %{customdata[1]}<br>%{customdata[2]} stays, and "
                "%{customdata[3]} not over<extra></extra>",
            )
            base = [low + high for low, high in zip(base, heights, strict=True)]
        made.add_shape(
            type="line", x0=0, x1=1, xref="paper", y0=bottom, y1=bottom, line={"color": INK, "width": 0.5}
        )
        _median(made, row, bottom, right - 0.2 * (right - left))
    shown_marks = {
        label: log10(seconds) for label, seconds in MARKS.items() if left - 0.1 <= log10(seconds) <= right
    }
    thin = [
        label
        for label in shown_marks
        if len(shown_marks) <= 9 or label not in ("10 s", "10 min", "6 h", "180 d")
    ]
    made.update_layout(
        height=140 + ROW * len(rows),
        barmode="overlay",
        xaxis={"range": [left, right], "showgrid": True,
               "tickvals": [shown_marks[label] for label in thin], "ticktext": thin},
        yaxis={"range": [-0.05, len(rows) + 0.1], "showgrid": False, "fixedrange": True,
               "tickvals": [len(rows) - 1 - place + 0.35 for place in range(len(rows))],
               "ticktext": [f"{safe(masked(r['state'], column), 22)}<br>{r['entered']:,}" for r in rows]},
    )  # fmt: skip
    return made


def _median(made: go.Figure, row: dict, bottom: int, edge: float) -> None:
    """Mark the median of those that are over and those that are not (Kaplan and Meier)."""
    if row["median"] is None:
        made.add_annotation(
            x=0.005, xref="paper", y=bottom + 0.92, text=f"{row['open']:,} not over: no median yet",
            showarrow=False, xanchor="left", font={"size": 11},
        )  # fmt: skip
        return
    where = _place(row["median"])
    made.add_shape(
        type="line",
        x0=where,
        x1=where,
        y0=bottom,
        y1=bottom + 0.88,
        line={"color": INK, "width": 1.5, "dash": "dot"},
    )
    made.add_annotation(
        x=where, y=bottom + 0.9, text=f"median {lasting(row['median'])}", showarrow=False,
        xanchor="right" if where > edge else "left", xshift=-4 if where > edge else 4, font={"size": 11},
    )  # fmt: skip


def _edges(counts: pl.DataFrame) -> dict[timedelta, float]:
    return {start: _place(start) for start in counts["from"].unique().sort()}


def _place(length: timedelta) -> float:
    # What is shorter than a second has the first cell of the axis for itself.
    return log10(max(length.total_seconds(), 0.631))


def _width(start: timedelta, end: timedelta | None) -> float:
    return 0.2 if end is None else _place(end) - _place(start)


def _span(start: timedelta, end: timedelta | None) -> str:
    if end is None:
        return f"{lasting(start)} or longer"
    return f"{lasting(start)} to {lasting(end)}" if start else f"less than {lasting(end)}"
