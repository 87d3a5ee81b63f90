"""What can be asked of every store whose aggregates are extended: a part of the suite in readers.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from titan_lab.errors import ReadOnly, VersionConflict
from titan_lab.event import records
from titan_lab.log import EventLog
from titan_lab.payload import EventType
from titan_lab.testing.rows import TEN, Row, row

TICK = timedelta(seconds=1)  # a database may run on another clock than its client


def named(*ids: str, **changes: Any) -> list[dict[str, Any]]:
    """Write events that have these event_ids."""
    event: dict[str, Any] = {"event_type": "OrderShipped", "payload": {"tracking": "T"}}
    return [event | changes | {"metadata": {"event_id": one}} for one in ids]


class OrderShipped(EventType):
    """What is appended, as whoever uses the store declares it."""

    tracking: str | None = None


class OrderDelivered(EventType):
    """An event without a field."""


class ExtendSuite:
    """One aggregate is added to, behind the version that the writer has seen."""

    between_processes: bool

    def url(self, place: Path) -> str:
        raise NotImplementedError

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        raise NotImplementedError

    def open(self, place: Path, *, writable: bool = False) -> EventLog:
        raise NotImplementedError

    def peek(self, place: Path) -> list[Row]:
        raise NotImplementedError

    def test_events_take_the_versions_behind_the_expected_one(self, place: Path, log: EventLog) -> None:
        """Of an aggregate that is there, and of one that begins."""
        assert log.append("a", [OrderShipped(tracking="T3"), OrderDelivered()], 2).version == 4
        assert log.append("c", OrderShipped(), 0).version == 1
        told = log.read(aggregates=["a", "c"]).select("aggregate_id", "version", "event_type").rows()
        assert told[2:] == [("a", 3, "OrderShipped"), ("a", 4, "OrderDelivered"), ("c", 1, "OrderShipped")]

    @pytest.mark.parametrize("expected", [0, 1, 3, 99], ids=["first", "middle", "too high", "far too high"])
    def test_another_version_than_expected_leaves_the_store_as_it_was(
        self, place: Path, log: EventLog, expected: int
    ) -> None:
        """Wherever in the batch the clash stands; the error names both versions, and says what to do."""
        before = self.peek(place)
        with pytest.raises(
            VersionConflict, match=f"a is at version 2, and was expected at {expected}"
        ) as caught:
            log.append("a", named("x", "y", "z"), expected)
        assert (caught.value.data["expected"], caught.value.data["found"]) == (expected, 2)
        assert "read it again" in str(caught.value.hint)
        assert self.peek(place) == before

    def test_a_clash_in_the_last_event_alone_leaves_the_store_as_it_was(self, place: Path) -> None:
        """A store may hold a version with a gap before it; what is behind the expected one is taken."""
        self.seed(place, [row("a", 1), row("a", 4)])
        log, before = self.open(place, writable=True), self.peek(place)
        with pytest.raises(VersionConflict, match="a is at version 4, and was expected at 1"):
            log.append("a", named("x", "y", "z"), 1)
        assert self.peek(place) == before

    def test_an_aggregate_that_is_there_does_not_begin_again(self, place: Path, log: EventLog) -> None:
        """And one that is not there is at version 0."""
        with pytest.raises(VersionConflict, match="b is at version 1, and was expected at 0"):
            log.append("b", OrderShipped(), 0)
        with pytest.raises(VersionConflict, match="nobody is at version 0, and was expected at 1"):
            log.append("nobody", OrderShipped(), 1)

    def test_the_same_event_ids_again_add_nothing(self, place: Path, log: EventLog) -> None:
        """Neither at once nor after more events came: the caller who heard nothing may ask again."""
        first = log.append("a", named("x", "y"), 2)
        assert (first.added, first.present, first.version) == (2, 0, 4)
        again = log.append("a", named("x", "y"), 2)
        assert (again.added, again.present, again.version) == (0, 2, 4)
        log.append("a", named("z"), 4)
        before = self.peek(place)
        again = log.append("a", named("x", "y"), 2)
        assert (again.added, again.present, again.version) == (0, 2, 5)
        assert self.peek(place) == before

    @pytest.mark.parametrize("ids", [("x", "w"), ("w", "y"), ("x", "y", "z"), ("y", "x")])
    def test_other_event_ids_in_those_places_are_a_conflict(
        self, log: EventLog, ids: tuple[str, ...]
    ) -> None:
        """Also where some are the same: an append is there whole, or it is another."""
        log.append("a", named("x", "y"), 2)
        with pytest.raises(VersionConflict, match="a is at version 4, and was expected at 2"):
            log.append("a", named(*ids), 2)

    def test_events_without_an_id_are_not_taken_for_each_other(self, place: Path) -> None:
        """What other writers stored has none; each that we append has its own."""
        self.seed(place, [row("a", 1, metadata=None), row("a", 2, metadata="{}")])
        log = self.open(place, writable=True)
        with pytest.raises(VersionConflict):
            log.append("a", OrderShipped(tracking="T1"), 0)
        log.append("a", [OrderDelivered(), OrderDelivered()], 2)
        ids = [event.metadata["event_id"] for event in records(log.events("a"))[2:]]
        assert len(set(ids)) == 2

    def test_no_events_add_nothing_and_still_look_at_the_version(self, place: Path, log: EventLog) -> None:
        """An empty batch tells whether somebody else was there."""
        before = self.peek(place)
        nothing = log.append("a", [], 2)
        assert (nothing.added, nothing.present, nothing.version) == (0, 0, 2)
        assert log.append("nobody", [], 0).version == 0
        with pytest.raises(VersionConflict):
            log.append("a", [], 1)
        assert self.peek(place) == before

    def test_the_store_tells_the_time_unless_the_writer_does(self, log: EventLog) -> None:
        """Its clock, at the append; an import brings its own."""
        begun = datetime.now(UTC)
        log.append("a", [*named("x"), *named("y", timestamp=TEN)], 2)
        log.append("a", OrderDelivered(), 4)
        _, _, first, second, third = log.events("a")["timestamp"]
        assert begun - TICK <= first <= third <= datetime.now(UTC) + TICK
        assert second == datetime(2025, 1, 1, 10, tzinfo=UTC)

    def test_what_is_appended_is_stored_as_it_was_written(self, place: Path, log: EventLog) -> None:
        """Amounts digit by digit, in every script."""
        log.append("c", {"event_type": "Paid", "payload": '{"amount": 10.50, "by": "é😀"}'}, 0)
        (event,) = records(log.events("c"))
        assert (str(event.payload["amount"]), event.payload["by"]) == ("10.50", "é😀")

    def test_a_log_opened_for_reading_appends_nothing(self, place: Path) -> None:
        """The hint says how to open it."""
        self.seed(place, [row("a", 1)])
        before = self.peek(place)
        with pytest.raises(ReadOnly, match="open for reading only") as caught:
            self.open(place).append("a", OrderDelivered(), 1)
        assert "writable=True" in str(caught.value.hint)
        assert self.peek(place) == before

    def test_of_two_processes_on_one_aggregate_one_wins_and_the_other_can_retry(self, place: Path) -> None:
        """The loser sees both versions, appends behind the one found, and nothing is lost or there twice."""
        if not self.between_processes:
            pytest.skip("no other process can see this store")
        self.seed(place, [row("a", 1)])
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", RETRY, self.url(place), str(place / "go"), name],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("ann", "bob")
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        (place / "go").touch()
        told = [writer.communicate(timeout=60)[0].split() for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0]
        assert [one.count("won") for one in told] == [ROUNDS, ROUNDS]
        assert sum(one.count("lost") for one in told) >= 1
        events = records(self.open(place).events("a"))
        assert [event.version for event in events] == list(range(1, 2 * ROUNDS + 2))
        assert sorted(event.payload["tracking"] for event in events[1:]) == sorted(
            f"{name} {n}" for name in ("ann", "bob") for n in range(ROUNDS)
        )


ROUNDS = 10
RETRY = f"""
import sys, time, pathlib
import titan_lab as tl
from titan_lab.errors import VersionConflict
url, go, name = sys.argv[1:]
log = tl.open(url, writable=True)
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
seen = 1
for n in range({ROUNDS}):
    while True:
        try:
            seen = log.append("a", tl.OrderShipped(tracking=f"{{name}} {{n}}"), seen).version
            print("won", flush=True)
            break
        except VersionConflict as error:
            assert error.data["expected"] == seen < error.data["found"], error
            seen = error.data["found"]
            print("lost", flush=True)
"""
