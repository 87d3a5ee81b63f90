"""A history folded in pieces is one book, whatever store the pieces come from and wherever they end."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import scope
from titan_lab.backends.ddl import ddl, script
from titan_lab.errors import KeepError
from titan_lab.event import EVENTS
from titan_lab.kept import pieces
from titan_lab.testing.histories import histories
from titan_lab.testing.readers import frame_of, row

often = settings(
    derandomize=True,
    max_examples=15,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
hunting = settings(often, max_examples=150)

ids = st.sampled_from(["", "Z", "a", "ab", "b", "é", "z-1", "zz"])
bounds = st.lists(ids, max_size=3, unique=True).map(lambda some: sorted(some, key=str.encode))


def stored(store: str, folder: str, events: pl.DataFrame) -> tl.EventLog:
    """Lay events down in a store of one kind; in Parquet not in order, and in two files."""
    if store == "memory":
        return tl.from_frame(events)
    if store == "parquet":
        for name, half in (("2", events[::2]), ("1", events[1::2])):
            half.reverse().write_parquet(Path(folder) / f"{name}.parquet")
        return tl.open(f"parquet://{folder}")
    log = tl.open(f"sqlite:///{folder}/orders.db", writable=True)
    log.append_many(events)
    return log


def every_event_is_in_one_piece(store: str, events: pl.DataFrame, ends: list[str]) -> None:
    """Read range after range, and put together what came."""
    with TemporaryDirectory() as folder:
        log = stored(store, folder, events)
        found = []
        for ids in zip([None, *ends], [*ends, None], strict=True):
            columns, _, _ = log.typed(tl.Order, scope.Scope(ids=ids))
            found += [
                (one, n) for one, n in zip(columns.ids, pl.Series(columns.bounds).diff()[1:], strict=True)
            ]
        whole, _, _ = log.typed(tl.Order, scope.EVERYTHING)
        assert found == list(zip(whole.ids, pl.Series(whole.bounds).diff()[1:], strict=True))


@pytest.mark.parametrize("store", ["memory", "parquet", "sqlite"])
def test_every_event_is_in_one_piece_and_the_pieces_follow_one_another(store: str) -> None:
    """Wherever the ranges end: at an id, between two, before all or after all."""
    often(
        given(events=histories(max_aggregates=6), ends=bounds)(
            lambda events, ends: every_event_is_in_one_piece(store, events, ends)
        )
    )()


def test_the_law_notices_a_border_that_belongs_to_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a range holds its end, too."""

    def within(self: scope.Scope) -> pl.Expr:
        start, end = self.ids
        column = pl.col("aggregate_id")
        return (column >= (start or "")) & (column <= (end or "\U0010ffff"))

    monkeypatch.setattr(scope.Scope, "within", within)
    with pytest.raises(AssertionError):
        hunting(
            given(events=histories(max_aggregates=6), ends=bounds)(
                lambda events, ends: every_event_is_in_one_piece("memory", events, ends)
            )
        )()


@pytest.mark.parametrize("store", ["memory", "parquet", "sqlite"])
@pytest.mark.parametrize("size", [{"pieces": 3}, {"pieces": 50}, {"memory": "3KB"}, {"memory": 10**12}])
def test_a_book_in_pieces_is_the_book(store: str, size: dict[str, Any], tmp_path: Path) -> None:
    """However many pieces there are; more than there are aggregates is as many as there are."""
    events = tl.open("sqlite:///data/samples/orders.db").read()
    events = events.filter(pl.col("aggregate_id") < "1").sample(fraction=1, shuffle=True, seed=1)
    (tmp_path / "store").mkdir()
    log = stored(store, str(tmp_path / "store"), events)
    book, whole = log.fold(tl.Order, keep=tmp_path / "kept", **size), log.fold(tl.Order)
    assert book.history().equals(whole.history())
    assert book.at("2025-01-20").equals(whole.at("2025-01-20"))
    assert book.every("1d").equals(whole.every("1d"))
    assert book.basis == whole.basis


def test_what_is_no_event_is_told_once(tmp_path: Path) -> None:
    """No id, an id that is no text, a payload that does not fit; in whichever piece it was found."""
    rows = [row(name) for name in "abcdefgh"] + [row(None), row(""), row("c", 0), row("zz", payload="{")]
    log = tl.from_frame(pl.DataFrame(rows))
    book, whole = log.fold(tl.Order, keep=tmp_path / "kept", pieces=4), log.fold(tl.Order)
    assert len(whole.rejected) == 4
    assert book.rejected.sort(pl.all()).equals(whole.rejected.sort(pl.all()))
    assert book.ids.equals(whole.ids)


def test_ids_that_are_no_text_are_in_one_piece_too(tmp_path: Path) -> None:
    """Numbers in Parquet, bytes in SQLite: they sort otherwise there than as text."""
    events = frame_of([row(str(number)) for number in range(1, 40)])
    events.with_columns(pl.col("aggregate_id").cast(pl.Int64)).write_parquet(tmp_path / "events.parquet")
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db, db:
        db.executescript(script(ddl("sqlite")))
        for name in ("a", b"b", "c", b"a2", "d"):
            db.execute(
                "INSERT INTO order_events VALUES (?, 1, 'OrderShipped', '{}', NULL, '2025-01-01T00:00:00Z')",
                (name,),
            )
    for url in (f"parquet://{tmp_path}/events.parquet", f"sqlite:///{tmp_path}/orders.db"):
        log = tl.open(url)
        book = log.fold(tl.Order, keep=tmp_path / "kept", pieces=3)
        assert book.history().equals(log.fold(tl.Order).history())


def test_ranges_hold_about_as_many_events_each() -> None:
    """By a look at some of the ids."""
    log = tl.from_frame(
        frame_of([row(f"{name:03}", version) for name in range(200) for version in (1, 2, 3)])
    )
    parts = pieces.parted(log.reader, 4, None)
    sizes = [len(log.typed(tl.Order, scope.Scope(ids=ids))[0]) for ids in parts]
    assert sizes == [150, 150, 150, 150]


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ({"pieces": 0}, "0 pieces are none"),
        ({"pieces": 2.5}, "2.5 pieces are none"),
        ({"memory": "lots"}, "'lots' is no amount of memory"),
        ({"memory": 0}, "0 is no amount of memory"),
    ],
)
def test_a_size_that_is_none_is_an_error(size: dict[str, Any], told: str, tmp_path: Path) -> None:
    """And nothing is kept."""
    log = tl.from_frame(EVENTS.to_frame())
    with pytest.raises(KeepError, match=told):
        log.fold(tl.Order, keep=tmp_path / "kept", **size)
    assert not list((tmp_path / "kept").glob("data-*"))


def test_pieces_need_a_place() -> None:
    """In memory there is nothing to be saved by them."""
    for size in ({"pieces": 2}, {"memory": "4GiB"}):
        with pytest.raises(KeepError, match="read from disk"):
            tl.from_frame(EVENTS.to_frame()).fold(tl.Order, **size)
