"""Asking why: what changed, which event did it, since when, and what caused that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import polars as pl

from titan_lab.clock import Cut, Instant
from titan_lab.timeline import Timeline
from titan_lab.why import change
from titan_lab.why.bisect import bisect
from titan_lab.why.blame import blame
from titan_lab.why.explain import explain


class Explained(Timeline):
    """A Timeline that tells why it is as it is."""

    def blame(self, column: str, when: Instant | None = None, cut: Cut = "prefix") -> pl.DataFrame:
        """Find the event that set the value that a column has now, or had at an instant (inclusive).

        Returns one row per aggregate that existed, sorted by aggregate_id: aggregate_id String, value in the
        column's own dtype, and of the event version Int64, event_type String, timestamp Datetime(us, UTC),
        correlation_id String (from the metadata), all null where no event has set a value yet. A sum's or a
        count's event is the last one that went into it, an extreme's the first one that brought it. upcast
        String names the upcast steps that wrote this field of the event's payload, joined by " > "; null
        where it was stored as it was read.

        Raises NoSuchColumn, InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.blame("total", "2025-01-15").select("value", "version", "event_type", "upcast").row(7)
        (Decimal('274.40'), 1, 'OrderCreated', 'total_of_items')
        """
        return blame(self, column, when, cut)

    def diff(
        self,
        t0: Instant | Timeline | None = None,
        t1: Instant | None = None,
        *,
        columns: str | Iterable[str] | None = None,
        cut: Cut | tuple[Cut, Cut] = "prefix",
        versions: tuple[int, int] | None = None,
    ) -> pl.DataFrame:
        """Compare all states at two instants: one row for each field that changed, and the event behind it.

        diff(t0, t1): what changed after t0, up to and including t1. diff(versions=(1, 3)): between two
        versions; 0 is before the first, and a younger aggregate shows its last. diff(other, when): this
        timeline beside another one (a branch, another fold) at an instant or, without one, at their end;
        diff(self, when, cut=("prefix", "latest")): beside itself under another cut.

        Returns aggregate_id and field String, before and after, then as ``blame`` does for the second state
        version, event_type, timestamp, correlation_id; sorted by aggregate_id, fields in order of
        declaration. before and after have the columns' own dtype if all asked for share one, and are text
        otherwise: amounts with their decimals, instants ISO-8601 with a Z, lists and structs as JSON. An
        aggregate that was not there is compared with the state that every life begins with; columns that
        show the id are left out.

        Raises NoSuchColumn, and InstantError when t1 is before t0.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.diff("2025-01-15", "2025-01-16").drop("aggregate_id", "timestamp", "correlation_id").row(0)
        ('status', 'PAID', 'SHIPPED', 3, 'OrderShipped')
        """
        if isinstance(t0, Timeline):
            return change.between(self, t0, t1, columns, cut)
        return change.diff(self, t0, t1, columns, cut, versions)  # type: ignore[arg-type]

    def explain(
        self, measure: str, t0: Instant, t1: Instant, by: str = "event_type", zone: str | None = None
    ) -> pl.DataFrame:
        """Tell why the sum of a column moved after t0, up to and including t1; exactly additive.

        Each event's change is the column after it less the column before it, null counting as 0; the first
        event of a life brings all of its value. by: "event_type", "day" or a column of the state, as it is
        after the event. zone: whose calendar days, and in which t0 and t1 are read; the log's, or UTC.

        Returns the `by` column, change in the measure's own dtype, whose sum is the sum at t1 less that at
        t0, and events Int64: how many moved it. Sorted by the size of the change, largest first, then by key
        with null as the last.

        Raises NoSuchColumn, DeclarationError for a measure that is no exact number, InstantError when t1 is
        before t0.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.explain("total", "2025-01-14", "2025-01-15").row(1)
        ('OrderModified', Decimal('-468.85'), 147)
        """
        return explain(self, measure, t0, t1, by, zone)

    def bisect(
        self,
        predicate: Callable[[pl.DataFrame], bool],
        since: Instant | None = None,
        until: Instant | None = None,
        columns: str | Iterable[str] | None = None,
        scan: bool = False,
    ) -> datetime | None:
        """Find the first instant at which a predicate over the frame of all states holds.

        since, until: the range, both inclusive; the whole history without them. columns: what the frame must
        have, as for ``at``. The answer is an instant at which some event begins to count, or `since` when it
        holds there already; None when it holds nowhere in the range.

        The range is halved, which takes some twenty looks and is right for a predicate that stays true once
        it is. A handful of instants across the range are looked at in any case; if it is true at one and
        false at a later one, NotMonotone shows them. scan=True looks at every instant in turn, up to 10,000.

        Raises PredicateError when the predicate raises, or says neither true nor false; InstantError.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.bisect(lambda states: states["refunded"].sum() > 1000, columns="refunded").isoformat()
        '2025-01-02T21:49:27.534035+00:00'
        """
        return bisect(self, predicate, since, until, columns, scan)
