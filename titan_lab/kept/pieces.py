"""Keep what is folded, and fold what is not kept: at once, in pieces that fit into memory, or what is new.

A history is parted by ranges of aggregate_id, not by a hash of it: the pieces then follow one another in the
order of the whole, so that they are put end to end without sorting, and a store that is sorted by id reads of
each range only that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from titan_lab.backends.contract import Frontier, Reader
from titan_lab.book import Book
from titan_lab.clock import instant, iso
from titan_lab.errors import KeepError
from titan_lab.event import REJECTED, as_text
from titan_lab.fold import Aggregate
from titan_lab.functions import UNTOLD
from titan_lab.kept import keep, news
from titan_lab.kept.keep import Kept
from titan_lab.kept.news import News
from titan_lab.kept.renew import Range, renewed, within
from titan_lab.scope import EVERYTHING, Scope
from titan_lab.typed import Typed, WhenNewer

PER_EVENT = 800  # bytes that folding takes for an event, measured by benchmarks/reopen.py
SAMPLED = 100_000  # ids are looked at, to part them evenly
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

Folded = tuple[Book, pl.DataFrame, pl.DataFrame]  # with what could not be read, and what did not fit


class Source(Protocol):
    """The log that is folded, as this module needs it."""

    reader: Reader
    zone: str | None

    @property
    def url(self) -> str: ...

    def typed(
        self, aggregate: type[Aggregate], request: Scope, newer: WhenNewer
    ) -> tuple[Typed, pl.DataFrame, pl.DataFrame]:
        """Read and decode a scope: its columns, what could not be read, and what did not fit."""
        ...


def fold_kept(
    source: Source,
    aggregate: type[Aggregate],
    path: Path,
    request: Scope,
    newer: WhenNewer,
    pieces: int | None = None,
    memory: int | str | None = None,
    **more: Any,
) -> tuple[Book, pl.DataFrame]:
    """Open what is kept in a folder if it still holds, else fold what does not, and keep that.

    Returns the book, whose `kept` says which it was and why, and the rows whose payload did not fit.
    """
    asked = _asked(source, aggregate, request, newer)
    kept, why, found, frontier = _looked_at(source, path, asked)
    if kept is None or why or not found.none:
        with keep.writing(path):
            if keep.find(path)[0] != kept:  # whoever wrote meanwhile may have done this very work
                kept, why, found, frontier = _looked_at(source, path, asked)
            if found.touched is None:
                why = f"folded, since {why or 'the source has changed in what was there before'}"
                parts = parted(source.reader, pieces, memory)
                read = _read(source, aggregate, request, newer, parts)
                _write(frontier, path, asked, found, parts, read)
            elif not found.none and kept is not None:
                why = f"folded {len(found.touched):,} aggregates again that have news; the others as kept"
                parts = [tuple(ids) for ids in kept.told["ranges"]]
                merged = _renewed(source, aggregate, kept, request, newer, found.touched)
                _write(frontier, path, asked, found, parts, merged)
            kept, broken = keep.find(path)
            if kept is None:
                raise KeepError(f"what was kept in {path} a moment ago cannot be read: {broken}")
    elif kept.told["facts"] != found.facts:  # another file with the same rows: to be known without reading it
        with suppress(KeepError), keep.writing(path):
            if keep.find(path)[0] == kept:
                keep.publish(path, kept.told | {"facts": found.facts})
    book = kept.book(aggregate, source=source.url, zone=source.zone, frontier=frontier, **more)
    book.kept = f"{path}: {why or 'as kept'}"
    return book, kept.frame("misfits", REJECTED)


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say in half a sentence how what was kept is not what is asked for; nothing where it is."""
    was, declared = before["declared"], now["declared"]
    told = [
        f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} {what}"
        for names, what in (
            ([name for name in declared if name not in was], "new"),
            ([name for name in was if name not in declared], "gone"),
        )
        if names
    ]
    for name in was:
        if declared.get(name, was[name]) != was[name]:
            written_out = name.startswith(("event", "upcast"))  # at a length that nobody reads
            change = "has changed" if written_out else f"was {was[name]} and is now {declared[name]}"
            told.append(f"{name} {change}")
    if not told and list(was) != list(declared):
        told.append("the columns stand in another order")
    if before["aggregates"] != now["aggregates"]:
        told.append("other aggregates were asked for")
    for name, what in (("url", "the source"), ("newer", "newer="), ("zone", "the zone")):
        if before[name] != now[name]:
            told.append(f"{what} was {before[name]!r} and is now {now[name]!r}")
    return " and ".join(told)


