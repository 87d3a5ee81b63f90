"""Bad input: a clear error that names the thing and the fix, and the good input beside it is kept."""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.errors import (
    BranchError,
    DeclarationError,
    EventsError,
    InstantError,
    NoSuchAggregate,
    NoSuchColumn,
    OpenError,
    ReadOnly,
    SchemaTooNew,
    SpineError,
    StepError,
    UnknownScheme,
    WriteError,
)
from titan_lab.event import EVENTS
from titan_lab.kinds import Misfit

GOOD = ("good", 1, "OrderCreated", '{"user_id":"u","items":[],"total":5}', None, "2025-01-01T10:00:00Z")


def log_of(*rows: tuple, **options: Any) -> tl.EventLog:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(EVENTS)
    frame = pl.DataFrame(
        [pl.Series(name, values, strict=False) for name, values in zip(EVENTS, columns, strict=True)]
    )
    return tl.from_frame(frame, **options)


def created(aggregate_id: str, payload: str, version: int = 1, metadata: str | None = None) -> tuple:
    return (aggregate_id, version, "OrderCreated", payload, metadata, "2025-01-01T10:00:00Z")


@pytest.fixture
def book() -> Any:
    return log_of(GOOD).fold(tl.Order)


# --- things of another kind ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error", "told"),
    [
        (lambda log, book: log.fold(5), DeclarationError, "5 is no aggregate"),
        (lambda log, book: log.fold(dict), DeclarationError, "<class 'dict'> is no aggregate"),
        (lambda log, book: book.branch().refold(5), DeclarationError, "5 is no aggregate"),
        (lambda log, book: book.branch().compare(5), BranchError, "compares with a book, not with a int"),
        (lambda log, book: book.branch().edit(set=["total"]), BranchError, "sets nothing"),
        (lambda log, book: book.branch().insert(5), BranchError, "what is inserted is a int, no frame"),
        (lambda log, book: log.to_ocel("x", objects={"user": 5}), EventsError, "5 is no field"),
        (lambda log, book: book.asof(5), SpineError, "the spine is a int, no frame"),
        (lambda log, book: tl.from_frame(5), EventsError, "what is given as events is a int, no frame"),
        (lambda log, book: log.fold(tl.Order, newer="keep"), EventsError, "newer='keep' says nothing"),
        (lambda log, book: log.read(since="2025-01-02", until="2025-01-01"), InstantError, "is before"),
        (lambda log, book: book.at("2025-01-02", version=1), InstantError, "was given both"),
        (lambda log, book: book["good"].at(version=-1), InstantError, "there is no version -1"),
        (lambda log, book: log.to_csv("."), WriteError, "cannot be written"),
        (lambda log, book: log.to_xes("README.md/x.xes"), WriteError, "cannot be written"),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_it_is_told_what_was_given_and_what_to_give(ask: Any, error: type, told: str) -> None:
    """Not by an AttributeError from deep inside."""
    log = log_of(GOOD)
    with pytest.raises(error, match=re.escape(told)) as caught:
        ask(log, log.fold(tl.Order))
    assert caught.value.hint


def test_a_day_in_a_spine_is_told_how_to_become_an_instant(book: Any) -> None:
    """The hint can be pasted, and then it works."""
    spine = pl.DataFrame({"aggregate_id": ["good"], "ts": [datetime(2025, 1, 2, tzinfo=UTC).date()]})
    with pytest.raises(SpineError, match="naive: Date") as caught:
        book.asof(spine)
    mended = eval(caught.value.hint.partition(" says")[0], {"frame": spine, "pl": pl})
    assert book.asof(mended)["version"].to_list() == [1]


def test_a_struct_that_is_null_is_no_metadata_rather_than_bad_json() -> None:
    """As a reader of JSON lines gives it, where some events say nothing of themselves."""
    rows = {
        "aggregate_id": ["a", "b"],
        "version": [1, 1],
        "event_type": ["OrderShipped"] * 2,
        "payload": [{"tracking": "x"}, {"tracking": "y"}],
        "metadata": [{"correlation_id": "r"}, None],
        "timestamp": ["2025-01-01T10:00Z"] * 2,
    }
    log = tl.from_frame(pl.DataFrame(rows))
    assert log.rejected.is_empty()
    assert log.read()["metadata"].to_list() == ['{"correlation_id":"r"}', None]


def test_a_step_that_fails_says_at_which_event() -> None:
    """The function is the user's, so the error names what it was given."""

    class Divided(tl.Order):
        share = tl.step(lambda value, event: 1 / 0, 0.0)

    with pytest.raises(
        StepError, match="ZeroDivisionError: division by zero, at OrderCreated good version 1"
    ):
        _ = log_of(GOOD).fold(Divided).now


# --- instants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["2025-01-01T10:00", datetime(2025, 1, 1, 10)])
def test_a_naive_moment_is_refused_with_the_two_ways_to_mend_it(book: Any, moment: Any) -> None:
    """Say the zone, or open the log with one."""
    with pytest.raises(InstantError, match="no time zone") as caught:
        book.at(moment)
    assert "Z'" in caught.value.hint
    assert "zone=" in caught.value.hint


@pytest.mark.parametrize("moment", ["yesterday", "2025-13-01", "", "12:00", 1735689600, 3.5, None])
def test_what_is_no_instant_is_named(book: Any, moment: Any) -> None:
    """The hint shows one that is."""
    with pytest.raises(InstantError) as caught:
        book.at(moment)
    assert "2025-01-15T14:00" in caught.value.hint or "2025-01-01T14:00" in caught.value.hint


def test_an_unknown_zone_is_named() -> None:
    """When the log is opened, not when it is asked."""
    with pytest.raises(InstantError, match="Mars/Olympus"):
        tl.open("memory://", zone="Mars/Olympus")


# --- stores ------------------------------------------------------------------------------------------------


def test_an_unknown_scheme_lists_the_known_ones_and_shows_no_password() -> None:
    """A connection string may hold one."""
    with pytest.raises(UnknownScheme) as caught:
        tl.open("oracle://scott:tiger@db/orders")
    assert all(f"{scheme}://" in str(caught.value) for scheme in ("memory", "parquet", "sqlite"))
    assert "tiger" not in str(caught.value)


def test_a_scheme_with_a_slip_is_suggested() -> None:
    """sqllite is what people write."""
    with pytest.raises(UnknownScheme, match="sqlite://") as caught:
        tl.open("sqllite:///x.db")
    assert "sqlite://" in caught.value.hint


@pytest.mark.parametrize("scheme", ["sqlite://", "parquet://"])
def test_a_file_that_is_not_there_or_not_a_store(tmp_path: Path, scheme: str) -> None:
    """Neither is created, and both are named."""
    slash = "/" if scheme == "sqlite://" else ""
    with pytest.raises(OpenError, match=r"nothing\.db"):
        tl.open(f"{scheme}{slash}{tmp_path}/nothing.db")
    assert not (tmp_path / "nothing.db").exists()
    (tmp_path / "text.db").write_text("this is no database, and long enough to be looked at as one\n" * 40)
    with pytest.raises(OpenError, match=r"text\.db"):
        tl.open(f"{scheme}{slash}{tmp_path}/text.db")


def test_a_database_without_the_table_lists_the_tables_it_has(tmp_path: Path) -> None:
    """And one whose table lacks a column names the column."""
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE customers (id TEXT)")
    with pytest.raises(OpenError, match="order_events; it has customers"):
        tl.open(f"sqlite:///{tmp_path}/other.db")
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.execute(
            "CREATE TABLE order_events (aggregate_id TEXT, version INT, event_type TEXT, payload TEXT)"
        )
    with pytest.raises(EventsError, match="metadata, timestamp"):
        tl.open(f"sqlite:///{tmp_path}/old.db")


def test_a_parquet_file_without_a_column_names_it(tmp_path: Path) -> None:
    """With the columns that it has."""
    pl.DataFrame({"aggregate_id": ["a"], "version": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(EventsError, match="event_type, payload, timestamp; it has aggregate_id, version"):
        tl.open(f"parquet://{tmp_path}/x.parquet")


def test_writing_to_a_log_that_was_opened_for_reading(tmp_path: Path) -> None:
    """The session of the database refuses it, too."""
    url = f"sqlite:///{tmp_path}/orders.db"
    tl.open(url, writable=True).append_many(log_of(GOOD).read())
    log = tl.open(url)
    with pytest.raises(ReadOnly, match="reading only") as caught:
        log.append_many(log_of(GOOD).read())
    assert "writable=True" in caught.value.hint
    assert len(log) == 1


# --- rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "path", "reason"),
    [
        (created("bad", "{not json"), "$", "JSON object"),
        (created("bad", "[1, 2]"), "$", "JSON object"),
        (created("bad", '{"items": []}'), "$.user_id", "required field missing"),
        (
            created("bad", '{"user_id":"u","items":[{"product_id":"p","quantity":1,"price":"x"}]}'),
            "$.items[0].price",
            "'x'",
        ),
        (
            created("bad", '{"user_id":"u","items":[{"product_id":"p","quantity":1.5,"price":1}]}'),
            "$.items[0].quantity",
            "whole",
        ),
        (created("bad", '{"user_id":"u","items":{"product_id":"p"}}'), "$.items", "an array"),
        (created("bad", '{"user_id":"u","items":[],"total":1.005}'), "$.total", "two decimals"),
        (created("bad", "{}", metadata="{oops"), "metadata", "JSON object"),
        (
            created("bad", "{}", metadata='{"schema_version": "two"}'),
            "metadata.schema_version",
            "whole number",
        ),
        (created("", "{}"), "aggregate_id", "missing"),
        (created("bad", "{}", version=0), "version", "from 1 on"),
        (("bad", 1, None, "{}", None, "2025-01-01T10:00:00Z"), "event_type", "missing"),
        (("bad", 1, "OrderCreated", None, None, "2025-01-01T10:00:00Z"), "payload", "missing"),
        (("bad", 1, "OrderCreated", "{}", None, "last week"), "timestamp", "no instant"),
        (("bad", 1, "OrderCreated", "{}", None, "2025-01-01T10:00:00"), "timestamp", "zone="),
    ],
)
def test_a_bad_row_is_set_aside_with_its_place_and_its_raw_content(
    row: tuple, path: str, reason: str
) -> None:
    """The good row beside it is folded; `log.rejected` lists what the book refused."""
    log = log_of(GOOD, row)
    book = log.fold(tl.Order)
    assert book.at("2025-01-02", columns=["total"]).rows() == [("good", 1, 5)]
    (rejected,) = book.rejected.to_dicts()
    assert rejected["path"] == path
    assert reason in rejected["reason"]
    kept = json.loads(rejected["raw"])
    assert (kept["payload"], kept["metadata"], kept["event_type"]) == (row[3], row[4], row[2])
    assert log.rejected["path"].to_list() == [path]


LINE = '{"user_id":"u","items":[{"product_id":"p","quantity":%s,"price":%s}]}'
DEEP = '{"user_id":"u","items":[],"deep":' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (LINE % ("1e9999999", "1"), "$.items[0].quantity"),
        (LINE % ('"' + "9" * 4_000 + '"', "1"), "$.items[0].quantity"),
        (LINE % ("1", "1e9999999"), "$.items[0].price"),
        (LINE % ("1", "-1e99999999999999999999"), "$.items[0].price"),
        (LINE % ("1", '"1e-9999999"'), "$.items[0].price"),
        ('{"user_id":1e9999999,"items":[]}', "$.user_id"),
        (r'{"user_id":"\ud83d","items":[]}', "$.user_id"),
        ('{"user_id":' + "9" * 5_000 + ',"items":[]}', "$"),
        ('{"user_id":"u","items":[],"other":NaN}', "$"),
        (DEEP, "$"),
    ],
    ids=["huge", "long", "overflow", "beyond", "tiny", "text", "half a letter", "digits", "nan", "deep"],
)
def test_a_payload_that_would_choke_a_parser_is_refused_like_any_other(payload: str, path: str) -> None:
    """A short text can stand for a number of ten million digits; it neither stops the fold nor slows it."""
    log = log_of(GOOD, created("bad", payload))
    book = log.fold(tl.Order)
    assert book.at("2025-01-02", columns=["total"]).rows() == [("good", 1, 5)]
    assert book.rejected["path"].to_list() == [path]
    assert len(book.rejected["reason"][0]) < 150


