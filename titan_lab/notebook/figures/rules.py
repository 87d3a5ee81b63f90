"""Rules: how often a history breaks each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from titan_lab.notebook.figures.family import DOWN, SENTENCE, UP, empty, figure, safe
from titan_lab.notebook.masked import masked

if TYPE_CHECKING:
    import plotly.graph_objects as go

EXAMPLES = 3
ROW = 44  # pixels
RULES = 20


def conformance(found: Any, *, title: str | None = None) -> go.Figure:
    """Draw the rules that a history was held to, by how often they are broken, with examples as hover text.

    found: a Conformance, `book.conform()`. Rules that are kept are there with 0. Of more than 20 rules those
    that are broken most are drawn.
    """
    title = title or "Rules, by how often they are broken"
    counts = sorted(found.counts.items(), key=lambda rule: (-rule[1], rule[0]))
    if not counts:
        return empty(title, "No rules were declared, so none is broken.")
    note = found.title if len(counts) <= RULES else f"{found.title}; {RULES} of {len(counts):,} rules"
    counts = counts[:RULES]
    made = figure(title, "findings", "", note)
    lives = dict(found.findings.group_by("kind").agg(pl.col("aggregate_id").n_unique()).iter_rows())
    told = [
        [safe(kind, SENTENCE), f"{lives.get(kind, 0):,}", _examples(found.findings, kind)]
        for kind, _ in counts
    ]
    made.add_bar(
        orientation="h",
        name="findings",
        x=[count for _, count in counts],
        y=[*range(len(counts))],
        width=0.56,
        marker={"color": [DOWN if count else UP for _, count in counts], "line": {"width": 0}},
        text=[f"{count:,}" if count else "  0, kept" for _, count in counts],
        textposition="outside",
        cliponaxis=False,
        customdata=told,
        hovertemplate="<b>%{customdata[0]}</b>: %{x:,}<br>in %{customdata[1]} lives"
        "%{customdata[2]}<extra></extra>",
    )
    made.update_layout(
        height=130 + ROW * len(counts),
        showlegend=False,
        yaxis={"tickvals": [*range(len(counts))], "ticktext": [safe(kind) for kind, _ in counts],
               "range": [len(counts) - 0.5, -0.5], "showgrid": False},
        xaxis={"range": [0, max(max(count for _, count in counts) * 1.15, 1)],
               "showticklabels": False, "ticks": ""},
    )  # fmt: skip
    return made


def _examples(findings: pl.DataFrame, kind: str) -> str:
    some = findings.filter(pl.col("kind") == kind).head(EXAMPLES)
    lines = [
        f"<br>{safe(one)}, version {version}: {safe(masked(detail), SENTENCE)}"
        for one, version, detail in some.select("aggregate_id", "version", "detail").iter_rows()
    ]
    return "".join(lines)
