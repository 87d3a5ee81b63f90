"""Instants, zones and cuts, by example."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import polars as pl
import pytest

import titan_lab as tl
from titan_lab.clock import counted_from, duration, from_micros, instant, iso, micros, stepping_back
from titan_lab.errors import InstantError
from titan_lab.event import moments

TEN = datetime(2025, 1, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment",
    [
        TEN,
        datetime(2025, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        "2025-01-01T10:00:00Z",
        "2025-01-01T10:00Z",
        "2025-01-01 10:00:00+00:00",
        "2025-01-01T06:00:00-04:00",
        " 2025-01-01T10:00:00.000000Z ",
    ],
)
def test_one_instant_can_be_written_in_many_ways(moment: datetime | str) -> None:
    """Offsets, a space for the T, a fraction or none: the instant is the same, in UTC."""
    assert instant(moment) == TEN
    assert instant(moment).tzinfo is UTC


def test_a_microsecond_is_kept() -> None:
    """Two events a microsecond apart are two instants."""
    assert micros("2025-01-01T10:00:00.000001Z") - micros(TEN) == 1
    assert from_micros(micros("2025-01-01T10:00:00.000001Z")) == TEN + timedelta(microseconds=1)
    assert micros("1969-12-31T23:59:59.999999Z") == -1


@pytest.mark.parametrize("day", ["2025-01-01", date(2025, 1, 1)])
def test_a_bare_date_is_its_first_instant_in_the_zone(day: date | str) -> None:
    """Midnight in São Paulo is three in the morning in UTC; without a zone, midnight is UTC's."""
    assert iso(instant(day)) == "2025-01-01T00:00:00Z"
    assert iso(instant(day, zone="America/Sao_Paulo")) == "2025-01-01T03:00:00Z"


def test_a_local_time_that_happened_twice_is_the_first_of_the_two() -> None:
    """In Berlin, 02:30 on 26 October 2025 came at 00:30Z and once more at 01:30Z."""
    assert iso(instant("2025-10-26T02:30:00", zone="Europe/Berlin")) == "2025-10-26T00:30:00Z"
    column = moments(pl.Series([datetime(2025, 10, 26, 2, 30)]), "Europe/Berlin")
    assert iso(column[0]) == "2025-10-26T00:30:00Z"


def test_a_local_time_that_clocks_skipped_is_the_moment_they_did() -> None:
    """São Paulo had no midnight on 15 October 2017; its day began at 03:00Z, as text, date and column."""
    skipped = "2017-10-15T00:00:00"
    for moment in (skipped, datetime(2017, 10, 15), date(2017, 10, 15), "2017-10-15"):
        assert iso(instant(moment, zone="America/Sao_Paulo")) == "2017-10-15T03:00:00Z"
    for column in (
        pl.Series([skipped]),
        pl.Series([datetime(2017, 10, 15)]),
        pl.Series([date(2017, 10, 15)]),
    ):
        assert iso(moments(column, "America/Sao_Paulo")[0]) == "2017-10-15T03:00:00Z"


def test_a_moment_outside_of_the_calendar_is_no_instant() -> None:
    """The year 0 cannot be written down; in a column it is null, so that its row can be rejected."""
    for text in ("0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"):
        with pytest.raises(InstantError, match="years 1 to 9999"):
            instant(text)
        assert moments(pl.Series([text, "2025-01-01T10:00:00Z"])).to_list() == [None, TEN]


def test_a_time_with_a_zone_does_not_listen_to_the_logs_zone() -> None:
    """`zone=` fills in what is missing, and overrules nothing."""
    assert instant("2025-01-01T10:00:00Z", zone="America/Sao_Paulo") == TEN


@pytest.mark.parametrize("naive", ["2025-01-01T10:00:00", datetime(2025, 1, 1, 10)])
def test_a_naive_moment_is_an_error_that_names_both_ways_out(naive: datetime | str) -> None:
    """Ten o'clock where? Write the zone, or say once for the whole log where its clocks hang."""
    with pytest.raises(InstantError, match="2025-01-01T10:00:00 has no time zone") as caught:
        instant(naive)
    assert "'2025-01-01T10:00:00Z'" in str(caught.value.hint)
    assert "zone=" in str(caught.value.hint)


@pytest.mark.parametrize(
    "nonsense", ["yesterday", "", "2025-13-01", "2025-02-30T00:00Z", "10:00", 3, None, 1.5, True]
)
def test_what_is_no_instant_is_named_and_answered_with_an_example(nonsense: object) -> None:
    """The error shows what was given, and how an instant is written."""
    with pytest.raises(InstantError, match="is no instant") as caught:
        instant(nonsense)  # type: ignore[arg-type]
    assert repr(nonsense) in caught.value.message
    assert "2025-01-01T14:00Z" in str(caught.value.hint)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", "Europe"])
def test_a_zone_that_does_not_exist_is_an_error(zone: str) -> None:
    """Before anything is read, not after."""
    with pytest.raises(InstantError, match="is no time zone"):
        tl.open("memory://", zone=zone)


def test_lengths_of_time_read_as_people_write_them() -> None:
    """Days are 24 hours here; days of the calendar are steps of a grid."""
    assert duration("90s") == timedelta(seconds=90)
    assert duration("1d12h") == timedelta(hours=36)
    assert duration(timedelta(minutes=1)) == timedelta(minutes=1)
    for nonsense in ("1 fortnight", "", "1", "h", "-1h"):
        with pytest.raises(InstantError, match="is no length of time"):
            duration(nonsense)


def test_the_cuts_of_the_example_in_the_docs() -> None:
    """Version 2 is stamped after version 3; the prefix waits for it, latest takes it along."""
    stamps, starts = np.array([0, 2, 1]), np.array([0])
    assert counted_from(stamps, starts, "prefix").tolist() == [0, 2, 2]
    assert counted_from(stamps, starts, "latest").tolist() == [0, 1, 1]
    assert stepping_back(stamps, starts).tolist() == [True]


def test_a_clock_that_steps_back_moves_only_its_own_aggregate() -> None:
    """The lives before and after it keep their timestamps, although theirs are larger and smaller."""
    stamps = np.array([9, 9, 5, 7, 6, 1, 2])
    starts = np.array([0, 2, 5])
    assert counted_from(stamps, starts, "prefix").tolist() == [9, 9, 5, 7, 7, 1, 2]
    assert counted_from(stamps, starts, "latest").tolist() == [9, 9, 5, 6, 6, 1, 2]
    assert stepping_back(stamps, starts).tolist() == [False, True, False]


def test_equal_timestamps_are_no_step_back() -> None:
    """Two events of one transaction share a timestamp; their versions tell them apart."""
    assert stepping_back(np.array([1, 1]), np.array([0])).tolist() == [False]
