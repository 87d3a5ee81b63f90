"""The oracle of the two clocks: the plainest loop over what was recorded, in effective order."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import polars as pl
from hypothesis import strategies as st

from titan_lab.clock import Cut
from titan_lab.event import Event
from titan_lab.fold import Aggregate
from titan_lab.testing.histories import histories, moments
from titan_lab.testing.slow import Lives, counted, row


def effective_at(event: Event) -> datetime:
    """Tell when an event holds: when it says so, else when it was recorded."""
    said = event.metadata.get("effective_at")
    found = datetime.fromisoformat(said) if said else event.timestamp
    assert found is not None
    return found


def at_known(
    aggregate: type[Aggregate], lives: Lives, moment: datetime, known: datetime, cut: Cut
) -> list[dict[str, Any]]:
    """Fold, for every life, what was recorded by `known` and is effective by `moment`, in effective order."""
    rows = []
    for aggregate_id in sorted(lives, key=str.encode):
        recorded = counted(lives[aggregate_id], known, cut)
        effective = [event for event in recorded if effective_at(event) <= moment]
        if effective:
            effective.sort(key=lambda event: (effective_at(event), event.version))
            rows.append(row(aggregate.fold(effective)))
    return rows


@st.composite
def backdated(draw: st.DrawFn, payloads: Any) -> pl.DataFrame:
    """Draw a history in which some events say that they hold from another instant on."""
    events = draw(histories(payloads))
    texts = []
    for text in events["metadata"]:
        if draw(st.booleans()):
            said = draw(moments).isoformat()
            text = json.dumps({**json.loads(text or "{}"), "effective_at": said})
        texts.append(text)
    return events.with_columns(metadata=pl.Series(texts, dtype=pl.String))