def test_one_payload_handed_to_an_aggregate_is_refused_as_in_a_book() -> None:
    """Also where the step that computes a missing total stumbles over it first."""
    payload = {"user_id": "u", "items": [{"product_id": "p", "quantity": 1}]}
    state = tl.Order.initial("bad")
    with pytest.raises(Misfit, match="required field missing") as caught:
        tl.Order.evolve(state, tl.Event("bad", 1, "OrderCreated", payload))
    assert caught.value.path == "$.items[0].price"
    assert payload == {"user_id": "u", "items": [{"product_id": "p", "quantity": 1}]}


def test_a_bad_timestamp_passes_every_filter_to_be_counted() -> None:
    """A window must not hide a row that cannot be placed in time."""
    log = log_of(GOOD, ("bad", 1, "OrderCreated", "{}", None, "last week"))
    assert len(log.read(since="2025-01-01", until="2025-01-02")) == 1
    assert len(log.rejected) == 1


def test_an_event_type_nobody_declared_stays_and_changes_nothing() -> None:
    """It counts as an event, and is told."""
    log = log_of(GOOD, ("good", 2, "OrderBlessed", '{"by": "monks"}', None, "2025-01-01T11:00:00Z"))
    book = log.fold(tl.Order)
    assert book.undeclared == {"OrderBlessed": 1}
    assert (book["good"].now.version, book["good"].now.total) == (2, 5)
    assert len(log.read()) == 2


