"""Bring a copy up to date by what is stamped from its mark on, without trusting anybody's clock.

The mark is the store's frontier, asked for before the rows were read. What is stamped from it on is read, and
what is new of it taken. Then both sides count their rows before the mark. Where they differ, somebody has
written behind it: a clock of its own, a transaction that the frontier could not see. The store then tells
how many rows each aggregate has, and those that differ are read whole. So are aggregates whose versions have
a gap, and those of which the store no longer gives a row that the copy has.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import polars as pl

from titan_lab.backends.contract import KEY
from titan_lab.backends.manifest import GOOD, REFUSED, Content
from titan_lab.backends.mirror import count_before, heads_of
from titan_lab.clock import from_micros
from titan_lab.event import EVENTS
from titan_lab.mirror.copying import AT_ONCE, TOLD, Copying, difference
from titan_lab.mirror.folder import compacted, without
from titan_lab.scope import Scope

stamp = pl.col("timestamp")


class Unclear(Exception):
    """What differs cannot be looked up by its id, so that everything must be read."""


def copy_news(run: Copying, content: Content) -> None:
    """Read from the mark on, check what lies before it, read again what differs, and let it count.

    Raises Unclear, with nothing changed, where only reading everything will do.
    """
    assert content.mark is not None, "without a mark everything is read"
    run.begin()
    told, mark = run.marked(), from_micros(content.mark)
    copy = _Copy(run, content)
    copy.take_since(mark)
    suspects = [copy.vanished, copy.gaps()]
    # Times without a zone are no instants to the store, which so cannot count them.
    if run.zone is not None or run.reader.tally(mark) != copy.tally(mark):
        suspects.append(copy.differing())
    copy.read_again(pl.concat(suspects).unique().sort(), mark)
    copy.publish(replace(told, mark=max(content.mark, told.mark if told.mark is not None else content.mark)))


class _Copy:
    """The copy as it will be: the parts that hold its events, and its rejected rows."""

    def __init__(self, run: Copying, content: Content) -> None:
        self.run = run
        self.content = content
        self.parts = run.events(content)
        self.was = self.refused = run.refused(content)
        self.touched = self.vanished = pl.Series("aggregate_id", [], pl.String)
        self.edition = run.manifest.edition

    def take_since(self, mark: datetime) -> None:
        """Add what is stamped from the mark on and is not there yet."""
        run, since = self.run, Scope(since=mark)
        held = run.held(self.parts, since)
        known, touched, refused = [EVENTS.to_frame()], [self.touched], [self.was.filter(stamp < mark)]
        for good, bad in run.frames(since):
            there = good.join(held, on=list(EVENTS), how="semi", nulls_equal=True)
            new = good.join(held, on=list(EVENTS), how="anti", nulls_equal=True) if len(there) else good
            run.writer.add(new)
            known.append(there)
            touched.append(new["aggregate_id"].unique())
            refused.append(bad.filter((stamp >= mark) | stamp.is_null()))
        again, lost = difference(pl.concat(known), held, list(EVENTS))
        run.writer.add(again)
        run.found["added"] += run.writer.rows
        self.parts += run.flushed()
        self.touched, self.vanished = pl.concat(touched).unique(), lost["aggregate_id"]
        self.refused = pl.concat(refused)

    def tally(self, mark: datetime) -> int:
        """Count the rows that are stamped before the mark."""
        run = self.run
        good = count_before(run.store.path, run.store.sound(self.parts, GOOD), mark)
        return good + self.refused.filter(stamp < mark).height

    def gaps(self) -> pl.Series:
        """List those of the touched aggregates whose rows are not as many as their highest version."""
        if self.touched.is_empty():
            return self.touched
        return self._heads(self.touched).filter(pl.col("events") != pl.col("version"))["aggregate_id"]

    def differing(self) -> pl.Series:
        """List the aggregates of which the store has another number of rows, or another highest version."""
        both = self.run.reader.heads().join(
            self._heads(), on="aggregate_id", how="full", coalesce=True, nulls_equal=True
        )
        return both.filter(
            pl.any_horizontal(
                pl.col(name).ne_missing(pl.col(f"{name}_right")) for name in ("events", "version")
            )
        )["aggregate_id"]

    def read_again(self, ids: pl.Series, mark: datetime) -> None:
        """Read some aggregates whole, and let the copy hold of them what the store holds."""
        if ids.null_count():
            raise Unclear
        run, replaced, whole = self.run, [ids.head(0)], [EVENTS.to_frame()]
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            request, theirs = Scope(aggregates=tuple(some)), pl.col("aggregate_id").is_in(some.implode())
            read = list(run.frames(request))
            good = pl.concat([EVENTS.to_frame(), *(one for one, _ in read)])
            bad = pl.concat([REFUSED.to_frame(), *(one for _, one in read)])
            held = run.held(self.parts, request)
            answered = pl.concat([good["aggregate_id"], bad["aggregate_id"]])
            if not held["aggregate_id"].is_in(answered.implode()).all():
                raise Unclear  # is all of it gone, or is it an id that the store writes in another way?
            new, lost = difference(good, held, list(EVENTS))
            run.count(good, new, lost)
            run.found["late"] += new.filter(stamp < mark).join(lost, on=KEY, how="anti").height
            other = pl.col("aggregate_id").is_in(lost["aggregate_id"].implode())
            run.writer.add(new.filter(~other))
            replaced.append(lost["aggregate_id"])
            whole.append(good.filter(other))
            self.refused = pl.concat([self.refused.filter(~theirs.fill_null(False)), bad])
        taken, good = pl.concat(replaced).unique(), pl.concat(whole)
        if len(taken):
            self.parts = without(run.writer, run.store, self.parts, taken)
            run.writer.add(good)
            # Of an aggregate that is there no more nothing tells that it was touched.
            self.edition += not taken.is_in(good["aggregate_id"].implode()).all()
        self.parts += run.flushed()

    def publish(self, content: Content) -> None:
        """Let the manifest name it, with small parts made one."""
        run = self.run
        new, lost = difference(self.refused, self.was, TOLD)
        run.found["rejected"] += len(new)
        rejected = self.content.rejected
        if len(new) or len(lost):
            kept = self.was.join(lost, on=TOLD, how="anti", nulls_equal=True)
            rejected = run.writer.refused(pl.concat([kept, new]).sort(TOLD))
            self.edition += bool(len(lost))
        parts = tuple(compacted(run.writer, run.store, self.parts))
        changed = parts != self.content.events or rejected != self.content.rejected
        run.save(
            content=replace(content, events=parts, rejected=rejected),
            syncs=run.writer.synced if changed else run.manifest.syncs,
            edition=self.edition,
            next=run.writer.next,
        )

    def _heads(self, ids: pl.Series | None = None) -> pl.DataFrame:
        run = self.run
        return heads_of(run.store.path, run.store.sound(self.parts, GOOD), self.refused, ids)
