"""The figures of a book: what each draws is what its frame says, names show as text, and sizes stay small."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.errors import EventsError, MissingExtra
from titan_lab.mining import dwell
from titan_lab.mining.dwell import spread
from titan_lab.notebook import figures
from titan_lab.notebook.figures import family, layering, lines
from titan_lab.notebook.figures.layering import layered
from titan_lab.testing.histories import histories

STEPS = [tl.OrderCreated, tl.PaymentAuthorized, tl.OrderShipped, tl.OrderDelivered]
KILOBYTES = 200_000


@pytest.fixture(scope="module")
def book():
    return tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)


def named(figure: go.Figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


def all_of(book) -> dict[str, go.Figure]:
    plot = book.plot
    t0, t1 = "2025-01-14", "2025-01-20"
    return {
        "states": plot.states(),
        "flow": plot.flow(),
        "sankey": plot.flow("sankey"),
        "dwell": plot.dwell(),
        "funnel": plot.funnel(STEPS),
        "variants": plot.variants(),
        "explain": plot.explain("total", t0, t1),
        "explain by day": plot.explain("total", t0, t1, by="day"),
        "retention": plot.retention("1w"),
        "conform": plot.conform(),
        "backdated": plot.backdated(),
        "compare": book.branch().without(event_type="OrderCancelled").compare().plot(),
    }


# --- WHAT IS DRAWN IS WHAT THE FRAME SAYS ------------------------------------------------------------------


def test_the_graph_draws_the_counts_and_medians_of_the_flow(book):
    """Every edge is a row of the frame; every node has what comes into it."""
    found = book.flow()
    rows = {(a or "begin", b or "end"): (f"{n:,}", family.lasting(wait)) for a, b, n, wait in
            found.select("from_type", "to_type", "count", "median_wait").rows()}  # fmt: skip

    edges, nodes = (named(book.plot.flow(), name) for name in ("edges", "nodes"))

    assert len(edges.customdata) >= 24
    assert {(a, b): (n, wait) for a, b, n, _, wait in edges.customdata}.items() <= rows.items()
    comes = dict(found.group_by("to_type").agg(pl.col("count").sum()).drop_nulls().iter_rows())
    assert {name: n for name, n, _ in nodes.customdata if name not in ("begin", "end")} == {
        name: f"{n:,}" for name, n in comes.items()
    }


def test_the_strongest_connections_are_drawn_and_no_type_hangs_in_the_air(book):
    """Of three edges there are more: each type keeps its strongest way in and out."""
    few = named(book.plot.flow(limit=3), "edges").customdata

    assert {a for a, *_ in few} == {b for _, b, *_ in few} - {"end"} | {"begin"}


def test_no_label_lies_on_a_type_or_on_another_label(book):
    """Of the sample's shop, without the one order that fills the log."""
    few = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order, aggregates=book.ids.head(200))
    drawn = few.plot.flow()
    edges, nodes = named(drawn, "edges"), named(drawn, "nodes")
    boxes = [lines.node_box(x, y) for x, y in zip(nodes.x, nodes.y, strict=True)]
    for x, y, text, side in zip(edges.x, edges.y, edges.text, edges.textposition, strict=True):
        wide = len(text) * lines.LETTER
        left = x + lines.BESIDE if side == "middle right" else x - lines.BESIDE - wide
        box = (left, left + wide, y - lines.TALL, y + lines.TALL)
        assert sum(lines.covered(box, other) for other in boxes) < 0.01
        boxes.append(box)


def test_a_sankey_diagram_keeps_every_life_at_every_step(book):
    """What flows out of a node flowed into it; the first step has all lives."""
    figure = book.plot.flow("sankey", limit=20)
    link, label = figure.data[0].link, figure.data[0].node.label
    into, out = [0] * len(label), [0] * len(label)
    for a, b, n in zip(link.source, link.target, link.value, strict=True):
        out[a] += n
        into[b] += n

    assert out[0] == len(book)
    ends = [place for place, name in enumerate(label) if name == "end"]
    assert figure.layout.title.subtitle.text == "the first 20 steps; 1 of 500 lives go on after them"
    assert sum(into[place] for place in ends) == len(book) - 1
    lost = [into[p] - out[p] for p in range(len(label)) if into[p] and p not in ends]
    assert (sum(lost), max(lost)) == (1, 1)


