"""Trails: what the mining verbs need of a history, which is less than a fold.

For each aggregate the event types in order of version, as small codes with their timestamps. A book has them
already (``book.rows``); of a log they are read without an aggregate, and no payload is decoded. Either way
they are a ``Rows``, so that both answer alike:

    rows.typed.ids, .starts, .bounds      each aggregate's id, first row, and the row after its last
    rows.typed.kind, .kinds               a code for every row, and the sorted names that the codes stand for
    rows.typed.version, .timestamp        the event's place, and when it was recorded, in microseconds
    rows.counted("prefix")                when it counts: never before its predecessor does
    rows.followed, rows.owners            has a successor in its life; the aggregate's number

Order within an aggregate is version order, always, so that equal timestamps are no ties.
"""

from __future__ import annotations

import polars as pl

from titan_lab.event import in_order
from titan_lab.rows import Rows
from titan_lab.typed import assemble


def trails(events: pl.DataFrame) -> Rows:
    """Lay out EVENTS as rows without a fold; each (aggregate_id, version) must be there once."""
    return Rows(assemble(in_order(events)))
