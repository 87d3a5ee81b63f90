"""Parquet: one file, or a folder that grows by whole files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import titan_lab as tl
from titan_lab.errors import EventsError, OpenError, ReadOnly
from titan_lab.event import EVENTS
from titan_lab.testing.readers import Row, WriterSuite, frame_of, kill_in_the_middle, row


class TestParquet(WriterSuite):
    """A folder of Parquet files joins the suite."""

    def url(self, place: Path) -> str:
        return f"parquet://{place}/orders"

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        (place / "orders").mkdir()
        types = {name: pa.int64() if name == "version" else pa.string() for name in EVENTS}
        table = pa.table({n: pa.array([one[n] for one in rows], kind) for n, kind in types.items()})
        pq.write_table(table, place / "orders" / "seed.parquet")

    def peek(self, place: Path) -> list[Row]:
        tables = [pq.read_table(file).to_pylist() for file in sorted((place / "orders").rglob("*.parquet"))]
        return sorted(
            (one for table in tables for one in table), key=lambda r: (r["aggregate_id"], r["version"])
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TestParquet().seed(tmp_path, [row("a", 1), row("a", 2)])
    return tmp_path / "orders"


def test_one_file_and_a_folder_of_folders_read_alike(folder: Path) -> None:
    """Files of any name and depth are one log, whatever order they are found in."""
    (folder / "2025").mkdir()
    frame_of([row("a", 3), row("0", 1)]).write_parquet(folder / "2025" / "january.parquet")
    both = tl.open(f"parquet://{folder}").read()
    assert both.select("aggregate_id", "version").rows() == [("0", 1), ("a", 1), ("a", 2), ("a", 3)]
    assert len(tl.open(f"parquet://{folder}/seed.parquet")) == 2


def test_files_that_are_half_written_or_hidden_are_not_seen(folder: Path) -> None:
    """A name that begins with a dot or an underscore, or does not end in .parquet, is not part of the log."""
    for name in (".000001.parquet.part", ".hidden.parquet", "_temporary.parquet", "notes.txt"):
        (folder / name).write_bytes(b"PAR1 half of a")
    assert len(tl.open(f"parquet://{folder}")) == 2


def test_columns_of_other_types_are_read_for_what_they_mean(tmp_path: Path) -> None:
    """Payloads as structs, versions as small integers, naive nanoseconds in a named zone."""
    frame = pl.DataFrame(
        {
            "aggregate_id": [1, 2],
            "version": pl.Series([1, 1], dtype=pl.UInt8),
            "event_type": pl.Series(["OrderShipped"] * 2, dtype=pl.Categorical),
            "payload": [{"tracking": "T1"}, {"tracking": None}],
            "timestamp": pl.Series(["2025-01-01T10:00:00"] * 2).str.to_datetime(time_unit="ns"),
            "loaded_by": ["etl"] * 2,
        }
    )
    frame.write_parquet(tmp_path / "export.parquet")
    log = tl.open(f"parquet://{tmp_path}/export.parquet", zone="UTC")
    assert log.read().schema == EVENTS
    assert log.fold(tl.Order).at("2025-01-02", columns="tracking").rows() == [("1", 1, "T1"), ("2", 1, None)]


def test_a_reject_names_its_file_and_row(folder: Path) -> None:
    """So that it can be found again."""
    pl.DataFrame([row("b", 1), row("b", 2, payload="{")]).write_parquet(folder / "later.parquet")
    assert tl.open(f"parquet://{folder}").rejected["place"].to_list() == ["later.parquet row 1"]


def test_one_file_cannot_grow(folder: Path) -> None:
    """Only a folder takes events; the error says so."""
    log = tl.open(f"parquet://{folder}/seed.parquet", writable=True)
    with pytest.raises(ReadOnly, match="is one file, which cannot grow") as caught:
        log.append_many(frame_of([row("b", 1)]))
    assert "folder" in str(caught.value.hint)


def test_opening_for_reading_makes_no_folder(tmp_path: Path) -> None:
    """A misspelt path is an error, not an empty log."""
    with pytest.raises(OpenError, match="there is no file or folder"):
        tl.open(f"parquet://{tmp_path}/nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert len(tl.open(f"parquet://{tmp_path}/new", writable=True)) == 0


def test_a_file_that_is_no_parquet_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    """Even when only one of many is wrong."""
    frame_of([row()]).write_parquet(tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"SQLite format 3\0")
    with pytest.raises(OpenError, match=r"bad\.parquet is no Parquet file") as caught:
        tl.open(f"parquet://{tmp_path}")
    assert "sqlite:///" in str(caught.value.hint)
    frame_of([row()]).drop("payload").write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(EventsError, match=r"bad\.parquet lacks the column payload; it has aggregate_id"):
        tl.open(f"parquet://{tmp_path}")


def test_a_store_that_is_gone_since_it_was_opened_is_no_empty_log(folder: Path, tmp_path: Path) -> None:
    """Else a history would be folded of nothing, and a kept one replaced by it."""
    log = tl.open(f"parquet://{folder}")
    kept = len(log.fold(tl.Order, keep=tmp_path / "kept"))
    elsewhere = folder.rename(tmp_path / "elsewhere")
    for ask in (log.read, lambda: log.fold(tl.Order), lambda: log.fold(tl.Order, keep=tmp_path / "kept")):
        with pytest.raises(OpenError, match="is not there any more") as caught:
            ask()
        assert caught.value.hint
    elsewhere.rename(folder)
    again = log.fold(tl.Order, keep=tmp_path / "kept")
    assert (len(again), again.kept.endswith("as kept")) == (kept, True)


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_that_is_damaged_since_it_was_opened_is_named(left: int, folder: Path, tmp_path: Path) -> None:
    """By every question that reads it."""
    log = tl.open(f"parquet://{folder}")
    damaged = min(folder.rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:left])
    for ask in (
        log.read,
        lambda: log.frontier,
        log.variants,
        lambda: log.fold(tl.Order, keep=tmp_path / "kept", pieces=2),
    ):
        with pytest.raises(OpenError, match=f"{damaged.name} cannot be read as Parquet") as caught:
            ask()
        assert caught.value.hint


def test_appends_of_nothing_new_write_no_file(folder: Path) -> None:
    """A job that runs each night for nothing leaves nothing."""
    log = tl.open(f"parquet://{folder}", writable=True)
    log.append_many(frame_of([row("a", 1)]))
    assert [file.name for file in folder.iterdir()] == ["seed.parquet"]


def test_a_folder_that_may_not_be_written_says_so(folder: Path) -> None:
    """As a typed error, with the folder's name."""
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    folder.chmod(0o555)
    try:
        with pytest.raises(ReadOnly, match="orders"):
            tl.open(f"parquet://{folder}", writable=True).append_many(frame_of([row("b", 1)]))
    finally:
        folder.chmod(0o755)


APPEND_AND_HANG = """
import sys, time
import polars as pl, titan_lab as tl
honest = pl.DataFrame.write_parquet
def write_half(self, file, **options):
    honest(self, file, **options)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    print("in the middle", flush=True)
    time.sleep(600)
log = tl.open(sys.argv[1], writable=True)
pl.DataFrame.write_parquet = write_half
log.append_many(pl.DataFrame({"aggregate_id": "a", "version": [3, 4], "event_type": "OrderShipped",
    "payload": "{}", "timestamp": "2025-01-01T10:00:00Z"}))
"""


def test_an_append_that_is_killed_leaves_the_log_as_it_was(folder: Path) -> None:
    """Half a file lies there, and nobody sees it; the next append goes on as if it were not."""
    kill_in_the_middle(APPEND_AND_HANG, f"parquet://{folder}")
    assert len(list(folder.iterdir())) == 2  # the kill came in the middle, not before
    assert tl.open(f"parquet://{folder}").read()["version"].to_list() == [1, 2]
    log = tl.open(f"parquet://{folder}", writable=True)
    assert log.append_many(frame_of([row("a", 3)])).added == 1
    assert log.read()["version"].to_list() == [1, 2, 3]