def test_the_dwell_bars_add_up_to_the_stays(book):
    """Finished and open, state by state; the median is the one of the frame."""
    figure = book.plot.dwell()

    for row in book.dwell().rows(named=True):
        bars = named(figure, f"{row['state']}, finished").customdata
        assert sum(int(one[2].replace(",", "")) for one in bars) == row["finished"]
        assert sum(int(one[3].replace(",", "")) for one in bars) == row["open"]
    told = [note.text for note in figure.layout.annotations]
    assert told[1] == f"median {family.lasting(book.dwell()['median'][1])}"
    assert told[3] == "376 not over: no median yet"


@given(histories())
def test_stays_are_spread_as_they_are_listed(events):
    """The counts by length are those of a loop over the stays."""
    book = tl.from_frame(events).fold(tl.Order)
    told: dict = {}
    edges = [timedelta(0), *(timedelta(microseconds=round(10 ** (6 + place / 5))) for place in range(46))]
    for stay in book.stays().rows(named=True):
        start = max(edge for edge in edges if edge <= stay["duration"])
        counts = told.setdefault((stay["state"], start), [0, 0])
        counts[stay["left_at"] is None] += 1

    found = spread(book, "status", None)

    assert {(s, a): [f, o] for s, a, _, f, o in found.rows()} == told
    assert found.select("from").equals(
        found.sort(pl.col("state").to_physical(), "from", nulls_last=True).select("from")
    )


