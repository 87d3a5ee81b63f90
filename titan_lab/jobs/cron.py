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

SECOND = timedelta(seconds=1)


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
        # Within an hour that comes again, a rule begins with what was due the first time. And a day that has
        # no midnight begins with it all the same, which a rule with a star is not moved out of.
        for found in self._steps(last):
            due = found.astimezone(UTC)
            if due > last and (_exists(found) or self._from(due) == due):
                yield due

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

    def _from(self, moment: datetime) -> datetime:
        return next(self._steps(moment - SECOND)).astimezone(UTC)

    def _steps(self, start: datetime) -> CronSim:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError as error:
            raise MissingExtra("cronsim", "run", "a schedule") from error
        try:
            return CronSim(self.cron, start.astimezone(zone_of(self.zone)))
        except CronSimError as error:
            raise JobError(
                f"{self.cron!r} is no cron rule: {error}".replace("Bad ", "its "), hint=_HINT
            ) from error


def _exists(moment: datetime) -> bool:
    """Tell whether the clocks of its zone ever show it."""
    again = moment.astimezone(UTC).astimezone(moment.tzinfo)
    return again.replace(tzinfo=None) == moment.replace(tzinfo=None)


_HINT = "minute hour day-of-month month day-of-week, such as '0 6 * * MON-FRI'"


def told(moment: datetime, zone: str) -> str:
    """Write an instant as the clocks of a zone show it, and in UTC beside."""
    local = moment.astimezone(zone_of(zone))
    return iso(moment) if zone == "UTC" else f"{local:%Y-%m-%d %H:%M %Z} ({iso(moment)})"