def test_a_gap_in_versions_is_told_and_folded_over() -> None:
    """What is there is folded; what is missing is named."""
    log = log_of(GOOD, ("good", 4, "OrderShipped", "{}", None, "2025-01-01T11:00:00Z"))
    (gap,) = log.audit().to_dicts()
    assert (gap["kind"], gap["version"], gap["detail"]) == ("version gap", 4, "follows version 1")
    assert log.fold(tl.Order)["good"].now.status == "SHIPPED"


def test_a_duplicate_is_kept_once_and_told() -> None:
    """The same event twice is harmless; another event in its place is named as such."""
    other = ("good", 1, "OrderCreated", '{"user_id":"x","items":[],"total":9}', None, "2025-01-01T10:00:01Z")
    log = log_of(other, GOOD, GOOD)
    assert len(log.read()) == 1
    assert log.fold(tl.Order)["good"].now.total == 5
    assert sorted(reason.split(";")[0] for reason in log.rejected["reason"]) == [
        "another event has the same aggregate_id and version",
        "the same event twice",
    ]
    assert log.audit()["kind"].to_list() == ["duplicate", "duplicate"]


@pytest.mark.parametrize("broken", [{"payload": "{"}, {"metadata": "{"}])
def test_a_row_that_is_no_json_takes_no_good_rows_place(broken: dict[str, str]) -> None:
    """Although it was stamped first: only events claim places, in the log and in the book alike."""
    first = dict(zip(EVENTS, GOOD, strict=True)) | {"timestamp": "2025-01-01T09:00:00Z"} | broken
    log = log_of(GOOD, tuple(first.values()), tuple(first.values()))
    book = log.fold(tl.Order)
    assert len(log.read()) == 1
    assert book["good"].now.total == 5
    path = "$" if "payload" in broken else "metadata"
    for told in (book.rejected, log.rejected):
        assert told["path"].to_list() == [path, path]