def test_planted_a_stay_counted_as_longer_than_it_is_is_noticed(monkeypatch):
    """The property above can fail."""
    monkeypatch.setattr(dwell, "LENGTHS", dwell.LENGTHS // 2)

    with pytest.raises(AssertionError):
        test_stays_are_spread_as_they_are_listed()


def test_the_funnel_is_drawn_as_it_is_counted(book):
    """Counts as lengths; names as the steps' labels, first step on top."""
    counted = book.funnel(STEPS, within="7d")

    figure = counted.plot()

    assert list(figure.data[0].x) == counted.steps["count"].to_list()
    assert list(figure.layout.yaxis.ticktext) == counted.steps["name"].to_list()
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert figure.data[0].text[1].startswith("460 · 92.0% · 55 s")


def test_a_funnel_in_groups_draws_the_largest(book):
    """A trace for each of at most six groups, with the group's own counts."""
    counted = book.funnel(STEPS, by="user_id")

    figure = counted.plot()

    sizes = counted.steps.filter(pl.col("step") == 1)["count"].sort(descending=True)
    assert len(figure.data) == 6
    assert sorted((trace.x[0] for trace in figure.data), reverse=True) == sizes.head(6).to_list()
    assert "the 6 largest of" in figure.layout.title.subtitle.text


def test_the_ways_are_drawn_step_by_step_and_the_others_counted(book):
    """A row for each way, runs of one type as one step; the last row is everybody else."""
    found = book.variants()

    figure = book.plot.variants(top=5)

    steps = sorted(
        (row, place, name)
        for trace in figure.data
        for row, place, (_, _, name, *_) in zip(trace.y, trace.base, trace.customdata, strict=True)
    )
    expected = []
    for row, way in enumerate(found["variant"].head(5)):
        runs = [b for a, b in zip([None, *way], way, strict=False) if a != b]
        expected += [(row, place, name) for place, name in enumerate(runs)]
    assert steps == expected
    rest = found.slice(5)
    assert figure.layout.yaxis.ticktext[5].endswith(str(rest["count"].sum()))
    assert figure.layout.annotations[-1].text == f"{len(rest)} other ways"


@pytest.mark.parametrize("by", ["event_type", "day", "user_id"])
def test_a_waterfall_adds_up_to_the_last_cent(book, by):
    """From the exact sum before to the exact sum after, whatever was put together."""
    t0, t1 = "2025-01-03", "2025-02-10"
    sums = [book.at(t, columns="total")["total"].sum() for t in (t0, t1)]

    figure = book.plot.explain("total", t0, t1, by=by)

    told = [Decimal(one[1].replace(",", "").replace("−", "-")) for one in named(figure, "changes").customdata]
    assert sums[0] + sum(told) == sums[1]
    assert list(named(figure, "sums").text) == [f"{one:,f}" for one in sums]
    assert len(told) <= 32
    frame = book.explain("total", t0, t1, by=by)
    shown = frame.head(31 if by == "day" else 12)["change"]
    assert sorted(told[: len(shown)]) == sorted(shown)


def test_days_of_a_waterfall_stand_in_their_order(book):
    """The frame has the largest first."""
    figure = book.plot.explain("total", "2025-01-14", "2025-01-20", by="day")

    assert list(figure.layout.xaxis.ticktext[1:-1]) == [f"{day} Jan" for day in range(14, 20)]


def test_retention_draws_each_share_in_its_cell(book):
    """The first period is the cohort's size; later ones lie in their row and column."""
    found = book.retention("1w")

    figure = book.plot.retention("1w")

    cells = figure.data[0]
    dates = found["cohort"].unique().sort()
    for cohort, period, _, _, share in found.filter(pl.col("period") > 0).rows():
        assert cells.z[dates.index_of(cohort)][period - 1] == share
    sizes = found.filter(pl.col("period") == 0)["users"].to_list()
    assert list(figure.layout.yaxis.ticktext) == [f"{d}  {n}" for d, n in zip(dates, sizes, strict=True)]


def test_a_cohort_of_one_does_not_set_the_colours_of_all(book):
    """One customer, who came back, beside a thousand of whom one in a hundred did."""
    found = pl.DataFrame(
        {
            "cohort": [datetime(2025, month, 1).date() for month in (1, 1, 2, 2)],
            "period": [0, 1, 0, 1],
            "users": [1, 1, 1000, 1000],
            "active": [1, 1, 1000, 10],
            "share": [1.0, 1.0, 1.0, 0.01],
        }
    )

    figure = figures.retention(found)

    assert figure.data[0].zmax == 0.01
    assert [text for trace in figure.data[1:] for text in trace.text] == ["100.0%", "1.0%"]


def test_a_share_too_small_for_its_digits_is_not_none():
    """Fourteen of a hundred thousand are not 0.0 %."""
    assert [family.percent(one) for one in (0.0, 0.00014, 0.5, 1.0, None)] == [
        "0%",
        "&lt;0.1%",
        "50.0%",
        "100%",
        "–",
    ]


def test_rules_are_drawn_with_their_counts_and_with_examples(book):
    """Those that are kept, too."""
    found = book.conform()

    figure = found.plot()

    told = {one[0]: count for one, count in zip(figure.data[0].customdata, figure.data[0].x, strict=True)}
    assert told == found.counts
    example = found.findings.row(0, named=True)
    assert example["aggregate_id"] in figure.data[0].customdata[0][2]
    assert example["detail"] in figure.data[0].customdata[0][2]


def test_backdated_events_stand_at_both_of_their_instants(book):
    """Recorded to the right, effective upwards."""
    found = book.backdated()

    figure = book.plot.backdated()

    marks = named(figure, "OrderCorrected")
    assert [datetime.fromisoformat(x).replace(tzinfo=UTC) for x in marks.x] == found["timestamp"].to_list()
    assert [datetime.fromisoformat(y).replace(tzinfo=UTC) for y in marks.y] == found["effective_at"].to_list()
    assert "UTC" in figure.layout.xaxis.title.text
    assert "UTC" in figure.layout.yaxis.title.text


def test_many_backdated_events_are_gathered_and_none_is_lost(book):
    """Marks that grow with what they stand for."""
    found = pl.concat([book.backdated()] * 30)

    marks = named(figures.backdated(found), "OrderCorrected")

    assert len(marks.x) < 45 * 2
    assert sum(int(one[0].split()[0]) for one in marks.customdata) == len(found)


def test_a_comparison_draws_both_sides(book):
    """Base and branch, state by state."""
    found = book.branch().without(event_type="OrderCancelled").compare()

    figure = found.plot()

    states = found.states.drop_nulls("state")
    assert [list(trace.y) for trace in figure.data] == [states["base"].to_list(), states["branch"].to_list()]
    assert figure.data[1].text[-1] == "-67"


def test_states_beyond_twelve_are_drawn_together_and_the_sum_stays(book):
    """By user, say: eleven, and all others."""
    figure = book.plot.states("1w", by="user_id")

    assert len(figure.data) == 12
    assert sum(trace.y[-1] for trace in figure.data) == book.every("1w", by=None)["count"][-1]


def test_a_grid_too_fine_for_a_screen_is_thinned_and_says_so(book):
    """What is drawn stays exact."""
    figure = book.plot.states("15m")
    grid = book.every("15m")

    assert len(figure.data[0].x) <= 800
    assert "every" in figure.layout.title.subtitle.text
    shown = {(x, t.name): y for t in figure.data for x, y in zip(t.x, t.y, strict=True)}
    for instant, status, count in grid.rows():
        key = (family.moment_text(instant), status)
        assert shown.get(key, count) == count


# --- NAMES, SIZES, EMPTINESS -------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>"
ODD = "<b>bold</b> $x^2$ &amp;"


def odd_book():
    start = datetime(2025, 1, 1, tzinfo=UTC)
    rows = []
    for number in range(4):
        order = f"{EVIL}{number}"
        rows += [
            (order, 1, "OrderCreated", {"user_id": ODD, "items": [], "total": "5.00"}, {}),
            (order, 2, ODD, {}, {"effective_at": "2024-12-31T00:00:00Z"}),
            (order, 4, EVIL, {}, {}),
            (order, 5, "OrderCancelled", {"reason": EVIL}, {}),
        ]
    frame = pl.DataFrame(
        [(a, v, t, json.dumps(p), json.dumps(m), start + timedelta(hours=v)) for a, v, t, p, m in rows],
        schema=["aggregate_id", "version", "event_type", "payload", "metadata", "timestamp"],
        orient="row",
    )
    return tl.from_frame(frame).fold(tl.Order)


def texts(value):
    if isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, str):
        yield value


