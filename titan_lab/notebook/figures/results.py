"""How the numbers of many runs went, each in a strip of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from titan_lab.notebook.figures.family import COLOURS, OTHERS, empty, figure, need, safe, utc

if TYPE_CHECKING:
    import plotly.graph_objects as go

STRIP, MOST = 130, 12  # pixels of a strip, and how many there are at most


def results_over_time(
    table: pl.DataFrame, *, names: Sequence[str] | None = None, title: str = "What the runs found"
) -> go.Figure:
    """Draw the numbers of a job's runs over the instants they are about, one strip below the other.

    table: from `results(ledger, job)`. names: which columns, top first; without it all, at most twelve.
    """
    need(table, "scheduled", *(names or ()), source="results(ledger, job)")
    drawn = [name for name in names or table.columns if name != "scheduled"][:MOST]
    if not drawn or table.is_empty():
        return empty(title, "No run has handed over a number.")
    made = figure(title, "instant (UTC)", "")
    share = 1 / len(drawn)
    for place, name in enumerate(drawn):
        axis = "" if place == 0 else str(place + 1)
        made.add_scatter(
            x=utc(table["scheduled"]),
            y=table[name].cast(pl.Float64).to_list(),
            name=safe(name),
            mode="lines+markers",
            line={"color": (*COLOURS.values(), *OTHERS)[(place + 2) % 13], "width": 1.6},
            marker={"size": 5},
            yaxis=f"y{axis}",
            hovertemplate="%{y:,}",
            showlegend=False,
        )
        top = 1 - place * share
        made.update_layout(
            {f"yaxis{axis}": {"domain": [top - share * 0.78, top], "anchor": "x", "nticks": 4}}
        )
        made.add_annotation(
            text=safe(name), x=0, xref="paper", y=top, yref="paper", xanchor="left", yanchor="bottom",
            showarrow=False, font={"size": 12},
        )  # fmt: skip
    lowest = "y" if len(drawn) == 1 else f"y{len(drawn)}"
    made.update_layout(height=110 + STRIP * len(drawn), hovermode="x unified", xaxis={"anchor": lowest})
    made.update_layout(margin={"t": 74})
    return made
