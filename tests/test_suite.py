"""Law 6 where rows come in, and the suite for stores: each is proven to notice what it is there for."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import log as log_module
from titan_lab import typed
from titan_lab.backends.contract import Appended, Frontier, placed
from titan_lab.backends.memory import MemoryStore
from titan_lab.clock import EPOCH
from titan_lab.errors import VersionConflict
from titan_lab.event import EVENTS, REJECTED, InOrder, in_order, part_duplicates
from titan_lab.scope import Scope
from titan_lab.testing.histories import histories
from titan_lab.testing.readers import Row, WriterSuite, row

often = settings(
    derandomize=True, max_examples=80, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=300, phases=[Phase.generate])


# --- 6. nothing is lost ----------------------------------------------------------------------------------

FAULTS: dict[str, Any] = {
    "aggregate_id": st.sampled_from([None, ""]),
    "version": st.sampled_from([None, 0, -1, 1]),  # 1 is no fault, but doubles a key
    "event_type": st.sampled_from([None, "", "OrderCreated"]),
    "payload": st.sampled_from([None, "", "{", "[]", "null", "{}{}", "{}", '{"amount": true}']),
    "metadata": st.sampled_from(["", "{", "[]", '{"schema_version": 0}', '{"schema_version": "x"}']),
    "timestamp": st.sampled_from([None, "soon", "2025-01-01T10:00:00", "2025-01-01 10:00:00Z"]),
}


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """Draw rows as a store may hold them: some with a fault in any column, some twice."""
    events = draw(histories())
    rows = events.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")).to_dicts()
    for one in draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []:
        rows.append(dict(one))
    for one in rows:
        if draw(st.integers(0, 3)) == 0:
            column = draw(st.sampled_from(sorted(FAULTS)))
            one[column] = draw(FAULTS[column])
    return pl.DataFrame(rows, schema={**EVENTS, "timestamp": pl.String}, orient="row")


def every_row_is_read_or_rejected(table: pl.DataFrame) -> None:
    log = tl.from_frame(table)
    good, rejected = log.read(), log.rejected
    names = ["aggregate_id", "version", "event_type", "payload", "metadata"]
    kept = [*good.to_dicts(), *map(json.loads, rejected["raw"])]
    assert Counter(repr([one[name] for name in names]) for one in kept) == Counter(
        repr(list(one)) for one in table.select(names).rows()
    )
    assert all(rejected["reason"])
    assert set(rejected["path"].str.split(".").list.first()) <= {"$", *EVENTS}


def every_row_is_folded_or_rejected(table: pl.DataFrame) -> None:
    log = tl.from_frame(table)
    book = log.fold(tl.Order, newer="reject")
    folded = set(book.history(columns=[]).rows())
    assert len(book.typed) + len(book.rejected) == len(table)
    assert len(book.typed) + len(log.rejected) == len(table)  # each row is told once, also after a fold
    readable = set(log.read().select("aggregate_id", "version").rows())
    inside = book.rejected.filter(~pl.col("path").is_in([*EVENTS]))
    misfits = set(inside.select("aggregate_id", "version").rows())
    assert folded <= readable <= folded | misfits


@pytest.mark.parametrize("law", [every_row_is_read_or_rejected, every_row_is_folded_or_rejected])
def test_every_row_of_a_table_is_an_event_or_rejected_once(law: Any) -> None:
    """With faults in any column, and rows that claim one place twice."""
    often(given(table=tables())(law))()


def test_law_6_notices_rows_that_are_left_out_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what cannot be read is filtered away."""
    honest = log_module.check
    monkeypatch.setattr(
        log_module, "check", lambda *table, **how: (honest(*table, **how)[0], REJECTED.to_frame())
    )
    for law in (every_row_is_read_or_rejected, every_row_is_folded_or_rejected):
        with pytest.raises(AssertionError):
            hunting(given(table=tables())(law))()