def parted(reader: Reader, pieces: int | None, memory: int | str | None) -> list[Range]:
    """Part all ids into ranges with about as many events each.

    pieces: so many, or as many as `memory` needs, in bytes or as "4GiB"; one without either. Fewer come of
    it where there are fewer ids. Raises KeepError for what is no number of either.
    """
    if pieces is None and memory is None:
        return [(None, None)]
    if pieces is not None and (not isinstance(pieces, int) or pieces < 1):
        raise KeepError(f"{pieces!r} pieces are none", hint="use a whole number from 1 on")
    room = None if memory is None else _bytes(memory)
    ids, events = _sample(reader)
    count = max(pieces or 1, 1 if room is None else -(-events * PER_EVENT // room))
    return evenly(ids, count)


def evenly(ids: pl.Series, count: int) -> list[Range]:
    """Part all ids into about so many ranges, by ids that stand evenly among them."""
    ids = ids.drop_nulls().sort()
    places = np.arange(1, count) * len(ids) // count
    bounds = ids.gather(places).unique().sort().to_list() if len(ids) else []
    return list(zip([None, *bounds], [*bounds, None], strict=True))


def _asked(source: Source, aggregate: type[Aggregate], request: Scope, newer: WhenNewer) -> dict[str, Any]:
    declared = aggregate.described()
    for name, text in declared.items():
        if UNTOLD in text:
            what = text.split(UNTOLD)[1].split(",")[0]
            raise KeepError(
                f"{name} of {aggregate.__name__} rests on a {what}; whether that has changed cannot be told,"
                " so what is kept could be wrong",
                hint="let its function use plain values, functions and modules, or fold without keep=",
                column=name,
            )
    ids = None if request.aggregates is None else sorted(set(request.aggregates))
    return {"declared": declared, "aggregates": ids, "newer": newer, "zone": source.zone, "url": source.url}


def _looked_at(source: Source, path: Path, asked: dict[str, Any]) -> tuple[Kept | None, str, News, Frontier]:
    """Find what is kept, in half a sentence what keeps it from being used, the news since, and the frontier.

    The frontier is of before the news were looked for: what arrives in between lies beyond it.
    """
    kept, why = keep.find(path)
    why = why or (differences(kept.told["asked"], asked) if kept else "nothing was kept there yet")
    if why or kept is None:
        frontier = source.reader.frontier()
        return kept, why, news.since(source.reader, None, None), frontier
    was = kept.told["frontier"]
    frontier = Frontier(instant(was["instant"]) if was["instant"] else None, was["how"], was["live"])
    facts = kept.told["facts"]
    # The end of files whose facts are the same is the same; to look for it would be to read them.
    if frontier.live or facts is None or facts != news.facts_of(source.reader):
        frontier = source.reader.frontier()
    return kept, "", news.since(source.reader, facts, kept.frame("marks", news.MARKS)), frontier


def _read(
    source: Source, aggregate: type[Aggregate], request: Scope, newer: WhenNewer, parts: list[Range]
) -> Iterator[Folded]:
    for ids in parts:
        columns, unread, misfits = source.typed(aggregate, replace(request, ids=ids), newer)
        yield Book(aggregate, columns), unread, misfits


def _renewed(
    source: Source,
    aggregate: type[Aggregate],
    kept: Kept,
    request: Scope,
    newer: WhenNewer,
    touched: pl.Series,
) -> Iterator[Folded]:
    """Read the aggregates that have news, and put them among the others, as many at a time as were kept."""
    if request.aggregates is not None:
        touched = touched.filter(touched.is_in(list(request.aggregates)))
    new, unread, misfits = source.typed(aggregate, replace(request, aggregates=tuple(touched)), newer)
    known = ~pl.col("aggregate_id").is_in(touched.implode()).fill_null(False)
    refused = [
        pl.concat([kept.frame(name, REJECTED).filter(known), now])
        for name, now in (("unread", unread), ("misfits", misfits))
    ]
    old = kept.book(aggregate)
    for ids in kept.told["ranges"]:
        yield renewed(old, Book(aggregate, within(new, ids)), ids, touched), refused[0], refused[1]
        refused = [REJECTED.to_frame()] * 2


def _write(
    frontier: Frontier,
    path: Path,
    asked: dict[str, Any],
    found: News,
    parts: list[Range],
    folded: Iterator[Folded],
) -> None:
    with keep.fresh(path) as keeper:
        unread, misfits = [REJECTED.to_frame()], [REJECTED.to_frame()]
        for book, refused, misfit in folded:
            keeper.add(book)
            unread.append(refused)
            misfits.append(misfit)
        keeper.frame("unread", pl.concat(unread))
        keeper.frame("misfits", pl.concat(misfits))
        keeper.frame("marks", found.marks)
        told = keeper.close()
    instant_told = iso(frontier.instant) if frontier.instant else None
    complete = {"instant": instant_told, "how": frontier.how, "live": frontier.live}
    source_told = {"facts": found.facts, "frontier": complete, "ranges": parts}
    keep.publish(path, {"asked": asked, **source_told, **told})


def _bytes(memory: int | str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", str(memory).strip(), re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise KeepError(
            f"{memory!r} is no amount of memory", hint="write memory='4GiB', or a number of bytes"
        )
    return size


def _sample(reader: Any) -> tuple[pl.Series, int]:
    """Give some ids, evenly, and how many events there are."""
    if hasattr(reader, "sample"):
        return reader.sample(SAMPLED)
    frames = [as_text(frame["aggregate_id"]) for frame in reader.frames(EVERYTHING, news.CHECKED)]
    ids = pl.concat(frames) if frames else pl.Series([], dtype=pl.String)
    return ids, len(ids)
