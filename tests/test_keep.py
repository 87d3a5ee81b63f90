"""A history that was kept answers as the one folded afresh does, or is folded again, and says why."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.book import Book
from titan_lab.clock import CUTS
from titan_lab.errors import KeepError, SchemaTooNew
from titan_lab.event import EVENTS
from titan_lab.functions import told
from titan_lab.kept import disk, keep, news, renew
from titan_lab.reducers import key
from titan_lab.testing.histories import histories, moments
from titan_lab.testing.readers import frame_of, row
from titan_lab.upcast import fill

often = settings(
    derandomize=True,
    max_examples=10,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # to find the smallest history that fails would take minutes
    suppress_health_check=list(HealthCheck),
)
hunting = settings(often, max_examples=200)


class Basket(tl.Aggregate):
    """A column of each kind: lists, sums, counts, extremes, states, and steps of several dtypes."""

    upcasts = tl.Order.upcasts

    id = key()
    items = tl.latest(tl.OrderCreated, tl.OrderModified)
    user_id = tl.first(tl.OrderCreated)
    amounts = tl.collect(tl.PaymentAuthorized, tl.RefundIssued, "amount")
    baskets = tl.collect(tl.OrderModified, "items")
    paid = tl.total_of(tl.PaymentAuthorized, "amount")
    events = tl.count(tl.PaymentAuthorized, tl.OrderCreated)
    most = tl.largest(tl.RefundIssued, "amount")
    least = tl.smallest(tl.RefundIssued, "amount")
    first_card = tl.first(tl.PaymentAuthorized, "card")
    card = tl.latest(tl.PaymentAuthorized, "card")
    method = tl.latest(tl.PaymentAuthorized, "method")
    state = tl.machine({tl.OrderCreated: "NEW", tl.OrderShipped: "GONE"})
    shipped_at = tl.latest(tl.OrderShipped, "timestamp")
    even = tl.step(lambda value, event: event.version % 2 == 0, None, dtype=pl.Boolean)
    word = tl.step(lambda value, event: "odd" if event.version % 2 else None, None, dtype=pl.Enum(["odd"]))
    trail = tl.step(
        lambda value, event: [*value, event.version], [], tl.OrderShipped, dtype=pl.List(pl.Int64)
    )


both = pytest.mark.parametrize("aggregate", [tl.Order, Basket])


def answers(book: Book, moment: Any) -> dict[str, Any]:
    """Ask everything that a book can be asked."""
    labels = pl.DataFrame({"aggregate_id": [*book.ids, "nobody"]}).with_columns(ts=pl.lit(moment))
    by = "status" if "status" in book.tracks else "state"
    told: dict[str, Any] = {f"at {cut}": book.at(moment, cut=cut) for cut in CUTS}
    told |= {
        "at version": book.at(version=2),
        "history": book.history(),
        "history since": book.history(since=moment),
        "asof": book.asof(labels),
        "every": book.every("1s", "2025-01-01", "2025-01-01T00:00:05Z", by=by, measure="paid"),
        "cuts": book.cuts(moment),
        "rejected": book.rejected.sort(pl.all()),
        "counts": (len(book), len(book.typed), book.span, book.undeclared, book.basis.fingerprint),
    }
    for one in book.ids.head(6):
        story = book[one]
        told[f"story {one}"] = story.log().drop("payload")
        told[f"states {one}"] = (story.now, story.at(moment), story.at(moment, cut="filter"))
    return told


def same(book: Book, other: Book, moment: Any = datetime(2025, 1, 20, tzinfo=UTC)) -> None:
    """Hold two books against each other, question by question."""
    mine, theirs = answers(book, moment), answers(other, moment)
    assert list(mine) == list(theirs)
    for question, answer in mine.items():
        if isinstance(answer, pl.DataFrame):
            assert answer.schema == theirs[question].schema, question
            assert answer.equals(theirs[question], null_equal=True), question
        else:
            assert answer == theirs[question], question


# --- opened again, it is the same ------------------------------------------------------------------------


def what_was_kept_is_what_was_folded(
    aggregate: Any, events: pl.DataFrame, moment: Any, parts: int, later: pl.DataFrame | None = None
) -> None:
    log = tl.from_frame(events)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kept"
        first = log.fold(aggregate, keep=path, pieces=parts)
        same(first, log.fold(aggregate), moment)
        again = log.fold(aggregate, keep=path)
        assert again.kept == f"{path}: as kept"
        same(again, log.fold(aggregate), moment)
        if later is not None:
            grown = tl.from_frame(pl.concat([events, later]))
            same(grown.fold(aggregate, keep=path), grown.fold(aggregate), moment)


@both
def test_a_kept_history_answers_as_the_one_in_memory(aggregate: Any) -> None:
    """Every verb, however many pieces it was folded in."""
    often(
        given(events=histories(max_aggregates=6), moment=moments, parts=st.integers(1, 4))(
            lambda events, moment, parts: what_was_kept_is_what_was_folded(aggregate, events, moment, parts)
        )
    )()


@both
def test_what_grew_is_folded_as_if_it_had_been_there_from_the_start(aggregate: Any) -> None:
    """Whatever was added: new aggregates, further events, rivals for a place."""
    often(
        given(events=histories(max_aggregates=6), later=histories(), moment=moments, parts=st.integers(1, 3))(
            lambda events, later, moment, parts: what_was_kept_is_what_was_folded(
                aggregate, events, moment, parts, later
            )
        )
    )()


def broken(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, bug: Any, grows: bool = False) -> None:
    """Expect the law to fail with a bug planted."""
    monkeypatch.setattr(where, name, bug)
    later = histories() if grows else st.none()
    with pytest.raises(AssertionError):
        hunting(
            given(events=histories(max_aggregates=6), later=later, moment=moments, parts=st.integers(1, 3))(
                lambda events, later, moment, parts: what_was_kept_is_what_was_folded(
                    Basket, events, moment, parts, later
                )
            )
        )()


def test_the_law_notices_nothing_taken_for_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: rows that have seen no value yet are numbered as in the first piece alone."""
    number = keep.Keeper._number_nothing
    broken(monkeypatch, keep.Keeper, "_number_nothing", lambda self, file, _: number(self, file, 0))


