"""Copy everything: the first time, and whenever it shall be known that nothing was edited in place.

The ids are parted into ranges. Each is read, checked and written, and the manifest then says that it was: a
sync that was cut off goes on with the next. What was copied before stays what the mirror holds until all of
it is there.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from titan_lab.backends.manifest import GOOD, REFUSED, Content, Ends, Part
from titan_lab.event import EVENTS
from titan_lab.kept.pieces import SAMPLED, evenly
from titan_lab.mirror.copying import AT_ONCE, TOLD, Copying, difference
from titan_lab.mirror.folder import FULL
from titan_lab.scope import Scope


def copy_all(run: Copying) -> None:
    """Read everything, or what a sync that was cut off has left, and let the mirror hold that."""
    run.whole = True
    run.begin()
    if run.manifest.filling is None:
        filling = run.marked()
        run.save(filling=filling, ranges=_ranges(run))
    refused = [REFUSED.to_frame()]
    for checked in run.ranges([Scope(ids=ends) for ends in run.manifest.ranges]):
        if checked is not None:
            run.writer.add(checked[0])
            refused.append(checked[1])
        else:
            _keep(run, pl.concat(refused))
            refused = [REFUSED.to_frame()]
    filled, held = run.manifest.filling, run.manifest.content
    assert filled is not None, "it was begun"
    new = {"filling": None, "syncs": run.writer.synced}
    if held is None:
        run.found["added"] += sum(part.rows for part in filled.events)
        run.found["rejected"] += sum(part.rows for part in filled.rejected)
        run.save(content=filled, **new)
    elif _differs(run, held, filled):
        run.save(content=filled, **new, edition=run.manifest.edition + 1)
    else:  # the old parts stay, and with them all that was folded of them
        same = replace(filled, events=held.events, rejected=held.rejected)
        run.save(content=same, filling=None)


def _ranges(run: Copying) -> list[Ends]:
    """Part all ids into ranges that make about one part each, where the store can tell that cheaply."""
    if not hasattr(run.reader, "sample"):
        return [(None, None)]
    ids, run.total = run.reader.sample(SAMPLED)
    return evenly(ids, -(-run.total // FULL))


def _keep(run: Copying, refused: pl.DataFrame) -> None:
    """Write what was read of the first range that is left, and let that count."""
    parts, rejected = run.flushed(), run.writer.refused(refused)
    run.written += len(rejected)
    filling = run.manifest.filling
    assert filling is not None, "it was begun"
    filling = replace(filling, events=(*filling.events, *parts), rejected=(*filling.rejected, *rejected))
    run.save(filling=filling, ranges=run.manifest.ranges[1:], next=run.writer.next)


def _differs(run: Copying, held: Content, filled: Content) -> bool:
    """Count how what was read differs from what was held, and tell whether it does."""
    new, lost = difference(run.refused(filled), run.refused(held), TOLD)
    run.found["rejected"] += len(new)
    before, after = _sums(run, run.events(held)), _sums(run, run.events(filled))
    both = before.join(after, on="aggregate_id", how="full", coalesce=True)
    differ = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_right")) for name in ("rows", "sum"))
    ids = both.filter(differ)["aggregate_id"]
    for start in range(0, len(ids), AT_ONCE):
        some = Scope(aggregates=tuple(ids[start : start + AT_ONCE]))
        now, was = (run.held(list(one.events), some) for one in (filled, held))
        run.count(now, *difference(now, was, list(EVENTS)))
    return bool(len(ids) or len(new) or len(lost))


def _sums(run: Copying, parts: list[Part]) -> pl.DataFrame:
    """Give each aggregate's number of rows and a number that is another if one of them is."""
    found = [pl.DataFrame(schema={"aggregate_id": pl.String, "rows": pl.UInt32, "sum": pl.UInt64})]
    for part in parts:
        rows = pl.read_parquet(run.store.path / GOOD / part.name, columns=list(EVENTS), glob=False)
        hashed = pl.DataFrame([rows["aggregate_id"], rows.hash_rows().alias("sum")])
        found.append(hashed.group_by("aggregate_id").agg(pl.len().alias("rows"), pl.col("sum").sum()))
    return pl.concat(found).group_by("aggregate_id").agg(pl.col("rows").sum(), pl.col("sum").sum())
