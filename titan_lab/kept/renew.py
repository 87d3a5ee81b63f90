"""A kept history with some of its aggregates folded anew: the others stay what they were."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from titan_lab.book import Book
from titan_lab.lists import ranges
from titan_lab.marks import marks
from titan_lab.rows import Rows
from titan_lab.states import tracks_of
from titan_lab.tracks import Shared, Stepped, Track
from titan_lab.typed import Part, Typed
from titan_lab.whatif.splice import NO_ROWS, splice

Range = tuple[str | None, str | None]  # ids from the first on, and before the second


def renewed(old: Book, new: Book, ids: Range, touched: pl.Series) -> Book:
    """Put what is new in a range of ids among the old, without the old aggregates that were touched.

    Payloads are not read again. Whole columns are carried forward again, which takes less than to take them
    apart; a `step`, which runs event by event, is not.
    """
    others = rows_of(old.typed, ids, ~old.typed.ids.is_in(touched.implode()))
    whole, origin = splice(old.typed.take(others), NO_ROWS, new.typed)
    origin = np.arange(len(whole)) if origin is None else origin
    place = np.concatenate([np.flatnonzero(origin >= 0), np.flatnonzero(origin < 0)])
    whole.parts = _one_for_each_shape(whole.parts)
    shared, known = Shared(whole), dict[str, Track]()
    for name, track in old.tracks.items():
        if isinstance(track, Stepped):
            made = _spliced(track, new.tracks[name], others, place)  # type: ignore[arg-type]
            seen = shared.seen(made["rows"], name.encode())
            known[name] = Stepped.kept(whole, dtype=track.dtype, seen=seen, **made)
    return Book(old.aggregate, whole, made=(Rows(whole), tracks_of(old.aggregate, whole, known)))


def within(typed: Typed, ids: Range) -> Typed:
    """Keep the aggregates in a range of ids."""
    return typed if ids == (None, None) else typed.take(rows_of(typed, ids))


def _one_for_each_shape(parts: list[Part]) -> list[Part]:
    """Put parts of one event type and schema_version together, in order of row as every part is."""
    alike = defaultdict[tuple[str, int], list[Part]](list)
    for part in parts:
        alike[part.event_type, part.schema_version].append(part)
    return [same[0] if len(same) == 1 else _together(same) for same in alike.values()]


def _together(parts: list[Part]) -> Part:
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    fields = pl.DataFrame(height=len(rows))
    if parts[0].fields.width:
        fields = pl.concat([part.fields for part in parts]).select(pl.all().gather(order))
    filled = {name: np.concatenate([part.filled[name] for part in parts])[order] for name in parts[0].filled}
    return replace(parts[0], rows=rows[order], fields=fields, filled=filled)


def _spliced(old: Stepped, new: Stepped, others: np.ndarray, place: np.ndarray) -> dict[str, Any]:
    """Put what two tracks know together: of the old that of some rows, of the new all.

    place: where each of those rows, and then each of the new ones, stands in the whole.
    """
    where = np.searchsorted(others, old.rows)
    kept = np.flatnonzero(np.append(others, -1)[where] == old.rows)
    rows = np.concatenate([place[where[kept]], place[len(others) + new.rows]])
    order = np.argsort(rows)
    values = pl.concat([old.values.gather(kept), new.values.head(len(new.rows))]).gather(order)
    before, after = old.setters[kept], new.setters
    setters = np.concatenate(
        [
            np.where(before < 0, -1, np.append(place, -1)[np.searchsorted(others, before)]),
            np.where(after < 0, -1, place[len(others) :][after] if len(after) else after),
        ]
    )
    return {
        "rows": rows[order],
        "values": pl.concat([values, new.values.tail(1)], rechunk=True),
        "_setters": setters[order],
    }


def rows_of(typed: Typed, ids: Range, some: pl.Series | None = None) -> np.ndarray:
    """List the rows of the aggregates in a range of ids, or of some among them."""
    start, end = (typed.ids.search_sorted(one) if one is not None and len(typed.ids) else None for one in ids)
    owners = np.arange(len(typed.ids))[start:end]
    if some is not None:
        owners = owners[marks(some)[start:end]]
    return ranges(typed.starts[owners], np.diff(typed.bounds)[owners])
