"""The magics return what the functions behind them return, and fail as loudly."""

from __future__ import annotations

import atexit
import re
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import nbformat
import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient.exceptions import CellExecutionError
from polars.testing import assert_frame_equal
from traitlets.config import Config

import titan_lab as tl
from titan_lab.book import Book
from titan_lab.errors import (
    InstantError,
    MagicError,
    NoSuchAggregate,
    NoSuchColumn,
    QueryError,
    UnknownScheme,
)
from titan_lab.notebook.completion import OPTIONS
from titan_lab.notebook.magics import TitanMagics
from titan_lab.notebook.refresh import executed
from titan_lab.notebook.session import Session

ROOT = Path(__file__).parents[1]
URL = "sqlite:///data/samples/orders.db"
PHONE = "550e8400-e29b-41d4-a716-446655440000"
NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def book() -> Book:
    return tl.open(URL).fold(tl.Order)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    made = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    made.extension_manager.load_extension("titan_lab")
    yield made
    made.atexit_operations()
    atexit.unregister(made.atexit_operations)


@pytest.fixture
def ask(shell, book, capsys):
    """Run a cell where the samples are open, and give what it ends with, or raise what it raises."""
    shell.user_ns |= {"book": book, "noon": NOON, "phone": PHONE, "wanted": ["status", "total"]}

    def run(cell: str):
        done = shell.run_cell(cell)
        capsys.readouterr()
        done.raise_error()
        return done.result

    return run


# --- THEY RETURN OBJECTS -----------------------------------------------------------------------------------


def test_open_folds_a_store_and_keeps_the_book_under_a_name(shell, capsys) -> None:
    """From then on it is an ordinary variable, and the one that the other magics ask."""
    found = shell.run_cell(f"%titan open {URL} --as orders").result

    assert isinstance(found, Book)
    assert shell.user_ns["orders"] is found
    assert len(shell.run_cell("%at 2025-01-15").result) == len(found.at("2025-01-15"))


def test_at_is_the_books_at(ask, book) -> None:
    """With each of its options."""
    assert_frame_equal(ask("%at 2025-01-15"), book.at("2025-01-15"))
    assert_frame_equal(
        ask("%at 2025-01-15 --columns total,status"), book.at("2025-01-15", columns=["total", "status"])
    )
    assert_frame_equal(
        ask("%at 2025-01-01T10:30Z --known-at 2025-01-02 --cut latest"),
        book.at("2025-01-01T10:30Z", known_at="2025-01-02", cut="latest"),
    )


def test_diff_is_the_books_diff(ask, book) -> None:
    """With each of its options."""
    expected = book.diff("2025-01-14", "2025-01-15", columns="status", cut="filter")
    assert_frame_equal(ask("%diff 2025-01-14 2025-01-15 --columns status --cut filter"), expected)


def test_order_is_a_story_or_one_of_its_states(ask, book) -> None:
    """A life; a state at an instant; a state after a version."""
    assert ask(f"%order {PHONE}").log().equals(book[PHONE].log())
    assert ask(f"%order {PHONE} --at 2025-01-01T11:00Z") == book[PHONE].at("2025-01-01T11:00Z")
    assert ask(f"%order {PHONE} --version 3") == book[PHONE].at(version=3)


def test_sql_binds_variables_and_keeps_the_answer_where_it_is_told_to(ask, shell, book) -> None:
    """The first line is the magic's, the rest is SQL and is not touched."""
    shell.user_ns |= {"least": 100, "kept": ["PAID"]}
    cell = """%%titan_sql --at {noon} --into found
    SELECT aggregate_id FROM states
    WHERE status IN :kept AND total > :least AND '{phone} $phone :x' LIKE '%{phone}%' ORDER BY 1"""

    answer = ask(cell)

    states = book.at(NOON).filter(pl.col("status") == "PAID", pl.col("total") > 100)
    assert answer["aggregate_id"].to_list() == states["aggregate_id"].to_list()
    assert shell.user_ns["found"] is answer


def test_a_magic_can_be_assigned_from(ask, shell) -> None:
    """It is an expression as any other."""
    ask("then = %at {noon} --columns status")
    assert shell.user_ns["then"].columns == ["aggregate_id", "version", "status"]


def test_the_status_lists_the_books_however_they_were_made(ask, shell, book) -> None:
    """Branches made in Python are books, too; what cells showed is no variable of the user's."""
    shell.user_ns |= {"kept": book.branch().without(event_type="OrderCancelled"), "_12": book, "n": 1}

    session = ask("%titan")

    assert isinstance(session, Session)
    assert list(session.books()) == ["book", "kept"]
    assert repr(session).startswith("<Session: *book: <Timeline of Order: 500 aggregates")
    assert "kept" in session._repr_html_()
    assert "0x" not in repr(session)


