"""Two clocks: events that are effective at another instant than the one they were recorded at."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from titan_lab.notebook.figures.family import (
    INK,
    OTHERS,
    SENTENCE,
    by_custom,
    cells,
    colour_of,
    empty,
    figure,
    lasting,
    leading,
    moment_text,
    need,
    safe,
    see_through,
    utc,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINTS = 400  # events that are drawn one by one
CELLS = 40  # of either clock, into which more of them are gathered
REST = "other types"


def backdated(found: pl.DataFrame, *, title: str = "Two clocks: recorded and effective") -> go.Figure:
    """Draw when events were recorded beside when they are effective, apart from the line where both agree.

    found: `book.backdated()`. Below the line an event reaches back, above it forward. Of more than 400 events
    those that lie close together share a mark that grows with the root of their number. Events whose
    effective_at is no instant are counted below the title.
    """
    need(
        found,
        "event_type",
        "timestamp",
        "effective_at",
        "by",
        "aggregate_id",
        "version",
        source="book.backdated()",
    )
    told = found.filter(pl.col("effective_at").is_not_null())
    unread = len(found) - len(told)
    lost = f"{unread:,} with an effective_at that is no instant" if unread else ""
    if told.is_empty():
        return empty(
            title,
            "No event is effective at another instant than it was recorded at."
            + (f" ({lost})" if lost else ""),
        )
    kept = leading(dict(told.group_by("event_type").len().iter_rows()))
    told = told.with_columns(
        kind=pl.when(pl.col("event_type").is_in(list(kept))).then("event_type").otherwise(pl.lit(REST))
    )
    marks = _one_by_one(told) if len(told) <= POINTS else _together(told)
    middle: Any = told["by"].median()
    note = ", ".join(filter(None, [f"{len(told):,} events, median {lasting(middle)} back", lost]))
    made = figure(title, "recorded (UTC)", "effective (UTC)", note)
    both: Any = pl.concat([told["timestamp"], told["effective_at"]])
    first, last = both.min(), both.max()
    ends = [moment_text(first), moment_text(last)]
    made.add_scatter(
        x=ends, y=ends, mode="lines", name="recorded as it happened", hoverinfo="skip",
        line={"color": see_through(INK, 0.6), "width": 1, "dash": "dot"},
    )  # fmt: skip
    kinds = by_custom(marks["kind"].unique().to_list())
    colours = colour_of(kinds) | {REST: OTHERS[-1]}
    most = int(marks["count"].max())  # type: ignore[arg-type]
    for kind in kinds:
        part = marks.filter(pl.col("kind") == kind)
        # A dark colour would be lost on a dark page but for its rim.
        made.add_scatter(
            x=utc(part["recorded"]),
            y=utc(part["effective"]),
            mode="markers",
            name=safe(kind),
            marker={
                "color": see_through(colours[kind], 0.85),
                "size": [
                    round(8 + 14 * (count / most) ** 0.5, 1) if most > 1 else 9 for count in part["count"]
                ],
                "line": {"width": 1, "color": see_through("#c5ccd6", 0.9)},
            },
            customdata=[
                [safe(what, SENTENCE), safe(kind), lasting(back)]
                for what, back in part.select("what", "by").iter_rows()
            ],
            hovertemplate="<b>%{customdata[1]}</b>, %{customdata[0]}<br>recorded %{x}<br>effective %{y}<br>"
            "%{customdata[2]} earlier<extra></extra>",
        )
    made.update_layout(hovermode="closest", height=480, yaxis={"rangemode": "normal", "automargin": True})
    return made


def _one_by_one(told: pl.DataFrame) -> pl.DataFrame:
    return told.select(
        "kind", "by", recorded="timestamp", effective="effective_at", count=pl.lit(1, pl.Int64),
        what=pl.format("{}, version {}", "aggregate_id", "version"),
    )  # fmt: skip


def _together(told: pl.DataFrame) -> pl.DataFrame:
    near = []
    for column in ("timestamp", "effective_at"):
        clock: Any = told[column]
        first, last = clock.min(), clock.max()
        width = max((last - first) / CELLS, timedelta(seconds=1))
        near.append(cells(pl.col(column), first, width).alias(f"cell of {column}"))
    return (
        told.group_by("kind", *near)
        .agg(
            count=pl.len().cast(pl.Int64),
            by=pl.col("by").median(),
            recorded=pl.col("timestamp").median(),
            effective=pl.col("effective_at").median(),
        )
        .with_columns(what=pl.format("{} events", "count"))
        .sort("recorded", "effective", "kind")
    )
