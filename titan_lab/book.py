"""Book: the Timeline of all aggregates, with every verb that can be asked of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import numpy as np
import polars as pl

from titan_lab.clock import from_micros, iso
from titan_lab.cohorts import retention
from titan_lab.errors import NoSuchAggregate, nearest
from titan_lab.funnel import Funnel, funnel
from titan_lab.notebook import html
from titan_lab.story import Story
from titan_lab.timeline import Timeline
from titan_lab.variants import flow, variants

NEAR = 20_000  # ids among which near ones are looked for


class Book(Timeline):
    """The Timeline of all aggregates. ``book["id"]`` opens one life."""

    def __getitem__(self, aggregate_id: str) -> Story:
        """Open one aggregate's life. Raises NoSuchAggregate, which suggests near ids."""
        wanted = str(aggregate_id)
        number = find(self.typed.ids, wanted)
        if number is None:
            raise no_such(wanted, self.typed.ids, self.basis.source)
        return Story(self, number)

    def __contains__(self, aggregate_id: object) -> bool:
        return find(self.typed.ids, str(aggregate_id)) is not None

    @property
    def ids(self) -> pl.Series:
        """Give all aggregate ids, sorted."""
        return self.typed.ids.alias("aggregate_id")

    # ------------------------------------------------------------------ mining

    def variants(self) -> pl.DataFrame:
        """Group the aggregates by the way they took: one row for each sequence of event types that occurs.

        Returns variant List(String), the types in order of version; count Int64; share Float64, of all
        aggregates; median_duration Duration(us), from the first event to the last, rounded down; and example
        String, the smallest aggregate_id. Sorted by count, most first, then by variant. Durations lie
        between the moments at which events count (law 2), so none is negative.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.variants().select("variant", "count", "share").row(1)
        (['OrderCreated', 'PaymentAuthorized', 'OrderCancelled', 'RefundIssued'], 36, 0.072)
        """
        return variants(self.rows)

    def flow(self) -> pl.DataFrame:
        """Count which event type directly follows which, and how long that takes.

        Returns from_type and to_type String (null: the life begins there, or ends there); count Int64; share
        Float64, of all that comes after from_type; and mean_wait, median_wait and p90_wait Duration(us),
        rounded down, null where a life begins or ends. Sorted by count, most first, then by from_type and
        to_type, nulls first. Quantiles are interpolated as numpy and SQL's percentile_cont do. Waits lie
        between the moments at which events count (law 2): where a clock stepped back, the wait is 0.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.flow().select("from_type", "to_type", "count", "share").row(1)
        ('ItemsReturned', 'RefundIssued', 2776, 1.0)
        """
        return flow(self.rows)

    def funnel(
        self,
        steps: Any,
        within: str | timedelta | None = None,
        by: str | None = None,
        *,
        order: Literal["given", "any"] = "given",
        strict: bool = False,
        reentry: bool = False,
    ) -> Funnel:
        """Count how many aggregates take the steps one after the other, and how far the others come.

        steps: any number of event types, by name or class, or functions from a type's name to True or False;
        one may stand there twice, and then takes two events. Order is version order, so that equal timestamps
        are no ties. within: how long the whole may take ("7d"), inclusive, from the event that takes the
        first step; every such event opens a window of its own. An aggregate counts once, by its longest
        chain, of equally long ones the first. Time is when events count (law 2), so it never steps back.

        strict=True: no other event lies in between, of whatever type. order="any": steps come in any order,
        and step n is any n of them. reentry=True: an aggregate counts each time it enters anew after its
        last chain's end. by: a column of the state, as it was after the first step.

        Returns a Funnel: ``.steps`` is a frame with one row per step, ``.witnesses`` one with a row per
        aggregate and the events that prove how far it came.

        Raises FunnelError for no steps and for one that no event takes, InstantError for a bad duration,
        NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.funnel([tl.OrderCreated, tl.OrderShipped, tl.OrderDelivered], within="7d")
        <Funnel of 500 aggregates: OrderCreated 500 > OrderShipped 409 > OrderDelivered 337>
        """
        track = self._track(by)
        grouped = None if track is None else (str(by), track.at)
        return funnel(self.rows, steps, within, grouped, order=order, strict=strict, reentry=reentry)

    def retention(self, by: str = "1mo", of: str = "user_id", zone: str | None = None) -> pl.DataFrame:
        """Count who comes back: users by the period of their first order, and how many order again when.

        A user is a value of the column `of`, as it is after an aggregate's last event; aggregates without one
        are left out. A user is active in a period if one of their aggregates has its first event then. by:
        the period, of the calendar of `zone` (the log's, else UTC): "1d", "1w" (from Monday), "1mo", "1q",
        "1y".

        Returns cohort Date, the first day of the period of the first order; period Int64, 0 for that one, 1
        for the next, up to the last in which anything began; users Int64, the cohort's size; active Int64;
        and share Float64, of the cohort. Sorted by cohort, period. The last period may not be over yet.

        Raises InstantError for a period or zone that is none, NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.retention("1w").select("period", "users", "active").rows()[:3]
        [(0, 55, 55), (1, 55, 18), (2, 55, 17)]
        """
        values = self._track(of)
        users = values.at(self.rows.last.astype(np.int64), np.arange(len(self)))  # type: ignore[union-attr]
        began = self.typed.timestamp[self.typed.starts]
        return retention(users, began, by, zone or self.zone)

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"aggregates": len(self), "events": len(self.typed)}
        if self.span is not None:
            facts["from"], facts["to"] = (iso(from_micros(moment)) for moment in self.span)
        if len(self.rejected):
            facts["rejected"] = f"{len(self.rejected):,} (see .rejected)"
        if self.undeclared:
            facts["undeclared types"] = ", ".join(f"{name} x {n:,}" for name, n in self.undeclared.items())
        if self.rows.stepping_back.any():
            facts["clocks stepping back"] = (
                f"{int(self.rows.stepping_back.sum()):,} aggregates (see .cuts(instant))"
            )
        facts["source"], facts["complete"] = self.basis.source, self.basis.frontier
        facts["columns"] = ", ".join(self.aggregate.reducers)
        return html.card(
            f"Timeline of {self.aggregate.__name__}", facts, f"fingerprint {self.basis.fingerprint}"
        )


def find(ids: pl.Series, wanted: str) -> int | None:
    """Find an id's place in the sorted ids, or None."""
    place = int(ids.search_sorted(wanted)) if len(ids) else 0
    return place if place < len(ids) and ids[place] == wanted else None


def no_such(wanted: str, ids: pl.Series, source: str) -> NoSuchAggregate:
    """Build the error for an id nobody has, with near ones: first those that begin alike."""
    begin = ids.filter(ids.str.starts_with(wanted)).head(3).to_list() if wanted else []
    alike = ids.filter(ids.str.starts_with(wanted[:4]))
    near = nearest(wanted, begin or alike.head(NEAR)) or nearest(wanted, ids.head(NEAR))
    if begin:
        near = f"did you mean {' or '.join(map(repr, begin))}?"
    return NoSuchAggregate(
        f"no aggregate {wanted!r} among the {len(ids):,} of {source}",
        hint=near or (f"ids look like {ids[0]!r}" if len(ids) else "the log holds no events"),
        aggregate_id=wanted,
    )
