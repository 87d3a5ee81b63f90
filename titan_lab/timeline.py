"""Timeline: every state of every aggregate, and the questions that are one look at it.

One row per event, sorted by (aggregate_id, version). A row is the state after that event; it holds from
`counted` (see clock.py) until the next row's. A question about the past is then a filter over one array of
integers, and the columns that were asked for are gathered for the rows that pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from titan_lab import grid as grids
from titan_lab.amounts import from_units
from titan_lab.asof import spine_frame
from titan_lab.backends.contract import Frontier
from titan_lab.clock import (
    MICROSECOND,
    Cut,
    Instant,
    check_cut,
    check_version,
    duration,
    from_micros,
    iso,
    micros,
)
from titan_lab.cuts import differing, filtered
from titan_lab.errors import InstantError, Provisional, SpineError
from titan_lab.event import REJECTED
from titan_lab.fold import Aggregate
from titan_lab.notebook.html import card
from titan_lab.parallel import each, spans
from titan_lab.rows import PIECE, Rows
from titan_lab.states import States
from titan_lab.tracks import Track
from titan_lab.typed import Typed

ReadEvents: TypeAlias = Callable[[Iterable[str] | None], pl.DataFrame]  # of these aggregates, None for all

NEVER, FOREVER = -(2**63), 2**63 - 1  # moments before and after all others


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer rests on: the same basis gives the same bytes.

    source: where the events came from. frontier: up to when they are known to be complete, and how.
    fingerprint: of the aggregate's declaration. events: how many were folded. cut: which events count.
    provisional_from: from this instant on an answer may still change, since writers may be at work; None
    where the source is known to its end.
    """

    source: str
    frontier: str
    fingerprint: str
    events: int
    cut: Cut = "prefix"
    provisional_from: datetime | None = None

    def provisional(self, when: datetime) -> bool:
        """Tell whether an answer about an instant may still change."""
        return self.provisional_from is not None and when >= self.provisional_from

    def _repr_html_(self) -> str:
        return card("Basis", asdict(self))


