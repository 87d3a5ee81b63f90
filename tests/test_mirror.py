"""A mirror holds what its store holds, whatever the writers' clocks say."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import cli
from titan_lab.backends import mirror as backend
from titan_lab.backends.manifest import GOOD, read_manifest
from titan_lab.backends.memory import MemoryStore
from titan_lab.connect import open_log
from titan_lab.errors import MirrorError, OpenError, ReadOnly
from titan_lab.event import EVENTS
from titan_lab.log import EventLog, Mirror
from titan_lab.mirror import copying, folder, tail
from titan_lab.mirror.copying import difference
from titan_lab.mirror.folder import Folder
from titan_lab.testing.histories import START, histories
from titan_lab.testing.readers import ReaderSuite, Row, row
from titan_lab.testing.transactions import Transactions

# A table that refuses nothing: no key, so that rows repeat, and no types.
OPEN_TO_ALL = "CREATE TABLE order_events (aggregate_id, version, event_type, payload, metadata, timestamp)"
ORDER = ["aggregate_id", "version", "path", "reason", "raw", "place"]


class Store:
    """A SQLite file that takes any row, and its mirror."""

    def __init__(self, place: Path, zone: str | None = None) -> None:
        self.file = place / "orders.db"
        self.run(OPEN_TO_ALL)
        self.log = open_log(f"sqlite:///{self.file}", zone=zone)
        self.mirror = self.log.mirror(place / "mirror")

    def run(self, statement: str, values: Sequence[Any] = ()) -> None:
        db = sqlite3.connect(self.file)
        db.execute(statement, values)
        db.commit()
        db.close()

    def add(self, *rows: Row) -> None:
        db = sqlite3.connect(self.file)
        values = [tuple(one[name] for name in EVENTS) for one in rows]
        db.executemany("INSERT INTO order_events VALUES (?, ?, ?, ?, ?, ?)", values)
        db.commit()
        db.close()

    def same(self) -> None:
        assert_same(self.mirror, open_log(self.log.url, zone=self.log.zone))


def assert_same(mirror: EventLog, log: EventLog) -> None:
    """Hold a mirror against its store: the same events, and the same rows rejected."""
    assert mirror.read().equals(log.read())
    assert mirror.rejected.sort(ORDER).equals(log.rejected.sort(ORDER))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def at(second: int) -> str:
    return f"2025-01-01T10:00:{second:02d}.000000Z"


class TestMirror(ReaderSuite):
    """A mirror is read as its store is."""

    def url(self, place: Path) -> str:
        return f"mirror://{place}/mirror"

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        Store(place).add(*rows)

    def open(self, place: Path, *, writable: bool = False, zone: str | None = None) -> EventLog:
        copy = place / f"mirror{str(zone).replace('/', '-')}"
        open_log(f"sqlite:///{place}/orders.db", zone=zone).mirror(copy).sync()
        return open_log(f"mirror://{copy}", writable=writable, zone=zone)


# ---------------------------------------------------------------------- one thing after the other


def test_a_sync_adds_what_is_new_and_says_so(store: Store) -> None:
    """The first time all of it, then what came, then nothing."""
    store.add(row("a", 1, timestamp=at(0)), row("b", 1, timestamp=at(1)))
    first = store.mirror.sync()
    assert (first.added, first.events, first.whole, first.before.instant) == (2, 2, True, None)
    store.add(row("a", 2, timestamp=at(1)), row("b", 2, timestamp=at(2)))
    second = store.mirror.sync()
    assert (second.added, second.events, second.whole, second.repaired) == (2, 4, False, False)
    store.same()
    third = store.mirror.sync()
    assert (third.added, third.parts, third.after.instant) == (0, 0, second.after.instant)
    assert repr(third) == "Synced(added=0, rejected=0, late=0, edited=0, gone=0, events=4, whole=False)"
    assert "events in all" in third._repr_html_()


LIES = {
    "an hour back": "2025-01-01T09:00:00.000000Z",
    "30 years ahead": "2055-01-01T10:00:00.000000Z",
    "none": None,
    "of the same microsecond": at(1),
    "without a zone": "2025-01-01 10:00:00",
    "before all time": "0000-01-01T00:00:00.000000Z",
}


@pytest.mark.parametrize("stamp", LIES.values(), ids=LIES.keys())
def test_a_row_with_any_stamp_is_copied(store: Store, stamp: str | None) -> None:
    """And what comes after it, honestly stamped, as well."""
    store.add(row("a", 1, timestamp=at(0)), row("b", 1, timestamp=at(1)))
    store.mirror.sync()
    store.add(row("b", 2, timestamp=stamp), row("c", 1, timestamp=at(2)))
    store.mirror.sync()
    store.same()
    store.add(row("a", 2, timestamp=at(3)), row("b", 3, timestamp=stamp))
    store.mirror.sync()
    store.same()
    assert store.mirror.sync().repaired is False


def test_what_was_written_behind_the_mark_is_called_late(store: Store) -> None:
    """One row of three."""
    store.add(row("a", 1, timestamp=at(5)))
    store.mirror.sync()
    store.add(row("b", 1, timestamp=at(1)), row("c", 1, timestamp=at(5)), row("c", 2, timestamp=at(6)))
    told = store.mirror.sync()
    assert (told.added, told.late, told.repaired) == (3, 1, True)


def test_a_clock_that_is_ahead_does_not_become_the_mark(store: Store) -> None:
    """Else all honest rows would lie behind it, and be late."""
    store.add(row("a", 1, timestamp="2999-01-01T00:00:00Z"))
    told = store.mirror.sync()
    assert told.after.instant is not None
    assert told.after.instant.year < 2999


def test_a_zone_of_the_log_is_the_mirrors(tmp_path: Path) -> None:
    """Stamps without one are read in it, also those that come behind the mark."""
    store = Store(tmp_path, zone="America/Sao_Paulo")
    store.add(row("a", 1, timestamp="2025-01-01 10:00:00"), row("b", 1, timestamp=at(0)))
    store.mirror.sync()
    store.add(row("a", 2, timestamp="2024-01-01 10:00:00"))
    assert store.mirror.sync().late == 1
    store.same()
    assert open_log(store.mirror.url).zone == "America/Sao_Paulo"
    with pytest.raises(MirrorError, match="read in the zone America/Sao_Paulo, not None"):
        open_log(store.log.url).mirror(store.mirror.path)


def test_rows_that_are_no_events_are_rejected_as_in_the_store(store: Store) -> None:
    """Whether they come at first, later, or behind the mark; and when the store has put them right."""
    store.add(row("a", 1), row("a", 2, payload="{"), row("a", 3, timestamp="soon"), row("a", 0))
    assert store.mirror.sync().rejected == 3
    store.same()
    store.add(row("b", 1, payload="[]", timestamp=at(1)), row("b", 2, event_type="", timestamp=at(0)))
    store.add(row("c", 1, payload="{", timestamp="2024-01-01T00:00:00Z"))
    assert store.mirror.sync().rejected == 3
    store.same()
    store.run("UPDATE order_events SET timestamp = ? WHERE timestamp = 'soon'", [at(2)])
    assert store.mirror.sync().added == 1
    store.same()


def test_the_same_key_twice_is_told_as_the_store_tells_it(store: Store) -> None:
    """The mirror holds both rows, and reads them as any log does."""
    store.add(row("a", 1), row("a", 1), row("a", 1, payload='{"tracking": "other"}'))
    store.mirror.sync()
    store.same()
    store.add(row("a", 1), row("a", 2, timestamp=at(1)), row("a", 2, timestamp=at(1)))
    assert store.mirror.sync().added == 3
    store.same()


def test_an_event_that_was_edited_is_told_and_never_there_twice(store: Store) -> None:
    """From the mark on by a sync; behind it by one of everything, since the count is the same."""
    store.add(row("a", 1, timestamp=at(0)), row("b", 1, timestamp=at(9)))
    store.mirror.sync()
    edit = "UPDATE order_events SET payload = ? WHERE aggregate_id = ?"
    store.run(edit, ['{"tracking": "new"}', "b"])
    assert store.mirror.sync().edited == 1
    store.same()
    store.run(edit, ['{"tracking": "new"}', "a"])
    assert store.mirror.sync().edited == 0
    told = store.mirror.sync(whole=True)
    assert (told.edited, told.added, told.gone, told.whole) == (1, 0, 0, True)
    store.same()
    assert store.mirror.sync(whole=True).repaired is False


@pytest.mark.parametrize("what", ["version = 2", "aggregate_id = 'b'", "aggregate_id = 'a'"])
def test_an_event_that_is_gone_is_told(store: Store, what: str) -> None:
    """One of an aggregate, or all of it."""
    store.add(*(row(name, version, timestamp=at(version)) for name in "abc" for version in (1, 2, 3)))
    store.mirror.sync()
    before = len(store.mirror)
    store.run(f"DELETE FROM order_events WHERE {what}")
    told = store.mirror.sync()
    assert told.gone == before - len(store.log) > 0
    store.same()


def test_a_gap_in_an_aggregates_versions_is_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    """Even if a store gave fewer rows than it has, and counted them wrong."""
    store = Transactions()
    store.write(1, "a")
    store.commit(1)
    mirror = EventLog(store).mirror(tmp_path / "mirror")
    mirror.sync()
    for _ in range(3):
        store.write(2, "a")
    store.commit(2)
    whole = Transactions.frames

    def without_version_3(self: Any, scope: Any, size: int) -> Any:
        for frame in whole(self, scope, size):
            yield frame if scope.aggregates else frame.filter(pl.col("version") != 3)

    monkeypatch.setattr(Transactions, "frames", without_version_3)
    monkeypatch.setattr(Transactions, "tally", lambda *_: 0)
    mirror.sync()
    assert mirror.read()["version"].to_list() == [1, 2, 3, 4]


def test_a_store_that_counts_nothing_is_read_whole(tmp_path: Path) -> None:
    """As any reader may be that somebody writes."""

    class Plain:
        def __init__(self, store: MemoryStore) -> None:
            self.url, self.frames, self.frontier = "plain://", store.frames, store.frontier

        def close(self) -> None: ...

    store = MemoryStore()
    mirror = EventLog(Plain(store)).mirror(tmp_path / "mirror")
    for version in (1, 2):
        store.append(pl.DataFrame([row("a", version) | {"timestamp": START}], schema=EVENTS))
        told = mirror.sync()
        assert (told.added, told.whole, len(mirror)) == (1, True, version)
    assert mirror.sync(whole=True).parts == 1


# ---------------------------------------------------------------------- laws

often = settings(derandomize=True, max_examples=40, database=None, deadline=None)
hunting = settings(often, max_examples=500, phases=[Phase.generate])

stamps = st.sampled_from([*LIES.values(), at(0), at(1), at(2), "soon", "2025-02-30T00:00:00.000000Z"])
wrong = st.sampled_from(
    [{}, {}, {}, {"payload": "{"}, {"event_type": ""}, {"version": 0}, {"aggregate_id": None}]
)


@st.composite
def slices(draw: st.DrawFn) -> list[list[Row]]:
    """Draw a history in slices, each row stamped with any time at all; some rows are no events."""
    events = draw(histories(max_aggregates=3, max_events=5)).to_dicts()
    order = draw(st.permutations(events))
    rows = [one | {"timestamp": draw(stamps)} | draw(wrong) for one in order]
    rows += draw(st.lists(st.sampled_from(rows), max_size=2)) if rows else []
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    return [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def law_of_copies(zone: str | None = None, how: settings = often) -> Callable[[], None]:
    @how
    @given(parts=slices())
    def check(parts: list[list[Row]]) -> None:
        with tempfile.TemporaryDirectory() as place:
            store = Store(Path(place), zone)
            for rows in parts:
                store.add(*rows)
                store.mirror.sync()
                store.same()
            assert not store.mirror.sync().repaired

    return check


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write parts of a few rows, so that there are many."""
    for module in (folder, copying):
        for name, value in {"FULL": 3, "TIER": 2, "LARGEST": 8, "SIZE": 2, "AT_ONCE": 2}.items():
            monkeypatch.setattr(module, name, value, raising=False)
    monkeypatch.setattr("titan_lab.mirror.whole.FULL", 3)
    monkeypatch.setattr(tail, "AT_ONCE", 2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("zone", [None, "America/Sao_Paulo"])
def test_after_each_sync_a_mirror_holds_what_its_store_holds(zone: str | None) -> None:
    """Whatever the clocks say; and there is nothing left to put right."""
    law_of_copies(zone)()


def test_that_law_notices_a_count_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: both sides are taken to have the same number of rows before the mark."""
    monkeypatch.setattr(tail._Copy, "tally", lambda self, mark: self.run.reader.tally(mark))
    with pytest.raises(AssertionError):
        law_of_copies(how=hunting)()


steps = st.lists(
    st.tuples(
        st.sampled_from(["begin", "write", "insert", "insert", "commit", "roll back", "sync", "sync"]),
        st.integers(1, 3),
        st.sampled_from("ab"),
    ),
    max_size=25,
)


def law_of_the_frontier(how: settings = often) -> Callable[[], None]:
    def step(store: Transactions, what: str, number: int, name: str) -> None:
        store.tick()
        if what == "begin":
            store.begin(number)
        elif what == "write":
            store.write(number, f"{name}{number}")
        elif what == "insert":
            store.write(9, name)
            store.commit(9)
        elif what == "commit":
            store.commit(number)
        elif what == "roll back":
            store.roll_back(number)
        store.tick()

    @how
    @given(told=steps, meanwhile=st.lists(steps, max_size=12))
    def check(told: list[tuple], meanwhile: list[list[tuple]]) -> None:
        store, others = Transactions(), list(meanwhile)

        def between() -> None:
            for one in others.pop() if others else []:
                step(store, *one)

        store.between = between
        with tempfile.TemporaryDirectory() as place:
            mirror = EventLog(store).mirror(Path(place))
            for one in told:
                step(store, *one)
                if one[0] == "sync":
                    assert mirror.sync().late == 0
            others.clear()
            assert mirror.sync().late == 0
            assert_same(mirror, EventLog(store))
            assert mirror.frontier.instant == store.frontier().instant

    return check


def test_with_honest_clocks_nothing_is_ever_found_behind_the_frontier() -> None:
    """However long a transaction takes, and whatever is committed while the mirror reads."""
    law_of_the_frontier()()


def test_that_law_notices_a_mark_that_is_taken_after_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what is committed while the rows are read then lies behind the mark."""
    taken, mark_of = tail._Copy.publish, copying.Copying.marked
    monkeypatch.setattr(tail._Copy, "publish", lambda self, content: taken(self, mark_of(self.run)))
    with pytest.raises(AssertionError):
        law_of_the_frontier(hunting)()


def test_a_difference_counts_copies() -> None:
    """Of a row that is there twice on one side and once on the other, one is the difference."""
    one, other = pl.DataFrame({"a": [1, 1, None, 2]}), pl.DataFrame({"a": [1, None, 3]})
    new, lost = difference(one, other, ["a"])
    assert (new["a"].to_list(), lost["a"].to_list()) == ([1, 2], [3])


# ---------------------------------------------------------------------- the folder


def test_a_mirror_is_opened_without_its_store(store: Store) -> None:
    """And can then be read, not synced."""
    store.add(row("a", 1), row("b", 1))
    store.mirror.sync()
    opened = open_log(store.mirror.url)
    assert isinstance(opened, Mirror)
    assert opened.read().equals(store.log.read())
    with pytest.raises(MirrorError, match="was opened without its store"):
        opened.sync()
    with pytest.raises(ReadOnly, match="is a copy"):
        open_log(store.mirror.url, writable=True)


def test_parquet_reads_the_events_of_a_mirror(store: Store) -> None:
    """Those that are good, by name of the folder."""
    store.add(row("a", 1), row("b", 1), row("b", 2, payload="{"))
    store.mirror.sync()
    store.add(row("a", 2, timestamp=at(4)))
    store.mirror.sync()
    store.mirror.fold(tl.Order)
    assert open_log(f"parquet://{store.mirror.path}").read().equals(store.log.read())


def test_the_frontier_of_a_mirror_is_the_stores_at_the_last_sync(store: Store) -> None:
    """And says so."""
    store.add(row("a", 1, timestamp=at(1)))
    store.mirror.sync()
    store.add(row("a", 2, timestamp=at(5)))
    frontier = store.mirror.frontier
    assert frontier.instant == START.replace(hour=10, second=1)
    assert frontier.how.startswith("as of the last sync at 2")
    assert frontier.how.endswith("which was: the end of the file")
    assert not frontier.live


def test_a_fold_is_kept_in_the_mirror_and_only_what_is_new_is_folded_again(store: Store) -> None:
    """Also after small parts were made one; and all of it once something was taken away."""

    def kept() -> str:
        return store.mirror.fold(tl.Order).kept.rpartition(": ")[2]

    store.add(*(row(f"order-{n}", 1, timestamp=at(n)) for n in range(20)))
    store.mirror.sync()
    assert kept() == "folded, since nothing was kept there yet"
    assert kept() == "as kept"
    for second in range(20, 40):
        store.add(row(f"order-{second - 20}", 2, timestamp=at(second)))
        store.mirror.sync()
    assert len(read_manifest(store.mirror.path).content.events) < 10  # type: ignore[union-attr]
    store.add(row("order-1", 3, timestamp=at(41)))
    store.mirror.sync()
    assert kept() == "folded 20 aggregates again that have news; the others as kept"
    store.add(row("order-1", 4, timestamp=at(42)), row("order-2", 3, payload="{", timestamp=at(43)))
    store.mirror.sync()
    assert kept() == "folded 2 aggregates again that have news; the others as kept"
    store.run("DELETE FROM order_events WHERE aggregate_id = 'order-3'")
    store.mirror.sync()
    assert kept() == "folded, since the source has changed in what was there before"
    book, plain = store.mirror.fold(tl.Order), store.log.fold(tl.Order)
    assert book.history().equals(plain.history())
    assert len(book.rejected) == len(plain.rejected) == 1


def test_small_parts_become_larger_ones(store: Store) -> None:
    """So that their number grows with the logarithm of what there is, and old files go."""
    for second in range(50):
        store.add(row("a", second + 1, timestamp=at(second)))
        store.mirror.sync()
    held = sorted(file.name for file in (store.mirror.path / GOOD).iterdir())
    manifest = read_manifest(store.mirror.path)
    assert manifest is not None
    assert held == sorted(part.name for part in manifest.parts())
    assert len(held) < 16
    store.same()


def test_what_a_reader_is_reading_is_not_removed(store: Store) -> None:
    """It goes with the next sync."""
    store.add(row("a", 1, timestamp=at(1)))
    store.mirror.sync()
    (first,) = (store.mirror.path / GOOD).iterdir()
    with store.mirror.reader.reading():  # type: ignore[attr-defined]
        store.run("UPDATE order_events SET payload = '{}'")
        assert store.mirror.sync().edited == 1
        assert first.exists()
    store.mirror.sync()
    assert not first.exists()


def test_one_syncs_at_a_time_and_the_error_names_the_holder(store: Store) -> None:
    """Readers are not in the way, nor is it in theirs."""
    store.add(row("a", 1))
    store.mirror.sync()
    with Folder(store.mirror.path).alone():
        with pytest.raises(MirrorError, match=r"is being synced by process \d+ on "):
            store.mirror.sync()
        assert len(store.mirror) == 1
    store.mirror.sync()


def test_a_folder_of_another_store_is_refused_and_both_are_named(store: Store, tmp_path: Path) -> None:
    """Two histories in one folder would be no history."""
    store.mirror.sync()
    with pytest.raises(MirrorError, match=r"a mirror of sqlite:///.*orders.db, not sqlite:///data/samples"):
        open_log("sqlite:///data/samples/orders.db").mirror(store.mirror.path)


def test_a_folder_of_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    """A typing error must not fill somebody's home."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(MirrorError, match="is there and is no mirror"):
        store.log.mirror(other).sync()
    with pytest.raises(MirrorError, match="is there and is no mirror"):
        store.log.mirror(other / "thesis.txt").sync()
    assert [file.name for file in other.iterdir()] == ["thesis.txt"]


def test_a_mirror_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    """For one that is opened, and for one that was not synced yet."""
    with pytest.raises(OpenError, match="there is no mirror in") as caught:
        open_log(f"mirror://{tmp_path}/none")
    assert "titan sync URL" in str(caught.value.hint)
    with pytest.raises(MirrorError, match="there is no mirror in"):
        open_log("sqlite:///data/samples/orders.db").mirror(tmp_path / "none").read()
    with pytest.raises(MirrorError, match="the URL names no folder"):
        open_log("mirror://")


@pytest.mark.parametrize("harm", ["cut short", "other bytes", "gone"])
def test_a_damaged_part_is_named_and_a_new_folder_helps(store: Store, harm: str) -> None:
    """Never a wrong answer."""
    store.add(row("a", 1), row("b", 1))
    store.mirror.sync()
    (part,) = (store.mirror.path / GOOD).iterdir()
    whole = part.read_bytes()
    if harm == "gone":
        part.unlink()
    else:
        middle = len(whole) // 2
        part.write_bytes(
            whole[:middle] if harm == "cut short" else whole[:middle] + b"?" + whole[middle + 1 :]
        )
    damaged = store.log.mirror(store.mirror.path)
    for ask in (damaged.read, damaged.sync):
        with pytest.raises(MirrorError, match=part.name) as caught:
            ask()
    assert "sync again" in str(caught.value.hint)
    part.write_bytes(whole)
    assert len(store.log.mirror(store.mirror.path)) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"layout": 1}', '{"layout": 1, "content": 3}'])
def test_a_damaged_manifest_is_no_mirror(store: Store, text: str) -> None:
    """And says what to do."""
    store.mirror.sync()
    (store.mirror.path / "mirror.json").write_text(text)
    with pytest.raises(MirrorError, match="is damaged"):
        store.mirror.sync()


def test_a_newer_layout_is_refused(store: Store) -> None:
    """By code that is older than it."""
    store.mirror.sync()
    file = store.mirror.path / "mirror.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layout": 99}))
    with pytest.raises(MirrorError, match="written by a newer titan_lab"):
        open_log(store.mirror.url)


def test_a_full_disk_leaves_the_mirror_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so; with room again the next sync does it."""
    store.add(row("a", 1, timestamp=at(1)))
    store.mirror.sync()
    store.add(row("a", 2, timestamp=at(2)))

    def full(self: pl.DataFrame, file: Path, **_: Any) -> None:
        file.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pl.DataFrame, "write_parquet", full)
        with pytest.raises(MirrorError, match="No space left on device"):
            store.mirror.sync()
        assert len(store.mirror) == 1
    assert store.mirror.sync().added == 1
    store.same()


