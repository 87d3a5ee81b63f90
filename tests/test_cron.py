"""Cron rules: due at the instants that the clocks of a zone show, once each, also when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_lab.clock import instant
from titan_lab.errors import InstantError, JobError
from titan_lab.jobs import cron
from titan_lab.jobs.cron import Rule
from titan_lab.testing.slow_cron import Fields, due

# Days on which clocks change: at two, at midnight, by half an hour, and one on which they do not.
CHANGES = {
    "Europe/Berlin": ("2025-03-30", "2025-10-26"),
    "America/Sao_Paulo": ("2018-11-04", "2018-02-18"),
    "America/Havana": ("2025-03-09", "2025-11-02"),
    "Australia/Lord_Howe": ("2025-10-05", "2025-04-06"),
    "UTC": ("2024-02-29",),
}
PLACES = [(zone, day) for zone, days in CHANGES.items() for day in days]


def sets(most: int) -> st.SearchStrategy:
    return st.none() | st.sets(st.integers(0, most), min_size=1, max_size=4)


@st.composite
def questions(draw):
    """A rule, a zone, and a span around a change of its clocks."""
    zone, day = draw(st.sampled_from(PLACES))
    hours = st.none() | st.sets(st.integers(0, 4) | st.integers(0, 23), min_size=1, max_size=4)
    weekdays = st.none() | st.sets(st.integers(0, 6), min_size=1, max_size=4)
    days = st.none() | st.just({instant(day).day})
    fields = Fields(draw(sets(59)), draw(hours), draw(days), draw(weekdays))
    after = instant(day) - timedelta(minutes=draw(st.integers(0, 26 * 60)), seconds=draw(st.integers(0, 59)))
    return fields, zone, after, after + timedelta(minutes=draw(st.integers(0, 50 * 60)))


def the_rule_is_due_when_the_walk_says(question) -> None:
    fields, zone, after, until = question
    assert list(Rule(fields.text(), zone).between(after, until)) == due(fields, zone, after, until)


@given(questions())
@settings(max_examples=150, deadline=None)
def test_a_rule_is_due_at_the_minutes_that_a_walk_over_all_of_them_finds(question):
    """Skipped hours, repeated ones, midnights that are not there."""
    the_rule_is_due_when_the_walk_says(question)


def test_a_rule_that_forgets_what_clocks_do_is_noticed(monkeypatch):
    """The planted bug: in the second of two equal hours it begins with what was due in the first."""
    monkeypatch.setattr(
        cron.Rule, "after", lambda self, moment: (f.astimezone(UTC) for f in self._steps(instant(moment)))
    )
    again = Fields({30}, {2}), "Europe/Berlin", instant("2025-10-26T01:10Z"), instant("2025-10-27T12:00Z")

    with pytest.raises(AssertionError):
        the_rule_is_due_when_the_walk_says(again)


@pytest.mark.parametrize(
    ("zone", "rule", "since", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2025-03-29T12:00Z", ["2025-03-30T01:00Z", "2025-03-31T00:30Z"]),
        ("Europe/Berlin", "30 2 * * *", "2025-10-25T12:00Z", ["2025-10-26T00:30Z", "2025-10-27T01:30Z"]),
        ("America/Sao_Paulo", "0 0 * * *", "2018-11-03T12:00Z", ["2018-11-04T03:00Z", "2018-11-05T02:00Z"]),
        ("America/Sao_Paulo", "30 23 * * *", "2018-02-17T12:00Z", ["2018-02-18T01:30Z", "2018-02-19T02:30Z"]),
    ],
)
def test_an_hour_that_is_skipped_or_comes_twice_is_due_once(zone, rule, since, expected):
    """Berlin changes at two and three, São Paulo changed at midnight."""
    found = Rule(rule, zone).after(since)

    assert [next(found), next(found)] == [instant(e) for e in expected]


def test_what_was_due_in_the_first_of_two_equal_hours_is_not_due_again_in_the_second():
    """A scheduler that starts in the second one."""
    rule = Rule("30 2 * * *", "Europe/Berlin")

    assert rule.next("2025-10-26T01:10Z") == instant("2025-10-27T01:30Z")


def test_an_hourly_rule_counts_hours_as_they_go_by():
    """25 on the long day, 23 on the short one."""
    rule = Rule("0 * * * *", "Europe/Berlin")

    lengths = [
        len(list(rule.between(instant(a, "Europe/Berlin"), instant(b, "Europe/Berlin"))))
        for a, b in [("2025-03-30", "2025-03-31"), ("2025-10-26", "2025-10-27"), ("2025-06-01", "2025-06-02")]
    ]

    assert lengths == [23, 25, 24]


def test_the_latest_instant_and_whether_one_belongs_to_the_rule():
    """Also for a rule that is due every few years."""
    monthly, leap = Rule("0 6 L * *"), Rule("0 0 29 2 *")

    assert monthly.latest("2025-03-31T05:59Z") == instant("2025-02-28T06:00Z")
    assert monthly.latest("2025-03-31T06:00Z") == instant("2025-03-31T06:00Z")
    assert monthly.has("2025-02-28T06:00Z")
    assert not monthly.has("2025-02-28T06:00:00.000001Z")
    assert leap.latest("2027-12-01") == instant("2024-02-29")


@pytest.mark.parametrize("text", ["0 25 * * *", "0 6 * *", "0 0 30 2 *", "every day", "0 0 6 * * *", ""])
def test_text_that_is_no_rule_is_refused(text):
    """With an example of one."""
    with pytest.raises(JobError, match="is no cron rule") as error:
        Rule(text)
    assert "0 6 * * MON-FRI" in error.value.hint


def test_a_zone_that_is_none_is_refused():
    """By the clock's own error."""
    with pytest.raises(InstantError, match="no time zone"):
        Rule("0 6 * * *", "Europe/Berlim")


def test_an_instant_is_told_by_both_clocks():
    """What people read, and what the file says."""
    assert cron.told(datetime(2025, 7, 1, 4, tzinfo=UTC), "Europe/Berlin") == (
        "2025-07-01 06:00 CEST (2025-07-01T04:00:00Z)"
    )
