"""The public face: one sorted list of names, each importable, none of them paid for before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import titan_lab as tl

SOURCE = Path(tl.__file__)
HEAVY = [
    "numpy",
    "pandas",
    "plotly",
    "polars",
    "pyarrow",
    "sqlite3",
    "click",
    "rich",
    "papermill",
    "nbformat",
]


def typed_names() -> dict[str, str]:
    """Read the imports that only a type checker sees: public name -> where it comes from."""
    found = {}
    for block in ast.parse(SOURCE.read_text()).body:
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING":
            for line in block.body:
                assert isinstance(line, ast.ImportFrom)
                for alias in line.names:
                    inside = "" if alias.asname in (None, alias.name) else f":{alias.name}"
                    place = (line.module or "").removeprefix("titan_lab.")
                    found[alias.asname or alias.name] = place + inside
    return found


def test_the_names_are_sorted_and_no_name_is_there_twice() -> None:
    """A reader finds a name where the alphabet puts it."""
    assert list(tl.__all__) == sorted(set(tl.__all__))


@pytest.mark.parametrize("name", tl.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    """What the face promises is there, and is what its name says."""
    assert getattr(tl, name).__name__ == {"open": "open_log"}.get(name, name)


def test_a_type_checker_sees_the_same_names_from_the_same_places() -> None:
    """The table that is loaded from, and the imports that are typed by, must not drift apart."""
    assert typed_names() == tl._PUBLIC


def test_dir_lists_what_can_be_used() -> None:
    """Completion in a notebook shows the public names."""
    assert dir(tl) == list(tl.__all__)


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    """A typing error in a notebook should not need the docs."""
    with pytest.raises(AttributeError, match=r"titan_lab has no 'opne'; it has .*\bopen\b"):
        tl.opne  # noqa: B018


def test_importing_it_loads_no_frame_library_and_no_driver() -> None:
    """`import titan_lab` is nearly free; what is used is loaded when it is used."""
    seen = subprocess.run(
        [sys.executable, "-c", "import sys, titan_lab; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "titan_lab" in seen
    assert [name for name in HEAVY if name in seen] == []


def test_reading_and_folding_a_store_loads_no_optional_package() -> None:
    """An analyst without the extras gets answers; pandas and plotly are somebody else's choice."""
    code = (
        "import sys, titan_lab as tl;"
        "tl.open('sqlite:///data/samples/orders.db').fold(tl.Order).at('2025-01-15');"
        "print(*sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    optional = ["duckdb", "hypothesis", "pandas", "papermill", "plotly", "pytest", "titan_lab.testing"]
    assert [name for name in optional if name in seen.split()] == []


def test_the_docstring_draws_the_river_and_names_only_what_exists() -> None:
    """The first thing that `help(titan_lab)` shows."""
    assert tl.__doc__ is not None
    for word in ("EVENTS", "upcast", "fold", "at · asof · every · history"):
        assert word in tl.__doc__
