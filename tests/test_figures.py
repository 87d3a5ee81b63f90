"""Figures: what they draw is what the frames say, in one family of colours, with the zone on the axis."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import plotly.graph_objects as go
import plotly.io
import polars as pl
import pytest

import titan_lab as tl
from titan_lab.errors import EventsError
from titan_lab.notebook import figures
from titan_lab.notebook.figures.family import see_through

T0 = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def log():
    return tl.open("sqlite:///data/samples/orders.db")


@pytest.fixture(scope="module")
def book(log):
    return log.fold(tl.Order)


def total(figure: go.Figure, at: int) -> float:
    return sum(trace.y[at] for trace in figure.data)


def test_the_stack_of_states_adds_up_to_the_grid(book):
    """At every instant the heights together are the number of orders; steps hold until the next."""
    grid = book.every("6h", "2025-01-01", "2025-01-20", by="status")

    figure = figures.states_over_time(grid)

    per_instant = grid.group_by("instant", maintain_order=True).agg(pl.col("count").sum())["count"].to_list()
    assert [total(figure, i) for i in range(len(per_instant))] == per_instant
    assert {trace.line.shape for trace in figure.data} == {"hv"}
    assert [trace.name for trace in figure.data] == ["CREATED", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]
    assert str(figure.data[0].x[0]).startswith("2025-01-01T00:00:00")


def test_only_the_states_asked_for_are_drawn_in_the_order_asked(book):
    """One nobody is in is left out, not drawn empty under a wrong colour."""
    grid = book.every("1d", "2025-01-01", "2025-01-10", by="status")

    figure = figures.states_over_time(grid, only=["SHIPPED", "PAID", "LOST"])

    assert [trace.name for trace in figure.data] == ["SHIPPED", "PAID"]


def test_amounts_and_grids_without_groups_are_drawn_too(book):
    """A measure that is a Decimal, and by=None."""
    money = figures.states_over_time(
        book.every("1d", "2025-01-01", "2025-01-10", by="status", measure="paid"), measure="paid"
    )
    plain = figures.states_over_time(book.every("1d", "2025-01-01", "2025-01-10", by=None))

    assert total(money, -1) == pytest.approx(float(book.at("2025-01-10")["paid"].sum()))
    assert money.layout.yaxis.title.text == "paid"
    assert total(plain, -1) == len(book.at("2025-01-10"))


def test_every_event_of_the_window_is_in_its_hour_and_no_other():
    """Both ends inclusive; hours without events keep their place; what is outside is left out."""
    half, hour = timedelta(minutes=30), timedelta(hours=1)
    stamps = [
        T0 - half,
        T0,
        T0 + half,
        T0 + 3 * hour,
        T0 + 4 * hour - timedelta(microseconds=1),
        T0 + 4 * hour,
    ]
    events = pl.DataFrame(
        {"event_type": ["OrderCreated"] * 5 + ["Odd"], "timestamp": stamps},
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )

    figure = figures.events_by_hour(events, since=T0, until=T0 + 4 * hour - timedelta(microseconds=1))

    (created,) = figure.data
    assert list(created.y) == [2, 0, 0, 2]
    assert created.offset == 0  # a bar begins at its hour, it does not straddle it
    assert [trace.name for trace in figures.events_by_hour(events, since=T0, until=T0 + 5 * hour).data] == [
        "OrderCreated",
        "Odd",
    ]


def test_an_hour_of_events_is_never_counted_twice(log):
    """On the sample events of a day: the bars together are the day's events."""
    since, until = (
        datetime(2025, 1, 14, tzinfo=UTC),
        datetime(2025, 1, 15, tzinfo=UTC) - timedelta(microseconds=1),
    )
    day = log.read(since=since, until=until)

    figure = figures.events_by_hour(day, since=since, until=until)

    assert sum(sum(trace.y) for trace in figure.data) == len(day) > 0
    assert {len(trace.y) for trace in figure.data} == {24}


def test_a_story_shows_every_event_where_it_counts_and_amounts_to_the_cent(book, log):
    """One mark per event with what it changed; one step line per amount, up to the right edge."""
    tale = book[log.read(types=["OrderCancelled"])["aggregate_id"][0]]

    figure = figures.story(tale)

    marks = next(trace for trace in figure.data if trace.name == "events")
    lines = {trace.name: trace for trace in figure.data if trace.mode == "lines"}
    assert [mark[1] for mark in marks.customdata] == tale.log()["event_type"].to_list()
    assert set(lines) == {"total", "paid", "refunded"}
    assert lines["total"].y[-1] == float(tale.now.total)
    bands = [shape.fillcolor for shape in figure.layout.shapes]
    assert bands[-1] == see_through(figures.COLOURS["CANCELLED"])


def test_an_order_of_one_event_has_a_story_too(book):
    """No length, one mark, one band."""
    lone = book.history(columns=["status"]).group_by("aggregate_id").len().filter(pl.col("len") == 1)

    figure = figures.story(book[lone["aggregate_id"].sort()[0]])

    assert len(figure.layout.shapes) == 1
    start, end = figure.layout.xaxis.range
    assert start < end


def test_a_status_has_one_colour_everywhere():
    """In every figure, and the event that leads to it has the same; others differ from each other."""
    colours = figures.colour_of(["PAID", "PaymentAuthorized", "ZED", "ALPHA", "OrderDelivered"])

    assert colours["PAID"] == colours["PaymentAuthorized"] == figures.COLOURS["PAID"]
    assert colours["ALPHA"] != colours["ZED"]
    assert colours == figures.colour_of(reversed(colours))
    assert len(set(figures.EVENT_COLOURS.values())) == len(figures.EVENT_COLOURS)


def test_every_figure_says_utc_and_is_of_the_family(book, log):
    """One template; times with their zone; zoom kept on redraw; deterministic to the byte."""
    grid = book.every("1d", "2025-01-01", "2025-01-03", by="status")
    made = [
        figures.states_over_time(grid),
        figures.events_by_hour(log.read(), since="2025-01-01", until="2025-01-02"),
        figures.story(book[book.ids[0]]),
    ]

    assert "titan" in plotly.io.templates
    for figure in made:
        assert isinstance(figure, go.Figure)
        assert "UTC" in figure.layout.xaxis.title.text
        assert figure.layout.template == plotly.io.templates["titan"]
        assert figure.layout.uirevision
    assert figures.states_over_time(grid).to_json() == made[0].to_json()


def test_a_wrong_frame_is_told_what_is_missing():
    """And where the right one comes from."""
    with pytest.raises(EventsError, match="no column instant, count") as caught:
        figures.states_over_time(pl.DataFrame({"a": [1]}))
    assert "book.every" in caught.value.hint


def test_plotly_is_loaded_by_the_first_figure_and_not_before():
    """Importing the module costs nothing to those who draw nothing."""
    code = "import sys, titan_lab.notebook.figures; print('plotly' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