def test_another_book_is_asked_for_once_or_from_now_on(ask, shell, book) -> None:
    """--of asks once; use asks from now on."""
    kept = book.branch().without(event_type="OrderCancelled")
    shell.user_ns["kept"] = kept

    assert_frame_equal(ask("%at 2025-01-15 --of kept"), kept.at("2025-01-15"))
    assert_frame_equal(ask("%at 2025-01-15"), book.at("2025-01-15"))
    assert ask("%titan use kept") is kept
    assert_frame_equal(ask("%at 2025-01-15"), kept.at("2025-01-15"))


def test_an_aggregate_is_named_by_its_module_or_as_a_class_of_the_notebook(ask, shell) -> None:
    """And tl.Order is what is meant without one."""

    class Parcel(tl.Aggregate):
        sent = tl.first(tl.OrderShipped, "timestamp")

    shell.user_ns["Parcel"] = Parcel

    assert ask(f"%titan open {URL} --as parcels --aggregate Parcel").aggregate is Parcel
    assert ask(f"%titan open {URL} --as o --aggregate titan_lab.orders.order:Order").aggregate is tl.Order


# --- NAMES IN BRACES ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "%at {noon} --columns {wanted}",
        "%at $noon --columns $wanted",
        "%at {noon + timedelta(0)} --columns {','.join(wanted)}",
        "%at {noon.isoformat()} --columns 'status,total'",
        '%at "{noon}" --columns {[name for name in wanted]}',
        "%at '2025-01-15 12:00Z' --columns {wanted[0]},total",
        "%at 2025-01-15T12:00Z --columns status,{wanted[-1]}",
    ],
)
def test_a_variable_is_written_in_braces_or_after_a_dollar(ask, shell, line, book) -> None:
    """Expressions, too; instants keep their zone and their place as one word, lists get commas."""
    shell.user_ns["timedelta"] = timedelta
    assert_frame_equal(ask(line), book.at(NOON, columns=["status", "total"]))


def test_a_date_is_its_first_instant(ask, shell, book) -> None:
    """As everywhere."""
    shell.user_ns["day"] = date(2025, 1, 15)
    assert_frame_equal(ask("%at {day}"), book.at("2025-01-15"))


def test_a_variable_of_a_function_is_found(ask, shell, book) -> None:
    """A magic inside of a function sees what the function sees."""
    ask("def look(when):\n    return get_ipython().run_line_magic('at', '{when}')")
    assert_frame_equal(ask("look('2025-01-15')"), book.at("2025-01-15"))


def test_what_is_no_variable_stays_as_it_is_written(ask) -> None:
    """An id may hold braces and dollars, and its error shows it whole."""
    for word in ("{nobody}", "$nobody", "{", "a}b", "{1 +}"):
        with pytest.raises(NoSuchAggregate, match=re.escape(f"no aggregate '{word}'")):
            ask(f"%order {word}")


def test_a_value_is_one_word_whatever_it_holds(ask, shell) -> None:
    """Text from a payload becomes an argument, and never an option or a second argument."""
    shell.user_ns["evil"] = "x --version 1 'y"
    with pytest.raises(NoSuchAggregate, match=re.escape("x --version 1 'y")):
        ask("%order {evil}")


# --- THEY FAIL LOUDLY --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error", "told"),
    [
        ("%at", MagicError, r"%at: the following arguments are required: INSTANT(.|\n)*hint: %at\? shows"),
        ("%at 2025-01-15 14:00Z", MagicError, "unrecognized arguments: 14:00Z"),
        ("%at 2025-01-15 --cut sideways", MagicError, "invalid choice: 'sideways'"),
        ("%at 2025-01-15T14:00", InstantError, "has no time zone"),
        ("%at yesterday", InstantError, "is no instant"),
        ("%at 2025-01-15 --columns totl", NoSuchColumn, "Did you mean 'total'"),
        ("%at 2025-01-15 --of boook", MagicError, "Did you mean 'book'"),
        ("%at 2025-01-15 --of noon", MagicError, "noon is a datetime, and no book"),
        ("%order 550e", NoSuchAggregate, f"did you mean '{PHONE}'"),
        (f"%order {PHONE} --version two", MagicError, "invalid int value: 'two'"),
        (f"%order {PHONE} --version 2 --at 2025-01-15", InstantError, "is no instant"),
        ("%diff 2025-01-15", MagicError, "required: T1"),
        ("%diff 2025-01-15 2025-01-14", InstantError, "is before"),
        ("%titan open", MagicError, "%titan open needs a name"),
        ("%titan opne", MagicError, "Did you mean 'open'"),
        ("%titan open nowhere.db", UnknownScheme, "no backend"),
        (f"%titan open {URL} --as noon", MagicError, "noon is a datetime of yours"),
        (f"%titan open {URL} --as class", MagicError, "'class' is no name"),
        (f"%titan open {URL} --aggregate Ordre", MagicError, "no aggregate 'Ordre'"),
        (f"%titan open {URL} --aggregate nowhere:Order", MagicError, "cannot be imported"),
        (f"%titan open {URL} --aggregate titan_lab.errors:TitanError", MagicError, "is no Aggregate"),
        ("%%titan_sql\nSELECT :nothing", QueryError, "asks for :nothing"),
        ("%%titan_sql --into 1x\nSELECT 1", MagicError, "'1x' is no name"),
        ("%%titan_sql --fast\nSELECT 1", MagicError, "unrecognized arguments: --fast"),
    ],
)
def test_a_wrong_line_raises_an_error_that_helps(ask, line, error, told) -> None:
    """No error is printed, none is a UsageError: a checker of notebooks would see neither."""
    with pytest.raises(error, match=told):
        ask(line)


