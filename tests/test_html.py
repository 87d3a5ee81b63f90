"""HTML for reprs: safe whatever a payload says, and the same bytes each time."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pytest

from titan_lab.notebook import html

NASTY = "<script>alert('x')</script>\"&"


@pytest.mark.parametrize(
    "made",
    [
        html.table([[NASTY]], [NASTY], NASTY, NASTY),
        html.table([{NASTY: NASTY}]),
        html.table(pl.DataFrame({NASTY: [NASTY * 9]})),
        html.card(NASTY, {NASTY: NASTY}, NASTY),
        html.tiles([(NASTY, NASTY, NASTY)], {NASTY: NASTY}, NASTY),
    ],
)
def test_no_text_becomes_markup(made):
    """Values, headings, captions, notes, titles of cut cells: all are escaped."""
    assert "<script" not in made
    assert "&lt;script&gt;" in made
    assert "alert('x')" not in made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (Decimal("1234.50"), "1,234.50"),
        (Decimal("1E+3"), "1,000"),
        (0.123456, "0.1235"),
        (datetime(2025, 1, 1, 12, 0, 0, 250000, tzinfo=UTC), "2025-01-01 12:00:00.25Z"),
        (datetime(2025, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2025-01-01 00:00:00Z"),
        (date(2025, 1, 1), "2025-01-01"),
        (timedelta(days=13, hours=11), "13 d 11 h"),
        (timedelta(minutes=-5), "-5 min 0 s"),
        (timedelta(seconds=1.5), "1.5 s"),
        ([], "–"),
        (["a", "b"], "2 × a"),
        ({"a": 1}, "a=1"),
        ("text", "text"),
    ],
)
def test_values_are_written_one_way_everywhere(value, text):
    """UTC with Z, money with its digits, counts with separators."""
    assert html.shown(value) == text


def test_a_long_table_says_how_much_it_left_off():
    """Rows beyond the limit are counted, never silently dropped; an empty one says so too."""
    long = html.table(pl.DataFrame({"n": range(50)}), limit=10)

    assert long.count("<tr>") == 11
    assert "first 10 of 50 rows" in long
    assert "no rows" in html.table([], ["n"])


def test_numbers_stand_to_the_right_and_missing_keys_are_dashes():
    """A column of numbers with a gap is still one of numbers."""
    made = html.table([{"n": 1, "s": "a"}, {"s": "b"}], ["n", "s"])

    assert '<th scope="col" class="titan-number">n</th>' in made
    assert '<td class="titan-none titan-number">–</td>' in made
    assert '<th scope="col">s</th>' in made


def test_a_cell_that_ends_with_it_is_drawn_and_its_text_is_short():
    """It is a str for `_repr_html_` of others, and shows itself in a notebook."""
    made = html.table([[1]], ["n"])

    assert isinstance(made, str)
    assert made._repr_html_() == str(made)
    assert repr(made) == "<table of 1 rows: n>"
    assert repr(html.tiles([("open", 71, "")])) == "<open 71>"


def test_importing_it_loads_nothing_but_the_standard_library():
    """Every object that shows itself pays for this import."""
    heavy = "polars", "numpy", "plotly", "IPython"
    code = f"import sys, titan_lab.notebook.html; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"
