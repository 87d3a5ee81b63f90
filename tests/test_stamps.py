"""Timestamps as this package writes them are read digit by digit, and mean what Python reads in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from titan_lab import stamps
from titan_lab.event import TIMESTAMP, moments

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GOOD = "2025-01-01T10:00:00.000000Z"


def written(moment: datetime) -> str:
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S.%f}Z"


def read_as_python_does(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def every_moment_is_read_as_python_does(wanted: list[datetime]) -> None:
    found = stamps.microseconds(pl.Series([written(moment) for moment in wanted]))
    assert found is not None
    assert found.tolist() == [read_as_python_does(moment) for moment in wanted]


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=1))
def test_every_moment_is_read_as_python_does(wanted):
    every_moment_is_read_as_python_does(wanted)


def test_the_ends_of_years_and_leap_days_are_read():
    days = [(1, 1, 1), (1900, 2, 28), (1900, 3, 1), (2000, 2, 29), (2024, 2, 29), (9999, 12, 31)]
    every_moment_is_read_as_python_does([datetime(*day, 23, 59, 59, 999_999, UTC) for day in days])


def test_a_bug_in_the_digits_would_be_noticed(monkeypatch):
    monkeypatch.setattr(stamps, "_number", lambda digits: digits[-1].astype(np.int64))
    with pytest.raises(AssertionError):
        every_moment_is_read_as_python_does([datetime(2024, 12, 31, 23, 59, 59, 999_999, UTC)])


@pytest.mark.parametrize(
    "text",
    [
        "1900-02-29T00:00:00.000000Z",
        "2023-04-31T00:00:00.000000Z",
        "2023-00-01T00:00:00.000000Z",
        "2023-13-01T00:00:00.000000Z",
        "2023-01-00T00:00:00.000000Z",
        "2023-01-01T24:00:00.000000Z",
        "2023-01-01T00:60:00.000000Z",
        "2023-01-01T00:00:60.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "2023-01-01 00:00:00.000000Z",
        "2023-01-01T00:00:00.00000aZ",
        "2023-01-01T00:00:00.000000z",
        "２023-01-01T00:00:00.0000Z",
        "2023-01-01T00:00:00Z",
        "",
        None,
    ],
)
def test_what_is_written_otherwise_is_left_to_others(text):
    assert stamps.microseconds(pl.Series([GOOD, text], dtype=pl.String)) is None


def test_a_slice_of_a_column_is_read_where_it_lies():
    texts = pl.Series([GOOD, "2025-01-01T10:00:01.000000Z", "2025-01-01T10:00:02.000000Z"])
    assert moments(texts[1:]).to_list() == [
        datetime(2025, 1, 1, 10, 0, second, tzinfo=UTC) for second in (1, 2)
    ]
    assert moments(texts[:0]).dtype == TIMESTAMP
