"""What a store is made of: its tables, and the states that are saved in them; and a copy of it."""

from __future__ import annotations

import click

from titan_lab.cli.options import json_option, zone_option
from titan_lab.redacted import redact


@click.command(short_help="Print the event store's tables as SQL.")
@click.option(
    "--dialect", type=click.Choice(["postgres", "cockroach", "sqlite"]), required=True, help="Whose SQL."
)
@click.option("--regions", help="Of a CockroachDB cluster, with commas; the first is the primary one.")
@click.option("--survive", type=click.Choice(["zone", "region"]), help="What the database outlives.")
@click.option("--analyst", help="Make a role of this name, which may only read.")
def schema(dialect: str, regions: str | None, survive: str | None, analyst: str | None) -> None:
    """Print the event store's tables as SQL, with the triggers that keep events from being changed.

    titan schema --dialect postgres | psql -1 "$DATABASE_URL"
    """
    from titan_lab.backends.ddl import ddl, script

    named = [region.strip() for region in regions.split(",")] if regions is not None else []
    statements = ddl(dialect, regions=named, survive=survive, analyst=analyst)  # type: ignore[arg-type]
    print(script(statements), end="")


@click.command(short_help="Bring a columnar copy of a store up to date.")
@click.argument("url")
@click.argument("path", type=click.Path(file_okay=False))
@click.option("--whole", is_flag=True, help="Read everything: finds rows that were edited in place, too.")
@zone_option
@json_option
def sync(url: str, path: str, whole: bool, zone: str | None, form: str | None) -> None:
    """Bring the columnar copy of a store in the folder PATH up to date; the first time, make it.

    What is new is read, and what was written behind it is found. Killed at any point, it goes on the next
    time. Everything else works offline on the copy: titan at mirror://PATH ...
    """
    from titan_lab import terminal
    from titan_lab.connect import open_log

    with open_log(url, zone=zone) as log, terminal.Progress(f"syncing {path}") as progress:
        told = log.mirror(path.removeprefix("mirror://")).sync(whole=whole, progress=progress)
    terminal.facts(told.plain() if form == "json" else told.facts(), form or "table")


@click.command(short_help="Say what snapshots would buy, or take them.")
@click.argument("url")
@click.option("--take", is_flag=True, help="Save the state of every order that is long enough.")
@click.option(
    "--every", type=click.IntRange(min=1), default=100, show_default=True, help="Events between two of them."
)
@json_option
def snapshots(url: str, take: bool, every: int, form: str | None) -> None:
    """Say what snapshots would buy, read from how many events each order has, or take them.

    A load is counted before each event, as commands make one: events folded on average, by 99 % of the
    loads at most, and by any.
    """
    import dataclasses

    from titan_lab import terminal
    from titan_lab.connect import open_log
    from titan_lab.orders.order import Order
    from titan_lab.snapshot import Snapshots

    open_log(url).close()  # opened for writing, a store that is not there would be made
    with terminal.Progress(f"reading {redact(url)}"), open_log(url, writable=take) as log:
        chosen = Snapshots(log, Order)
        if take:
            done = dataclasses.asdict(chosen.take(every))
        else:
            advice = chosen.advise([None, *sorted({10, 50, 100, 500, 1_000, every})])
    if take:
        terminal.facts(done, form or "table")
    elif form == "json":
        terminal.facts(
            {"conclusion": advice.conclusion, "saved": advice.saved, "advice": advice.table.to_dicts()}, form
        )
    else:
        terminal.show(advice.table, "table")
        print(f"{advice.conclusion}\n{advice.saved}")