def test_a_schema_newer_than_the_code_names_type_versions_and_the_way_out() -> None:
    """newer="reject" keeps the rest."""
    log = log_of(GOOD, created("new", '{"user_id":"u","items":[]}', metadata='{"schema_version": 9}'))
    with pytest.raises(SchemaTooNew, match="OrderCreated is stored with schema_version 9") as caught:
        log.fold(tl.Order)
    assert caught.value.data["aggregate_id"] == "new"
    assert "newer='reject'" in caught.value.hint
    assert len(log.fold(tl.Order, newer="reject")) == 1


# --- questions ---------------------------------------------------------------------------------------------


def test_before_the_first_event_there_is_an_empty_frame_and_a_falsy_state(book: Any) -> None:
    """With all columns, so that whatever comes next still works."""
    early = book.at("2000-01-01")
    assert early.is_empty()
    assert early.schema == book.at("2025-01-02").schema
    state = book["good"].at("2000-01-01")
    assert not state
    assert (state.version, state.status) == (0, None)
    assert "no event yet" in repr(state)


def test_an_empty_log_answers_every_question_with_an_empty_frame() -> None:
    """And says that it is empty."""
    log = log_of()
    book = log.fold(tl.Order)
    assert len(book) == 0
    assert "no events" in repr(book)
    assert book.at("2025-01-01").is_empty()
    assert book.history().is_empty()
    assert book.every("1d", "2025-01-01", "2025-01-03").is_empty()
    assert book.cuts("2025-01-01").is_empty()
    assert log.audit().is_empty()
    spine = pl.DataFrame({"aggregate_id": ["a"], "ts": [datetime(2025, 1, 1, tzinfo=UTC)]})
    assert book.asof(spine)["version"].to_list() == [None]
    with pytest.raises(NoSuchAggregate) as caught:
        book["a"]
    assert "no events" in caught.value.hint