def test_a_name_that_is_html_shows_as_text_in_every_figure():
    """No tag of a name's reaches plotly, which would read it; and no TeX."""
    book = odd_book()
    made = {
        "states": book.plot.states(by="user_id"),
        "reason": book.plot.dwell("reason"),
        "flow": book.plot.flow(),
        "sankey": book.plot.flow("sankey"),
        "funnel": book.plot.funnel(["OrderCreated", ODD, EVIL], by="user_id"),
        "variants": book.plot.variants(),
        "explain": book.plot.explain("total", "2024-12-31", "2025-01-02", by="user_id"),
        "conform": book.plot.conform(),
        "backdated": book.plot.backdated(),
        "story": book[f"{EVIL}0"].plot(),
        "hours": figures.events_by_hour(
            pl.DataFrame({"event_type": [EVIL, ODD], "timestamp": [datetime(2025, 1, 1, tzinfo=UTC)] * 2}),
            since="2025-01-01", until="2025-01-02",
        ),
        "compare": book.branch(EVIL).without(event_type="OrderCancelled").compare().plot(),
        "titled": figures.states_over_time(book.every("1h"), title=EVIL),
    }  # fmt: skip
    seen = set()
    for name, figure in made.items():
        for text in texts({key: one for key, one in figure.to_dict().items() if key != "frames"}):
            assert "<script" not in text, name
            assert "<b>bold" not in text, name
            assert "$x" not in text, name
            if "&lt;script" in text or "&lt;b&gt;bold" in text:
                seen.add(name)
    assert seen == set(made)


