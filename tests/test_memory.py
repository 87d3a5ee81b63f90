"""The memory backend: the specification that the other stores are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.backends.memory import MemoryStore
from titan_lab.errors import VersionConflict
from titan_lab.event import EVENTS
from titan_lab.testing.readers import Row, WriterSuite, frame_of, row


class TestMemory(WriterSuite):
    """Memory joins the suite. A folder stands for a store that is handed from hand to hand."""

    between_processes = False
    stores: dict[Path, MemoryStore] = {}

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        raw = pl.DataFrame(rows) if rows else EVENTS.to_frame()
        self.stores[place] = MemoryStore(raw)

    def open(self, place: Path, *, writable: bool = False, zone: str | None = None) -> tl.EventLog:
        self.stores[place].zone = zone
        return tl.EventLog(self.stores[place], writable=writable, zone=zone)

    def peek(self, place: Path) -> list[Row]:
        store = self.stores[place]
        rows = [*store.raw.to_dicts(), *store.added.to_dicts()]
        return sorted(rows, key=lambda one: (one["aggregate_id"], one["version"]))


def test_memory_starts_empty_and_takes_events_at_once() -> None:
    """A place to try things: nobody else can see it, so it need not be asked for writing."""
    log = tl.open("memory://")
    log.append_many(frame_of([row()]))
    assert (len(log), len(tl.open("memory://"))) == (1, 0)


def test_a_frames_rows_stay_the_callers() -> None:
    """Appending to the log leaves the frame it was made from alone."""
    frame = frame_of([row()])
    tl.from_frame(frame).append_many(frame_of([row(version=2)]))
    assert len(frame) == 1


def test_a_frame_of_any_types_takes_events_beside_its_own() -> None:
    """Timestamps as text, no metadata, a bad row: what is appended is compared with what they mean."""
    rows = [row("a", 1), row("a", 2, payload="{"), row("a", 3, timestamp="soon")]
    log = tl.from_frame(pl.DataFrame(rows).drop("metadata"))
    assert log.append_many(frame_of([row("a", 1), row("b", 1)])).added == 1
    assert log.read().select("aggregate_id", "version").rows() == [("a", 1), ("b", 1)]
    assert log.frontier.instant is not None
    for taken in (2, 3):  # a place is taken, even by a row that cannot be read
        with pytest.raises(VersionConflict, match=f"version {taken} of a"):
            log.append_many(frame_of([row("a", taken)]))
