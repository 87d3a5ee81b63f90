"""Funnel: how many aggregates take given steps one after the other, and which events prove it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import polars as pl

from titan_lab.clock import MICROSECOND, duration
from titan_lab.errors import FunnelError, InstantError, NoSuchColumn, nearest
from titan_lab.event import TIMESTAMP
from titan_lab.lists import lists_together
from titan_lab.mining.chains import Chains, Course, chains, whole
from titan_lab.mining.waits import Waits, quantile
from titan_lab.notebook import figures, html
from titan_lab.parallel import each, joined
from titan_lab.rows import Rows

if TYPE_CHECKING:
    import plotly.graph_objects as go

Order: TypeAlias = Literal["given", "any"]
By: TypeAlias = Callable[[np.ndarray, np.ndarray], pl.Series]  # rows and their aggregates -> values

AGES = 2**62  # microseconds: a window longer than all time
SHOWN = 4  # steps in a repr
STEPS: dict[str, Any] = {
    "step": pl.Int64,
    "name": pl.String,
    "count": pl.Int64,
    "share_of_first": pl.Float64,
    "share_of_previous": pl.Float64,
    "median_wait": pl.Duration("us"),
}
WITNESSES = ("aggregate_id", "reached", "versions", "event_types", "timestamps")
FIELD = re.compile(r"(payload|metadata)\.(\w+(?:\.\w+)*)")


def funnel(
    rows: Rows,
    steps: Any,
    within: str | timedelta | None = None,
    by: tuple[str, By] | None = None,
    *,
    order: Order = "given",
    strict: bool = False,
    reentry: bool = False,
) -> Funnel:
    """Follow the steps through every life. by: a name, and the values to group by at a chain's first row."""
    if order not in ("given", "any"):
        raise FunnelError(f"{order!r} is no order", hint="use order='given' or order='any'")
    if strict and order == "any":
        raise FunnelError(
            "strict leaves nothing between steps in their order, and order='any' gives them none",
            hint="leave one of the two out",
        )
    names, tables = read_steps(steps, rows)
    if order == "any":
        _apart(names, tables)
        names = [f"{number} of {len(names)}" for number in range(1, len(names) + 1)]
    if by is not None and by[0] in (*STEPS, *WITNESSES):
        raise FunnelError(f"a funnel has a column {by[0]!r} of its own", hint="rename yours", column=by[0])
    return Funnel(rows, names, Course(tables, window(within), strict, order == "any", reentry), by)


