"""What is due: a schedule held against the ledger.

An instant of a schedule is run once. It is settled when a run for it ended well, or in a way that another
run would not better: a failed assertion is an answer. What may pass by itself is tried again, as often and as
patiently as the job says; and a run that was stopped, or whose process was killed, goes on at the next look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from titan_lab.jobs.declaration import Declaration, Running, Schedule
from titan_lab.jobs.ledger import DONE

if TYPE_CHECKING:
    import polars as pl

    from titan_lab.jobs.ledger import Ledger

INSTANT: Final = timedelta(microseconds=1)
GRACE: Final = timedelta(minutes=1)  # what came due that shortly before a start was not missed
LOST: Final = 3  # so many attempts whose process was killed are enough: it may be the job that kills it
# Names of exceptions that tell of a connection, and not of the data or the code.
TRANSIENT: Final = frozenset(
    {
        "BrokenPipeError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectionAbortedError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "KafkaTimeoutError",
        "OperationalError",  # sqlite3, psycopg, SQLAlchemy: the database cannot be reached, or is locked
        "ReadTimeout",
        "TimeoutError",
        "gaierror",
    }
)


@dataclass(frozen=True, slots=True)
class Due:
    """An instant that a job is to be run for."""

    job: str
    scheduled: datetime
    attempt: int  # which one it will be, from 1
    at: datetime  # from when on: later than `scheduled` for a retry
    why: str


def due(job: str, declaration: Declaration, ledger: Ledger, now: datetime, started: datetime) -> list[Due]:
    """List what is due for a job, and what will be for the retries that wait, in order of the instants.

    now: the present. started: since when somebody looks; what was due before was missed.
    """
    schedule = declaration.schedule
    if schedule is None:
        return []
    runs = ledger.runs(job)
    recorded = (
        {when: rows for (when,), rows in runs.sort("attempt").group_by("scheduled")} if len(runs) else {}
    )
    waiting = [
        found
        for when, rows in recorded.items()
        if (found := again(job, when, rows, declaration.run)) and _belongs(schedule, when)
    ]
    fresh = [
        Due(job, when, 1, when, "scheduled" if when >= started - GRACE else "missed")
        for when in _fresh(schedule, recorded, now, started)
    ]
    every = sorted(waiting + fresh, key=lambda one: one.scheduled)
    if schedule.catch_up == "none":
        return [one for one in every if one.scheduled >= started - GRACE]
    if schedule.catch_up == "latest":
        settled = max((when for when in recorded if _belongs(schedule, when)), default=None)
        return [one for one in every[-1:] if settled is None or one.scheduled >= settled]
    return every


def again(job: str, when: datetime, rows: pl.DataFrame, running: Running) -> Due | None:
    """Give the next attempt at an instant that was tried; None where it is settled, or runs now."""
    attempts = rows.select("attempt", "status", "exit_code", "error", "finished").rows(named=True)
    last = attempts[-1]
    if last["status"] == "running" or any(one["status"] in DONE for one in attempts):
        return None
    number = last["attempt"] + 1
    if last["status"] == "interrupted":
        return Due(job, when, number, when, "it was interrupted")
    if was_lost(last):
        lost = sum(map(was_lost, attempts))
        return Due(job, when, number, when, "its process was killed") if lost < LOST else None
    tries = sum(map(is_transient, attempts))
    if not is_transient(last) or tries > running.retries:
        return None
    at = last["finished"] + running.backoff * 2 ** (tries - 1)
    return Due(job, when, number, at, f"retry {tries} of {running.retries} after {last['status']}")


def was_lost(run: dict[str, Any]) -> bool:
    """Tell whether a run has no end of its own: its process was killed, or the machine stopped."""
    return run["status"] == "died" and run["exit_code"] is None


def is_transient(run: dict[str, Any]) -> bool:
    """Tell whether a run failed by circumstance: out of time, a dead kernel, a lost connection."""
    if run["status"] == "failed":
        return (run["error"] or "").partition(":")[0] in TRANSIENT
    return run["status"] in ("timeout", "died") and not was_lost(run)


def _belongs(schedule: Schedule, when: datetime) -> bool:
    return (schedule.since is None or when >= schedule.since) and schedule.rule.has(when)


def _fresh(
    schedule: Schedule, recorded: Iterable[datetime], now: datetime, started: datetime
) -> list[datetime]:
    """List the instants that have come and that nobody has tried."""
    known = set(recorded)
    rule, since = schedule.rule, schedule.since
    if schedule.catch_up == "none":
        begin = max(started - GRACE, since or started - GRACE) - INSTANT
    elif schedule.catch_up == "all" and since:
        begin = since - INSTANT
    else:
        latest = rule.latest(now)
        if latest is None or (since and latest < since):
            return []
        last = None
        if schedule.catch_up == "all":
            last = next((when for when in sorted(known, reverse=True) if rule.has(when)), None)
        begin = last or latest - INSTANT
    return [when for when in rule.between(begin, now) if when not in known]
