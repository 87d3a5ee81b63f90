"""Two books side by side: which states differ, what that is worth, and what became illegal.

Only the aggregates that an edit touched are looked at; all others have the same state in both.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from titan_lab.amounts import is_exact
from titan_lab.clock import from_micros, iso
from titan_lab.errors import BranchError, NoSuchColumn, nearest
from titan_lab.notebook import figures, html
from titan_lab.parallel import each
from titan_lab.reducers import machine
from titan_lab.timeline import Timeline
from titan_lab.whatif.side import ILLEGAL, Side
from titan_lab.whatif.splice import places
from titan_lab.written import as_written

if TYPE_CHECKING:
    import plotly.graph_objects as go

ORDERS = pl.Schema(dict.fromkeys(["aggregate_id", "field", "before", "after"], pl.String()))
NUMBERS = ["base", "branch", "change"]
STATES = pl.Schema({"column": pl.String(), "state": pl.String()} | dict.fromkeys(NUMBERS, pl.Int64()))
TOTALS = pl.Schema({"column": pl.String()} | dict.fromkeys(NUMBERS, pl.Decimal(38, 2)))


class Comparison:
    """What a branch changed, beside the book it is compared with. Made by ``branch.compare()``.

    Each frame is worked out when it is first asked for. `touched` counts the aggregates that were compared,
    `changed` those whose state differs.
    """

    def __init__(
        self,
        base: Timeline,
        touched: np.ndarray | None,
        branch: Timeline,
        *,
        names: tuple[str, str],
        moment: int | None = None,
        columns: list[str] | None = None,
    ) -> None:
        """Compare the touched aggregates of a base with a Timeline that holds these alone.

        touched: numbers in the base, None for all. columns: those that can differ, None for all.
        """
        self._all = Side(base, moment, None)
        self._base = Side(base, moment, touched)
        self._branch = Side(branch, moment, None)
        self.names = names
        self._moment = moment
        self.columns = [name for name in branch.aggregate.reducers if name in base.aggregate.reducers]
        self._suspects = [name for name in self.columns if columns is None or name in columns]
        mine, theirs = self._base.ids, self._branch.ids
        self._same = mine.equals(theirs)
        self._ids = mine if self._same else pl.concat([mine, theirs]).unique().sort()
        self.touched = len(self._ids)

    @cached_property
    def orders(self) -> pl.DataFrame:
        """List every value that differs, one row each, sorted by aggregate_id, then as columns are declared.

        Returns aggregate_id String, field String, before String, after String: amounts with their digits,
        instants as ISO with a Z, lists as JSON; null for no value and for an aggregate that is not there.
        ``of("total")`` gives one column with its own dtype.
        """
        told = [ORDERS.to_frame().with_columns(place=pl.lit(0, pl.Int64))]
        for name, (there, ours, theirs) in zip(self._suspects, self._differing, strict=True):
            told.append(
                pl.DataFrame(
                    {
                        "aggregate_id": self._ids.gather(there),
                        "field": pl.repeat(name, len(there), eager=True),
                        "before": as_written(ours),
                        "after": as_written(theirs),
                        "place": there,
                    },
                )
            )
        return pl.concat(told).sort("place", maintain_order=True).drop("place")

    def of(self, column: str) -> pl.DataFrame:
        """Give the aggregates for which one column differs: aggregate_id, before and after, in its dtype.

        Raises NoSuchColumn.
        """
        if column not in self.columns:
            raise NoSuchColumn(
                f"{column!r} is no column of both; there are {', '.join(self.columns)}",
                hint=nearest(column, self.columns),
                column=column,
            )
        if column not in self._suspects:
            ours, theirs = (side.column(column).clear() for side in (self._base, self._branch))
            there = np.zeros(0, dtype=np.int64)
        else:
            there, ours, theirs = self._differing[self._suspects.index(column)]
        return pl.DataFrame({"aggregate_id": self._ids.gather(there), "before": ours, "after": theirs})

    @property
    def changed(self) -> int:
        """Count the aggregates whose state differs."""
        found = np.zeros(len(self._ids), dtype=bool)
        for there, _, _ in self._differing:
            found[there] = True
        return int(found.sum())

    @cached_property
    def totals(self) -> pl.DataFrame:
        """Add up every column of exact numbers over all aggregates, in order of declaration.

        Returns column String, and base, branch and change Decimal(38, 2), exact.
        """
        rows = []
        names = [name for name in self.columns if is_exact(self._branch.book.aggregate.reducers[name].dtype)]

        def one(name: str) -> tuple[str, int, int, int]:
            dtype = self._branch.book.aggregate.reducers[name].dtype
            change = self._branch.total(name) - self._base.total(name) if name in self._suspects else 0
            return name, self._all.total(name), change, dtype.scale if isinstance(dtype, pl.Decimal) else 0

        for name, base, change, scale in each(one, names, len(self._all.rows)):
            sums = (Decimal(n).scaleb(-scale) for n in (base, base + change, change))
            rows.append((name, *sums))
        return pl.DataFrame(rows, schema=TOTALS, orient="row")

    @cached_property
    def states(self) -> pl.DataFrame:
        """Count the aggregates in each state, and all of them, sorted as columns and states are declared.

        Returns column String, state String (both null on the first row, which counts all; state is null for
        those in none), and base, branch and change Int64.
        """
        rows: list[tuple] = [
            (None, None, len(self._all.rows), len(self._branch.rows) - len(self._base.rows)),
        ]
        for name in self.columns:
            reducer = self._branch.book.aggregate.reducers[name]
            other = self._base.book.aggregate.reducers[name]
            if not (isinstance(reducer, machine) and isinstance(other, machine)):
                continue
            sides = (self._all, self._base, self._branch) if name in self._suspects else (self._all,)
            base, *both = (side.counts(name) for side in sides)
            before, after = both or ({}, {})
            for state in dict.fromkeys([*reducer.names, *base, None]):
                change = after.get(state, 0) - before.get(state, 0)
                if state is not None or base.get(state) or change:
                    rows.append((name, state, base.get(state, 0), change))
        told = [(name, state, base, base + change, change) for name, state, base, change in rows]
        return pl.DataFrame(told, schema=STATES, orient="row")

    @cached_property
    def illegal(self) -> pl.DataFrame:
        """List the transitions that are not allowed, of aggregates that had none in the base.

        Returns aggregate_id, version Int64, event_type, timestamp Datetime(us, UTC), column (of the machine),
        from_state (null: none yet) and to_state String, sorted by aggregate_id, version and column. Empty
        where no machine declares what is allowed.
        """
        found = [ILLEGAL.to_frame()]
        for name, reducer in self._branch.book.aggregate.reducers.items():
            if isinstance(reducer, machine) and reducer.allowed is not None:
                now = self._branch.illegal(reducer)
                other = self._base.book.aggregate.reducers.get(name)
                if len(now) and isinstance(other, machine) and other.allowed is not None:
                    before = self._base.illegal(other)
                    now = now.join(before, on="aggregate_id", how="anti", maintain_order="left")
                found.append(now)
        return pl.concat(found).sort("aggregate_id", "version", "column")

    @cached_property
    def _there(self) -> list[np.ndarray]:
        """Give for each id its place on either side, -1 where it is not there."""
        if self._same:
            return [np.arange(len(self._ids))] * 2
        found = [places(side.ids, self._ids) for side in (self._base, self._branch)]
        return [np.where(one.known, one.number, -1) for one in found]

    @cached_property
    def _differing(self) -> list[tuple[np.ndarray, pl.Series, pl.Series]]:
        """Give for each column where the sides differ, and the values of both there."""

        def one(name: str) -> tuple[np.ndarray, pl.Series, pl.Series]:
            sides = zip((self._base, self._branch), self._there, strict=True)
            ours, theirs = (_at(side.column(name), there) for side, there in sides)
            if ours.dtype != theirs.dtype:
                differ = as_written(ours).ne_missing(as_written(theirs))
            else:
                differ = ours.ne_missing(theirs)
            there = np.flatnonzero(differ.to_numpy())
            return there, ours.gather(there), theirs.gather(there)

        return each(one, self._suspects, len(self._ids))

    def plot(self) -> go.Figure:
        """Draw how many are in each state, in the book and in the branch; see ``notebook.figures``."""
        return figures.comparison(self)

    def __repr__(self) -> str:
        ours, theirs = map(html.line, self.names)
        when = "" if self._moment is None else f" at {iso(from_micros(self._moment))}"
        return (
            f"<Comparison of {theirs} with {ours}{when}: {self.touched:,} touched, {self.changed:,} changed,"
            f" {self.illegal['aggregate_id'].n_unique():,} became illegal>"
        )

    def _repr_html_(self) -> str:
        ours, theirs = self.names
        facts = {
            "compared": f"{theirs} with {ours}",
            "at": "the end" if self._moment is None else iso(from_micros(self._moment)),
            "touched": self.touched,
            "changed": f"{self.changed:,} (see .orders)",
            "became illegal": f"{self.illegal['aggregate_id'].n_unique():,} (see .illegal)",
        }
        counts = self.states.select(
            pl.coalesce("state", "column").fill_null("all"), "base", "branch", "change"
        )
        counts = counts.rename({"state": ""})
        return html.card(
            "Comparison",
            facts,
            body=html.table(counts, caption="how many", limit=50)
            + html.table(self.totals.rename({"column": ""}), caption="how much", limit=50),
        )


def _at(values: pl.Series, there: np.ndarray) -> pl.Series:
    """Gather values; -1 gives null."""
    missing = there < 0
    if not missing.any():
        whole = len(there) == len(values) and bool((there == np.arange(len(there))).all())
        return values if whole else values.gather(there)
    found = pl.Series(np.maximum(there, 0)).set(pl.Series(missing), None).cast(pl.UInt32)
    return values.gather(found) if len(values) else values.clear(len(there))


def same_declaration(mine: Timeline, other: Timeline) -> None:
    """Refuse to compare what has no column in common."""
    if not set(mine.aggregate.reducers) & set(other.aggregate.reducers):
        raise BranchError(
            f"{mine.aggregate.__name__} and {other.aggregate.__name__} have no column in common",
            hint="compare books of the same aggregate, or of one that was folded again by .refold(...)",
        )
