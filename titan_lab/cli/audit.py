"""Audit a store: what is odd about its events, and whether its readers miss some."""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

import click

from titan_lab.cli.options import (
    BAD_INPUT,
    NO_ANSWER,
    csv_option,
    json_option,
    limit_option,
    limited,
    zone_option,
)

RACE = {"proven": 0, "broken": NO_ANSWER, "nothing": BAD_INPUT}  # exit codes


@click.command(short_help="List what is odd about a store, or race writers against its readers.")
@click.argument("url")
@click.option("--race", "races", is_flag=True, help="Race writers against readers on a scratch database.")
@click.option("--writers", type=click.IntRange(min=1), help="That commit and roll back.  [default: 8]")
@click.option("--rounds", type=click.IntRange(min=1), help="Each with tables of its own.  [default: 5]")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Of each round.  [default: 4]")
@limit_option
@zone_option
@json_option
@csv_option
def audit(
    url: str,
    races: bool,
    writers: int | None,
    rounds: int | None,
    seconds: float | None,
    limit: int | None,
    zone: str | None,
    form: str | None,
) -> None:
    """List version gaps, duplicates and clock inversions, and count the rows that are no events.

    Exits with 1 when there is any, with 0 when there is none. --json and --csv list the oddities.

    --race needs an empty database, makes tables of its own and drops them. It counts the events that readers
    miss while writers are slow, roll back, leave transactions open or have wrong clocks, and which of several
    appends to one place win. Exits with 0 when ours missed none and naive readers beside it did, with 1 when
    ours missed some or an append was lost, with 2 when the run proved nothing.
    """
    asked = {"writers": writers, "rounds": rounds, "seconds": seconds}
    given = {name: value for name, value in asked.items() if value is not None}
    if races:
        if limit is not None or zone is not None:
            raise click.UsageError("--limit and --zone are not of a race")
        _race(url, given, form)
    elif given:
        raise click.UsageError(f"--{next(iter(given))} is of a race: add --race")
    else:
        _audit(url, limit, zone, form)


def _audit(url: str, limit: int | None, zone: str | None, form: str | None) -> None:
    from titan_lab import terminal
    from titan_lab.connect import open_log

    with open_log(url, zone=zone) as log:
        with terminal.Progress(f"reading {log.url}"):
            odd = log.audit()
            rejected = log.rejected.height
        if not form:
            counts = odd.group_by("kind").len("oddities").sort("kind")
            told = {"store": log.url, "complete": str(log.frontier), "rejected": rejected}
            terminal.facts(told | dict(counts.iter_rows()))
            if odd.height:
                print()
    if form or odd.height:
        terminal.show(odd, form or "table", limit=limited(limit, form))
    if rejected:
        terminal.say(f"{rejected:,} rows are no events; titan inspect {log.url} --rejected lists them")
    if odd.height or rejected:
        sys.exit(NO_ANSWER)


def _race(url: str, given: dict[str, Any], form: str | None) -> NoReturn:
    from titan_lab import terminal
    from titan_lab.racing.run import race

    # Whoever ends it in another way than by Ctrl-C shall find nothing left behind, either.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with terminal.Progress("racing") as progress:
            found = race(url, progress=progress, **given)
    finally:
        signal.signal(signal.SIGTERM, before)
    if form == "csv":
        terminal.show(found.rounds, "csv")
    elif form == "json":
        terminal.facts(found.plain(), "json")
    else:
        terminal.facts(found.facts())
        print()
        terminal.show(found.readers, "table")
        print()
        terminal.facts({found.verdict: found.said})
    sys.exit(RACE[found.verdict])