def test_an_id_nobody_has_suggests_near_ones() -> None:
    """By what it begins with, or by a slip of the hand; in the book and in the log."""
    log = log_of(created("550e8400-e29b", "{}"), created("650e8400-e29b", "{}"))
    for ask in (log.fold(tl.Order).__getitem__, log.events):
        for wanted in ("550e", "550e8400-e29c"):
            with pytest.raises(NoSuchAggregate, match=wanted) as caught:
                ask(wanted)
            assert "550e8400-e29b" in caught.value.hint or "no events" in caught.value.hint


def test_a_column_nobody_has_suggests_near_ones(book: Any) -> None:
    """Wherever columns are named."""
    for ask in (
        lambda: book.at("2025-01-02", columns=["statsu"]),
        lambda: book.history(columns="statsu"),
        lambda: book.every("1d", "2025-01-01", "2025-01-02", by="statsu"),
    ):
        with pytest.raises(NoSuchColumn, match="statsu") as caught:
            ask()
        assert "'status'" in caught.value.hint


@pytest.mark.parametrize("several", [["total", "paid"], [], None, 5])
def test_one_column_is_asked_for_by_one_name(book: Any, several: Any) -> None:
    """Not by a list of several, nor by nothing."""
    for ask in (
        lambda: book.blame(several),
        lambda: book.explain(several, "2025-01-01", "2025-01-02"),
        lambda: book.dwell(several),
        lambda: book.stays(several),
        lambda: book.retention(of=several),
    ):
        with pytest.raises(NoSuchColumn, match="is not the name of one column") as caught:
            ask()
        assert "total" in caught.value.hint


@pytest.mark.parametrize("version", ["3", 1.5, True])
def test_what_is_no_version_is_named(book: Any, version: Any) -> None:
    """A text would be compared with numbers, and True is no 1."""
    for ask in (book.at, book["good"].at):
        with pytest.raises(InstantError, match="is no version, which is a whole number"):
            ask(version=version)


