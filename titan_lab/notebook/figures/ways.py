"""The ways that lives take, as rows of steps; and how many come to each step of a funnel."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import polars as pl

from titan_lab.notebook.figures.family import (
    OTHERS,
    SENTENCE,
    by_custom,
    colour_of,
    empty,
    figure,
    lasting,
    leading,
    need,
    percent,
    safe,
)
from titan_lab.notebook.masked import masked

if TYPE_CHECKING:
    import plotly.graph_objects as go

WAYS, LONG = 12, 14  # rows, and steps in one of them
GROUPS = 6
ROW = 30  # pixels
REST = "other types"


def variants(
    found: pl.DataFrame, *, top: int = WAYS, title: str = "Ways, by how many take them"
) -> go.Figure:
    """Draw the most frequent ways that lives take: a row of coloured steps for each, with its share.

    found: `book.variants()` or `log.variants()`. top: how many rows; the last one counts all others.
    Repetitions of one type, one right after the other, are one step marked with their number; of a way longer
    than 14 steps the rest is counted.
    """
    need(found, "variant", "count", "share", "median_duration", "example", source="book.variants()")
    if found.is_empty():
        return empty(title, "No lives, so there is no way they took.")
    rows = found.head(top).rows(named=True)
    runs = [[(kind, len([*some])) for kind, some in groupby(row["variant"])] for row in rows]
    sizes = {kind: 0 for way in runs for kind, _ in way}
    for way, row in zip(runs, rows, strict=True):
        for kind, _ in way[:LONG]:
            sizes[kind] += row["count"]
    kept = leading(sizes)
    names = by_custom(kept) + ([REST] if len(kept) < len(sizes) else [])
    colours = colour_of(kept) | {REST: OTHERS[-1]}
    made = figure(title, "", "", f"ways: {len(found):,}, lives: {found['count'].sum():,}")
    for name in names:
        steps = [
            (row, place, kind, times)
            for row, way in enumerate(runs)
            for place, (kind, times) in enumerate(way[:LONG])
            if (kind if kind in kept else REST) == name
        ]
        made.add_bar(
            orientation="h",
            name=safe(name),
            base=[place for _, place, _, _ in steps],
            x=[0.96] * len(steps),
            y=[row for row, _, _, _ in steps],
            width=0.62,
            marker={"color": colours[name], "line": {"width": 0}},
            text=[f"×{times:,}" if times > 1 else "" for _, _, _, times in steps],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": "#ffffff", "size": 11},
            customdata=[
                [place + 1, len(runs[row]), safe(kind, SENTENCE), *_of(rows[row])]
                for row, place, kind, _ in steps
            ],
            hovertemplate="step %{customdata[0]} of %{customdata[1]}: <b>%{customdata[2]}</b><br>"
            "%{customdata[3]} lives, %{customdata[4]}<br>median %{customdata[5]} from first to last<br>"
            "such as %{customdata[6]}<extra></extra>",
        )
    labels = [f"{percent(row['share'])}  {row['count']:,}" for row in rows]
    for place, way in enumerate(runs):
        if len(way) > LONG:
            made.add_annotation(
                x=LONG, y=place, text=f"+{len(way) - LONG:,} steps", showarrow=False, xanchor="left"
            )
    others = found.slice(top)
    if len(others):
        labels.append(f"{percent(float(others['share'].sum()))}  {others['count'].sum():,}")
        made.add_annotation(
            x=0, y=len(rows), text=f"{len(others):,} other ways", showarrow=False, xanchor="left"
        )
    wide = max(min(len(way), LONG) + (2 if len(way) > LONG else 0) for way in runs)
    made.update_layout(
        barmode="overlay",
        height=150 + ROW * len(labels),
        yaxis={"tickvals": [*range(len(labels))], "ticktext": labels, "range": [len(labels) - 0.4, -0.6],
               "showgrid": False, "fixedrange": True},
        xaxis={"visible": False, "range": [-0.1, max(wide, 5) + 0.1], "fixedrange": True},
    )  # fmt: skip
    return made


def funnel(counted: pl.DataFrame, *, title: str = "How far they come") -> go.Figure:
    """Draw how many come to each step of a funnel, a bar for each step, and in groups one for each group.

    counted: `.steps` of a Funnel. A bar's text is the count, its share of the first step, and the median wait
    since the step before. Of more than 6 groups the largest are drawn.
    """
    need(counted, "step", "name", "count", "share_of_first", "median_wait", source="the .steps of a Funnel")
    by = counted.columns[0] if counted.columns[0] != "step" else None
    if counted.is_empty() or not counted["count"].sum():
        return empty(title, "Nobody took the first step.")
    names = counted.unique("step", keep="first").sort("step")["name"].to_list()
    note, groups = "", [("", counted)]
    if by is not None:
        named = counted.with_columns(pl.col(by).cast(pl.String).fill_null("no value"))
        sizes = dict(named.filter(pl.col("step") == 1).select(by, "count").iter_rows())
        kept = leading(sizes, GROUPS)
        groups = [(name, named.filter(pl.col(by) == name)) for name in sizes if name in kept]
        note = f"by {by}" + (
            f": the {GROUPS} largest of {len(sizes):,} groups" if len(sizes) > GROUPS else ""
        )
    colours = colour_of(name for name, _ in groups) if by else {"": "#3a8fd6"}
    made = figure(title, "count", "", note)
    for name, part in groups:
        rows = part.rows(named=True)
        made.add_bar(
            orientation="h",
            name=safe(masked(name, by or "")),
            showlegend=by is not None,
            x=[row["count"] for row in rows],
            y=[row["step"] for row in rows],
            marker={"color": colours[name], "line": {"width": 0}},
            text=[_reached(row) for row in rows],
            textposition="outside",
            cliponaxis=False,
            customdata=[[safe(row["name"], SENTENCE), *_shares(row)] for row in rows],
            hovertemplate="<b>%{customdata[0]}</b>: %{x:,}<br>%{customdata[1]} of the first step<br>"
            "%{customdata[2]} of the step before<br>median wait %{customdata[3]}<extra></extra>",
        )
    most = max(counted["count"])
    made.update_layout(
        height=110 + (46 if by is None else 26 * len(groups) + 14) * len(names) + (34 if by else 0),
        bargap=0.28,
        yaxis={"tickvals": [*range(1, len(names) + 1)], "ticktext": [safe(name) for name in names],
               "range": [len(names) + 0.5, 0.5], "showgrid": False},
        xaxis={"range": [0, most * 1.4], "showgrid": True},
    )  # fmt: skip
    return made


def _of(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return f"{row['count']:,}", percent(row["share"]), lasting(row["median_duration"]), safe(row["example"])


def _shares(row: dict[str, Any]) -> tuple[str, str, str]:
    return percent(row["share_of_first"]), percent(row["share_of_previous"]), lasting(row["median_wait"])


def _reached(row: dict[str, Any]) -> str:
    told = f"{row['count']:,} · {percent(row['share_of_first'])}"
    return told if row["median_wait"] is None else f"{told} · {lasting(row['median_wait'])}"
