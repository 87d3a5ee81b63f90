"""Instants, zones and cuts: what a moment is, and which events belong to it.

A moment is an aware `datetime` in UTC with microseconds; inside frames it is an integer of microseconds
since 1970. A cut decides which events count at a moment T when an aggregate's versions and timestamps
disagree, as they do whenever a timestamp is the *start* of the transaction that wrote the row:

    version  timestamp     at T = 10:00:01, counted by
    1        10:00:00      prefix  filter  latest
    2        10:00:02                      latest      (stamped later than its successor)
    3        10:00:01              filter  latest

- ``prefix`` (the default): an event counts from the running maximum of its aggregate's timestamps, so a
  state is always made of v1..vk and no event shows before its own timestamp.
- ``filter``: every event with ``timestamp <= T``, whatever is missing between (plain SQL).
- ``latest``: every version up to the last one with ``timestamp <= T``.

On an aggregate whose timestamps never step back the three are the same.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from titan_lab.errors import InstantError

Instant: TypeAlias = datetime | date | str
Cut: TypeAlias = Literal["prefix", "filter", "latest"]
CUTS: tuple[Cut, ...] = ("prefix", "filter", "latest")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UNITS = {
    "us": "microseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}
BARE_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def zone_of(name: str | None) -> ZoneInfo | None:
    """Look a zone up by its IANA name, such as ``America/Sao_Paulo``; None stays None."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
        raise InstantError(
            f"{name!r} is no time zone", hint="use an IANA name such as 'UTC' or 'America/Sao_Paulo'"
        ) from error


def instant(moment: Instant, zone: str | None = None) -> datetime:
    """Turn a moment into an aware UTC datetime.

    Accepts an aware datetime, ISO-8601 text with a zone (``Z`` or an offset), and a date or ``YYYY-MM-DD``,
    which is its first instant in `zone` (UTC without one). A naive datetime takes `zone` if there is one.
    Where clocks were set back, a naive moment is the first of the two; a time that they skipped is read as
    the clock went before.

    Raises InstantError for a naive moment without a zone, and for what is no moment.

    >>> instant("2025-01-01T12:00:00+02:00")
    datetime.datetime(2025, 1, 1, 10, 0, tzinfo=datetime.timezone.utc)
    >>> instant("2025-01-01", zone="America/Sao_Paulo")
    datetime.datetime(2025, 1, 1, 3, 0, tzinfo=datetime.timezone.utc)
    """
    where = zone_of(zone)
    if isinstance(moment, str):
        text = moment.strip()
        if BARE_DATE.fullmatch(text):
            moment = _parse(date.fromisoformat, text, moment)
        else:
            moment = _parse(datetime.fromisoformat, text, moment)
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            if where is None:
                raise InstantError(
                    f"{moment.isoformat()} has no time zone, so it is not one instant",
                    hint=f"write '{moment.isoformat()}Z' for UTC, or open the log with zone='Europe/Berlin'",
                    found=moment,
                )
            moment = moment.replace(tzinfo=where)
        return _in_utc(moment)
    if isinstance(moment, date):
        return _in_utc(datetime(moment.year, moment.month, moment.day, tzinfo=where or UTC))
    raise InstantError(
        f"{moment!r} ({type(moment).__name__}) is no instant",
        hint="use an aware datetime or ISO text such as '2025-01-01T14:00Z'",
        found=moment,
    )


def micros(moment: Instant, zone: str | None = None) -> int:
    """Give a moment as whole microseconds since 1970-01-01T00:00Z."""
    return (instant(moment, zone) - EPOCH) // MICROSECOND


def interval(t0: Instant, t1: Instant, zone: str | None, call: str) -> tuple[int, int]:
    """Give two instants as microseconds; raise InstantError where the second comes before the first.

    call: how a question with these two is written, such as "book.diff({}, {})".
    """
    start, end = instant(t0, zone), instant(t1, zone)
    if end < start:
        raise InstantError(
            f"{iso(end)} is before {iso(start)}",
            hint=call.format(repr(iso(end)), repr(iso(start))),
            t0=start,
            t1=end,
        )
    return micros(start), micros(end)


