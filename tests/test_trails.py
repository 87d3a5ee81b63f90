"""Trails: a history's event types in order of version, with or without an aggregate."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings

import titan_lab as tl
from titan_lab.event import EVENTS
from titan_lab.mining.trails import trails
from titan_lab.testing.histories import histories


@settings(derandomize=True, max_examples=40, database=None)
@given(events=histories())
def test_a_log_and_its_book_have_the_same_trails(events: pl.DataFrame) -> None:
    """Payloads play no part in them."""
    bare, folded = (
        trails(events.sample(fraction=1, shuffle=True, seed=1)),
        tl.from_frame(events).fold(tl.Order).rows,
    )
    assert bare.typed.ids.equals(folded.typed.ids)
    assert bare.typed.kinds == folded.typed.kinds
    for name in ("starts", "bounds", "version", "timestamp", "kind"):
        assert np.array_equal(getattr(bare.typed, name), getattr(folded.typed, name)), name
    assert np.array_equal(bare.counted("prefix"), folded.counted("prefix"))


def test_no_events_are_no_trails() -> None:
    """An empty log has no aggregate and no kind."""
    rows = trails(EVENTS.to_frame())
    assert (len(rows.typed), len(rows.typed.ids), rows.typed.kinds) == (0, 0, [])