def test_without_a_book_the_error_says_how_to_get_one(shell, capsys) -> None:
    """The first thing that everybody will see once."""
    done = shell.run_cell("%at 2025-01-15")
    with pytest.raises(MagicError, match="no book is open\n  hint: %titan open sqlite"):
        done.raise_error()


@pytest.mark.parametrize("cell", ["%at 2025-01-15", "%titan shut", "%%titan_sql\nSELECT 1 FROM nowhere"])
def test_a_magic_that_fails_fails_the_notebook(cell, tmp_path, monkeypatch) -> None:
    """In a real kernel, where other magics only print."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = [nbformat.v4.new_code_cell(source) for source in ("%load_ext titan_lab", cell)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "fails.ipynb")

    with pytest.raises(CellExecutionError, match="MagicError"):
        executed(tmp_path / "fails.ipynb")


# --- HELP, COMPLETION, LOADING -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_help_shows_options_and_examples_that_can_be_read(shell, name) -> None:
    """`%at?` is the docstring that the parser writes; completion offers the options that it knows."""
    kind = "cell" if name == "titan_sql" else "line"
    magic = getattr(TitanMagics, name)
    text = shell.find_magic(name, kind).__doc__

    assert re.search(rf"Examples?:\n\n +%+{name}", text)
    known = {word for action in magic.parser._actions for word in action.option_strings}
    assert {option for option in OPTIONS[name] if option.startswith("--")} == known


def completed(shell, cell: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [one.text for one in shell.Completer.completions(cell, len(cell))]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%order 550e", [PHONE]),
        ("x = %order 550e8400-e2", [PHONE]),
        ("%at 2025-01-15 --columns st", ["status"]),
        ("%at 2025-01-15 --columns status,to", ["total"]),
        ("%at 2025-01-15 --kn", ["--known-at"]),
        ("%at 2025-01-15 --cut f", ["filter"]),
        ("%diff 2025-01-15 2025-01-16 --of bo", ["book"]),
        ("%titan o", ["open"]),
        ("%titan use ", ["book"]),
        ("%titan open s", ["sqlite://"]),
        ("%%titan_sql --in", ["--into"]),
        ("%%titan_sql\nSELECT * FROM sta", ["states", "status"]),
        ("%%titan_sql\nSELECT pay", ["payload"]),
        ("%%titan_sql\nSELECT * FROM events WHERE event_type = 'OrderS", ["OrderShipped"]),
    ],
)
def test_tab_completes_ids_columns_tables_types_and_options(ask, shell, cell, expected) -> None:
    """Only those that fit where the cursor is."""
    ask("1")
    assert sorted(completed(shell, cell)) == sorted(expected)


def test_completion_is_silent_where_there_is_no_book_and_outside_of_the_magics(shell) -> None:
    """A Tab key raises no error and leaves Python's own completion alone."""
    assert completed(shell, "%order 550e") == []
    assert "print" in completed(shell, "prin")


def test_loading_twice_is_loading_once_and_unloading_leaves_nothing(shell) -> None:
    """A notebook's first cell is run again and again."""
    before = len(shell.Completer.custom_matchers)
    shell.extension_manager.reload_extension("titan_lab")
    assert len(shell.Completer.custom_matchers) == before

    shell.extension_manager.unload_extension("titan_lab")
    assert shell.find_line_magic("at") is None
    assert shell.find_cell_magic("titan_sql") is None
    assert len(shell.Completer.custom_matchers) == before - 1


def test_every_magic_on_the_page_does_what_the_page_says(shell, capsys) -> None:
    """The blocks of docs/magics.md, cell by cell, in their order."""
    page = (ROOT / "docs" / "magics.md").read_text()
    cells = re.findall(r"```ipython\n(.*?)```", page, re.DOTALL)

    for cell in cells:
        shell.run_cell(cell).raise_error()

    names = shell.user_ns
    assert len(cells) >= 5
    assert names["then"].columns == ["aggregate_id", "version", "status", "total"]
    assert names["waiting"]["status"].to_list() == ["PAID", "SHIPPED"]