def test_the_law_notices_a_life_that_begins_with_another_ones_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: the first value of every life is the first of its piece."""
    array = disk.Writer.array

    def forget(self: Any, name: str, values: Any) -> None:
        array(self, name, values * 0 if name.endswith(".first") else values)

    broken(monkeypatch, disk.Writer, "array", forget)


def test_the_law_notices_a_stale_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: no news is ever found."""
    since = news.since

    def nothing(reader: Any, facts: Any, marks: Any) -> news.News:
        found = since(reader, facts, marks)
        return found if marks is None else news.News(found.marks["aggregate_id"].clear(), facts, marks)

    broken(monkeypatch, news, "since", nothing, grows=True)


def test_the_law_notices_an_old_life_left_beside_its_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what has news is added, and not taken out."""
    rows_of = renew.rows_of
    broken(monkeypatch, renew, "rows_of", lambda typed, ids, some=None: rows_of(typed, ids), grows=True)


# --- it is noticed when something is another ---------------------------------------------------------------


def sentence(book: Book) -> str:
    return book.kept.partition(": ")[2]


def declared(**columns: Any) -> Any:
    return type("Order", (tl.Aggregate,), {"status": tl.machine({tl.OrderShipped: "SHIPPED"}), **columns})


def test_another_declaration_is_folded_again_and_the_sentence_names_what_changed(tmp_path: Path) -> None:
    """Columns that are new, gone or other; the functions of steps; upcasts."""
    log = tl.open("sqlite:///data/samples/orders.db")
    minus = fill(tl.RefundIssued, before={"amount": "1"}, after={"amount": "2"})(
        lambda payload: {"amount": "2"}
    )

    def told(aggregate: Any) -> str:
        book = log.fold(aggregate, keep=tmp_path / "kept")
        assert book.history().equals(log.fold(aggregate).history())
        return sentence(book)

    paid = tl.total_of(tl.PaymentAuthorized, "amount")
    assert told(declared()) == "folded, since nothing was kept there yet"
    assert told(declared()) == "as kept"
    assert told(declared(paid=paid)) == "folded, since column paid and event PaymentAuthorized are new"
    first = tl.smallest(tl.PaymentAuthorized, "amount")
    assert told(declared(paid=first)) == (
        "folded, since column paid was total_of(PaymentAuthorized.amount), Decimal(precision=38, scale=2)"
        " and is now smallest(PaymentAuthorized.amount), Decimal(precision=38, scale=2)"
    )
    assert told(declared()) == "folded, since column paid and event PaymentAuthorized are gone"
    steps = [tl.step(lambda value, event, n=n: value + n, 0, tl.OrderShipped) for n in (1, 2)]
    assert "column n is new" in told(declared(n=steps[0]))
    assert told(declared(n=steps[1])).startswith("folded, since column n was step(")
    more = declared(n=steps[1], also=(tl.RefundIssued,))
    assert told(more) == "folded, since event RefundIssued is new"
    more = declared(n=steps[1], also=(tl.RefundIssued,), upcasts=(minus,))
    assert told(more) == "folded, since upcast 1 (<lambda>) is new"
    assert told(more) == "as kept"


def test_columns_in_another_order_are_folded_again(tmp_path: Path) -> None:
    """The fingerprint is another, and so are the frames."""
    log = tl.open("sqlite:///data/samples/orders.db")
    a, b = tl.count(tl.OrderShipped), tl.count(tl.RefundIssued)
    log.fold(declared(a=a, b=b), keep=tmp_path / "kept")
    book = log.fold(declared(b=b, a=a), keep=tmp_path / "kept")
    assert sentence(book) == "folded, since the columns stand in another order"
    assert book.at(version=1).columns[-2:] == ["b", "a"]


def test_another_question_is_folded_again(tmp_path: Path) -> None:
    """Other aggregates, another log, another zone, and payloads that may be newer."""
    log, path = tl.open("sqlite:///data/samples/orders.db"), tmp_path / "kept"
    some = log.read()["aggregate_id"].unique().sort().head(3).to_list()
    assert len(log.fold(tl.Order, keep=path)) == 500
    few = log.fold(tl.Order, keep=path, aggregates=some)
    assert (len(few), sentence(few)) == (3, "folded, since other aggregates were asked for")
    assert sentence(log.fold(tl.Order, keep=path, aggregates=reversed(some))) == "as kept"
    assert sentence(log.fold(tl.Order, keep=path, newer="reject")).startswith(
        "folded, since other aggregates"
    )
    zoned = tl.open("sqlite:///data/samples/orders.db", zone="Europe/Berlin").fold(tl.Order, keep=path)
    assert "the zone was None and is now 'Europe/Berlin'" in sentence(zoned)
    other = tl.open("parquet://data/samples/orders.parquet").fold(tl.Order, keep=path)
    assert "the source was 'sqlite:///data/samples/orders.db'" in sentence(other)


def test_a_payload_newer_than_the_code_is_no_less_an_error(tmp_path: Path) -> None:
    """What was kept with newer='reject' is not opened where it must raise."""
    log, path = tl.from_frame(frame_of([row(metadata='{"schema_version": 9}')])), tmp_path / "kept"
    assert len(log.fold(tl.Order, keep=path, newer="reject").rejected) == 1
    with pytest.raises(SchemaTooNew):
        log.fold(tl.Order, keep=path)
    assert len(list(path.glob("data-*"))) == 1


def test_a_function_whose_changes_leave_no_trace_is_refused(tmp_path: Path) -> None:
    """And still folds in memory."""
    knower = object()
    aggregate = declared(known=tl.step(lambda value, event: value if knower else None, 0, tl.OrderShipped))
    log = tl.open("sqlite:///data/samples/orders.db")
    assert len(log.fold(aggregate)) == 500
    with pytest.raises(KeepError, match="column known of Order rests on a object; whether that has changed"):
        log.fold(aggregate, keep=tmp_path / "kept")


def test_what_a_function_refers_to_is_part_of_the_fingerprint() -> None:
    """A closure, a default, a helper, and a helper's constant."""

    def made(number: int, amount: Decimal = Decimal("1.50")) -> Any:
        def helper(value: int) -> int:
            return value + number

        return declared(n=tl.step(lambda value, event, amount=amount: helper(value), 0, tl.OrderShipped))

    prints = [made(1), made(1), made(2), made(1, Decimal("2.50"))]
    first, again, other, default = [aggregate.fingerprint() for aggregate in prints]
    assert first == again
    assert len({first, other, default}) == 3