def test_what_is_no_list_is_no_crash(book: Any) -> None:
    """Where several of a thing are asked for, one that is none of it is named."""
    with pytest.raises(NoSuchColumn, match="5 names no columns"):
        book.at("2025-01-02", columns=5)
    with pytest.raises(InstantError, match="3 are no two versions"):
        book.diff(versions=3)
    with pytest.raises(InstantError, match="is no cut"):
        book.diff(book, "2025-01-02", cut=None)
    with pytest.raises(NoSuchColumn, match="nothing can be explained by None"):
        book.explain("total", "2025-01-01", "2025-01-02", by=None)
    with pytest.raises(BranchError, match=r"version is 1\.5, no whole number"):
        book.branch().without(version=1.5)
    with pytest.raises(EventsError, match="5 is no event type"):
        log_of(GOOD).read(types=5)


def test_an_id_that_is_a_number_is_read_as_its_text() -> None:
    """As it is where a frame with such ids is read."""
    log = log_of((7, *GOOD[1:]), (8, *GOOD[1:]))
    assert log.read(aggregates=7)["aggregate_id"].to_list() == ["7"]
    assert log.fold(tl.Order).branch().without(aggregate_id=[7]).ids.to_list() == ["8"]


@pytest.mark.parametrize(
    ("spine", "message", "hint"),
    [
        ({"aggregate_id": ["good"], "ts": [datetime(2025, 1, 2)]}, "naive", "replace_time_zone"),
        ({"aggregate_id": ["good"], "ts": ["2025-01-02"]}, "no datetime", "str.to_datetime"),
        ({"aggregate_id": ["good"], "tz": [datetime(2025, 1, 2, tzinfo=UTC)]}, "no column 'ts'", "on="),
        ({"order": ["good"], "ts": [datetime(2025, 1, 2, tzinfo=UTC)]}, "no column 'aggregate_id'", "by="),
        (
            {"aggregate_id": ["good"], "ts": [datetime(2025, 1, 2, tzinfo=UTC)], "status": [1]},
            "status",
            "prefix=",
        ),
    ],
)
def test_a_spine_that_cannot_be_joined_is_named(book: Any, spine: dict, message: str, hint: str) -> None:
    """With the line of code that mends it."""
    with pytest.raises(SpineError, match=message) as caught:
        book.asof(pl.DataFrame(spine))
    assert hint in caught.value.hint


def test_ids_that_nobody_has_keep_their_rows_in_the_spine(book: Any) -> None:
    """With nulls, in their place."""
    moment = datetime(2025, 1, 2, tzinfo=UTC)
    spine = pl.DataFrame({"aggregate_id": ["nobody", "good", None], "ts": [moment, moment, moment]})
    assert book.asof(spine, columns=["status"])["status"].to_list() == [None, "CREATED", None]


@pytest.mark.parametrize("step", ["sometimes", "0d", "-1d"])
def test_a_step_that_leads_nowhere_is_named(book: Any, step: str) -> None:
    """So is a grid that ends before it begins."""
    with pytest.raises(InstantError):
        book.every(step, "2025-01-01", "2025-01-02")
    with pytest.raises(InstantError, match="before it begins"):
        book.every("1d", "2025-01-02", "2025-01-01")


def test_a_hostile_payload_is_text() -> None:
    """A script in a product's name shows as text wherever an object shows itself."""
    evil = "<script>alert(1)</script>"
    payload = f'{{"user_id":"{evil}","items":[{{"product_id":"{evil}","quantity":1,"price":1}}]}}'
    log = log_of((evil, 1, "OrderCreated", payload, None, "2025-01-01T10:00:00Z"))
    book = log.fold(tl.Order)
    story = book[evil]
    for shown in (log, book, story, story.now):
        assert "<script>alert" not in shown._repr_html_()