class Funnel:
    """How far aggregates came along the steps: ``.steps`` counts them, ``.witnesses`` proves it."""

    def __init__(self, rows: Rows, names: list[str], course: Course, by: tuple[str, By] | None) -> None:
        self.names = names
        self._rows = rows
        self._course = course
        self._pieces = chains(rows, course)
        self._by = None
        if by is not None:  # each chain's value, at the event that takes its first step
            self._by = by[1](self._chains.steps[0].rows, self._chains.lives).alias(by[0])

    @cached_property
    def _chains(self) -> Chains:
        return whole(self._pieces, len(self.names))

    @cached_property
    def steps(self) -> pl.DataFrame:
        """Count who came to each step: one row per step, and per value of `by`, sorted by that and step.

        Returns the `by` column; step Int64, from 1; name String; count Int64; share_of_first Float64;
        share_of_previous Float64, null for the first step; and median_wait Duration(us), since the step
        before, of those who took both, rounded down; null where nobody did. A share of nobody is null.
        """
        size, groups = len(self.names), pl.Series([None])
        if self._by is None:
            told = each(self._step, range(size), len(self._rows.typed))
        else:
            groups = self._by.unique().sort(nulls_last=True)
            of = _places(self._by, groups)
            told = each(lambda step: self._step_by(step, of, len(groups)), range(size), len(self._rows.typed))
        counts, medians = (np.column_stack([one[place] for one in told]) for place in (0, 1))
        waited = (counts > 0) & (np.arange(size) > 0)
        before = np.hstack([np.zeros((len(groups), 1), dtype=np.int64), counts[:, :-1]])
        frame = pl.DataFrame(
            {
                "step": np.tile(np.arange(1, size + 1), len(groups)),
                "name": self.names * len(groups),
                "count": counts.reshape(-1),
                "share_of_first": _share(counts, counts[:, :1]),
                "share_of_previous": _share(counts, before),
                "median_wait": pl.Series(medians.reshape(-1)).set(pl.Series(~waited.reshape(-1)), None),
            },
            schema_overrides=STEPS,
        )
        if self._by is None:
            return frame
        return frame.insert_column(0, groups.gather(np.repeat(np.arange(len(groups)), size)))

    @cached_property
    def witnesses(self) -> pl.DataFrame:
        """List how far each aggregate came, and by which events; who never took the first step is not in it.

        Returns aggregate_id String; the `by` column; reached Int64, the number of steps; and one entry for
        each of these in versions List(Int64), event_types List(String) and timestamps List(Datetime(us,
        UTC)), as recorded. Sorted by aggregate_id, then version; with reentry, one row for each entry.
        """
        found, typed = self._chains, self._rows.typed
        depth = found.depth
        rows, begins = np.empty(int(depth.sum()), dtype=np.int64), np.cumsum(depth) - depth
        for place, taken in enumerate(found.steps):
            rows[begins.take(taken.chains) + place] = taken.rows
        names = pl.Series(typed.kinds, dtype=pl.String)
        lists = {
            "versions": pl.Series(typed.version[rows], dtype=pl.Int64),
            "event_types": names.gather(typed.kind[rows].astype(np.uint32)),
            "timestamps": pl.Series(typed.timestamp[rows]).cast(TIMESTAMP),
        }
        columns = [typed.ids.gather(found.lives).alias("aggregate_id")]
        columns += [] if self._by is None else [self._by]
        columns += [pl.Series("reached", depth, dtype=pl.Int64)]
        return pl.DataFrame(columns + [lists_together(depth, v).alias(n) for n, v in lists.items()])

    def plot(self) -> go.Figure:
        """Draw how many came to each step; see ``notebook.figures.funnel``."""
        return figures.funnel(self.steps)

    @property
    def counts(self) -> list[int]:
        """Count who came to each step, over all groups."""
        return [sum(len(p.steps[step].rows) for p in self._pieces) for step in range(len(self.names))]

    def _step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Count who took a step, and give the median wait for it in microseconds, 0 where nobody did."""
        waits = joined([piece.steps[step].waits for piece in self._pieces], np.int64)
        return np.array([len(waits)]), np.array([quantile(waits, 5) or 0])

    def _step_by(self, step: int, of: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Do so for each group; `of` tells each chain's."""
        taken = self._chains.steps[step]
        waits = Waits(of.take(taken.chains), taken.waits, groups)
        return waits.counts, waits.quantile(5).to_physical().fill_null(0).to_numpy()

    def __repr__(self) -> str:
        told = [f"{html.line(name)} {count:,}" for name, count in zip(self.names, self.counts, strict=True)]
        if len(told) > SHOWN:
            told[SHOWN - 1 : -1] = [f"{len(told) - SHOWN} more"]
        return f"<Funnel of {self._of}: {' > '.join(told)}>"

    def _repr_html_(self) -> str:
        rules = [
            f"within {html.shown(self._course.within * MICROSECOND)}"
            if self._course.within is not None
            else "",
            "nothing in between" if self._course.strict else "",
            "each entry counts" if self._course.reentry else "",
            "see .witnesses for the events",
        ]
        return html.table(self.steps, caption=f"Funnel of {self._of}", note=" · ".join(filter(None, rules)))

    @property
    def _of(self) -> str:
        return f"{len(self._rows.typed.ids):,} aggregates"


def read_steps(steps: Any, rows: Rows) -> tuple[list[str], list[bytes]]:
    """Read steps as names to show, and for each the kinds that take it, as one byte per kind.

    Raises FunnelError for no step, for what is none, and for one that no event takes; a history without
    events has nothing to compare with, and takes any.
    """
    listed = _listed(steps)
    if not listed:
        raise FunnelError("a funnel of no steps", hint="funnel(['OrderCreated', 'OrderShipped'])")
    kinds = rows.typed.kinds
    there = np.zeros(len(kinds), dtype=bool)
    there[rows.typed.kind] = True
    known = [name for name, some in zip(kinds, there, strict=True) if some]
    names, tables = [], []
    for number, step in enumerate(listed, start=1):
        wanted = _wanted(step, known, number)
        if known and not wanted:
            told = f"no event takes step {number}, {_name(step, wanted)!r}"
            raise FunnelError(told, hint=_suggest(step, known), step=step, known=known)
        names.append(_name(step, wanted))
        tables.append(np.isin(kinds, list(wanted)).tobytes() if kinds else b"")
    return names, tables