def test_planted_a_name_that_is_not_escaped_is_noticed(monkeypatch):
    """The test above can fail."""
    for module in ("ways", "graph", "life", "time", "rules", "clocks", "change", "stays"):
        monkeypatch.setattr(f"titan_lab.notebook.figures.{module}.safe", lambda text, most=36: str(text))

    with pytest.raises(AssertionError):
        test_a_name_that_is_html_shows_as_text_in_every_figure()


def test_planted_a_waterfall_that_loses_the_others_is_noticed(book, monkeypatch):
    """The law of the last cent can fail."""
    monkeypatch.setattr(pl.DataFrame, "slice", lambda self, *places: self.clear())

    with pytest.raises(AssertionError):
        test_a_waterfall_adds_up_to_the_last_cent(book, "user_id")


def test_what_says_who_somebody_is_is_masked():
    """Groups of a column of addresses, and a card number in a finding, are not drawn as they are."""

    class Moved(tl.EventType):
        email: str

    class Paid(tl.EventType):
        amount: Decimal

    class Customer(tl.Aggregate):
        email = tl.latest(Moved)
        spent = tl.total_of(Paid, "amount")

    start = datetime(2025, 1, 1, tzinfo=UTC)
    rows = [
        ("c-1", 1, "Moved", '{"email": "ann@example.org"}', start),
        ("c-1", 2, "Paid", '{"amount": "3.00"}', start),
    ]
    names = ["aggregate_id", "version", "event_type", "payload", "timestamp"]
    book = tl.from_frame(pl.DataFrame(rows, schema=names, orient="row")).fold(Customer)
    made = [
        book.plot.states("1d", by="email"),
        book.plot.dwell("email"),
        book.plot.funnel(["Moved", "Paid"], by="email"),
        book.plot.explain("spent", "2024-12-31", "2025-01-02", by="email"),
    ]

    for figure in made:
        assert "ann@" not in figure.to_json()
        assert "(masked)" in figure.to_json()


def test_a_history_without_events_gives_figures_that_say_so():
    """A sentence, and no crash."""
    empty = pl.DataFrame(
        schema={"aggregate_id": pl.String, "version": pl.Int64, "event_type": pl.String,
                "payload": pl.String, "metadata": pl.String, "timestamp": pl.Datetime("us", "UTC")}
    )  # fmt: skip
    for name, figure in all_of(tl.from_frame(empty).fold(tl.Order)).items():
        if name in ("conform", "compare"):  # rules and states that nobody breaks and is in are told, with 0
            assert set(figure.data[0].x if name == "conform" else figure.data[0].y) == {0}
        else:
            assert not figure.data, name
            assert figure.layout.annotations[0].text, name


def test_ten_orders_and_a_life_of_ten_thousand_events_are_drawn_small(book):
    """Every figure of the sample, of ten orders alone, and of the order with ten thousand events."""
    log = tl.open("sqlite:///data/samples/orders.db")
    longest = log.read().group_by("aggregate_id").len().sort("len")["aggregate_id"][-1]
    made = all_of(book) | {
        f"{k} of ten": v
        for k, v in all_of(log.fold(tl.Order, aggregates=[longest, *book.ids.head(9)])).items()
    }
    made["story"] = book[longest].plot()

    for name, figure in made.items():
        assert len(figure.to_json()) < KILOBYTES, name
        assert len(figure.data) <= 24, name
    marks = named(made["story"], "events")
    assert len(marks.x) < 1000
    counted = [int(v.split("(")[1].split()[0]) if "(" in str(v) else 1 for v, *_ in marks.customdata]
    assert sum(counted) == len(book[longest])


def test_the_same_question_gives_the_same_figure(book):
    """To the byte, so that stored outputs can be compared."""
    again = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)

    assert {k: v.to_json() for k, v in all_of(book).items()} == {
        k: v.to_json() for k, v in all_of(again).items()
    }


def test_every_figure_is_of_the_family(book):
    """The template, and zoom kept on redraw; none is shown by itself."""
    for figure in all_of(book).values():
        assert isinstance(figure, go.Figure)
        assert figure.layout.uirevision
        assert figure.layout.template.layout.font.color == family.INK