def test_law_6_notices_a_broken_row_that_takes_an_events_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: of two rows with one key the first is kept, event or not."""

    def hasty(events: pl.DataFrame) -> tuple[InOrder, pl.DataFrame]:
        return part_duplicates(in_order(events))

    monkeypatch.setattr(typed, "_one_for_each_key", hasty)
    with pytest.raises(AssertionError):
        hunting(given(table=tables())(every_row_is_folded_or_rejected))()


# --- the suite for stores --------------------------------------------------------------------------------


class Store(MemoryStore):
    """An honest store; each class below it has one fault that a real one could have."""


class CutsPages(Store):
    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        yield from (frame.head(999) for frame in super().frames(scope, size=100_000))


class HidesBadRows(Store):
    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        good = tl.from_frame(self.raw).read() if len(self.raw) else self.raw
        yield good.with_columns(place=pl.lit("somewhere"))


class SortsVersionsAsText(Store):
    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        for frame in super().frames(scope, size):
            yield frame.with_columns(pl.col("version").cast(pl.String).str.slice(0, 1))


class ForgetsMicroseconds(Store):
    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        for frame in super().frames(scope, size):
            yield frame.with_columns(pl.col("timestamp").cast(pl.String).str.replace(r"\.\d+", ""))


class FoldsCase(Store):
    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        for frame in super().frames(Scope(), size):
            yield frame.with_columns(pl.col("aggregate_id").str.to_lowercase())


class AsksForFiveHundredIds(Store):
    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        some = None if scope.aggregates is None else scope.aggregates[:500]
        yield from super().frames(Scope(aggregates=some), size)


class LooksOnlyAtWhatWasThere(Store):
    def frontier(self) -> Frontier:
        return Frontier(None, "")


class WritesBeforeItLooks(Store):
    def append(self, events: pl.DataFrame) -> Appended:
        done = [super(WritesBeforeItLooks, self).append(one) for one in events.iter_slices(1)]
        return Appended(sum(one.added for one in done), sum(one.present for one in done))


class ComparesPayloadsOnly(Store):
    def append(self, events: pl.DataFrame) -> Appended:
        known = events.join(self.raw, on=["aggregate_id", "version", "payload"], how="semi")
        new = super().append(events.join(known, on=["aggregate_id", "version"], how="anti"))
        return Appended(new.added, new.present + len(known))


class WritesTwice(Store):
    def append(self, events: pl.DataFrame) -> Appended:
        self.added = pl.concat([self.added, events])
        return Appended(len(events), 0)


class DoesNothingOnConflict(Store):
    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        found = self.versions(aggregate_id)
        new = placed(aggregate_id, events, expected_version, datetime.now(UTC))
        new = new.filter(~pl.col("version").is_in(found))
        self.added = pl.concat([self.added, new])
        if new.is_empty() and len(events):
            raise VersionConflict(f"{aggregate_id} is at version {max(found)}", found=max(found))
        return Appended(len(new), 0, expected_version + len(events))

    def versions(self, aggregate_id: str) -> list[int]:
        both = [
            rows.filter(aggregate_id=aggregate_id)["version"].to_list() for rows in (self.raw, self.added)
        ]
        return [0, *both[0], *both[1]]


class AppendsWhereverTheEndIs(DoesNothingOnConflict):
    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        return super().extend(aggregate_id, events, max(self.versions(aggregate_id)))


class RemembersTheLastIdsOnly(Store):
    last: tuple[str, pl.DataFrame, int] | None = None

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        if self.last and self.last[0] == aggregate_id and self.last[1].equals(events):
            return Appended(0, len(events), self.last[2])
        done = super().extend(aggregate_id, events.with_columns(metadata=pl.lit("{}")), expected_version)
        self.last = aggregate_id, events, done.version or 0
        return done


class TakesOneForAll(Store):
    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        known = events["metadata"].is_in(self.added["metadata"].implode())
        if known.any():
            return Appended(0, len(events), expected_version + len(events))
        return super().extend(aggregate_id, events, expected_version)


class StopsTheClock(Store):
    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        stopped = pl.col("timestamp").fill_null(pl.lit(EPOCH))
        return super().extend(aggregate_id, events.with_columns(stopped), expected_version)


class ReadsOnce(Store):
    copy: pl.DataFrame | None = None

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        if self.copy is None:
            self.copy = pl.concat(list(super().frames(Scope(), size)), how="diagonal_relaxed")
        yield self.copy


def suite_of(kind: type[Store]) -> WriterSuite:
    """Let a kind of store join the suite."""

    class Suite(WriterSuite):
        between_processes = False
        stores: dict[Path, MemoryStore] = {}

        def seed(self, place: Path, rows: Sequence[Row]) -> None:
            self.stores[place] = kind(pl.DataFrame(rows) if rows else EVENTS.to_frame())

        def open(self, place: Path, *, writable: bool = False, zone: str | None = None) -> tl.EventLog:
            return tl.EventLog(self.stores[place], writable=writable, zone=zone)

        def peek(self, place: Path) -> list[Row]:
            store = self.stores[place]
            return [*store.raw.to_dicts(), *store.added.to_dicts()]

    return Suite()


def passes(kind: type[Store], name: str, place: Path) -> bool:
    """Run one test of the suite against a kind of store."""
    suite = suite_of(kind)
    test = getattr(suite, name)
    suite.seed(place, [row("a", 1), row("a", 2), row("b", 1)])
    with pytest.MonkeyPatch.context() as patch:
        given_to = {
            "place": place,
            "log": suite.open(place, writable=True),
            "monkeypatch": patch,
            "size": 1_001,
            "new": ("a", "aa"),
            "changes": {"timestamp": "2025-01-01T10:00:01Z"},
            "expected": 1,
            "ids": ("x", "w"),
        }
        try:
            test(**{name: given_to[name] for name in inspect.signature(test).parameters})
        except (AssertionError, pytest.fail.Exception, tl.TitanError):
            return False
    return True


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (CutsPages, "test_a_life_longer_than_a_page_is_read_whole"),
        (HidesBadRows, "test_a_bad_row_is_set_aside_and_the_good_ones_beside_it_are_read"),
        (SortsVersionsAsText, "test_a_life_longer_than_a_page_is_read_whole"),
        (ForgetsMicroseconds, "test_what_is_written_is_read_again_unchanged"),
        (FoldsCase, "test_ids_are_any_text"),
        (AsksForFiveHundredIds, "test_a_scope_of_many_ids_reads_them_all"),
        (LooksOnlyAtWhatWasThere, "test_the_frontier_is_the_last_instant_and_says_how_it_is_known"),
        (WritesBeforeItLooks, "test_one_clash_anywhere_leaves_the_store_as_it_was"),
        (ComparesPayloadsOnly, "test_another_type_or_timestamp_is_another_event"),
        (WritesTwice, "test_appending_again_adds_nothing"),
        (DoesNothingOnConflict, "test_another_version_than_expected_leaves_the_store_as_it_was"),
        (DoesNothingOnConflict, "test_a_clash_in_the_last_event_alone_leaves_the_store_as_it_was"),
        (AppendsWhereverTheEndIs, "test_another_version_than_expected_leaves_the_store_as_it_was"),
        (AppendsWhereverTheEndIs, "test_an_aggregate_that_is_there_does_not_begin_again"),
        (RemembersTheLastIdsOnly, "test_the_same_event_ids_again_add_nothing"),
        (TakesOneForAll, "test_other_event_ids_in_those_places_are_a_conflict"),
        (StopsTheClock, "test_the_store_tells_the_time_unless_the_writer_does"),
        (ReadsOnce, "test_a_reader_sees_what_was_appended_after_it_was_opened"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_suite_notices_a_store_with_a_fault(kind: type[Store], name: str, tmp_path: Path) -> None:
    """An honest store passes the same test."""
    (tmp_path / "honest").mkdir()
    (tmp_path / "faulty").mkdir()
    assert passes(Store, name, tmp_path / "honest")
    assert not passes(kind, name, tmp_path / "faulty")
