"""What the commands share: their options, their exit codes, and how many rows a table shows."""

from __future__ import annotations

import click

NO_ANSWER = 1
BAD_INPUT = 2
LOCKED = 75  # as in titan_lab.jobs.record, which this does not load
INTERRUPTED = 130
ROWS = 20  # of a table, unless --limit says otherwise

json_option = click.option("--json", "form", flag_value="json", help="JSON on standard output.")
csv_option = click.option("--csv", "form", flag_value="csv", help="CSV on standard output.")
zone_option = click.option("--zone", help="How moments without a zone are read, such as Europe/Berlin.")
strict_option = click.option("--strict", is_flag=True, help="Exit with 1 when a row was rejected.")
order_option = click.option("--order", "order_id", help="Only this order.")
limit_option = click.option(
    "--limit", type=click.IntRange(min=0), help=f"Rows; 0 is all.  [default: {ROWS} in a table]"
)


def limited(limit: int | None, form: str | None) -> int | None:
    """Give the number of rows to show: a table has an end, a file has all."""
    return ROWS if limit is None and not form else limit
