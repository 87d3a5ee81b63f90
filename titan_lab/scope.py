"""Which events: a request as a small immutable value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from titan_lab.clock import Instant, check_version, instant, interval
from titan_lab.errors import EventsError


@dataclass(frozen=True, slots=True)
class Scope:
    """Ask for events; a field that is None does not narrow.

    aggregates: only these ids. types: only these event types. since, until: only events whose timestamp
    lies in between, both inclusive. ids: only ids from the first on, and before the second; None is open,
    and what has no id comes before all. from_version: only events of this version and later
    ones; what has no version comes before all.
    """

    aggregates: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[str | None, str | None] = (None, None)
    from_version: int | None = None

    def predicate(self) -> pl.Expr:
        """Give the same request as a polars expression over EVENTS."""
        wanted = pl.lit(True)
        if self.aggregates is not None:
            wanted = wanted & pl.col("aggregate_id").is_in(list(self.aggregates))
        if self.types is not None:
            wanted = wanted & pl.col("event_type").is_in(list(self.types))
        if self.since is not None:
            wanted = wanted & (pl.col("timestamp") >= self.since)
        if self.until is not None:
            wanted = wanted & (pl.col("timestamp") <= self.until)
        if self.from_version is not None:
            wanted = wanted & (pl.col("version") >= self.from_version)
        return wanted & self.within()

    def within(self) -> pl.Expr:
        """Give the range of ids alone; it also holds for rows that are no events."""
        (start, end), column = self.ids, pl.col("aggregate_id")
        if start is None and end is None:
            return pl.lit(True)  # a fill_null on nothing but literals fails in polars 2.1
        after = pl.lit(True) if start is None else column >= start
        before = pl.lit(True) if end is None else column < end
        return (after & before).fill_null(start is None)

    def __bool__(self) -> bool:
        parts = (self.aggregates, self.types, self.since, self.until, self.from_version, *self.ids)
        return any(part is not None for part in parts)


EVERYTHING = Scope()


def scope(
    aggregates: str | Iterable[str] | None = None,
    types: object | Iterable[object] | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    zone: str | None = None,
    from_version: int | None = None,
) -> Scope:
    """Build a request from what a caller writes: one id or several, names or event classes, any instant."""
    if since is not None and until is not None:
        interval(since, until, zone, "log.read(since={}, until={})")
    return Scope(
        aggregates=None if aggregates is None else tuple(str(one) for one in _several(aggregates)),
        types=None if types is None else tuple(_type_name(kind) for kind in _several(types)),
        since=None if since is None else instant(since, zone),
        until=None if until is None else instant(until, zone),
        from_version=None if from_version is None else check_version(from_version),
    )


def _several(value: object) -> list:
    one = isinstance(value, str | type) or not isinstance(value, Iterable)
    return [value] if one else list(value)  # type: ignore[call-overload]


def _type_name(kind: object) -> str:
    name = kind if isinstance(kind, str) else getattr(kind, "event_type", None)
    if not isinstance(name, str):
        raise EventsError(f"{kind!r} is no event type", hint="use a name, or a class of events")
    return name
