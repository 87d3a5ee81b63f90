"""Change: why a sum moved, as a waterfall; and what a branch changed, beside the book it came from."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from titan_lab.notebook.figures.family import (
    DOWN,
    FEW,
    INK,
    SENTENCE,
    UP,
    colour_of,
    empty,
    figure,
    need,
    safe,
    see_through,
)
from titan_lab.notebook.html import shown
from titan_lab.notebook.masked import masked

if TYPE_CHECKING:
    import plotly.graph_objects as go

DAYS = 31  # days are drawn in their order, as many as a month has
START, END = "before", "after"


def explained(
    found: pl.DataFrame,
    before: Any = 0,
    *,
    top: int | None = None,
    title: str = "Why the sum moved",
    ends: tuple[str, str] = (START, END),
    unit: str = "sum",
) -> go.Figure:
    """Draw why a sum moved as a waterfall: from the sum before, change by change, to the sum after.

    found: `book.explain(...)`. before: the sum at its first instant. The figures beside the marks are exact:
    the changes add up to the difference of both sums to the last digit; only their places are floats. Changes
    stand in the order of the frame, days in that of the calendar. top: how many are drawn (12, and of days
    31); all others are one, named "others". ends: what the first and the last mark are called.
    """
    need(found, "change", "events", source="book.explain(...)")
    by = found.columns[0]
    days = found.schema[by] == pl.Date
    first = Decimal(before)
    if found.is_empty():
        return empty(title, f"Nothing moved it: {_exact(first)} before and after.")
    top = top or (DAYS if days else FEW)
    kept = found.head(top)
    kept = kept.sort(by) if days else kept
    steps = [
        (_key(key, by), Decimal(change), events)
        for key, change, events in kept.select(by, "change", "events").iter_rows()
    ]
    rest = found.slice(top)
    if len(rest):
        steps.append((f"{len(rest):,} others", Decimal(rest["change"].sum()), rest["events"].sum()))
    levels = [first]
    for _, change, _ in steps:
        levels.append(levels[-1] + change)
    places = [*range(len(levels))]
    made = figure(title, by.replace("_", " "), unit, _told(first, levels[-1], int(found["events"].sum())))
    made.add_scatter(
        x=[x for place in places for x in (place + (-0.4 if place == 0 else 0.4), place + 1.4)],
        y=[float(level) for level in levels for _ in (0, 1)],
        mode="lines",
        name="levels",
        showlegend=False,
        hoverinfo="skip",
        line={"color": see_through("#7f8c9b", 0.7), "width": 1, "dash": "dot"},
    )
    made.add_bar(
        x=places[1:],
        y=[float(change) for _, change, _ in steps],
        base=[float(level) for level in levels[:-1]],
        name="changes",
        showlegend=False,
        width=0.72,
        marker={"color": [UP if change >= 0 else DOWN for _, change, _ in steps], "line": {"width": 0}},
        text=[_signed(change) for _, change, _ in steps] if len(steps) <= FEW + 1 else None,
        textposition="outside",
        cliponaxis=False,
        customdata=[
            [safe(name, SENTENCE), _signed(change), f"{events:,}", _exact(level)]
            for (name, change, events), level in zip(steps, levels[1:], strict=True)
        ],
        hovertemplate="<b>%{customdata[0]}</b>: %{customdata[1]}<br>by %{customdata[2]} events"
        "<br>then at %{customdata[3]}<extra></extra>",
    )
    made.add_scatter(
        x=[0, len(levels)],
        y=[float(levels[0]), float(levels[-1])],
        mode="markers+text",
        name="sums",
        showlegend=False,
        marker={"symbol": "line-ew", "size": 34, "line": {"width": 3, "color": INK}},
        text=[_exact(levels[0]), _exact(levels[-1])],
        textposition="top center",
        customdata=[[safe(ends[0])], [safe(ends[1])]],
        hovertemplate="%{customdata[0]}: %{text}<extra></extra>",
        cliponaxis=False,
    )
    low, high = float(min(levels)), float(max(levels))
    room = (high - low) * 0.12 or 1.0
    made.update_layout(
        xaxis={"tickvals": [*places, len(levels)], "range": [-0.7, len(levels) + 1.1],
               "ticktext": [_broken(ends[0]), *(safe(name, 22) for name, _, _ in steps), _broken(ends[1])]},
        yaxis={"range": [low - room, high + room], "rangemode": "normal"},
        height=440,
        **({"xaxis_tickangle": -45} if len(steps) > FEW else {}),
    )  # fmt: skip
    return made


def comparison(found: Any, *, title: str | None = None) -> go.Figure:
    """Draw how many aggregates are in each state in a book, and in the branch that is compared with it.

    found: a Comparison, `branch.compare()`. A pair of bars for each state of `.states`, the branch's in full
    colour, with the difference as its text.
    """
    states = found.states.filter(pl.col("state").is_not_null())
    title = title or f"What {found.names[1]} changes"
    if states.is_empty():
        return empty(title, "The aggregate has no states to count.")
    several = states["column"].n_unique() > 1
    names = [
        f"{column}: {state}" if several else state
        for column, state in states.select("column", "state").iter_rows()
    ]
    colours = colour_of(states["state"])
    made = figure(
        title, "", "how many", f"{found.touched:,} touched, {found.changed:,} of them end in another state"
    )
    tints = [colours[state] for state in states["state"]]
    for label, column, fill in ((found.names[0], "base", 0.38), (found.names[1], "branch", 1.0)):
        made.add_bar(
            x=[*range(len(names))],
            y=states[column].to_list(),
            name=safe(label),
            marker={"color": [see_through(tint, fill) for tint in tints], "line": {"width": 0}},
            text=[f"{change:+,}" if change and column == "branch" else "" for change in states["change"]],
            textposition="outside",
            cliponaxis=False,
            customdata=[[safe(name, SENTENCE), safe(label)] for name in names],
            hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]}: %{y:,}<extra></extra>",
        )
    made.update_layout(
        barmode="group",
        bargap=0.25,
        bargroupgap=0.04,
        margin={"t": 84},
        # Both bars of a pair have the state's colour, so a legend of colours would say nothing.
        showlegend=False,
        xaxis={"tickvals": [*range(len(names))], "ticktext": [safe(name, 22) for name in names],
               "title": {"text": safe(f"left {found.names[0]}, right {found.names[1]}", SENTENCE)}},
    )  # fmt: skip
    return made


def _key(key: Any, by: str) -> str:
    if isinstance(key, date):
        return f"{key:%d %b}"
    return "no value" if key is None else str(masked(key, by))


def _told(before: Decimal, after: Decimal, events: int) -> str:
    sign = "+" if after >= before else "−"
    moved = f"{_exact(before)} {sign} {_exact(abs(after - before))} = {_exact(after)}"
    return f"{moved}, by {events:,} events"


def _broken(text: str) -> str:
    return safe(text).replace("\n", "<br>")


def _exact(amount: Decimal) -> str:
    return shown(amount)


def _signed(amount: Decimal) -> str:
    return f"{amount:+,f}".replace("-", "−")
