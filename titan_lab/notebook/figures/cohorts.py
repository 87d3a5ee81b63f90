"""Cohorts: who comes back, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from titan_lab.notebook.figures.family import INK, UP, empty, figure, need, percent, see_through

if TYPE_CHECKING:
    import plotly.graph_objects as go

COHORTS, PERIODS = 36, 24
ROW = 24  # pixels
WITH_TEXT = 14  # periods in whose cells a share fits
USUAL = 0.98  # of all users, cell by cell: a cohort of three people does not set the scale for the others
LIGHT = 0.55  # of the fullest colour: above it a cell is so full that its text must be white


def retention(found: pl.DataFrame, *, title: str = "Who comes back") -> go.Figure:
    """Draw retention as a heat map: a row for each cohort with its size, a column for each period after.

    found: `book.retention(...)`. Period 0, in which everybody is active, is the size at the row's head. Of
    more than 36 cohorts the last ones are drawn, of more than 24 periods the first. Colours reach
    their fullest at a share that the cohorts of nearly all users stay below.
    """
    need(found, "cohort", "period", "users", "active", "share", source="book.retention(...)")
    later = found.filter(pl.col("period").is_between(1, PERIODS))
    if later.is_empty():
        return empty(title, "Nobody could come back yet: there is one period only.")
    all_cohorts = found.filter(pl.col("period") == 0).select("cohort", "users").sort("cohort")
    cohorts = all_cohorts.tail(COHORTS)
    later = later.join(cohorts.select("cohort"), on="cohort", how="semi")
    periods = range(1, max(later["period"]) + 1)
    shares = {
        (cohort, period): share for cohort, period, share in later.select("cohort", "period", "share").rows()
    }
    active = {(cohort, period): n for cohort, period, n in later.select("cohort", "period", "active").rows()}
    dates = cohorts["cohort"].to_list()
    users = dict(cohorts.rows())
    cut = []
    if len(all_cohorts) > COHORTS:
        cut.append(f"the last {COHORTS} of {len(all_cohorts):,} cohorts")
    if max(found["period"]) > PERIODS:
        cut.append(f"the first {PERIODS} periods")
    made = figure(title, "periods after the first", "first period", ", ".join(cut))
    most = _usual(later) or 1.0
    made.add_heatmap(
        x=[*periods],
        y=[*range(len(dates))],
        z=[[shares.get((date, period)) for period in periods] for date in dates],
        zmin=0,
        zmax=most,
        colorscale=[[0, see_through(UP, 0.06)], [1, UP]],
        showscale=False,
        xgap=2,
        ygap=2,
        hoverongaps=False,
        customdata=[
            [
                [str(date), period, f"{active.get((date, period), 0):,}", f"{users[date]:,}",
                 percent(shares.get((date, period)))]
                for period in periods
            ]
            for date in dates
        ],
        hovertemplate="first in %{customdata[0]}, %{customdata[1]} later<br>%{customdata[2]} of "
        "%{customdata[3]} came, %{customdata[4]}<extra></extra>",
    )  # fmt: skip
    if len(periods) <= WITH_TEXT:
        digits = 0 if most >= 0.1 else 1
        # Not the heat map's own text, which has one colour on the full cells and on the faint ones.
        for colour, full in ((INK, False), ("#ffffff", True)):
            cells = [
                (period, row, shares[date, period])
                for row, date in enumerate(dates)
                for period in periods
                if (date, period) in shares and (shares[date, period] > LIGHT * most) == full
            ]
            made.add_scatter(
                x=[x for x, _, _ in cells],
                y=[y for _, y, _ in cells],
                text=[f"{share:.{digits}%}" for _, _, share in cells],
                mode="text",
                name="shares",
                showlegend=False,
                hoverinfo="skip",
                textfont={"color": colour, "size": 11},
            )
    made.update_layout(
        height=140 + ROW * len(dates),
        xaxis={"tickmode": "linear", "dtick": 1, "ticks": "", "side": "bottom"},
        yaxis={"tickvals": [*range(len(dates))], "ticktext": [f"{d}  {users[d]:,}" for d in dates],
               "range": [len(dates) - 0.4, -0.6], "showgrid": False},
    )  # fmt: skip
    return made


def _usual(later: pl.DataFrame) -> float:
    """Give the share that has the fullest colour: one that all but a few users' cohorts stay below."""
    ranked = later.sort("share", "cohort", "period").with_columns(upto=pl.col("users").cum_sum())
    enough = ranked.filter(pl.col("upto") >= USUAL * ranked["upto"][-1])
    return float(enough["share"][0])