def test_the_accessor_lists_what_it_can_draw_and_loads_no_plotly():
    """Nor does folding a book."""
    code = (
        "import sys, titan_lab as tl;"
        "book = tl.open('sqlite:///data/samples/orders.db').fold(tl.Order);"
        "print(repr(book.plot), 'plotly' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == (
        "<figures of Order: .states(), .flow(), .dwell(), .funnel(), .variants(), .explain(), .retention(), "
        ".conform(), .backdated()> False\n"
    )


def test_without_plotly_the_command_that_brings_it_is_told(book, monkeypatch):
    """On the first figure, not before."""
    family.plotly.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    plot = book.plot

    with pytest.raises(MissingExtra) as caught:
        plot.conform()

    assert caught.value.hint == "pip install 'titan-lab[viz]'"


@pytest.mark.parametrize("draw", [figures.flow, figures.sankey, figures.variants, figures.explained,
                                  figures.retention, figures.backdated, figures.funnel])  # fmt: skip
def test_a_frame_of_another_verb_is_refused_by_name(draw):
    """With what is missing and where it comes from."""
    with pytest.raises(EventsError, match="the frame has no column") as caught:
        draw(pl.DataFrame({"a": [1]}))
    assert "hand over what" in caught.value.hint


def test_the_band_of_a_life_is_its_state_machine_whatever_its_name():
    """A ticket's column need not be called status."""

    class Opened(tl.EventType):
        pass

    class Closed(tl.EventType):
        pass

    class Ticket(tl.Aggregate):
        stage = tl.machine({Opened: "OPEN", Closed: "CLOSED"})

    start = datetime(2025, 1, 1, tzinfo=UTC)
    rows = [("t-1", 1, "Opened", "{}", start), ("t-1", 2, "Closed", "{}", start + timedelta(hours=2))]
    names = ["aggregate_id", "version", "event_type", "payload", "timestamp"]
    book = tl.from_frame(pl.DataFrame(rows, schema=names, orient="row")).fold(Ticket)

    assert [note.text for note in book["t-1"].plot().layout.annotations] == ["OPEN"]
    assert len(book["t-1"].plot().layout.shapes) == 2
    assert {trace.name for trace in book.plot.states(by="stage").data} == {"OPEN", "CLOSED"}


# --- THE LAYOUT OF A GRAPH ---------------------------------------------------------------------------------

graphs = st.dictionaries(
    st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg")), st.integers(1, 99), max_size=20
)


@given(graphs)
def test_nodes_do_not_overlap_and_edges_end_where_their_nodes_are(weights):
    """Whatever leads where, in cycles too."""
    layout = layered(weights)

    places = sorted((y, x) for x, y in layout.nodes.values())
    for (y0, x0), (y1, x1) in pairwise(places):
        assert y0 != y1 or x1 - x0 >= 0.999
    for (a, b), points in layout.edges.items():
        assert (points[0], points[-1]) == (layout.nodes[a], layout.nodes[b])
        assert all(abs(one[1] - other[1]) == 1 for one, other in pairwise(points))
    assert set(layout.edges) == {(a, b) for a, b in weights if a != b}
    assert layered(dict(reversed(weights.items()))) == layout


def test_planted_nodes_in_one_place_are_noticed(monkeypatch):
    """The property above can fail."""
    monkeypatch.setattr(layering, "NODE", 0.0)

    with pytest.raises(AssertionError):
        test_nodes_do_not_overlap_and_edges_end_where_their_nodes_are()


def test_a_graph_that_goes_one_way_goes_down():
    """From its first node to its last, every edge."""
    weights = {("in", "a"): 5, ("a", "b"): 4, ("b", "out"): 4, ("a", "out"): 1, ("b", "a"): 1}

    layout = layered(weights, "in", "out")

    depth = {node: y for node, (_, y) in layout.nodes.items()}
    assert depth == {"in": 0, "a": 1, "b": 2, "out": 3}