def test_functions_that_call_each_other_are_each_told_once() -> None:
    """However many ways lead to them."""
    known: dict[str, Any] = {}
    for n in range(40):
        calls = ", ".join(f"f{other}" for other in range(40) if other != n)
        exec(f"def f{n}(value, event=None): return ({calls})", known)
    text = told(known["f0"])
    assert len(text) < 200_000
    assert text == told(known["f0"])
    assert "cannot be told" not in text


# --- the source grows, or changes --------------------------------------------------------------------------


def watched(monkeypatch: pytest.MonkeyPatch, log: tl.EventLog) -> list[Any]:
    """Note which aggregates a log is asked for."""
    asked: list[Any] = []
    frames = type(log.reader).frames

    def note(self: Any, scope: Any, size: int) -> Any:
        asked.append(scope.aggregates)
        return frames(self, scope, size)

    monkeypatch.setattr(type(log.reader), "frames", note)
    return asked


def created(aggregate_id: str, version: int = 1, total: str = "5.00", **changes: Any) -> dict[str, Any]:
    payload = json.dumps({"user_id": "u", "items": [], "total": total})
    return row(aggregate_id, version, **{"event_type": "OrderCreated", "payload": payload} | changes)


@pytest.mark.parametrize("store", ["sqlite:///{}/orders.db", "parquet://{}/events"])
def test_only_aggregates_with_new_events_are_read_and_folded_again(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further event of one aggregate, and one that is new."""
    log = tl.open(store.format(tmp_path), writable=True)
    log.append_many(frame_of([created(name) for name in "abcdef"]))
    path = tmp_path / "kept"
    log.fold(tl.Order, keep=path, pieces=2)
    asked = watched(monkeypatch, log)
    assert sentence(log.fold(tl.Order, keep=path)) == "as kept"
    assert asked == []
    log.append_many(frame_of([row("c", 2), created("bb")]))
    asked.clear()
    book = log.fold(tl.Order, keep=path)
    assert sentence(book) == "folded 2 aggregates again that have news; the others as kept"
    assert [sorted(one) for one in asked] == [["bb", "c"]]
    same(book, log.fold(tl.Order))
    assert sentence(log.fold(tl.Order, keep=path)) == "as kept"


def test_what_is_folded_again_is_blamed_on_the_same_upcasts(tmp_path: Path) -> None:
    """Its payloads come to lie among the others, in order of row."""
    files, path = tmp_path / "events", tmp_path / "kept"
    files.mkdir()
    log = tl.open(f"parquet://{files}", writable=True)
    log.append_many(frame_of([created("a"), created("b")]))
    log.fold(tl.Order, keep=path)
    log.append_many(frame_of([created("a", 2), created("c")]))
    kept, plain = log.fold(tl.Order, keep=path), log.fold(tl.Order)
    assert sentence(kept).startswith("folded 2 aggregates again")
    assert kept.blame("items")["upcast"].null_count() == 0
    for name in kept.ids:
        assert kept[name].blame().equals(plain[name].blame())
    assert all((part.rows[1:] > part.rows[:-1]).all() for part in kept.typed.parts)


def test_a_step_runs_for_the_events_of_aggregates_with_news_alone(tmp_path: Path) -> None:
    """It is the only column that is folded event by event."""
    ran: list[str] = []

    def note(value: int, event: tl.Event) -> int:
        ran.append(event.aggregate_id)
        return value + 1

    aggregate = declared(n=tl.step(note, 0, tl.OrderCreated, tl.OrderShipped))
    events = frame_of([created(name) for name in "abcdef"])
    tl.from_frame(events).fold(aggregate, keep=tmp_path / "kept", pieces=2)
    ran.clear()
    grown = tl.from_frame(pl.concat([events, frame_of([row("c", 2), created("bb")])]))
    book = grown.fold(aggregate, keep=tmp_path / "kept")
    assert ran == ["bb", "c", "c"]
    assert book.at(version=9)["n"].to_list() == [1, 1, 1, 2, 1, 1, 1]


def test_a_row_edited_in_place_is_noticed(tmp_path: Path) -> None:
    """To a text of the same length, in a file of the same size."""
    log, path = tl.open(f"sqlite:///{tmp_path}/orders.db", writable=True), tmp_path / "kept"
    log.append_many(frame_of([created("a"), created("b")]))
    log.fold(tl.Order, keep=path)
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db, db:
        db.executescript("DROP TRIGGER order_events_no_update; DROP TRIGGER order_events_no_delete")
        db.execute(
            "UPDATE order_events SET payload = replace(payload, '5.00', '7.00') WHERE aggregate_id = 'a'"
        )
    book = log.fold(tl.Order, keep=path)
    assert sentence(book).startswith("folded 1 aggregates again")
    assert book.at(version=1)["total"].to_list() == [Decimal("7.00"), Decimal("5.00")]
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db, db:
        db.execute("DELETE FROM order_events WHERE aggregate_id = 'a'")
    assert log.fold(tl.Order, keep=path).ids.to_list() == ["b"]


def test_a_file_that_was_only_put_in_order_is_not_folded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VACUUM moves rows about and changes none."""
    log, path = tl.open(f"sqlite:///{tmp_path}/orders.db", writable=True), tmp_path / "kept"
    log.append_many(frame_of([created("a"), created("b")]))
    log.fold(tl.Order, keep=path)
    with closing(sqlite3.connect(tmp_path / "orders.db")) as db:
        db.execute("VACUUM")
    assert sentence(log.fold(tl.Order, keep=path)) == "as kept"
    monkeypatch.delattr(type(log.reader), "marks")  # and the next time the file alone tells
    assert sentence(log.fold(tl.Order, keep=path)) == "as kept"


def test_a_parquet_file_written_anew_is_folded_again(tmp_path: Path) -> None:
    """Whether it was changed or taken away."""
    files, path = tmp_path / "events", tmp_path / "kept"
    files.mkdir()
    for name in "ab":
        frame_of([created(name)]).write_parquet(files / f"{name}.parquet")
    log = tl.open(f"parquet://{files}")
    log.fold(tl.Order, keep=path)
    frame_of([created("a", total="9.00")]).write_parquet(files / "a.parquet")
    book = log.fold(tl.Order, keep=path)
    assert sentence(book) == "folded, since the source has changed in what was there before"
    assert book.at(version=1)["total"][0] == Decimal("9.00")
    (files / "b.parquet").unlink()
    assert log.fold(tl.Order, keep=path).ids.to_list() == ["a"]


@pytest.mark.parametrize("store", ["parquet", "sqlite"])
def test_a_file_that_took_anothers_place_is_looked_into(store: str, tmp_path: Path) -> None:
    """Even with its size and its time, as files have that are built to be reproduced to the byte."""
    path = tmp_path / "orders"

    def build(place: Path, total: str) -> None:
        events = frame_of([created("a", total=total)])
        if store == "parquet":
            events.write_parquet(place, compression="uncompressed")
        else:
            tl.open(f"sqlite:///{place}", writable=True).append_many(events)
        os.utime(place, (0, 0))

    build(path, "5.00")
    log = tl.open(f"{'parquet://' if store == 'parquet' else 'sqlite:///'}{path}")
    log.fold(tl.Order, keep=tmp_path / "kept")
    build(tmp_path / "new", "7.00")
    assert (tmp_path / "new").stat().st_size == path.stat().st_size
    (tmp_path / "new").replace(path)
    book = log.fold(tl.Order, keep=tmp_path / "kept")
    assert book.at(version=1)["total"].to_list() == [Decimal("7.00")]


def test_rejected_rows_are_kept_and_renewed(tmp_path: Path) -> None:
    """What could not be read, and what did not fit; also in log.rejected."""
    path = tmp_path / "kept"
    rows = [created("a"), created("a", 2, total="x"), created("b", payload="{"), created("c", 0)]
    log = tl.from_frame(pl.DataFrame(rows))
    first, fresh = log.fold(tl.Order, keep=path), log.fold(tl.Order)
    assert first.rejected.sort(pl.all()).equals(fresh.rejected.sort(pl.all()))
    grown = tl.from_frame(pl.DataFrame([*rows, created("b", 2), created(None)]))
    book, fresh = grown.fold(tl.Order, keep=path), grown.fold(tl.Order)
    assert book.rejected.sort(pl.all()).equals(fresh.rejected.sort(pl.all()))
    assert len(book.rejected) == 4


def test_an_empty_log_can_be_kept(tmp_path: Path) -> None:
    """And then grow."""
    log = tl.open("memory://")
    assert len(log.fold(Basket, keep=tmp_path / "kept", pieces=3)) == 0
    assert log.fold(Basket, keep=tmp_path / "kept").at("2025-01-01").is_empty()
    log.append_many(frame_of([created("a")]))
    assert len(log.fold(Basket, keep=tmp_path / "kept")) == 1


# --- damage ------------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def scribble(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"\xff")


@pytest.mark.parametrize("damage", [Path.unlink, cut, scribble])
def test_a_damaged_file_is_noticed_and_folded_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    """Gone, too short, or written to."""
    log, path = tl.open("sqlite:///data/samples/orders.db"), tmp_path / "kept"
    fresh = log.fold(tl.Order)
    for seed in range(3):
        log.fold(tl.Order, keep=path)
        files = sorted(file for file in path.glob("data-*/*") if file.stat().st_size)
        damage(random.Random(seed).choice(files))
        book = log.fold(tl.Order, keep=path)
        assert sentence(book).startswith("folded, since it is damaged: ")
        same(book, fresh)


@pytest.mark.parametrize(
    "change", [lambda text: b"", lambda text: text[:-1], lambda text: b"[]", bytes.upper]
)
def test_a_manifest_that_is_not_as_written_is_folded_again(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """Empty, cut off, something else, or of another edition."""
    log, path = tl.from_frame(frame_of([created("a")])), tmp_path / "kept"
    log.fold(tl.Order, keep=path)
    (path / "kept").write_bytes(change((path / "kept").read_bytes()))
    book = log.fold(tl.Order, keep=path)
    assert sentence(book).startswith("folded, since kept is damaged, or was written by another edition")
    assert len(book) == 1


def test_what_is_no_kept_history_is_left_alone(tmp_path: Path) -> None:
    """A file, and a folder with other things in it."""
    log = tl.open("sqlite:///data/samples/orders.db")
    (tmp_path / "mine.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(KeepError, match="is there and is no kept history"):
            log.fold(tl.Order, keep=place)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_of_somebody_else_is_never_taken_away(tmp_path: Path) -> None:
    """Whatever it is called: what titan_lab writes has a name that nobody else gives."""
    log, path = tl.open("sqlite:///data/samples/orders.db"), tmp_path / "data-2025" / "january.csv"
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(KeepError, match="is there and is no kept history"):
        log.fold(tl.Order, keep=tmp_path)
    assert path.read_text() == "mine"


def test_a_name_that_no_folder_can_have_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Before anything is folded."""
    with pytest.raises(KeepError, match=r"cannot be kept in .*: File name too long"):
        tl.open("sqlite:///data/samples/orders.db").fold(tl.Order, keep=tmp_path / ("k" * 300))


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Below a file there is no folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(KeepError, match=r"cannot be kept in .*file/kept: Not a directory"):
        tl.open("sqlite:///data/samples/orders.db").fold(tl.Order, keep=tmp_path / "file" / "kept")


def test_a_full_disk_leaves_what_was_kept_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing half written."""
    log, path = tl.from_frame(frame_of([created("a")])), tmp_path / "kept"
    log.fold(tl.Order, keep=path)
    before = sorted(path.rglob("*"))
    opened, left = Path.open, [50]

    def full(self: Path, mode: str = "r", **more: Any) -> Any:
        left[0] -= mode == "ab"
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(self, mode, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(KeepError, match="No space left on device"):
            log.fold(Basket, keep=path)
    assert sorted(path.rglob("*")) == before
    assert sentence(log.fold(tl.Order, keep=path)) == "as kept"


def test_a_dtype_that_no_file_holds_is_an_error(tmp_path: Path) -> None:
    """Of a step, the only one that chooses its own."""
    huge = declared(n=tl.step(lambda value, event: value, 1, tl.OrderShipped, dtype=pl.Int128))
    with pytest.raises(KeepError, match=r"n.values is Int128, which cannot be written"):
        tl.open("sqlite:///data/samples/orders.db").fold(huge, keep=tmp_path / "kept")


# --- other processes ---------------------------------------------------------------------------------------

ONCE = """
import sys, itertools, titan_lab as tl
class Other(tl.Order):
    shipments = tl.count(tl.OrderShipped)
log = tl.open("sqlite:///data/samples/orders.db")
book = log.fold(tl.Order, keep=sys.argv[1])
"""
TURNS = f"""{ONCE}
print("ready", flush=True)
for aggregate in itertools.cycle([Other, tl.Order]):
    log.fold(aggregate, keep=sys.argv[1])
"""


def test_killed_at_any_moment_it_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """A process that keeps without end is killed; what it leaves is right, or is noticed."""
    log, path = tl.open("sqlite:///data/samples/orders.db"), tmp_path / "kept"
    fresh, seen = log.fold(tl.Order), set()
    for seed in range(8):
        child = subprocess.Popen([sys.executable, "-c", TURNS, path], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(random.Random(seed).random() * 0.3)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        book = log.fold(tl.Order, keep=path)
        seen.add(sentence(book))
        assert book.history().equals(fresh.history())
        assert len(list(path.glob("data-*"))) >= 1
    assert seen <= {
        "as kept",
        "folded, since column shipments is gone and the name was Other and is now Order",
    }


def test_two_processes_that_keep_at_once_both_end_with_a_right_one(tmp_path: Path) -> None:
    """One of them folds, the other finds it done; whoever wants another column folds again."""
    code = f"{ONCE}\nprint(book.history().hash_rows().sum())"
    children = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "kept"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = {child.communicate()[0].strip() for child in children}
    fresh = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
    assert told == {str(fresh.history().hash_rows().sum())}
    assert len(list((tmp_path / "kept").glob("data-*"))) == 1


def test_a_book_that_is_open_outlives_what_replaces_it(tmp_path: Path) -> None:
    """Its files are read to the end even where their folder is gone."""
    log, path = tl.open("sqlite:///data/samples/orders.db"), tmp_path / "kept"
    book = log.fold(tl.Order, keep=path)
    log.fold(Basket, keep=path)
    shutil.rmtree(path)
    same(book, log.fold(tl.Order))


def test_the_page_of_a_kept_book_says_where_it_is_kept(tmp_path: Path) -> None:
    """In the notebook's card; a book in memory says nothing of it."""
    log = tl.from_frame(EVENTS.to_frame())
    assert "nothing was kept there yet" in log.fold(tl.Order, keep=tmp_path / "kept")._repr_html_()
    assert "kept" not in log.fold(tl.Order)._repr_html_()
