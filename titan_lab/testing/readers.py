"""The suite that every backend must pass. Joining it takes about twenty lines:

    class TestSqlite(WriterSuite):
        def url(self, place): return f"sqlite:///{place}/orders.db"
        def seed(self, place, rows): ...   # insert with plain sqlite3
        def peek(self, place): ...         # select with plain sqlite3

`seed` and `peek` go round the backend, so that a fault in it cannot hide itself. A store that is only read
joins ReaderSuite, and needs no `peek`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings

import titan_lab.log
from titan_lab.connect import from_frame, open_log
from titan_lab.errors import EventsError, NoSuchAggregate, ReadOnly, VersionConflict
from titan_lab.event import EVENTS
from titan_lab.log import EventLog
from titan_lab.testing.extending import ExtendSuite
from titan_lab.testing.histories import histories
from titan_lab.testing.rows import TEN, Row, frame_of, row

AWKWARD_IDS = ["'; DROP TABLE order_events; --", "100%", 'say "no"', "é😀", "x" * 300, "a b\tc", "null"]
AWKWARD_IDS += ["a", "A", "a ", "0", "00"]  # what a store may take for the same


class ReaderSuite:
    """What can be asked of every store that is read."""

    live = False  # whether others may be writing, so that it is complete up to now and not to its last event

    def url(self, place: Path) -> str:
        """Give the URL of a store in an empty folder of its own."""
        raise NotImplementedError

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        """Put rows, which may be bad, into a new store with its plain driver."""
        raise NotImplementedError

    def open(self, place: Path, *, writable: bool = False, zone: str | None = None) -> EventLog:
        """Open the store in a folder."""
        return open_log(self.url(place), writable=writable, zone=zone)

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path

    def test_what_the_store_holds_is_read_sorted_and_typed(self, place: Path) -> None:
        """Whatever order the store gives its rows in."""
        self.seed(place, [row("b", 1), row("a", 2), row("a", 1)])
        events = self.open(place).read()
        assert events.schema == EVENTS
        assert events.select("aggregate_id", "version").rows() == [("a", 1), ("a", 2), ("b", 1)]
        assert events["payload"].to_list() == [
            '{"tracking": "T1"}',
            '{"tracking": "T2"}',
            '{"tracking": "T1"}',
        ]
        assert set(events["timestamp"]) == {datetime(2025, 1, 1, 10, tzinfo=UTC)}

    def test_reading_twice_gives_equal_frames(self, place: Path) -> None:
        """The same question, the same answer."""
        self.seed(place, [row("a", 1), row("b", 1)])
        log = self.open(place)
        assert log.read().equals(log.read())
        assert log.scan().collect().equals(log.read())
        assert len(log) == 2

    def test_an_empty_store_gives_an_empty_frame(self, place: Path) -> None:
        """With all columns, nothing rejected, and no frontier."""
        self.seed(place, [])
        log = self.open(place)
        assert log.read().equals(EVENTS.to_frame())
        assert (len(log.rejected), len(log.audit()), log.frontier.instant) == (0, 0, None)
        with pytest.raises(NoSuchAggregate):
            log.events("order-1")

    def test_the_frontier_is_the_last_instant_and_says_how_it_is_known(self, place: Path) -> None:
        """Up to there the log is complete."""
        self.seed(place, [row("a", 1), row("b", 1, timestamp="2025-01-01T10:00:00.000001Z")])
        frontier = self.open(place).frontier
        last = datetime(2025, 1, 1, 10, 0, 0, 1, tzinfo=UTC)
        assert frontier.instant is not None
        assert last < frontier.instant < datetime.now(UTC) if self.live else frontier.instant == last
        assert frontier.live == self.live
        assert frontier.how

    def test_a_timestamp_is_read_in_every_notation_that_names_its_zone(self, place: Path) -> None:
        """Z, a space for the T, any offset, with a fraction and without."""
        notations = [
            "2025-01-01T10:00:00Z",
            "2025-01-01 10:00:00+00:00",
            "2025-01-01T06:00:00.000-04:00",
            TEN,
        ]
        self.seed(place, [row("a", n, timestamp=text) for n, text in enumerate(notations, start=1)])
        log = self.open(place)
        assert log.read()["timestamp"].to_list() == [datetime(2025, 1, 1, 10, tzinfo=UTC)] * 4
        assert log.rejected.is_empty()

    def test_a_timestamp_without_a_zone_needs_the_logs_zone(self, place: Path) -> None:
        """Rejected with the fix in the reason, or read in the zone that was named."""
        self.seed(place, [row("a", 1, timestamp="2025-01-01 10:00:00"), row("b", 1)])
        naive = self.open(place)
        assert naive.read()["aggregate_id"].to_list() == ["b"]
        assert "zone=" in naive.rejected["reason"][0]
        told = self.open(place, zone="America/Sao_Paulo").read()
        assert told["timestamp"][0] == datetime(2025, 1, 1, 13, tzinfo=UTC)

    def test_a_bad_row_is_set_aside_and_the_good_ones_beside_it_are_read(self, place: Path) -> None:
        """Also when the scope names a window or a type that the bad row cannot be judged by."""
        bad = [
            row("a", 2, payload="{"),
            row("a", 3, payload="[]"),
            row("a", 4, metadata="{"),
            row("a", 5, timestamp="soon"),
            row("a", 0),
            row("a", 6, event_type=""),
        ]
        self.seed(place, [row("a", 1), *bad, row("a", 7)])
        log = self.open(place)
        assert log.read()["version"].to_list() == [1, 7]
        assert sorted(log.rejected["path"]) == ["$", "$", "event_type", "metadata", "timestamp", "version"]
        assert log.read(aggregates="a", types="OrderShipped", since=TEN, until=TEN)["version"].to_list() == [
            1,
            7,
        ]
        assert len(log.rejected) == len(bad)

    def test_a_scope_narrows_by_id_version_type_and_window(self, place: Path) -> None:
        """Both ends of a window are inclusive; ids nobody has add nothing."""
        rows = [row("a", n, timestamp=f"2025-01-01T10:00:0{n}Z") for n in (1, 2, 3)]
        self.seed(place, [*rows, row("b", 1, event_type="OrderDelivered")])
        log = self.open(place)
        window = log.read(since="2025-01-01T10:00:01Z", until="2025-01-01T10:00:02Z")
        assert window["version"].to_list() == [1, 2]
        assert log.read(aggregates=["b", "nobody"])["event_type"].to_list() == ["OrderDelivered"]
        assert log.read(types=["OrderDelivered"])["aggregate_id"].to_list() == ["b"]
        assert log.read(from_version=2)["version"].to_list() == [2, 3]
        assert log.read(aggregates=["a"], from_version=3)["version"].to_list() == [3]
        assert log.read(aggregates=[]).is_empty()
        assert log.events("a").equals(log.read(aggregates="a"))

    def test_ids_are_any_text(self, place: Path) -> None:
        """Quotes, percent signs, other scripts and what looks like SQL: all are found, and harm nothing."""
        self.seed(place, [row(name) for name in AWKWARD_IDS])
        log = self.open(place)
        assert set(log.read()["aggregate_id"]) == set(AWKWARD_IDS)
        for name in AWKWARD_IDS:
            assert log.events(name)["aggregate_id"].to_list() == [name]

    def test_a_scope_of_many_ids_reads_them_all(self, place: Path) -> None:
        """However many go into one statement."""
        ids = [f"order-{n:04d}" for n in range(1_201)]
        self.seed(place, [row(name) for name in ids])
        assert self.open(place).read(aggregates=ids[1:])["aggregate_id"].to_list() == ids[1:]

    @pytest.mark.parametrize("size", [999, 1_000, 1_001])
    def test_a_life_longer_than_a_page_is_read_whole(
        self, place: Path, size: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The classic bug is a page that is cut short in silence."""
        monkeypatch.setattr(titan_lab.log, "CHECKED", 100)
        self.seed(place, [row("a", n) for n in range(1, size + 1)])
        log = self.open(place)
        assert log.read()["version"].to_list() == list(range(1, size + 1))
        assert sum(len(batch) for batch in log.batches(10)) == size

    def test_random_histories_read_as_they_do_from_memory(self) -> None:
        """The memory backend is the specification."""

        @settings(derandomize=True, max_examples=15, database=None, deadline=None)
        @given(events=histories())
        def check(events: pl.DataFrame) -> None:
            stamps = events["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
            with tempfile.TemporaryDirectory() as folder:
                self.seed(Path(folder), events.with_columns(stamps).to_dicts())
                log = self.open(Path(folder))
                assert log.read().equals(from_frame(events).read())
                assert log.rejected.is_empty()

        check()

    def test_a_log_is_for_reading_unless_it_is_asked_to_write(self, place: Path) -> None:
        """An analyst's typing error cannot harm the store."""
        self.seed(place, [row("a", 1)])
        log = self.open(place)
        with pytest.raises(ReadOnly, match="open for reading only") as caught:
            log.append_many(frame_of([row("a", 2)]))
        assert "writable=True" in str(caught.value.hint)
        assert len(self.open(place)) == 1

    def test_closing_twice_does_nothing_more(self, place: Path) -> None:
        """So that `with` and a tidy script can meet."""
        self.seed(place, [])
        with self.open(place) as log:
            log.close()
        log.close()


class WriterSuite(ReaderSuite, ExtendSuite):
    """What can be asked of every store that takes events, too."""

    between_processes = True  # whether another process can open the same store

    def peek(self, place: Path) -> list[Row]:
        """Read all rows with the store's plain driver, sorted by key; timestamps as they are stored."""
        raise NotImplementedError

    @pytest.fixture
    def log(self, place: Path) -> EventLog:
        """A store with three events, open for writing."""
        self.seed(place, [row("a", 1), row("a", 2), row("b", 1)])
        return self.open(place, writable=True)

    def test_what_is_written_is_there_for_the_plain_driver_to_see(self, place: Path, log: EventLog) -> None:
        """Byte for byte, with the microseconds."""
        new = row(
            "c", 1, payload='{"amount":  10.50, "é": "\\u00e9"}', timestamp="2025-01-01T10:00:00.000001Z"
        )
        assert log.append_many(frame_of([new])).added == 1
        (stored,) = [one for one in self.peek(place) if one["aggregate_id"] == "c"]
        assert stored["payload"] == new["payload"]
        assert stored["metadata"] == new["metadata"]
        assert str(stored["timestamp"])[:26].replace(" ", "T") == "2025-01-01T10:00:00.000001"

    def test_what_is_written_is_read_again_unchanged(self, place: Path, log: EventLog) -> None:
        """By the same log and by one that is opened anew."""
        new = frame_of([row("c", 1, metadata=None), row("c", 2, timestamp="2025-01-01T10:00:00.000001Z")])
        log.append_many(new)
        for reader in (log, self.open(place)):
            assert reader.read(aggregates="c").equals(new)

    def test_appending_again_adds_nothing(self, place: Path, log: EventLog) -> None:
        """A job that ran twice leaves what it would have left."""
        new = frame_of([row("a", 3), row("c", 1)])
        first, again = log.append_many(new), log.append_many(new)
        assert (first.added, first.present) == (2, 0)
        assert (again.added, again.present) == (0, 2)
        assert len(self.peek(place)) == 5

    def test_appending_nothing_adds_nothing(self, place: Path, log: EventLog) -> None:
        """An empty frame is no error."""
        assert log.append_many(EVENTS.to_frame()).added == 0
        assert len(self.peek(place)) == 3

    @pytest.mark.parametrize("new", [("c", "d"), ("a", "c"), ("a", "aa")], ids=["first", "middle", "last"])
    def test_one_clash_anywhere_leaves_the_store_as_it_was(
        self, place: Path, log: EventLog, new: tuple[str, str]
    ) -> None:
        """All or none, wherever the clash stands in the order of keys; the error names what is taken."""
        before = self.peek(place)
        rows = [row(name, n) for name in new for n in (3, 4)]
        with pytest.raises(VersionConflict, match="version 1 of b is already another event") as caught:
            log.append_many(frame_of([*rows, row("b", 1, payload='{"tracking": "another"}')]))
        assert (caught.value.data["aggregate_id"], caught.value.data["version"]) == ("b", 1)
        assert self.peek(place) == before

    @pytest.mark.parametrize(
        "changes", [{"event_type": "OrderDelivered"}, {"timestamp": "2025-01-01T10:00:01Z"}]
    )
    def test_another_type_or_timestamp_is_another_event(self, log: EventLog, changes: Row) -> None:
        """The payload alone does not make it the same."""
        with pytest.raises(VersionConflict):
            log.append_many(frame_of([row("a", 2, **changes)]))

    def test_a_row_that_is_no_event_stops_the_whole_append(self, place: Path, log: EventLog) -> None:
        """The error counts them, shows the first, and carries them all."""
        with pytest.raises(
            EventsError, match="1 of the rows to append are no events; nothing was written"
        ) as caught:
            log.append_many(pl.DataFrame([row("c", 1), row("c", 2, payload="{")]))
        assert caught.value.data["rejected"]["version"].to_list() == [2]
        assert len(self.peek(place)) == 3

    def test_a_reader_sees_what_was_appended_after_it_was_opened(self, place: Path, log: EventLog) -> None:
        """A log is no copy."""
        reader = self.open(place)
        assert len(reader) == 3
        log.append_many(frame_of([row("c", 1)]))
        assert len(reader) == 4

    def test_of_two_processes_that_append_the_same_version_exactly_one_wins(self, place: Path) -> None:
        """Twenty versions, raced for by two writers: each has one winner, and the store holds its event."""
        if not self.between_processes:
            pytest.skip("no other process can see this store")
        self.seed(place, [row("a", 1)])
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, self.url(place), str(place / "go"), name],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("ann", "bob")
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        (place / "go").touch()
        told = {
            name: writer.communicate(timeout=60)[0].split()
            for name, writer in zip("ab", writers, strict=True)
        }
        assert [writer.returncode for writer in writers] == [0, 0]
        assert [set(pair) for pair in zip(told["a"], told["b"], strict=True)] == [{"won", "lost"}] * 20
        log = self.open(place)
        winners = ["ann" if a == "won" else "bob" for a in told["a"]]
        assert log.read()["payload"].to_list()[1:] == [f'{{"tracking": "{name}"}}' for name in winners]
        assert log.rejected.is_empty()


def kill_in_the_middle(code: str, url: str) -> None:
    """Run code in a process of its own, and kill that when it says that it is in the middle of its work."""
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "in the middle\n"
        finally:
            writer.kill()
    assert writer.returncode != 0


RACE = """
import sys, time, pathlib
import titan_lab as tl, polars as pl
url, go, name = sys.argv[1:]
log = tl.open(url, writable=True)
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
for version in range(2, 22):
    event = {"aggregate_id": "a", "version": version, "event_type": "OrderShipped",
             "payload": f'{{"tracking": "{name}"}}', "timestamp": "2025-01-01T10:00:00Z"}
    try:
        log.append_many(pl.DataFrame([event]))
        print("won", flush=True)
    except tl.TitanError as error:
        print("lost" if type(error).__name__ == "VersionConflict" else repr(error), flush=True)
"""
