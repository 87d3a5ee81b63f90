"""Parameters travel from a command line or a program into a notebook without being mangled."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_lab.errors import InstantError, JobError
from titan_lab.jobs.parameters import parameters_of, resolve
from titan_lab.redacted import redact


def declared(source: str):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
    return parameters_of({"cells": [cell]}, "a.ipynb")


CELL = '''"""What this job needs."""
source: str = "sqlite:///a.db?mode=ro"  # where the events are
as_of: str = ""                         # the instant it is about
n: int = 3; m = 4
ratio: float = 0.5
dry_run: bool = True  # write nothing
who: str | None = None
tags: list[str] = ["a", "b"]
where: dict[str, int] = {"a": 1}
computed: int = len("abc")
must: int
'''


def test_the_cell_is_read_as_python_with_types_defaults_and_help():
    """Several on a line, text that holds "=", unions and values without a default are all understood."""
    found = {p.name: p for p in declared(CELL)}

    assert list(found) == [
        "source",
        "as_of",
        "n",
        "m",
        "ratio",
        "dry_run",
        "who",
        "tags",
        "where",
        "computed",
        "must",
    ]
    assert (
        found["source"].kind,
        found["source"].default,
        found["source"].help,
    ) == ("str", "sqlite:///a.db?mode=ro", "where the events are")
    assert (found["m"].kind, found["m"].default) == ("int", 4)
    assert (found["who"].optional, found["who"].default, found["who"].kind) == (True, None, "str")
    assert (found["tags"].default, found["tags"].annotation) == (["a", "b"], "list[str]")
    assert (found["computed"].computed, found["computed"].required) == (True, False)
    assert (found["must"].computed, found["must"].required) == (False, True)


def test_a_notebook_without_the_cell_takes_no_parameters():
    """Nothing is declared, so nothing can be given."""
    assert parameters_of({"cells": [{"cell_type": "code", "metadata": {}, "source": "x = 1"}]}) == []
    with pytest.raises(JobError, match="no parameter 'x'"):
        resolve([], {"x": 1})


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("00123", "str", "00123"),
        ("1e10", "str", "1e10"),
        ("1.10", "str", "1.10"),
        ("None", "str", "None"),
        ("", "str", ""),
        ("-7", "int", -7),
        ("0.1", "float", 0.1),
        ("false", "bool", False),
        ("True", "bool", True),
        ("0", "bool", False),
        ("a, b", "list", ["a", "b"]),
        ('["00123", 1.10]', "list", ["00123", "1.10"]),
        ('{"a": "001"}', "dict", {"a": "001"}),
    ],
)
def test_text_is_read_by_the_declared_type_and_nothing_else(text, kind, value):
    """Ids keep their zeros, amounts their cents, and "false" is False where a bool was declared."""
    assert {"x": value} == resolve(declared(f"x: {kind}"), {"x": text})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "1_000"),
        ("int", "1.0"),
        ("int", True),
        ("int", 1.0),
        ("float", "much"),
        ("float", "1_0"),
        ("bool", "perhaps"),
        ("bool", 1),
        ("str", 123),
        ("str", None),
        ("list", "[1"),
        ("dict", "[1]"),
        ("dict", "a"),
    ],
)
def test_a_value_of_another_type_is_refused_with_an_example(kind, value):
    """What was found, what was declared, and how to write it."""
    with pytest.raises(JobError, match=rf"'x' is declared {kind}.*none") as caught:
        resolve(declared(f"x: {kind}  # how many"), {"x": value})
    assert "x=" in caught.value.hint
    assert "how many" in caught.value.hint


def test_none_is_a_value_only_where_it_is_allowed():
    """`str | None` takes None, from a program and from a command line."""
    assert resolve(declared("x: str | None = None"), {"x": None}) == {"x": None}
    assert resolve(declared("x: Optional[int] = 3"), {"x": "None"}) == {"x": None}


def test_instants_travel_as_iso_text_in_utc():
    """A datetime becomes text; a text for `as_of` is checked and passed on as it was written."""
    berlin = datetime(2025, 1, 15, 14, 30, tzinfo=timezone(timedelta(hours=1)))
    both = declared("as_of: str = ''\nsince: str = ''")

    assert resolve(both, {"as_of": berlin, "since": berlin}) == {
        "as_of": "2025-01-15T13:30:00Z",
        "since": "2025-01-15T13:30:00Z",
    }
    assert resolve(both, {"as_of": "2025-01-15"}) == {"as_of": "2025-01-15"}


@pytest.mark.parametrize("value", ["2025-01-15T10:00", "yesterday", datetime(2025, 1, 15), 7])
def test_an_as_of_that_is_no_instant_is_refused(value):
    """A naive one too: the report would be about another moment than the one meant."""
    with pytest.raises(InstantError):
        resolve(declared("as_of: str = ''"), {"as_of": value})


def test_exact_values_of_a_program_become_their_exact_text():
    """A Decimal never becomes a float on the way."""
    key = UUID("550e8400-e29b-41d4-a716-446655440000")
    given_values = {"x": Decimal("1.10"), "y": key, "z": PurePosixPath("a/b"), "l": (Decimal("0.10"),)}

    found = resolve(declared("x: str\ny: str\nz: str\nl: list"), given_values)

    assert {"x": "1.10", "y": str(key), "z": "a/b", "l": ["0.10"]} == found


def test_an_unknown_name_suggests_the_near_one():
    """A misspelt parameter never silently leaves the default in place."""
    with pytest.raises(JobError, match="no parameter 'asof'") as caught:
        resolve(declared("as_of: str = ''\ntop: int = 3"), {"asof": "2025-01-15"})
    assert "'as_of'" in caught.value.hint
    with pytest.raises(JobError) as caught:
        resolve(declared("top: int = 3"), {"verbose": True})
    assert "top" in caught.value.hint


def test_a_dash_is_an_underscore():
    """A command line says --as-of."""
    assert resolve(declared("as_of: str = ''"), {"as-of": "2025-01-15"}) == {"as_of": "2025-01-15"}


def test_a_value_without_default_must_be_given():
    """All that are missing are named at once."""
    with pytest.raises(JobError, match="'a', 'c'"):
        resolve(declared("a: int\nb: int = 1\nc: str"), {})


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "apiKey", "api_key", "TOKEN", "client_secret", "secrets", "access_key_id"],
)
def test_what_looks_like_a_secret_is_refused(name):
    """Parameters end up in clear in the executed notebook."""
    with pytest.raises(JobError, match="looks like a secret") as caught:
        resolve(declared(f"{name.lower()}: str = ''"), {name: "x"})
    assert "environment" in caught.value.hint


@pytest.mark.parametrize("name", ["tokenizer", "keyword", "api", "key", "secretary", "passed"])
def test_an_innocent_name_is_not_taken_for_a_secret(name):
    """Whole words count, not letters."""
    assert {name: "x"} == resolve(declared(f"{name}: str = ''"), {name: "x"})


@pytest.mark.parametrize("value", ["postgresql://u:p@host/db", ["x", "postgresql://u:p@host/db"]])
def test_a_url_with_a_password_is_refused(value):
    """Given or as a default, alone or inside a list."""
    with pytest.raises(JobError, match="URL with a password"):
        resolve(declared("source: str = ''\nl: list"), {"source" if isinstance(value, str) else "l": value})
    with pytest.raises(JobError, match="URL with a password"):
        declared(f"x = {value!r}")


def test_urls_without_a_password_stay_whole():
    """A user alone, a port, a path with a colon are no secrets."""
    for url in (
        "postgresql://u@host:5432/db",
        "sqlite:////a:b@c",
        "http://host:80/@x",
        "kafka://h:9092/topic",
    ):
        assert url == redact(url)


@pytest.mark.parametrize("annotation", ["Decimal", "datetime", "Path", "set[str]", "int | str"])
def test_a_type_that_cannot_travel_is_refused_where_it_is_declared(annotation):
    """The notebook's author is told, not the one who runs it at night."""
    with pytest.raises(JobError, match="cannot travel"):
        declared(f"x: {annotation} = None")


def test_a_cell_that_is_no_python_names_the_line():
    """A magic in the parameters cell is the usual cause."""
    with pytest.raises(JobError, match="no plain Python: line 2"):
        declared("x = 1\n%load_ext nothing here")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.lists(plain, max_size=3))
def test_any_value_arrives_in_the_kernel_as_it_was_given(text, values):
    """Quotes, backslashes, newlines, anything: what the injected cell assigns is what was passed."""
    from papermill.translators import PythonTranslator

    seen: dict = {}
    exec(PythonTranslator.codify(resolve(declared("x: str\ny: list"), {"x": text, "y": values})), seen)

    assert (text, values) == (seen["x"], seen["y"])


def test_a_long_text_is_looked_through_at_once() -> None:
    """A traceback of megabytes must not hold up the end of a run."""
    word = "x" * 2_000_000
    assert redact(f"{word}://me:secret@host") == f"{word}://me:***@host"