def test_a_first_sync_that_was_cut_off_is_not_read_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the range that it had come to; what came meanwhile is read, too."""
    monkeypatch.setattr("titan_lab.mirror.whole.FULL", 2)
    store = Store(tmp_path)
    store.add(*(row(name, 1, timestamp=at(0)) for name in "abcdef"))
    published = Folder.publish
    count = 0

    def cut(self: Folder, manifest: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        published(self, manifest)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "publish", cut)
        with pytest.raises(KeyboardInterrupt):
            store.mirror.sync()
    with pytest.raises(MirrorError, match=r"the first sync of .* is not done: 2 ranges of ids are left"):
        store.mirror.read()
    store.add(row("a", 2, timestamp="2024-01-01T00:00:00.000000Z"), row("f", 2, timestamp=at(1)))
    told = store.mirror.sync()
    assert (told.added, told.whole) == (8, True)
    store.same()


def test_a_mirror_of_a_mirror_is_a_mirror(store: Store, tmp_path: Path) -> None:
    """What is rejected comes along."""
    store.add(row("a", 1), row("a", 2, payload="{"), row("b", 1, timestamp="soon"))
    store.mirror.sync()
    second = open_log(store.mirror.url).mirror(tmp_path / "second")
    second.sync()
    store.add(row("b", 2, timestamp=at(3)), row("c", 1, timestamp="2024-01-01T00:00:00Z"))
    store.mirror.sync()
    assert second.sync().added == 2
    assert second.read().equals(store.log.read())
    assert second.rejected["reason"].sort().equals(store.log.rejected["reason"].sort())


def test_parts_that_do_not_overlap_are_put_end_to_end() -> None:
    """And small ones in between, in their places; nearly all is in order without sorting."""
    frame = pl.DataFrame(
        {"aggregate_id": list("aabbccdd"), "version": [1, 2] * 4}, schema=dict(list(EVENTS.items())[:2])
    ).with_columns(
        *(pl.lit("{}").alias(name) for name in ("event_type", "payload", "metadata")),
        timestamp=pl.lit(START),
        synced=pl.lit(1, pl.Int32),
    )
    late = frame.filter(pl.col("aggregate_id") == "b").head(1).with_columns(version=pl.lit(3, pl.Int64))
    whole = backend.merged([frame[4:], late, frame[:4]])
    assert whole.select("aggregate_id", "version").rows() == [
        *[("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)],
        *[("c", 1), ("c", 2), ("d", 1), ("d", 2)],
    ]


# ---------------------------------------------------------------------- the command


def test_titan_sync_makes_and_updates_a_mirror(store: Store, tmp_path: Path) -> None:
    """For people, and for machines."""
    store.add(row("a", 1), row("a", 2, payload="{"))
    command = ["sync", store.log.url, str(tmp_path / "copy")]
    done = CliRunner().invoke(cli.titan, command, catch_exceptions=False)
    assert "events added" in done.stdout
    store.add(row("a", 3, timestamp=at(4)))
    done = CliRunner().invoke(cli.titan, [*command, "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["added"], told["events"], told["whole"]) == (1, 2, False)
    assert told["after"] == "2025-01-01T10:00:04Z"
    done = CliRunner().invoke(cli.titan, ["sync", "--whole", *command[1:], "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["whole"] is True
    assert timedelta(seconds=json.loads(done.stdout)["seconds"]) > timedelta()