def event_column(events: pl.DataFrame, name: str) -> By:
    """Give the values of a column of EVENTS, or the texts of a field such as "payload.country", by row.

    Raises NoSuchColumn.
    """
    field = FIELD.fullmatch(name)
    if field is not None:
        column, path = field.groups()
        return lambda rows, owners: events[column].gather(rows).str.json_path_match(f"$.{path}")
    if name not in events.columns:
        raise NoSuchColumn(
            f"{name!r} is no column of the events",
            hint=nearest(name, events.columns) or "use 'payload.country' or 'metadata.channel' for a field",
            column=name,
        )
    return lambda rows, owners: events[name].gather(rows)


def window(within: str | timedelta | None) -> int | None:
    """Read how long a funnel may take, in microseconds."""
    if within is None:
        return None
    length = duration(within) // MICROSECOND
    if length < 0:
        raise InstantError(
            f"a window of {within} ends before it begins", hint="use '7d', '12h' or a timedelta"
        )
    return min(length, AGES)


def _listed(steps: Any) -> list[Any]:
    if isinstance(steps, str | type) or callable(steps):
        return [steps]
    if not isinstance(steps, Iterable):
        raise FunnelError(f"{steps!r} is no list of steps", hint="funnel(['OrderCreated', 'OrderShipped'])")
    return list(steps)


def _wanted(step: Any, known: list[str], number: int) -> set[str]:
    """Give the types, among those that occur, whose events take a step."""
    name = step if isinstance(step, str) else getattr(step, "event_type", None)
    if isinstance(name, str):
        return {name} & set(known)
    if not callable(step) or isinstance(step, type):
        raise FunnelError(
            f"step {number} is {step!r}, no event type",
            hint="use a name, an event class, or a function from a name to True or False",
            step=step,
        )
    wanted = set()
    for kind in known:
        try:
            says = step(kind)
        except Exception as error:
            raise FunnelError(
                f"step {number} failed on {kind!r} with {type(error).__name__}: {error}",
                hint="a step's function gets the name of an event type",
                step=step,
            ) from error
        if not isinstance(says, bool | np.bool_):
            raise FunnelError(f"step {number} says {says!r} of {kind!r}, neither True nor False", step=step)
        wanted |= {kind} if says else set()
    return wanted


def _name(step: Any, wanted: set[str]) -> str:
    name = step if isinstance(step, str) else getattr(step, "event_type", None)
    if isinstance(name, str):
        return name
    own = getattr(step, "__name__", type(step).__name__)
    return own if own != "<lambda>" else " | ".join(sorted(wanted)) or "a function"


def _suggest(step: Any, known: list[str]) -> str:
    name = _name(step, set())
    near = nearest(name, known) or nearest(name.casefold(), [kind.casefold() for kind in known])
    return near or f"the types that occur are {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"


def _apart(names: list[str], tables: list[bytes]) -> None:
    """Refuse steps of which an event could take either: in any order it would not be told which."""
    for place, table in enumerate(tables):
        for other in range(place):
            both = np.frombuffer(table, dtype=bool) & np.frombuffer(tables[other], dtype=bool)
            if table != tables[other] and both.any():
                raise FunnelError(
                    f"steps {other + 1} ({names[other]}) and {place + 1} ({names[place]}) share some types",
                    hint="in any order, two steps must be of the same types or have none in common",
                )


def _places(values: pl.Series, among: pl.Series) -> np.ndarray:
    """Give each value's place among others that are there once each."""
    numbers = pl.DataFrame({"value": among, "number": np.arange(len(among))})
    found = (
        values.alias("value")
        .to_frame()
        .join(numbers, on="value", how="left", nulls_equal=True, maintain_order="left")
    )
    return found["number"].to_numpy()


def _share(counts: np.ndarray, whole: np.ndarray) -> pl.Series:
    whole = np.broadcast_to(whole, counts.shape).reshape(-1)
    shares = counts.reshape(-1) / np.maximum(whole, 1)
    return pl.Series(shares).set(pl.Series(whole == 0), None)