def from_micros(value: int) -> datetime:
    """Give the aware UTC datetime of whole microseconds since 1970."""
    return EPOCH + timedelta(microseconds=int(value))


def iso(moment: datetime) -> str:
    """Write an instant as ISO-8601 in UTC with a ``Z``, without a fraction when there is none."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def duration(text: str | timedelta) -> timedelta:
    """Read a length of time such as ``"90s"``, ``"15m"``, ``"12h"``, ``"1d"``, ``"2w"`` or ``"1d12h"``."""
    if isinstance(text, timedelta):
        return text
    parts = re.findall(r"(\d+)(us|ms|s|m|h|d|w)", text) if isinstance(text, str) else []
    try:
        if parts and "".join(n + unit for n, unit in parts) == text.replace(" ", ""):
            return sum((timedelta(**{UNITS[unit]: int(n)}) for n, unit in parts), timedelta())
    except OverflowError:  # more days than there are
        pass
    raise InstantError(f"{text!r} is no length of time", hint="use '30m', '12h', '1d', '2w' or a timedelta")


def check_cut(cut: str) -> Cut:
    """Refuse a cut that has no meaning."""
    if cut not in CUTS:
        raise InstantError(f"{cut!r} is no cut", hint=f"the cuts are {', '.join(CUTS)}")
    return cut


def check_version(version: object) -> int:
    """Refuse what is no version of an event."""
    if not isinstance(version, int | np.integer) or isinstance(version, bool):
        raise InstantError(f"{version!r} is no version, which is a whole number", hint="version=3")
    if version < 0:
        raise InstantError(
            f"there is no version {version}", hint="version=0 is before the first event, 1 after it"
        )
    return int(version)


def counted_from(timestamps: np.ndarray, starts: np.ndarray, cut: Cut) -> np.ndarray:
    """Compute the instant from which each event counts, for the two cuts that are prefixes.

    timestamps: int64 microseconds, rows sorted by (aggregate, version). starts: first row of each aggregate.
    ``prefix`` is the running maximum within the aggregate, ``latest`` the running minimum from its end.
    Aggregates in order keep their timestamps; only those with a step back are touched.
    """
    backwards = stepping_back(timestamps, starts)
    if not backwards.any():
        return timestamps
    lengths = np.diff(starts, append=len(timestamps))
    rows = np.flatnonzero(np.repeat(backwards, lengths))
    lives = np.repeat(np.arange(int(backwards.sum())), lengths[backwards])
    moments, rank = np.unique(timestamps[rows], return_inverse=True)
    # One running extreme over all lives at once: a later life's keys are all larger than an earlier one's.
    key = lives * len(moments) + rank
    if cut == "prefix":
        key = np.maximum.accumulate(key)
    else:
        key = np.minimum.accumulate(key[::-1])[::-1]
    counted = timestamps.copy()
    counted[rows] = moments[key % len(moments)]
    return counted


def stepping_back(timestamps: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Tell for each aggregate whether some event is stamped earlier than its predecessor."""
    if not len(starts):
        return np.zeros(0, dtype=bool)
    back = np.zeros(len(timestamps), dtype=bool)
    back[1:] = timestamps[1:] < timestamps[:-1]
    back[starts] = False
    if not back.any():
        return np.zeros(len(starts), dtype=bool)
    return np.logical_or.reduceat(back, starts)


def _parse(read, text: str, moment: object):  # type: ignore[no-untyped-def]
    try:
        return read(text)
    except ValueError as error:
        raise InstantError(
            f"{moment!r} is no instant: {error}",
            hint="write ISO-8601 such as '2025-01-01T14:00Z'",
            found=moment,
        ) from error


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InstantError(
            f"{moment.isoformat()} is no instant: in UTC it lies outside of the years 1 to 9999",
            hint="write a year that a calendar has, such as '2025-01-01T14:00Z'",
            found=moment,
        ) from error
