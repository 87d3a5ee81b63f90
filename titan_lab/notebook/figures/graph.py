"""Flow: what directly follows what, as a graph; and the ways that lives take, as a Sankey diagram."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING, Any

import polars as pl

from titan_lab.notebook.figures.family import (
    INK,
    OTHERS,
    SENTENCE,
    bare,
    colour_of,
    empty,
    figure,
    lasting,
    leading,
    need,
    percent,
    safe,
    see_through,
)
from titan_lab.notebook.figures.layering import Edge, layered
from titan_lab.notebook.figures.lines import (
    circle,
    edge_line,
    label_place,
    loop_line,
    node_box,
    path,
    rounded,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

BEGIN, END = "begin", "end"
EDGES = 24  # a graph of more cannot be followed with the eye
LAYER = 92  # pixels
WIDTH = 5.5  # boxes side by side


def flow(found: pl.DataFrame, *, edges: int = EDGES, title: str = "What follows what") -> go.Figure:
    """Draw which event type directly follows which as a graph: how often, and the median wait, on each edge.

    found: `book.flow()` or `log.flow()`. edges: how many to draw; the most frequent, and for each type the
    most frequent that lead to it and away from it. Of more than 12 types the rarer ones are drawn as one,
    whose waits are not known. An edge's width grows with the root of its count.
    """
    need(found, "from_type", "to_type", "count", "share", "median_wait", source="book.flow()")
    if found.is_empty():
        return empty(title, "No events, so nothing follows anything.")
    graph = _graph(found)
    drawn = _strongest(graph, edges)
    total = sum(count for count, _ in graph.values())
    told = sum(graph[edge][0] for edge in drawn)
    note = (
        f"{len(drawn):,} of {len(graph):,} connections, which are {percent(told / total)} of all steps"
        if len(drawn) < len(graph)
        else ""
    )
    made = figure(title, "", "", note)
    layout = layered({edge: graph[edge][0] for edge in drawn}, BEGIN, END)
    _draw_edges(made, graph, drawn, layout.nodes, layout.edges)
    _draw_nodes(made, graph, layout.nodes)
    bare(made)
    xs, ys = ([place[i] for place in layout.nodes.values()] for i in (0, 1))
    bends = [x for points in layout.edges.values() for x, _ in points]
    left, right = min(xs + bends) - 0.7, max(xs + bends) + 0.8
    room = max(WIDTH - (right - left), 0) / 2  # so that the boxes of a small graph are no larger than others
    made.update_xaxes(range=[left - room, right + room])
    made.update_yaxes(range=[max(ys) + 0.45, min(ys) - 0.45])
    made.update_layout(
        height=110 + int(LAYER * (max(ys) + 0.9)), hovermode="closest", showlegend=False, margin={"b": 12}
    )
    return made


def sankey(found: pl.DataFrame, *, steps: int = 6, title: str = "The ways that lives take") -> go.Figure:
    """Draw how lives go from step to step, as a Sankey diagram of their first so many steps.

    found: `book.variants()` or `log.variants()`. A node is an event type at its place in the life, so that
    nothing runs backwards; repetitions of one type, one right after the other, count as one step. A life that
    ends sooner flows into "end". Of more than 12 types the rarer ones are drawn as one.
    """
    need(found, "variant", "count", source="book.variants()")
    if found.is_empty():
        return empty(title, "No lives, so there is no way they took.")
    listed = found.select("variant", "count").rows()
    sizes: dict[str, int] = defaultdict(int)
    for kinds, count in listed:
        for kind in set(kinds):
            sizes[kind] += count
    kept = leading(sizes)
    links: dict[tuple[tuple[int, str], tuple[int, str]], int] = defaultdict(int)
    more = 0
    for kinds, count in listed:
        way = [one for one, before in zip(kinds, [None, *kinds], strict=False) if one != before]
        names = [one if one in kept else "other types" for one in way[:steps]]
        places = [*enumerate(names)]
        more += count if len(way) > steps else 0
        if len(way) <= steps:
            places.append((len(names), "\0"))
        for a, b in pairwise(places):
            links[a, b] += count
    nodes = sorted({node for pair in links for node in pair}, key=lambda node: (node[0], node[1]))
    number = {node: place for place, node in enumerate(nodes)}
    colours = colour_of(name for _, name in nodes) | {"\0": "#a9b2bd", "other types": OTHERS[-1]}
    note = (
        f"the first {steps} steps; {more:,} of {sum(n for _, n in listed):,} lives go on after them"
        if more
        else ""
    )
    made = figure(title, "", "", note)
    ordered = sorted(links, key=lambda pair: (number[pair[0]], number[pair[1]]))
    made.add_sankey(
        arrangement="snap",
        node={
            "label": ["end" if name == "\0" else safe(name) for _, name in nodes],
            "color": [colours[name] for _, name in nodes],
            "line": {"width": 0},
            "pad": 14,
            "thickness": 14,
            "customdata": [step + 1 for step, _ in nodes],
            "hovertemplate": "step %{customdata}: %{label}<br>%{value:,} lives<extra></extra>",
        },
        link={
            "source": [number[a] for a, _ in ordered],
            "target": [number[b] for _, b in ordered],
            "value": [links[pair] for pair in ordered],
            "color": [see_through(colours[b[1]], 0.27) for _, b in ordered],
            "hovertemplate": "%{source.label} → %{target.label}<br>%{value:,} lives<extra></extra>",
        },
        textfont={"color": INK, "size": 12, "shadow": "none"},
    )
    bare(made)
    made.update_layout(height=460, margin={"l": 12, "b": 20})
    return made


def _graph(found: pl.DataFrame) -> dict[Edge, tuple[int, Any]]:
    """Give count and median wait by edge. Nodes have keys of their own, so that a type may be named "end"."""
    sizes: dict[str, int] = defaultdict(int)
    rows = found.select("from_type", "to_type", "count", "median_wait").rows()
    for before, after, count, _ in rows:
        for kind in {before, after} - {None}:
            sizes[kind] += count
    kept = leading(sizes)
    graph: dict[Edge, tuple[int, Any]] = {}
    for before, after, count, wait in rows:
        a = BEGIN if before is None else f"type {before}" if before in kept else "others"
        b = END if after is None else f"type {after}" if after in kept else "others"
        seen = graph.get((a, b))
        graph[a, b] = (count, wait) if seen is None else (seen[0] + count, None)
    return graph


def _strongest(graph: dict[Edge, tuple[int, Any]], most: int) -> list[Edge]:
    ranked = sorted(graph, key=lambda edge: (-graph[edge][0], edge))
    wanted = set(ranked[:most])
    for side in (0, 1):
        seen: set[str] = set()
        for edge in ranked:
            if edge[0] != edge[1] and edge[side] not in seen:
                seen.add(edge[side])
                wanted.add(edge)
    return [edge for edge in ranked if edge in wanted]


def _name(node: str) -> str:
    return (
        node.removeprefix("type ")
        if node.startswith("type ")
        else "other types"
        if node == "others"
        else node
    )


def _lines(name: str) -> str:
    """Break a long name in two where a word of it begins."""
    cut = name if len(name) <= 26 else name[:25] + "…"
    words = [found.start() for found in re.finditer(r"(?<=[a-z\d])(?=[A-Z])|(?<=[ _-])", cut)]
    if len(cut) <= 12 or not words:
        return safe(cut)
    place = min(words, key=lambda place: abs(place - len(cut) / 2))
    return f"{safe(cut[:place])}<br>{safe(cut[place:])}"


def _draw_nodes(made: go.Figure, graph: dict[Edge, tuple[int, Any]], nodes: dict[str, Any]) -> None:
    comes = {n: sum(count for (_, b), (count, _) in graph.items() if b == n) for n in nodes}
    goes = {n: sum(count for (a, _), (count, _) in graph.items() if a == n) for n in nodes}
    colours = colour_of(_name(n) for n in nodes if n.startswith("type "))
    for node, (x, y) in nodes.items():
        tint = colours[_name(node)] if node.startswith("type ") else "#8a8f98"
        outside = node in (BEGIN, END)
        made.add_shape(
            type="path" if not outside else "circle", layer="above",
            **({"path": rounded(x, y)} if not outside else circle(x, y)),
            fillcolor=tint, line={"width": 0},
        )  # fmt: skip
    names = [*nodes]
    made.add_scatter(
        x=[x for x, _ in nodes.values()],
        y=[y for _, y in nodes.values()],
        mode="markers",
        name="nodes",
        marker={"size": 34, "opacity": 0},
        customdata=[
            [safe(_name(n), SENTENCE), f"{comes[n] if n != BEGIN else goes[n]:,}", _leads(graph, n)]
            for n in names
        ],
        hovertemplate="<b>%{customdata[0]}</b>: %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    )
    for node, (x, y) in nodes.items():
        # An annotation stands above the shapes; a trace's text would lie below them.
        count = comes[node] if node != BEGIN else goes[node]
        made.add_annotation(
            x=x, y=y, text=f"{_lines(_name(node))}<br>{count:,}", showarrow=False,
            font={"size": 10.5, "color": "#ffffff"}, captureevents=False,
        )  # fmt: skip


def _leads(graph: dict[Edge, tuple[int, Any]], node: str) -> str:
    """Say what follows a node, most frequent first."""
    after = sorted(((count, b) for (a, b), (count, _) in graph.items() if a == node), reverse=True)
    told = [f"→ {safe(_name(b))} {count:,}" for count, b in after[:6]]
    return "<br>".join(told + ([f"→ {len(after) - 6} more"] if len(after) > 6 else []))


def _draw_edges(
    made: go.Figure,
    graph: dict[Edge, tuple[int, Any]],
    drawn: list[Edge],
    nodes: dict[str, Any],
    edges: dict[Edge, Any],
) -> None:
    most = max(count for count, _ in graph.values())
    out: dict[str, int] = defaultdict(int)
    for (a, _), (count, _) in graph.items():
        out[a] += count
    told = [
        [safe(_name(a), SENTENCE), safe(_name(b), SENTENCE), f"{graph[a, b][0]:,}",
         percent(graph[a, b][0] / out[a]), lasting(graph[a, b][1])]
        for a, b in drawn
    ]  # fmt: skip
    texts = [one[2] if one[4] == "–" else f"{one[2]} · {one[4]}" for one in told]
    tips, labels, taken = [], [], [node_box(x, y) for x, y in nodes.values()]
    for edge, text in zip(drawn, texts, strict=True):
        count, _ = graph[edge]
        back = edge[0] != edge[1] and nodes[edge[0]][1] > nodes[edge[1]][1]
        line = loop_line(*nodes[edge[0]]) if edge[0] == edge[1] else edge_line(edges[edge], back)
        made.add_shape(
            type="path", path=path(line), layer="below",
            line={"color": see_through("#7f8c9b", 0.6), "width": round(1 + 6 * sqrt(count / most), 2)},
        )  # fmt: skip
        tips.append((*line[-1], 270 if edge[0] == edge[1] else 0 if back else 180))
        labels.append(label_place(line, len(text), taken))
        taken.append(labels[-1][2])
    made.add_scatter(
        x=[x for x, _, _ in tips],
        y=[y for _, y, _ in tips],
        mode="markers",
        name="arrows",
        hoverinfo="skip",
        marker={
            "symbol": "triangle-up",
            "size": 10,
            "angle": [angle for _, _, angle in tips],
            "color": "#7f8c9b",
        },
    )
    made.add_scatter(
        x=[x for (x, _), _, _ in labels],
        y=[y for (_, y), _, _ in labels],
        mode="markers+text",
        name="edges",
        marker={"size": 16, "opacity": 0},
        text=texts,
        textposition=[side for _, side, _ in labels],
        textfont={"size": 10.5, "color": INK},
        customdata=told,
        hovertemplate="%{customdata[0]} → %{customdata[1]}<br>%{customdata[2]} times, %{customdata[3]} "
        "of what follows<br>median wait %{customdata[4]}<extra></extra>",
    )
