"""The `titan` command.

Nothing heavy is imported until a command runs, so that `titan --help` answers at once. What was asked for
goes to standard output, everything else to standard error. Exit codes: 0 done; 1 the question has no good
answer; 2 usage or bad input; `run` passes on the job's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from titan_lab.errors import NoSuchAggregate, TitanError

NO_ANSWER = 1
BAD_INPUT = 2
PHONE = "550e8400-e29b-41d4-a716-446655440000"  # the sample order that demo tells about

Command = TypeVar("Command", bound=Callable[..., Any])


def form_options(command: Command) -> Command:
    """Add --json and --csv."""
    command = click.option("--csv", "form", flag_value="csv", help="CSV on standard output.")(command)
    return click.option("--json", "form", flag_value="json", help="JSON on standard output.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="titan-lab", prog_name="titan")
def titan() -> None:
    """Look into the past of an event-sourced system: what was true, when, and why."""


@titan.command()
def demo() -> None:
    """Show in ten seconds what this is about, on the sample orders."""
    import polars as pl

    from titan_lab import terminal
    from titan_lab.connect import from_frame, open_log
    from titan_lab.orders.order import Order
    from titan_lab.orders.sample import sample_events
    from titan_lab.paths import project_root

    samples = project_root() / "data" / "samples" / "orders.db"
    log = open_log(f"sqlite:///{samples}") if samples.exists() else from_frame(sample_events())
    book = log.fold(Order)
    click.echo(f">>> book = tl.open({log.url!r}).fold(tl.Order)\n{book!r}\n")
    click.echo(f">>> book[{PHONE!r}].log()")
    told = book[PHONE].log().select("version", "timestamp", "event_type", pl.col("changed").list.join(", "))
    terminal.show(told, "table")
    moment = "2025-01-15T12:00Z"
    click.echo(f">>> book.every('1d', {moment!r}, {moment!r}, by='status', measure='total')")
    terminal.show(book.every("1d", moment, moment, by="status", measure="total"), "table")
    click.echo(
        ">>> book.cuts('2025-01-14T11:04Z')   # where versions and clocks disagree, a cut must be named"
    )
    terminal.show(book.cuts("2025-01-14T11:04Z"), "table")


@titan.command()
@click.argument("url")
@click.option("--zone", help="How moments without a zone are read, such as Europe/Berlin.")
@click.option(
    "--strict", is_flag=True, help="Exit with 1 when a row was rejected or the audit found something."
)
@click.option("--json", "form", flag_value="json", help="JSON on standard output.")
def inspect(url: str, zone: str | None, strict: bool, form: str | None) -> None:
    """Say what a store holds, how complete it is, and what is odd about it."""
    import polars as pl

    from titan_lab import terminal
    from titan_lab.connect import open_log
    from titan_lab.orders.order import Order

    log = open_log(url, zone=zone)
    events = log.read()
    log.fold(Order, newer="reject")  # so that payloads are looked at, too
    rejected, audit = log.rejected, log.audit()
    stamps = events["timestamp"]
    told = {
        "store": log.url,
        "events": events.height,
        "aggregates": events["aggregate_id"].n_unique(),
        "first": stamps.min(),
        "last": stamps.max(),
        "complete": str(log.frontier),
        "rejected": rejected.height,
    }
    types = events.group_by("event_type").len("events").sort("events", "event_type", descending=[True, False])
    reasons = rejected.group_by("path", "reason").len("rows").sort("rows", "path", descending=[True, False])
    oddities = audit.group_by("kind").agg(
        pl.len().alias("events"), pl.col("aggregate_id").n_unique().alias("aggregates")
    ).sort("kind")  # fmt: skip
    if form == "json":
        lists = {"types": types.to_dicts(), "reasons": reasons.to_dicts(), "audit": oddities.to_dicts()}
        terminal.facts(told | lists, "json")
    else:
        terminal.facts(told)
        for frame, title in ((types, "Event types"), (reasons, "Rejected"), (oddities, "Audit")):
            if frame.height:
                click.echo()
                terminal.show(frame, "table", title)
    if strict and (rejected.height or audit.height):
        sys.exit(NO_ANSWER)


@titan.command()
@click.argument("url")
@click.argument("instant")
@click.option("--order", "order_id", help="Only this order, column by column.")
@click.option("--cut", type=click.Choice(["prefix", "filter", "latest"]), default="prefix", show_default=True,
              help="Which events count where versions and clocks disagree.")  # fmt: skip
@click.option("--columns", help="Only these columns, separated by commas.")
@click.option("--by", help="Count the orders, and add up --measure, for each value of this column.")
@click.option("--measure", default="total", show_default=True, help="What --by adds up.")
@click.option("--limit", default=20, show_default=True, help="Rows of a table; 0 shows all.")
@click.option("--zone", help="How moments without a zone are read, such as Europe/Berlin.")
@form_options
def at(
    url: str,
    instant: str,
    order_id: str | None,
    cut: Any,
    columns: str | None,
    by: str | None,
    measure: str,
    limit: int,
    zone: str | None,
    form: str | None,
) -> None:
    """Show the state of all orders at an instant, such as 2025-01-15T14:00Z."""
    from titan_lab import terminal
    from titan_lab.connect import open_log
    from titan_lab.orders.order import Order

    log = open_log(url, zone=zone)
    book = log.fold(Order, aggregates=order_id)
    if by is not None and cut != "prefix":
        raise click.UsageError("--by counts by the default cut; leave --cut out")
    if order_id is not None:
        if order_id not in book:
            raise _unknown(log, order_id)
        state = book[order_id].at(instant, cut=cut)
        if not state:
            click.echo(f"{order_id} had no event yet at {instant}", err=True)
            sys.exit(NO_ANSWER)
        row = {"version": state.version, "valid_from": state.valid_from, "valid_to": state.valid_to}
        terminal.facts(row | state.as_dict(), form or "table")
        return
    if by is not None:
        frame = book.every("1d", instant, instant, by=by, measure=measure).drop("instant")
    else:
        names = columns.replace(" ", "").split(",") if columns else ["status", "total", "paid"]
        frame = book.at(instant, cut=cut, columns=None if form and not columns else names)
    terminal.show(frame, form or "table", limit=limit)
    if book.rejected.height:
        click.echo(f"{book.rejected.height:,} rows were rejected; `titan inspect` tells why", err=True)


@titan.group(name="import")
def import_() -> None:
    """Bring orders from elsewhere into a store."""


@import_.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--into", "url", required=True, help="The store to add to, such as sqlite:///olist.db.")
@click.option("--zone", default="America/Sao_Paulo", show_default=True, help="Of the times in the files.")
def olist(folder: str, url: str, zone: str) -> None:
    """Import the four Olist CSV files, plain or gzipped; a second time adds nothing."""
    from titan_lab.connect import open_log
    from titan_lab.orders.olist import import_olist
    from titan_lab.orders.olist_csv import check_folder

    check_folder(Path(folder))  # before a store is made that would stay empty
    with open_log(url, writable=True) as log, Progress("importing events") as progress:
        report = import_olist(folder, log, zone, progress)
    click.echo(str(report))


@titan.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("job")
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@click.option("--timeout", help="For the whole run, such as 30m.")
@click.pass_context
def run(context: click.Context, job: str, pairs: tuple[str, ...], timeout: str | None) -> None:
    """Run a job headless: its notebook, executed, and a report that opens anywhere.

    The job's own parameters may be given by name, such as --as-of 2025-01-15.
    """
    from titan_lab.job import run_job

    values = dict(_pair(pair) for pair in pairs) | _named(context.args)
    with Progress(f"running {job}") as progress:
        done = run_job(job, values, timeout=timeout, progress=progress)
    click.echo(f"{done.job} as of {done.as_of}: {done.status}, {done.took.total_seconds():.1f} s", err=True)
    if done.error:
        click.echo(str(done.error.get("message")), err=True)
    if done.notebook:
        click.echo(f"notebook: {done.notebook}", err=True)
    if done.report:
        click.echo(str(done.report))
    sys.exit(done.exit_code)


def main() -> None:
    """Run the command line; errors of ours become a message, a hint and an exit code."""
    try:
        titan(standalone_mode=False)
    except TitanError as error:
        click.echo(f"titan: {error.message}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(NO_ANSWER if isinstance(error, NoSuchAggregate) else BAD_INPUT)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except click.Abort:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read from us has seen enough; without this, Python complains when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"{text!r} is no NAME=VALUE")
    return name.strip().replace("-", "_"), value


def _named(arguments: list[str]) -> dict[str, str]:
    """Read ``--as-of 2025-01-15`` and ``--as-of=2025-01-15``."""
    values: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name, separator, value = argument.partition("=")
        if not name.startswith("--"):
            raise click.UsageError(f"{argument!r} belongs to no option")
        if not separator:
            value = next(rest, "")
            if not value:
                raise click.UsageError(f"{name} needs a value")
        values |= dict([_pair(f"{name[2:]}={value}")])
    return values


class Progress:
    """Draw a bar on standard error while there is somebody to see it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            self.bar = Bars(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=None)
        return self.step

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total)


def _unknown(log: Any, order_id: str) -> NoSuchAggregate:
    try:
        log.events(order_id)
    except NoSuchAggregate as error:
        return error
    return NoSuchAggregate(f"all events of {order_id!r} were rejected", hint="titan inspect tells why")
