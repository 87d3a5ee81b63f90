"""What a store is made of: its tables."""

from __future__ import annotations

import click


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
