"""What is due, by walking over every instant of a rule and asking of each what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from titan_lab.jobs.declaration import Declaration


def pending(
    said: Declaration, rows: Sequence[Mapping[str, Any]], now: datetime, started: datetime
) -> list[tuple[datetime, int]]:
    """List (instant, attempt) of what is due or will be after its backoff, in order."""
    schedule = said.schedule
    assert schedule
    every = list(schedule.rule.between(now - timedelta(days=30), now))
    every = [when for when in every if schedule.since is None or when >= schedule.since]
    tried = [when for when in every if any(row["scheduled"] == when for row in rows)]
    if schedule.catch_up == "none":
        every = [when for when in every if when >= started - timedelta(minutes=1)]
    elif schedule.catch_up == "latest":
        every = every[-1:]
    elif schedule.since is None:
        fresh = [when for when in every if when > tried[-1]] if tried else every[-1:]
        every = sorted({*tried, *fresh})
    found = []
    for when in every:
        attempts = [row for row in rows if row["scheduled"] == when]
        if _open([(row["status"], row["error"], row["exit_code"]) for row in attempts], said.run.retries):
            found.append((when, len(attempts) + 1))
    return found


def _open(attempts: list[tuple[str, str | None, int | None]], retries: int) -> bool:
    if not attempts:
        return True
    if any(status in ("ok", "nothing") for status, _, _ in attempts):
        return False
    kinds = []
    for status, error, code in attempts:
        if status == "died" and code is None:
            kinds.append("lost")
        elif status in ("timeout", "died") or (error or "").startswith(("Connection", "Operational")):
            kinds.append("transient")
        else:
            kinds.append(status)
    if kinds[-1] == "transient":
        return kinds.count("transient") <= retries
    if kinds[-1] == "lost":
        return kinds.count("lost") < 3
    return kinds[-1] == "interrupted"
