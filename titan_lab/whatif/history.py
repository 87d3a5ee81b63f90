"""A history that never was: which events of a base are gone, which are new, and what follows from that.

What follows is worked out from the touched aggregates alone; the whole history is only put together, and
folded column by column, when a verb asks for it. Events that stay are never decoded again, and the columns of
their payloads are shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl

from titan_lab.errors import BranchError
from titan_lab.event import EVENTS
from titan_lab.fold import Aggregate
from titan_lab.notebook import html
from titan_lab.rows import Rows
from titan_lab.timeline import Basis, Timeline
from titan_lab.tracks import Track
from titan_lab.typed import Typed
from titan_lab.whatif.lazily import Folded, Tracks
from titan_lab.whatif.recorded import KEY, events_at
from titan_lab.whatif.splice import NO_ROWS, Places, Spliced, lives, nothing, places, splice

SHOWN = 3  # edits that a repr tells


class Edit(NamedTuple):
    """One step of a branch: what was asked for, and how many events and aggregates it met."""

    told: str
    events: int
    aggregates: int


class Added(NamedTuple):
    """The events that are new in a branch: as they would be stored, and decoded; both in order."""

    events: pl.DataFrame
    typed: Typed


class WhatIf(Timeline):
    """A Timeline as it would be with other events. The base is never changed."""

    def __init__(
        self,
        base: Timeline,
        name: str,
        *,
        aggregate: type[Aggregate] | None = None,
        gone: np.ndarray = NO_ROWS,
        added: Added | None = None,
        steps: tuple[Edit, ...] = (),
        rejected: pl.DataFrame | None = None,
    ) -> None:
        self.base = base
        self.name = name
        self.aggregate = base.aggregate if aggregate is None else aggregate
        self.zone = base.zone
        self.rejected = base.rejected if rejected is None else rejected
        self.gone = gone  # rows of the base, ascending
        self.added = Added(EVENTS.to_frame(), nothing()) if added is None else added
        self.steps = steps
        self.read_snapshots = None  # the store's are of what happened
        self.read_events = None if base.read_events is None else self._stored

    # ------------------------------------------------------------------ what it knows of itself

    @property
    def touched(self) -> int:
        """Count the aggregates that were folded again, and those that are new; 0 where no edit met any."""
        known = self._touched if self.same_fold else self.base.typed.ids
        return len(known) + int((~self._found.known).sum())

    @property
    def edits(self) -> pl.DataFrame:
        """List the edits in the order they were made: edit String, events and aggregates Int64.

        events counts those that were left out, changed, or inserted together with those that made room.
        """
        schema = {"edit": pl.String, "events": pl.Int64, "aggregates": pl.Int64}
        return pl.DataFrame(self.steps, schema=schema, orient="row")

    @cached_property
    def basis(self) -> Basis:  # type: ignore[override]
        """Tell what an answer rests on: the base, the edits and a digest of the events they made."""
        under = self.base.basis
        made = hashlib.sha256(self.gone.astype(np.int64).tobytes())
        made.update(self.added.events.write_csv().encode())
        edits = "; ".join(step.told for step in self.steps) or "no edits"
        source = f"{under.source}, branch {self.name!r} ({made.hexdigest()[:12]}): {edits}"
        events = under.events - len(self.gone) + len(self.added.events)
        return replace(under, source=source, fingerprint=self.aggregate.fingerprint(), events=events)

    def __repr__(self) -> str:
        edits = "; ".join(html.line(step.told) for step in self.steps[-SHOWN:]) or "no edits"
        more = f"{len(self.steps) - SHOWN} edits; " if len(self.steps) > SHOWN else ""
        under = f" on {self.base.name!r}" if isinstance(self.base, WhatIf) else ""
        return (
            f"<Branch {self.name!r} of {self.aggregate.__name__}{under}: {more}{edits}; {len(self.gone):,}"
            f" events gone, {len(self.added.events):,} new, {self.touched:,} aggregates touched>"
        )

    def _repr_html_(self) -> str:
        facts = {
            "branched from": self.base.basis.source,
            "events gone": len(self.gone),
            "events new": len(self.added.events),
            "aggregates touched": self.touched,
        }
        note = "" if self.touched else "it answers as what it was branched from"
        if self.steps and not self.touched:
            note = f"no edit met any event: {note}"
        title = f"Branch {self.name!r} of {self.aggregate.__name__}"
        return html.card(title, facts, note, body=html.table(self.edits))

    # ------------------------------------------------------------------ the whole, when it is asked for

    @cached_property
    def _whole(self) -> Spliced:
        return splice(self.base.typed, self.gone, self.added.typed)

    @cached_property
    def typed(self) -> Typed:  # type: ignore[override]
        return self._whole.typed

    @cached_property
    def rows(self) -> Rows:  # type: ignore[override]
        return Rows(self.typed)

    @cached_property
    def tracks(self) -> Mapping[str, Track]:  # type: ignore[override]
        return Tracks(self.aggregate, self.typed)

    # ------------------------------------------------------------------ the touched ones

    @cached_property
    def _found(self) -> Places:
        """Tell where the aggregates of the new events stand in the base."""
        return places(self.base.typed.ids, self.added.typed.ids)

    @cached_property
    def _touched(self) -> np.ndarray:
        """Number the base's aggregates that have other events here."""
        owners = self.base.rows.owners[self.gone]
        return np.unique(np.concatenate([owners, self._found.number[self._found.known]]))

    @property
    def touched_ids(self) -> pl.Series:
        """Give the ids of the aggregates that have other events than in the base, or are new; in no order."""
        return pl.concat([self.base.typed.ids.gather(self._touched), self.added.typed.ids]).unique()

    @cached_property
    def _part(self) -> Timeline:
        """Fold the touched aggregates alone."""
        before, rows = lives(self.base.typed, self._touched)
        after = splice(before, np.searchsorted(rows, self.gone), self.added.typed)
        return Folded(self.aggregate, after.typed, self.zone)

    @property
    def same_fold(self) -> bool:
        """Tell whether the base was folded by the same declaration."""
        return self.aggregate is self.base.aggregate

    @property
    def _suspects(self) -> list[str] | None:
        """List the columns whose last value can differ: those that listen to what was left out or added."""
        if len(self._part) != len(self._touched) or not self._found.known.all():
            return None  # an aggregate that begins or vanishes differs in all
        base, new = self.base.typed, self.added.typed
        kinds = {base.kinds[code] for code in np.unique(base.kind[self.gone])}
        kinds |= {new.kinds[code] for code in np.unique(new.kind)}
        return [name for name, reducer in self.aggregate.reducers.items() if kinds & reducer.sources.keys()]

    # ------------------------------------------------------------------ the events, as stored

    def _events(self, rows: np.ndarray, names: list[str]) -> pl.DataFrame:
        return events_at(self.typed, rows, names, self._stored)

    def _stored(self, ids: Iterable[str] | None = None) -> pl.DataFrame:
        """Read the events of some aggregates, or of all, as a store of this history would hold them."""
        if self.base.read_events is None:
            raise BranchError(
                "the payloads are not kept, and this book does not know its store",
                hint="branch a book that was made by log.fold(...)",
            )
        # An event that was refused may still be stored where a new one has its place.
        taken = pl.concat([events_at(self.base.typed, self.gone, KEY), self.added.events.select(KEY)])
        events = self.base.read_events(ids).join(taken, on=KEY, how="anti", maintain_order="left")
        own = self.added.events
        if ids is not None:
            own = own.filter(pl.col("aggregate_id").is_in(list(ids)))
        return pl.concat([events, own]).sort(KEY)
