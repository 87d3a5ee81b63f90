"""Places for the nodes of a graph that mostly goes one way: in layers, with few crossings.

The steps are those of Sugiyama, Tagawa and Toda (1981, IEEE Transactions on Systems, Man, and Cybernetics 11,
109-125): turn the lightest edges round until no cycle is left, put each node below all that lead to it, let
long edges pass through points of their own in the layers between, and sort each layer by its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Edge: TypeAlias = tuple[str, str]
Point: TypeAlias = tuple[float, float]

SWEEPS = 8
NODE, BEND = 1.0, 0.5  # how wide a node is, and a point that an edge passes through
LOOP = 1.3  # how much wider a node is that has an edge to itself


class Layout(NamedTuple):
    """Places: each node's, with y growing downwards by layer, and each edge's points from node to node."""

    nodes: dict[str, Point]
    edges: dict[Edge, list[Point]]


def layered(weights: dict[Edge, int], first: str | None = None, last: str | None = None) -> Layout:
    """Lay out nodes by the weights of their edges; `first` stands in the first layer, `last` in the last.

    The same weights give the same places. Edges from a node to itself have no points.
    """
    order = _order(weights, first, last)
    place = {node: number for number, node in enumerate(order)}
    forward = {(a, b) if place[a] < place[b] else (b, a) for a, b in weights if a != b}
    layer = dict.fromkeys(order, 0)
    for a, b in sorted(forward, key=lambda edge: (place[edge[0]], place[edge[1]])):
        layer[b] = max(layer[b], layer[a] + 1)
    if last in layer:
        layer[last] = max(layer[last], max((n for node, n in layer.items() if node != last), default=-1) + 1)
    chains = {edge: _chain(edge, layer) for edge in sorted(forward, key=lambda e: (place[e[0]], place[e[1]]))}
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    level = dict(layer)
    for (a, _), chain in chains.items():
        level |= {point: layer[a] + step for step, point in enumerate(chain) if point not in layer}
    for node in level:
        rows[level[node]].append(node)
    neighbours: dict[str, list[str]] = defaultdict(list)
    for chain in chains.values():
        for a, b in pairwise(chain):
            neighbours[a].append(b)
            neighbours[b].append(a)
    wide = {node: NODE + LOOP * ((node, node) in weights) for node in order}
    at = _across(rows, level, neighbours, wide)
    points = {edge: [(at[one], float(level[one])) for one in chain] for edge, chain in chains.items()}
    drawn = {
        (a, b): points[a, b] if place[a] < place[b] else points[b, a][::-1] for a, b in weights if a != b
    }
    return Layout({node: (at[node], float(layer[node])) for node in order}, drawn)


def _order(weights: dict[Edge, int], first: str | None, last: str | None) -> list[str]:
    """Sort nodes so that what leads backwards weighs little: take, again and again, the one most ahead.

    After Eades, Lin and Smyth (1993, Information Processing Letters 47, 319-323).
    """
    left = sorted({node for edge in weights for node in edge})
    begin = [first] if first in left else []
    end = [last] if last in left else []
    left = [node for node in left if node not in (first, last)]
    order = list(begin)
    while left:
        # Of all that is left, what comes in for the node less what goes out of it: a source has the least.
        lead = dict.fromkeys(left, 0)
        for (a, b), weight in weights.items():
            if a != b and a in lead and b in lead:
                lead[a] += weight
                lead[b] -= weight
        reached = {b for a, b in weights if a in order} & set(left) or set(left)
        best = max(sorted(reached), key=lambda node: lead[node])
        order.append(best)
        left.remove(best)
    return order + end


def _chain(edge: Edge, layer: dict[str, int]) -> list[str]:
    a, b = edge
    return [a, *(f"{a}\0{b}\0{level}" for level in range(layer[a] + 1, layer[b])), b]


def _across(
    rows: list[list[str]], level: dict[str, int], neighbours: dict[str, list[str]], wide: dict[str, float]
) -> dict[str, float]:
    """Place each layer's points from left to right, near their neighbours in the layer before and after."""
    at: dict[str, float] = {}
    for row in rows:
        _spread(row, dict.fromkeys(row, 0.0), wide, at)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            wish = {}
            for one in row:
                near = [at[n] for n in neighbours[one] if (level[n] < level[one]) == down]
                near = near if sweep < SWEEPS - 2 else [at[n] for n in neighbours[one]]
                wish[one] = sum(near) / len(near) if near else at[one]
            row.sort(key=lambda one: (wish[one], at[one]))
            _spread(row, wish, wide, at)
    middle = (min(at.values(), default=0) + max(at.values(), default=0)) / 2
    return {one: where - middle for one, where in at.items()}


def _spread(row: list[str], wish: dict[str, float], wide: dict[str, float], at: dict[str, float]) -> None:
    """Keep a layer's order and distances, and otherwise put each point where it wishes to be."""
    half = {one: wide.get(one, BEND) / 2 for one in row}
    edge, places = -1e9, []
    for one in row:
        where = max(wish[one], edge + half[one])
        places.append(where)
        edge = where + half[one]
    # All were pushed to the right only; together they go back by what that was on average.
    drift = sum(where - wish[one] for one, where in zip(row, places, strict=True)) / max(len(row), 1)
    at |= {one: where - drift for one, where in zip(row, places, strict=True)}
