"""Asking how it goes: ways, waits, stays, funnels, cohorts, and what breaks the rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import numpy as np
import polars as pl

from titan_lab.clock import Instant
from titan_lab.mining import conform, dwell
from titan_lab.mining.cohorts import retention
from titan_lab.mining.funnel import Funnel, funnel
from titan_lab.mining.variants import flow, variants
from titan_lab.timeline import Timeline


class Mined(Timeline):
    """A Timeline that shows what its lives have in common."""

    def dwell(self, column: str = "status", until: Instant | None = None) -> pl.DataFrame:
        """Tell how long aggregates stay in each state of a column, those that are still in it included.

        A stay is a longest run of events of one aggregate after which the column has the same value; it lasts
        from the instant from which its first event counts to that from which the next run's does. What is
        not over by the horizon, the log's last instant or `until` (inclusive), is cut off there: it counts as
        at least that long, which dropping it, or taking it for finished, would not. An `until` later than
        the log claims that nothing happened in between.

        Returns one row per state that occurs, in the column's own order (a machine's as declared), null (no
        value yet) last: state, entered (stays begun), finished and open Int64, median, mean and p90
        Duration(us), and total Duration(ms), all time spent there. median and p90 are those of Kaplan and
        Meier (1958), null where too many stays are open to tell; mean is restricted to the longest stay seen,
        hence too small where that one is open. ``titan_lab.mining.dwell.survival`` has the formulas.

        Raises NoSuchColumn, DeclarationError for a column of lists or of more than 256 values, InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.dwell().select("state", "entered", "finished", "open").row(1)
        ('PAID', 460, 445, 15)
        """
        return dwell.dwell(self, column, until)

    def stays(self, column: str = "status", until: Instant | None = None) -> pl.DataFrame:
        """List the stays that ``dwell`` sums up, one row each, sorted by aggregate_id and version.

        Returns aggregate_id String, version Int64 (of the event that began the stay), state, entered_at and
        left_at Datetime(us, UTC) (null: still there at the horizon) and duration Duration(us), up to the
        horizon where it is open.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> stays = book.stays().filter(pl.col("aggregate_id") == "550e8400-e29b-41d4-a716-446655440000")
        >>> stays.select("state", "duration").rows()[:1]
        [('CREATED', datetime.timedelta(seconds=60))]
        """
        return dwell.stays(self, column, until)

    def conform(self) -> conform.Conformance:
        """Hold every life to the rules that the aggregate declares; give what breaks them, with its event.

        Looked at are: "illegal transition", where a machine's `allowed` does not let a state follow the one
        before; "version gap"; the aggregate's own ``checks``, by their names; "snapshot differs from replay",
        field by field at the snapshot's version, where the store keeps snapshots. Fields that a snapshot
        lacks, or that the aggregate does not have, are not compared.

        Returns a Conformance. Its `findings` have one row per finding, sorted by kind, aggregate_id and
        version: kind and aggregate_id String, version Int64, event_type String and timestamp Datetime(us,
        UTC) (null where the log has no event of a snapshot's version), detail String, which says what was
        found and what was expected. Its `counts` say how many there are of each kind. Raises DeclarationError
        for a check that fails.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.conform().findings.select("version", "event_type", "detail").row(0)
        (5, 'OrderDelivered', 'status goes from CANCELLED to DELIVERED, expected nothing more')
        """
        return conform.conform(self)

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
        grouped = None if by is None else (by, self.track(by).at)
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
        users = self.track(of).at(self.rows.last.astype(np.intp), np.arange(len(self)))
        began = self.typed.timestamp[self.typed.starts]
        return retention(users, began, by, zone or self.zone)
