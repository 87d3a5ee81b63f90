"""The lines and boxes of a graph: paths for plotly, and places for what is written beside them."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

from titan_lab.notebook.figures.layering import Point

Box: TypeAlias = tuple[float, float, float, float]  # left, right, top, bottom

WIDE, HIGH = 0.43, 0.25  # half a node's sides, where nodes are 1 apart
LETTER, TALL, BESIDE = 0.05, 0.09, 0.06  # a label: the width of a letter, half its height, its distance


def edge_line(points: list[Point], back: bool) -> list[Point]:
    """Give the points of an edge, from the side of one node to that of the other."""
    side = -HIGH if back else HIGH
    (x0, y0), (x1, y1) = points[0], points[-1]
    aside = 0.16 if back and len(points) == 2 else 0.0  # beside the edge that leads the other way
    return [(x0 + aside, y0 + side), *points[1:-1], (x1 + aside, y1 - side - (-0.04 if back else 0.04))]


def loop_line(x: float, y: float) -> list[Point]:
    """Give the points of an edge from a node's right side back to it."""
    return [(x + WIDE, y + 0.12), (x + WIDE + 0.14, y), (x + WIDE + 0.03, y - 0.12)]


def path(line: list[Point]) -> str:
    """Draw a smooth line through points, upright at each of them."""
    text = f"M{line[0][0]:.3f},{line[0][1]:.3f}"
    for (xa, ya), (xb, yb) in pairwise(line):
        half = (ya + yb) / 2
        text += f"C{xa:.3f},{half:.3f} {xb:.3f},{half:.3f} {xb:.3f},{yb:.3f}"
    return text


def label_place(line: list[Point], letters: int, taken: list[Box]) -> tuple[Point, str, Box]:
    """Find a place on a line whose label lies on no box: that place, the label's side, and its box.

    Of several the most central one, to the right of the line before the left; of none the one that covers
    least.
    """
    found, least = [], []
    for share in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8):
        step, rest = divmod(share * (len(line) - 1), 1)
        (xa, ya), (xb, yb) = line[int(step)], line[min(int(step) + 1, len(line) - 1)]
        bend = rest * rest * (3 - 2 * rest)  # the line is flat in its middle and upright at its ends
        x, y = xa + (xb - xa) * bend, ya + (yb - ya) * rest
        for side, left in (("middle right", x + BESIDE), ("middle left", x - BESIDE - letters * LETTER)):
            box = (left, left + letters * LETTER, y - TALL, y + TALL)
            found.append(((x, y), side, box))
            least.append(sum(covered(box, other) for other in taken))
    return found[least.index(min(least))]


def covered(one: Box, other: Box) -> float:
    """Measure how much of a box lies on another."""
    width = min(one[1], other[1]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[2], other[2])
    return max(width, 0.0) * max(height, 0.0)


def node_box(x: float, y: float) -> Box:
    """Give the box of a node."""
    return x - WIDE, x + WIDE, y - HIGH, y + HIGH


def rounded(x: float, y: float) -> str:
    """Draw a box with rounded corners."""
    left, right, top, bottom = node_box(x, y)
    corners = [(right, top), (right, bottom), (left, bottom), (left, top)]
    # Into a corner and out of it again, clockwise.
    turns = [
        (0.05, 0.0, 0.0, 0.06),
        (0.0, 0.06, -0.05, 0.0),
        (-0.05, 0.0, 0.0, -0.06),
        (0.0, -0.06, 0.05, 0.0),
    ]
    text = ""
    for (cx, cy), (ax, ay, bx, by) in zip(corners, turns, strict=True):
        text += (
            f"{'L' if text else 'M'}{cx - ax:.3f},{cy - ay:.3f}Q{cx:.3f},{cy:.3f} {cx + bx:.3f},{cy + by:.3f}"
        )
    return text + "Z"


def circle(x: float, y: float) -> dict[str, float]:
    """Give the corners of a circle, for where lives begin and end."""
    return {"x0": x - 0.3, "x1": x + 0.3, "y0": y - HIGH, "y1": y + HIGH}