class Timeline(States):
    """Every state of every aggregate: made by ``log.fold(Aggregate)``, never changed."""

    def __init__(
        self,
        aggregate: type[Aggregate],
        typed: Typed,
        *,
        source: str = "memory",
        frontier: Frontier | None = None,
        zone: str | None = None,
        rejected: pl.DataFrame | None = None,
        read_events: ReadEvents | None = None,
        read_snapshots: Callable[[], pl.DataFrame] | None = None,
        made: tuple[Rows, Mapping[str, Track]] | None = None,
    ) -> None:
        super().__init__(aggregate, typed, made)
        self.zone = zone
        self.rejected = REJECTED.to_frame() if rejected is None else rejected
        self.basis = Basis(
            source,
            "" if frontier is None else str(frontier),
            aggregate.fingerprint(),
            len(typed),
            provisional_from=frontier.instant if frontier is not None and frontier.live else None,
        )
        self.read_events = read_events
        self.read_snapshots = read_snapshots

    # ------------------------------------------------------------------ looking

    def at(
        self,
        when: Instant | None = None,
        *,
        version: int | None = None,
        cut: Cut = "prefix",
        columns: str | Iterable[str] | None = None,
    ) -> pl.DataFrame:
        """Give the state of every aggregate at an instant (inclusive), or after its version n.

        Returns one row per aggregate that existed, sorted by aggregate_id: aggregate_id String, version
        Int64, valid_from and valid_to Datetime(us, UTC) (null: still holds), then the state's columns. With
        `columns`, only aggregate_id, version and these. cut: which events count, see ``titan_lab.clock``.
        With version=n, an aggregate that is younger shows its last state. Beyond the frontier of a store that
        is being written to, the answer may still change, and a Provisional warning says so.

        Raises InstantError for a naive or unreadable instant, NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.at("2025-01-15", columns=["status", "total"]).row(0)
        ('002049c6-135c-4e01-87d6-a91df3117027', 1, 'CREATED', Decimal('1377.00'))
        """
        check_cut(cut)
        wanted = self.wanted(columns)
        if (when is None) == (version is None):
            raise InstantError(
                f"at needs an instant or a version, and was given {'neither' if when is None else 'both'}",
                hint="book.at('2025-01-15T14:00Z') or book.at(version=3)",
            )
        if version is not None:
            rows, owners = self.rows.prefixes(self.typed.version, check_version(version))
            return self.frame(rows, owners, wanted, self.rows.counted("prefix"))
        moment = micros(when, self.zone)  # type: ignore[arg-type]
        if self.basis.provisional(from_micros(moment)):
            warnings.warn(
                f"the state at {iso(from_micros(moment))} may still change: {self.basis.source} is complete"
                f" before {self.basis.frontier}",
                Provisional,
                stacklevel=3,  # beyond the verb of the book that leads here
            )
        if cut == "filter" and self.rows.stepping_back.any():
            return filtered(self, moment, wanted)
        counted = self.rows.counted(cut)
        rows, owners = self.rows.prefixes(counted, moment)
        return self.frame(rows, owners, wanted, counted)

    @property
    def now(self) -> pl.DataFrame:
        """Give the state of every aggregate after its last event, as ``at`` does.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.now["status"].value_counts(sort=True).row(0)
        ('DELIVERED', 376)
        """
        owners = np.arange(len(self))
        counted = self.rows.counted("prefix")
        return self.frame(self.rows.last.astype(np.intp), owners, self.wanted(None), counted)

    def history(
        self,
        since: Instant | None = None,
        until: Instant | None = None,
        columns: str | Iterable[str] | None = None,
    ) -> pl.DataFrame:
        """Give every state, sorted by (aggregate_id, version), as ``at`` does for one instant.

        since, until: only states that held at some moment in between, both inclusive. A state that was
        overtaken within the same microsecond, or by an event stamped earlier, has valid_from == valid_to.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.history(since="2025-01-15", until="2025-01-16", columns=[]).height
        560
        """
        counted = self.rows.counted("prefix")
        rows = np.arange(len(self.typed))
        if since is not None or until is not None:
            keep = np.ones(len(rows), dtype=bool)
            if until is not None:
                keep &= counted <= micros(until, self.zone)
            if since is not None:
                start = micros(since, self.zone)
                keep &= (self.rows.until(counted, FOREVER) > start) | (counted >= start)
            rows = rows[keep]
        return self.frame(rows, self.rows.owners[rows], self.wanted(columns), counted)

    def asof(
        self,
        spine: Any,
        on: str = "ts",
        by: str = "aggregate_id",
        ttl: str | timedelta | None = None,
        columns: str | Iterable[str] | None = None,
        prefix: str = "",
    ) -> pl.DataFrame:
        """Add to each row of a frame the state that its aggregate had at its moment (inclusive).

        spine: a polars, pandas or arrow frame with an id column `by` and an aware datetime column `on`. Its
        rows come back in their order, none dropped and none doubled, with the state's columns (each with
        `prefix`), `version`, and `state_age` Duration(us): how long the state had held. All are null where
        the aggregate did not exist yet or nobody has the id, and where the state was older than `ttl` ("7d").

        Raises SpineError for a missing column, naive moments, and names that would collide; NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> labels = book.ids.to_frame().head(1).with_columns(ts=pl.datetime(2025, 1, 15, time_zone="UTC"))
        >>> book.asof(labels, columns=["status"]).select("version", "status", "state_age").row(0)
        (1, 'CREATED', datetime.timedelta(days=13, seconds=40593, microseconds=994364))
        """
        spine = spine_frame(spine, on, by)
        wanted = ["version", *(self.aggregate.reducers if columns is None else self.wanted(columns)[2:])]
        added = [prefix + name for name in [*wanted, "state_age"]]
        collide = [name for name in added if name in spine.columns]
        if collide:
            raise SpineError(
                f"the spine has columns of the same name already: {', '.join(collide)}",
                hint="set them apart with prefix='state_', or choose others with columns=[...]",
                columns=collide,
            )
        counted = self.rows.counted("prefix")
        ids, moments = spine[by], spine[on].to_physical().fill_null(NEVER).to_numpy()
        oldest = None if ttl is None else duration(ttl) // MICROSECOND

        def look(piece: slice) -> pl.DataFrame:
            when = moments[piece]
            rows, owners = self.rows.holding(ids[piece], when)
            there = rows >= 0
            age = when - counted[rows] if len(counted) else when
            if oldest is not None:
                there &= age <= oldest
            # For a row of -1, another aggregate's last state is gathered, to be taken away again.
            some = slice(None) if there.any() else slice(0)
            states = self.frame(rows[some], owners[some], wanted, counted)
            states = states.with_columns(state_age=pl.Series(age[some]).cast(pl.Duration("us")))
            if not there.any():
                return states.clear(len(there))
            return states if there.all() else states.select(pl.when(pl.Series(there)).then(pl.all()))

        pieces = each(look, spans(max(len(spine), 1), PIECE), len(spine))
        states = pl.concat(pieces, rechunk=True)
        return spine.hstack(states.rename(lambda name: prefix + name).get_columns())

    def every(
        self,
        step: str | timedelta,
        since: Instant | None = None,
        until: Instant | None = None,
        by: str | None = "status",
        measure: str | None = None,
        zone: str | None = None,
        age: bool = False,
    ) -> pl.DataFrame:
        """Count the aggregates in each state at every instant of a grid, or add up a column over them.

        The grid runs from `since` to `until` (both inclusive; the history's own span without them) in steps
        such as "15m", "1h", "1d", "1mo" of the calendar of `zone`. Returns instant, the `by` column, count
        Int64, the exact sum under the measure's own name, and with age=True mean_age Duration(us), for every
        instant and every value of `by` that occurs, sorted by both. by=None counts all together. mean_age is
        how long ago, on average, the first event of the aggregates counted there began to count, to the
        microsecond (half to even); null where there are none.

        Raises InstantError for an unreadable instant or step and for a grid of more than ten million cells
        (instants x values of `by`), NoSuchColumn, DeclarationError for a measure that is no number.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.every("1d", "2025-01-14", "2025-01-15", by=None, measure="refunded")["count"].to_list()
        [175, 186]
        """
        zone = zone or self.zone
        start, end = (from_micros(moment) for moment in self.span or (0, 0))
        grid = grids.instants(step, start if since is None else since, end if until is None else until, zone)
        column, measured = (None if one is None else self.track(one) for one in (by, measure))
        found = grids.tally(grid, self.rows, column, measured, age)
        groups, counts = found.groups, found.counts.reshape(-1)
        keys = {"instant": grid.gather(np.repeat(np.arange(len(grid)), len(groups)))}
        if by is not None:
            keys[by] = groups.gather(np.tile(np.arange(len(groups)), len(grid)))
        columns = {"count": pl.Series(counts)}
        if measure is not None:
            columns[measure] = from_units(found.sums.reshape(-1), measured.dtype)  # type: ignore[union-attr]
        if found.ages is not None:
            ages = pl.Series(found.ages.reshape(-1)).cast(pl.Duration("us"))
            columns["mean_age"] = ages.set(pl.Series(counts == 0), None)
        return pl.DataFrame(keys | columns)

    def cuts(self, when: Instant) -> pl.DataFrame:
        """List the aggregates on which the three cuts differ at an instant.

        Returns aggregate_id, and for each cut (prefix, filter, latest) the last version it counts (null for
        none) and how many events, sorted by aggregate_id. Aggregates whose timestamps never step back are
        never in it.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.cuts("2025-01-14T11:04Z").select("prefix", "filter", "latest").row(0)
        (8, 10, 10)
        """
        return differing(self, micros(when, self.zone))

    # ------------------------------------------------------------------ what it knows of itself

    @property
    def undeclared(self) -> dict[str, int]:
        """Count the events whose type the aggregate does not declare: kept, and folded as no change."""
        counts = np.bincount(self.typed.kind, minlength=len(self.typed.kinds))
        told = zip(self.typed.kinds, counts.tolist(), strict=True)
        return {name: n for name, n in told if n and name not in self.aggregate.events}

    @cached_property
    def span(self) -> tuple[int, int] | None:
        """Give the first and the last timestamp in microseconds, or None where there is no event."""
        stamps = self.typed.timestamp
        return (int(stamps.min()), int(stamps.max())) if len(stamps) else None

    def __repr__(self) -> str:
        rejected = f", {len(self.rejected):,} rejected" if len(self.rejected) else ""
        undeclared = sum(self.undeclared.values())
        rejected += f", {undeclared:,} of no type it declares" if undeclared else ""
        name = self.aggregate.__name__
        if self.span is None:
            return f"<Timeline of {name}: no events from {self.basis.source}{rejected}>"
        start, end = (iso(from_micros(moment)) for moment in self.span)
        counts = f"{len(self):,} aggregates, {len(self.typed):,} events{rejected}"
        return f"<Timeline of {name}: {counts}, {start} to {end}>"

    # ------------------------------------------------------------------ gathering
