"""The tree of causes around an event, across aggregates, from what the metadata says.

Events of one request share a `correlation_id`. A `causation_id` names what caused an event: another event,
by the `event_id` in its metadata or as "aggregate_id/version", or else something outside of the log, such as
a command; that becomes a node of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from titan_lab.clock import from_micros
from titan_lab.errors import InstantError
from titan_lab.event import TIMESTAMP
from titan_lab.jsontext import in_pieces
from titan_lab.marks import marks
from titan_lab.metadata import told
from titan_lab.parallel import joined
from titan_lab.typed import Typed

TRACE = pl.Schema(
    {
        "depth": pl.Int64(),
        "cause": pl.String(),
        "aggregate_id": pl.String(),
        "version": pl.Int64(),
        "event_type": pl.String(),
        "timestamp": TIMESTAMP,
        "correlation_id": pl.String(),
        "causation_id": pl.String(),
        "cycle": pl.Boolean(),
    }
)


class Node(NamedTuple):
    """One event of the tree; `name` is what others call it as their cause."""

    timestamp: int
    aggregate_id: str
    version: int
    name: str
    event_type: str
    correlation_id: str | None
    causation_id: str | None


def trace(typed: Typed, number: int, version: int | None = None) -> pl.DataFrame:
    """Lay out the tree of causes around one event, or around all events of an aggregate.

    number: the aggregate's. See ``Story.trace``.
    """
    rows = np.arange(typed.starts[number], typed.ends[number])
    if version is not None:
        chosen = rows[typed.version[rows] == version]
        if not len(chosen):
            raise InstantError(
                f"{typed.ids[number]} has no version {version}",
                hint=f"its versions run from {typed.version[rows[0]]} to {typed.version[rows[-1]]}",
                version=version,
            )
        rows = chosen
    return _frame(_nodes(typed, _around(typed, rows)))


def _around(typed: Typed, rows: np.ndarray) -> pl.DataFrame:
    """Gather the events that share a correlation_id with these rows, and all that causes link to those."""
    found = _said(typed, rows)
    wanted = found["correlation_id"].drop_nulls().unique()
    related = _said(typed, _mentioning(typed, wanted))
    found = _united(found, related.filter(related["correlation_id"].is_in(wanted.implode())))
    asked = pl.Series([], dtype=pl.String)
    while True:
        named = (
            pl.concat([found[name] for name in ("place", "event_id", "causation_id")]).drop_nulls().unique()
        )
        new = named.filter(~named.is_in(asked.implode()))
        if new.is_empty():
            return found
        asked = named
        rows = np.union1d(_mentioning(typed, new), _placed(typed, new))
        linked = pl.any_horizontal(pl.col("place", "event_id", "causation_id").is_in(new.implode()))
        found = _united(found, _said(typed, rows).filter(linked))


def _said(typed: Typed, rows: np.ndarray) -> pl.DataFrame:
    """Read what the metadata of some rows says; `place` is how others may call an event without an id."""
    owners, texts = typed.ids.gather(typed.aggregate_of(rows)), typed.metadata_of(rows)
    return pl.DataFrame(
        {
            "row": pl.Series(rows, dtype=pl.Int64),
            "place": pl.select(pl.format("{}/{}", owners, pl.Series(typed.version[rows]))).to_series(),
            **{name: _named(told(texts, name)) for name in ("event_id", "correlation_id", "causation_id")},
        }
    )


def _named(names: pl.Series) -> pl.Series:
    """Take an empty name for none."""
    return names.set(names == "", None)


def _mentioning(typed: Typed, names: pl.Series) -> np.ndarray:
    """Find the rows whose metadata holds one of these names anywhere, or an escape, which may hide one."""
    needles = [*names, "\\"]

    def look(texts: pl.Series) -> np.ndarray:
        return marks(texts.str.contains_any(needles))

    return np.flatnonzero(joined(in_pieces(typed.metadata, look), bool))


def _placed(typed: Typed, names: pl.Series) -> np.ndarray:
    """Find the rows of events that are named as "aggregate_id/version"."""
    parts = names.str.extract_groups(r"(?s)^(.*)/([0-9]{1,18})$").struct.unnest()
    numbers = typed.ids.search_sorted(parts["1"].fill_null("")).to_numpy()
    rows = []
    for number, aggregate_id, version in zip(numbers, parts["1"], parts["2"], strict=True):
        if number < len(typed.ids) and typed.ids[int(number)] == aggregate_id:
            life = slice(typed.starts[number], typed.ends[number])
            rows.extend(typed.starts[number] + np.flatnonzero(typed.version[life] == int(version)))
    return np.array(rows, dtype=np.int64)


def _united(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([a, b]).unique("row").sort("row")


def _nodes(typed: Typed, found: pl.DataFrame) -> list[Node]:
    """Make nodes of rows, in order of time."""
    rows = found["row"].to_numpy()
    owners = typed.ids.gather(typed.aggregate_of(rows))
    return sorted(
        Node(
            int(typed.timestamp[row]),
            aggregate_id,
            int(typed.version[row]),
            said["event_id"] or said["place"],
            typed.kinds[typed.kind[row]],
            said["correlation_id"],
            said["causation_id"],
        )
        for row, aggregate_id, said in zip(rows, owners, found.iter_rows(named=True), strict=True)
    )


def _frame(nodes: list[Node]) -> pl.DataFrame:
    """Lay nodes out as a tree, parents before their children."""
    known: dict[str | None, Node] = {}  # a name that two claim belongs to the first of them
    for node in nodes:
        known.setdefault(node.name, node)
    for node in nodes:
        known.setdefault(f"{node.aggregate_id}/{node.version}", node)
    cause = {node: known.get(node.causation_id, node.causation_id) for node in nodes}
    effects: defaultdict[Node | str | None, list[Node]] = defaultdict(list)
    for node in nodes:
        effects[cause[node]].append(node)
    rows: list[tuple] = []
    seen: set[Node | str] = set()

    def walk(root: Node | str, cycle: bool = False) -> None:
        todo = [(root, 0)]
        while todo:
            one, depth = todo.pop()
            if one in seen:
                continue
            seen.add(one)
            if isinstance(one, str):
                rows.append((depth, one, *[None] * 6, False))
            else:
                stamp = from_micros(one.timestamp)
                what = (one.aggregate_id, one.version, one.event_type, stamp)
                rows.append(
                    (depth, one.name, *what, one.correlation_id, one.causation_id, cycle and not depth)
                )
            todo.extend((effect, depth + 1) for effect in reversed(effects[one]))

    for node in nodes:
        if not isinstance(cause[node], Node):
            walk(cause[node] or node)
    for node in nodes:
        if node not in seen:
            walk(_first_of_circle(node, cause), cycle=True)
    return pl.DataFrame(rows, schema=TRACE, orient="row")


def _first_of_circle(node: Node, cause: Mapping[Node, Any]) -> Node:
    """Find the earliest event of the circle that a node's causes run into."""
    passed: set[Node] = set()
    while node not in passed:
        passed.add(node)
        node = cause[node]
    circle, end = [node], node
    while cause[node] != end:
        node = cause[node]
        circle.append(node)
    return min(circle)
