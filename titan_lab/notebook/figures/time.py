"""Counts over time: states on a grid, and events hour by hour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from titan_lab.clock import Instant, instant
from titan_lab.notebook.figures.family import (
    FEW,
    OTHERS,
    by_custom,
    colour_of,
    empty,
    figure,
    leading,
    moment_text,
    need,
    safe,
    see_through,
    utc,
)
from titan_lab.notebook.masked import masked

if TYPE_CHECKING:
    import plotly.graph_objects as go

INSTANTS = 800  # more than a screen has columns for
REST = "all others"


def states_over_time(
    grid: pl.DataFrame,
    *,
    measure: str = "count",
    only: Sequence[str] | None = None,
    title: str = "Orders by status",
    unit: str = "orders",
) -> go.Figure:
    """Draw how many aggregates were in each state, stacked, over a grid from `book.every`.

    grid: instant, one column of states, count, and the measure if it is another. The value at an instant
    holds until the next one, so the lines are steps. measure: the column to draw; amounts lose their
    exactness here, being drawn.
    only: the states to draw, bottom first; without it all, in the order of the column's categories. Of more
    than 12 states the smaller ones are drawn together, and of more than 800 instants every n-th is drawn.
    unit: what is counted.
    """
    need(grid, "instant", measure)
    by = next((c for c in grid.columns if c not in ("instant", "count", "mean_age", measure)), None)
    note = ""
    instants = grid["instant"].unique().sort()
    if len(instants) > INSTANTS:
        every = -(-len(instants) // INSTANTS)
        kept = instants.gather_every(every)
        grid = grid.filter(pl.col("instant").is_in(kept.implode()))
        note = f"every {every:,}th instant of {len(instants):,}"
    groups = [("", grid)] if by is None else _grouped(grid, by, measure, only)
    if grid.is_empty() or not groups:
        return empty(title, "Nothing to draw: nothing was in any of these states.")
    colours = colour_of(name for name, _ in groups) | {REST: OTHERS[-1]}
    made = figure(title, "instant (UTC)", unit if measure == "count" else measure, note)
    for name, part in groups:
        made.add_scatter(
            x=utc(part["instant"]),
            y=part[measure]
            .cast(pl.Float64 if part[measure].dtype.is_decimal() else part[measure].dtype)
            .to_numpy(),
            name=safe(masked(name, by or "") or measure),
            stackgroup="states",
            mode="lines",
            line={"shape": "hv", "width": 0.6, "color": colours[name]},
            fillcolor=see_through(colours[name]),
            hovertemplate="%{y:,}",
        )
    made.update_layout(hovermode="x unified")
    return made


def events_by_hour(
    events: pl.DataFrame, *, since: Instant, until: Instant, title: str = "Events by hour"
) -> go.Figure:
    """Draw how many events of each type were written in each hour from `since` to `until`, in UTC.

    events: any frame with event_type and timestamp; rows outside the window are left out. A bar covers its
    hour. Hours without events keep their place. Of more than 12 types the rarer ones are drawn together.
    """
    need(events, "event_type", "timestamp")
    start, end = instant(since), instant(until)
    hours = pl.datetime_range(
        _hour(start),
        _hour(end - timedelta(microseconds=1)),
        "1h",
        time_zone="UTC",
        time_unit="us",
        eager=True,
    ).alias("hour")
    inside = events.filter(pl.col("timestamp").is_between(start, end))
    if inside.is_empty():
        return empty(title, "No events in these hours.")
    kept = leading(dict(inside.group_by("event_type").len().iter_rows()))
    kind = pl.when(pl.col("event_type").is_in(list(kept))).then("event_type").otherwise(pl.lit(REST))
    counted = inside.group_by(
        pl.col("timestamp").dt.truncate("1h").alias("hour"), kind.alias("event_type")
    ).len("count")
    kinds = by_custom(counted["event_type"].unique().to_list())
    colours = colour_of(kinds)
    made = figure(title, "hour (UTC)", "events")
    for kind_name in kinds:
        part = hours.to_frame().join(counted.filter(pl.col("event_type") == kind_name), on="hour", how="left")
        made.add_bar(
            x=utc(part["hour"]),
            y=part["count"].fill_null(0).to_numpy(),
            name=safe(kind_name),
            marker={"color": colours[kind_name], "line": {"width": 0}},
            offset=0,
            width=3_600_000 * 0.92,  # milliseconds
            hovertemplate="%{y:,}",
        )
    made.update_layout(barmode="stack", hovermode="x unified")
    made.update_xaxes(
        range=[moment_text(hours[0]), moment_text(hours[-1] + timedelta(hours=1))], hoverformat="%d %b %H:00"
    )
    return made


def _grouped(
    grid: pl.DataFrame, by: str, measure: str, only: Sequence[str] | None
) -> list[tuple[str, pl.DataFrame]]:
    present = [str(v) for v in grid[by].unique(maintain_order=True).drop_nulls().to_list()]
    wanted = [name for name in (only or present) if name in present]
    named = grid.with_columns(pl.col(by).cast(pl.String))
    if grid[by].null_count() and only is None:
        wanted.append("no value yet")
        named = named.with_columns(pl.col(by).fill_null("no value yet"))
    if len(wanted) <= FEW:
        return [(name, named.filter(pl.col(by) == name)) for name in wanted]
    sizes = named.filter(pl.col(by).is_in(wanted)).group_by(by).agg(pl.col(measure).abs().sum())
    kept = leading(dict(sizes.iter_rows()), FEW - 1)
    rest = named.filter(pl.col(by).is_in([name for name in wanted if name not in kept]))
    together = rest.group_by("instant").agg(pl.col(measure).sum()).sort("instant")
    shown = [(name, named.filter(pl.col(by) == name)) for name in wanted if name in kept]
    return [*shown, (REST, together)]


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
