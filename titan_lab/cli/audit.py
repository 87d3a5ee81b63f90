"""Audit a store: what is odd about its events, and whether its readers miss some."""

from __future__ import annotations

import sys

import click

from titan_lab.cli.options import NO_ANSWER, csv_option, json_option, limit_option, limited, zone_option


@click.command(short_help="List what is odd about a store, or race writers against its readers.")
@click.argument("url")
@limit_option
@zone_option
@json_option
@csv_option
def audit(url: str, limit: int | None, zone: str | None, form: str | None) -> None:
    """List version gaps, duplicates and clock inversions, and count the rows that are no events.

    Exits with 1 when there is any, with 0 when there is none. --json and --csv list the oddities.
    """
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
