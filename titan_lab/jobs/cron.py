"""When a schedule is due: cron rules in a zone, as instants.

The rules are those of Debian's cron, by cronsim: five fields, names of months and weekdays, `L` for the last
day of a month, `MON#2` for its second Monday. What its clocks do to a rule that names an hour:

- an hour that is skipped: the rule is due once, at the first minute there is after the gap;
- an hour that comes twice: it is due once, the first time.

A rule whose minute or hour is `*` counts time as it goes by: "0 * * * *" is due 23 or 25 times on such a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from titan_lab.clock import Instant, instant, iso, zone_of
from titan_lab.errors import JobError, MissingExtra

if TYPE_CHECKING:
    from cronsim import CronSim

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


class Rule:
    """A cron rule in a zone.

    Raises JobError for text that is no rule, and InstantError for a zone that is none.

    >>> rule = Rule("30 2 * * *", "Europe/Berlin")
    >>> [when.isoformat() for when in rule.between("2025-03-29T12:00Z", "2025-03-31T12:00Z")]
    ['2025-03-30T01:00:00+00:00', '2025-03-31T00:30:00+00:00']
    """

    def __init__(self, cron: str, zone: str = "UTC") -> None:
        self.cron, self.zone = cron, zone
        zone_of(zone)
        if len(cron.split()) != 5:
            raise JobError(f"{cron!r} is no cron rule of five fields", hint=_HINT)
        self._steps(datetime(2025, 1, 1, tzinfo=UTC))

    def __repr__(self) -> str:
        return f"Rule({self.cron!r}, {self.zone!r})"

    def after(self, moment: Instant) -> Iterator[datetime]:
        """Give the instants at which it is due, later than a moment, one after the other, in UTC."""
        last = instant(moment)
        by_the_clock = not any(part.startswith("*") for part in self.cron.split()[:2])
        found = self._at_a_time(last) if by_the_clock else self._as_it_goes_by(last)
        # Within an hour that comes again, a rule begins with what was due the first time.
        return (due for due in found if due > last)

    def between(self, after: Instant, until: Instant) -> Iterator[datetime]:
        """Give the instants at which it is due, later than `after` and up to `until`, in UTC."""
        end = instant(until)
        for due in self.after(after):
            if due > end:
                return
            yield due

    def next(self, moment: Instant) -> datetime | None:
        """Give the first instant after a moment; None for a rule that is never due again."""
        return next(self.after(moment), None)

    def latest(self, moment: Instant) -> datetime | None:
        """Give the last instant at or before a moment; None where there is none within fifty years."""
        end = instant(moment)
        for days in (
            1,
            7,
            32,
            366,
            5 * 366,
            50 * 366,
        ):  # rules are due every minute, or on a 29th of February
            found = None
            for found in self.between(end - timedelta(days=days), end):  # noqa: B007
                pass
            if found:
                return found
        return None

    def has(self, moment: Instant) -> bool:
        """Tell whether it is due at this very instant."""
        when = instant(moment)
        return self.next(when - timedelta(microseconds=1)) == when

    @cached_property
    def described(self) -> str:
        """Say the rule in English."""
        return str(self._steps(datetime(2025, 1, 1, tzinfo=UTC)).explain())

    def _at_a_time(self, last: datetime) -> Iterator[datetime]:
        for found in self._steps(last.astimezone(zone_of(self.zone))):
            yield found.astimezone(UTC)

    def _as_it_goes_by(self, last: datetime) -> Iterator[datetime]:
        # Cronsim begins each day at its midnight, which not every day has. Until its offset changes, though,
        # a zone's clocks are as good as naive ones, so each such stretch is stepped through by itself.
        seen, begin = last, last
        while True:
            offset, change = self._offset(seen), None
            for wall in self._steps((begin + offset).replace(tzinfo=None)):
                due = wall.replace(tzinfo=UTC) - offset
                if change := self._change(seen, due):
                    break
                seen = due
                yield due
            if change is None:  # never again
                return
            seen, begin = change, change - SECOND

    def _change(self, after: datetime, until: datetime) -> datetime | None:
        """Find the first second after one moment and up to another at which the offset is another."""
        offset = self._offset(after)
        while after < until:
            later = min(after + DAY, until)
            if self._offset(later) != offset:
                while later - after > SECOND:
                    middle = after + (later - after) / 2
                    after, later = (middle, later) if self._offset(middle) == offset else (after, middle)
                return later.replace(microsecond=0)
            after = later
        return None

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(zone_of(self.zone)).utcoffset() or timedelta()

    def _steps(self, start: datetime) -> CronSim:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError as error:
            raise MissingExtra("cronsim", "run", "a schedule") from error
        try:
            return CronSim(self.cron, start)
        except CronSimError as error:
            raise JobError(
                f"{self.cron!r} is no cron rule: {error}".replace("Bad ", "its "), hint=_HINT
            ) from error


_HINT = "minute hour day-of-month month day-of-week, such as '0 6 * * MON-FRI'"


def told(moment: datetime, zone: str) -> str:
    """Write an instant as the clocks of a zone show it, and in UTC beside."""
    local = moment.astimezone(zone_of(zone))
    return iso(moment) if zone == "UTC" else f"{local:%Y-%m-%d %H:%M %Z} ({iso(moment)})"
