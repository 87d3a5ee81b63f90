"""Cron rules by walking every minute there is, and the walls' clocks beside."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Fields:
    """The fields of a rule as the sets they stand for; None is a star."""

    minutes: Collection[int] | None
    hours: Collection[int] | None
    days: Collection[int] | None = None
    weekdays: Collection[int] | None = None  # 0 is Sunday

    def text(self) -> str:
        """Write them as a cron rule."""
        sets = (self.minutes, self.hours, self.days, None, self.weekdays)
        return " ".join("*" if one is None else ",".join(map(str, sorted(one))) for one in sets)

    def match(self, wall: datetime) -> bool:
        """Tell whether a wall's clock shows what the rule names."""
        by_day = self.days is None or wall.day in self.days
        by_weekday = self.weekdays is None or wall.isoweekday() % 7 in self.weekdays
        either = self.days is not None and self.weekdays is not None
        day = (by_day or by_weekday) if either else (by_day and by_weekday)
        hour = self.hours is None or wall.hour in self.hours
        return day and hour and (self.minutes is None or wall.minute in self.minutes)


def due(fields: Fields, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """List the instants after one moment and up to another at which a rule is due."""
    return [when for when in _due(fields, ZoneInfo(zone), until) if after < when]


def _due(fields: Fields, zone: ZoneInfo, until: datetime) -> Iterator[datetime]:
    at_a_time = fields.minutes is not None and fields.hours is not None
    moment = until.replace(second=0, microsecond=0) - timedelta(days=4)
    before = moment.astimezone(zone).replace(tzinfo=None) - MINUTE
    while moment <= until:
        local = moment.astimezone(zone)
        wall = local.replace(tzinfo=None)
        if not at_a_time:
            found = fields.match(wall)
        elif local.fold:
            found = False  # it was due the first time
        else:
            skipped = []
            while before + MINUTE < wall:
                before += MINUTE
                skipped.append(before)
            found = fields.match(wall) or any(map(fields.match, skipped))
        if found:
            yield moment.astimezone(UTC)
        before = wall
        moment += MINUTE
