"""The `titan` command.

Nothing heavy is imported until a command runs, so that `titan --help` answers at once. What was asked for
goes to standard output, everything else to standard error. Exit codes: 0 done; 1 the question has no good
answer; 2 usage or bad input; 130 interrupted; `run` passes on the job's own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from titan_lab.errors import NoSuchAggregate, TitanError

if TYPE_CHECKING:
    from datetime import datetime

    from titan_lab.clock import Cut
    from titan_lab.job_parameters import Parameter
    from titan_lab.story import Story

NO_ANSWER = 1
BAD_INPUT = 2
INTERRUPTED = 130
ROWS = 20  # of a table, unless --limit says otherwise
BEFORE, AFTER = 15, 3  # events of one order that are listed around an instant

json_option = click.option("--json", "form", flag_value="json", help="JSON on standard output.")
csv_option = click.option("--csv", "form", flag_value="csv", help="CSV on standard output.")
zone_option = click.option("--zone", help="How moments without a zone are read, such as Europe/Berlin.")
strict_option = click.option("--strict", is_flag=True, help="Exit with 1 when a row was rejected.")


class _Root(click.Group):
    """End quietly when whoever reads from us has seen enough, as in ``titan at ... | head``."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # here, and not at the very end, where Python would complain by itself
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None
        return done


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(sys.modules["titan_lab"].__version__, prog_name="titan")
def titan() -> None:
    """Look into the past of an event-sourced system: what was true, when, and why."""


@titan.command()
def demo() -> None:
    """Show in ten seconds what this is about, on sample orders."""
    from titan_lab.orders.demo import demo

    demo()


@titan.command(short_help="Say what a store holds, and what is odd about it.")
@click.argument("url")
@click.option("--rejected", "rows", flag_value="rejected", help="List the rejected rows and why.")
@click.option("--audit", "rows", flag_value="audit", help="List version gaps, duplicates, clock inversions.")
@click.option("--limit", type=click.IntRange(min=0), help=f"Rows; 0 is all.  [default: {ROWS} in a table]")
@zone_option
@click.option(
    "--strict", is_flag=True, help="Exit with 1 when a row was rejected or the audit found something."
)
@json_option
@csv_option
def inspect(
    url: str, rows: str | None, limit: int | None, zone: str | None, strict: bool, form: str | None
) -> None:
    """Say what a store holds, how complete it is, and what is odd about it.

    --csv without --rejected or --audit lists the event types.
    """
    import polars as pl

    from titan_lab import terminal
    from titan_lab.connect import open_log
    from titan_lab.orders.order import Order

    with terminal.Progress(f"reading {url}"):
        log = open_log(url, zone=zone)
        events = log.read()
        book = log.fold(Order, newer="reject")  # so that payloads are looked at, too
        rejected, audit = log.rejected, log.audit()
    types = events.group_by("event_type").len("events").sort("events", "event_type", descending=[True, False])
    if rows:
        terminal.show(rejected if rows == "rejected" else audit, form or "table", limit=_limit(limit, form))
    elif form == "csv":
        terminal.show(types, "csv", limit=limit)
    else:
        told = {
            "store": log.url,
            "events": events.height,
            "aggregates": events["aggregate_id"].n_unique(),
            "first": events["timestamp"].min(),
            "last": events["timestamp"].max(),
            "complete": str(log.frontier),
            "rejected": rejected.height,
        }
        reasons = rejected.group_by("path", "reason").len("rows")
        reasons = reasons.sort("rows", "path", "reason", descending=[True, False, False])
        counts = pl.len().alias("events"), pl.col("aggregate_id").n_unique().alias("aggregates")
        oddities = audit.group_by("kind").agg(counts).sort("kind")
        if form == "json":
            lists = {"types": types, "undeclared": book.undeclared, "reasons": reasons, "audit": oddities}
            told |= {k: v.to_dicts() if isinstance(v, pl.DataFrame) else v for k, v in lists.items()}
            terminal.facts(told, "json")
        else:
            terminal.facts(told | ({"undeclared": book.undeclared} if book.undeclared else {}))
            parts = {"Event types": types, "Rejected (--rejected lists them)": reasons, "Audit": oddities}
            for title, frame in parts.items():
                if frame.height:
                    print()
                    terminal.show(frame, "table", title)
    if strict and (rejected.height or audit.height):
        sys.exit(NO_ANSWER)


@titan.command(short_help="Show the state of all orders at an instant.")
@click.argument("url")
@click.argument("instant")
@click.option("--order", "order_id", help="Only this order: its state, and the events that led to it.")
@click.option("--cut", type=click.Choice(["prefix", "filter", "latest"]), default="prefix", show_default=True,
              help="Which events count where versions and clocks disagree.")  # fmt: skip
@click.option("--columns", help="Only these columns, separated by commas.")
@click.option("--by", help="Count the orders, and add up --measure, for each value of this column.")
@click.option("--measure", default="total", show_default=True, help="What --by adds up.")
@click.option("--limit", type=click.IntRange(min=0), help=f"Rows; 0 is all.  [default: {ROWS} in a table]")
@zone_option
@strict_option
@json_option
@csv_option
def at(
    url: str,
    instant: str,
    order_id: str | None,
    cut: Any,
    columns: str | None,
    by: str | None,
    measure: str,
    limit: int | None,
    zone: str | None,
    strict: bool,
    form: str | None,
) -> None:
    """Show the state of all orders at an instant, inclusive.

    INSTANT has a zone, such as 2025-01-15T14:00Z or 2025-01-15T11:00-03:00; a bare date is its first instant.
    """
    from titan_lab import terminal
    from titan_lab.clock import instant as read_instant
    from titan_lab.connect import open_log
    from titan_lab.orders.order import Order

    if by is not None and (cut != "prefix" or order_id is not None or columns is not None):
        raise click.UsageError("--by counts all orders by the default cut: no --cut, --order or --columns")
    moment = read_instant(instant, zone)  # before a long read, for nothing
    with terminal.Progress(f"folding {url}"):
        log = open_log(url, zone=zone)
        book = log.fold(Order, aggregates=order_id)
    if order_id is not None and order_id not in book:
        raise _unknown(log, order_id)
    names = columns.replace(" ", "").split(",") if columns else None
    if by is not None:
        frame = book.every("1d", moment, moment, by=by, measure=measure).drop("instant")
        terminal.show(frame, form or "table", limit=_limit(limit, form))
    elif order_id is not None and not form:
        _tell(book[order_id], moment, cut, names)
    else:
        if not form and names is None:
            names = ["status", "total", "paid"]
        frame = book.at(moment, cut=cut, columns=names)
        terminal.show(frame, form or "table", limit=_limit(limit, form))
        if order_id is not None and frame.is_empty():
            _too_early(order_id, moment)
    if book.rejected.height:
        terminal.say(f"{book.rejected.height:,} rows were rejected: titan inspect {url} --rejected")
        if strict:
            sys.exit(NO_ANSWER)


@titan.group(name="import")
def import_() -> None:
    """Bring orders from elsewhere into a store."""


@import_.command(short_help="Import the four Olist CSV files.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.option("--into", "url", required=True, help="The store to add to, such as sqlite:///olist.db.")
@click.option("--zone", default="America/Sao_Paulo", show_default=True, help="Of the times in the files.")
@strict_option
@json_option
def olist(folder: str, url: str, zone: str, strict: bool, form: str | None) -> None:
    """Import the four Olist CSV files, plain or gzipped; a second time adds nothing.

    Rows that make no event are listed with file, line and reason: the first of them beside the report, all
    of them in --json.
    """
    from titan_lab import terminal
    from titan_lab.connect import open_log
    from titan_lab.orders.olist import import_olist
    from titan_lab.orders.olist_csv import check_folder

    check_folder(Path(folder))  # before a store is made that would stay empty
    with open_log(url, writable=True) as log, terminal.Progress("importing events") as progress:
        report = import_olist(folder, log, zone, progress)
    if form == "json":
        told = {name: getattr(report, name) for name in report.__slots__}
        terminal.facts(told | {"rejected": report.rejected.to_dicts()}, "json")
    else:
        terminal.facts(report.facts())
        if report.rejected.height:
            print()
            wanted = report.rejected.select("place", "path", "reason")
            terminal.show(wanted.head(ROWS), "table", "Rejected")
            if report.rejected.height > ROWS:
                print(f"{ROWS} of {report.rejected.height:,} rows; --json lists all")
    if strict and report.rejected.height:
        sys.exit(NO_ANSWER)


@titan.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="",
    short_help="Run a job headless: a notebook, executed, and its report.",
)
@click.argument("job", required=False)
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@click.option("--timeout", help="For the whole run, such as 30m.")
@click.pass_context
def run(context: click.Context, job: str | None, pairs: tuple[str, ...], timeout: str | None) -> None:
    """Run a job headless: its notebook, executed, and a report that opens anywhere. Without JOB, list them.

    The job's own parameters may be given by name, such as --as-of 2025-01-15. The report's path goes to
    standard output. Exit codes: 0 done, 1 failed, 2 bad input, 3 out of time, 4 the kernel died, 130 and 143
    interrupted.
    """
    from titan_lab import terminal
    from titan_lab.job import run_job

    if job is None:
        _list_jobs()
        return
    if job.startswith("-"):
        raise click.UsageError(f"name the job before its parameters: titan run JOB {job} ...")
    values = dict(_pair(pair) for pair in pairs) | _named(context.args)
    with terminal.Progress(f"running {job}") as progress:
        done = run_job(job, values, timeout=timeout, progress=progress)
    terminal.say(f"{done.job} as of {done.as_of}: {done.status}, {done.took.total_seconds():.1f} s")
    if done.error:
        cell = done.error.get("cell")
        terminal.say(f"{'' if cell is None else f'cell {cell}: '}{done.error.get('message')}")
    if done.notebook:
        terminal.say(f"notebook: {done.notebook}")
    if done.report:
        print(done.report)
    sys.stdout.flush()
    sys.exit(done.exit_code)


def main() -> None:
    """Run the command line; errors of ours become a message, a hint and an exit code."""
    from titan_lab.terminal import say

    with contextlib.suppress(AttributeError):  # a stand-in for stdout may not have it
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        titan(standalone_mode=False)
    except TitanError as error:
        say(f"titan: {error.message}")
        if error.hint:
            say(f"  hint: {error.hint}")
        sys.exit(NO_ANSWER if isinstance(error, NoSuchAggregate) else BAD_INPUT)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except click.Abort:
        say("titan: interrupted")
        sys.exit(INTERRUPTED)
    except OSError as error:  # no space, no permission: the system's own words are the clearest
        say(f"titan: {error}")
        sys.exit(BAD_INPUT)


def _limit(limit: int | None, form: str | None) -> int | None:
    return ROWS if limit is None and not form else limit


def _tell(story: Story, moment: datetime, cut: Cut, names: list[str] | None) -> None:
    """Print one order's state at a moment, and the events around it."""
    import polars as pl

    from titan_lab import terminal
    from titan_lab.clock import CUTS

    states = {one: story.at(moment, cut=one) for one in CUTS}
    state = states[cut]
    if not state:
        _too_early(story.aggregate_id, moment)
    always = {"version": state.version, "valid_from": state.valid_from, "valid_to": state.valid_to}
    terminal.facts(always | {name: state[name] for name in story.aggregate.columns(names)})
    log = story.log()
    counts = pl.col("timestamp") <= moment if cut == "filter" else pl.col("version") <= state.version
    last = log.select(counts.arg_true().last()).item()
    start = max(last + 1 - BEFORE, 0)
    marked = log.select(
        "version",
        pl.when(counts).then(pl.lit("●")).otherwise(pl.lit("")).alias("counts"),
        "timestamp",
        "event_type",
        pl.col("changed").list.join(", "),
    )
    print()
    terminal.show(marked.slice(start, last + 1 + AFTER - start), "table")
    hidden = log.height - min(last + 1 + AFTER, log.height)
    for count, which in ((start, "earlier"), (hidden, "later")):
        if count:
            print(f"{count:,} {which} events are not shown")
    if any(other.as_dict() != state.as_dict() for other in states.values()):
        told = ", ".join(f"{one} {other.version}" for one, other in states.items())
        print(f"\nthe three cuts differ here; the last version each counts: {told}")


def _too_early(order_id: str, moment: datetime) -> NoReturn:
    from titan_lab import terminal
    from titan_lab.clock import iso

    terminal.say(f"{order_id} had no event yet at {iso(moment)}")
    sys.exit(NO_ANSWER)


def _list_jobs() -> None:
    from titan_lab import terminal
    from titan_lab.job import jobs, parameters_of_job

    rows = []
    for job in jobs():
        declared = parameters_of_job(job)
        told = [(job, f"--{p.name}".replace("_", "-"), _default(p), p.help) for p in declared]
        rows += told or [(job, "", "", "")]
    terminal.table(["job", "parameter", "default", "what it is"], rows)


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return f"({parameter.annotation}, required)"
    return f"({parameter.annotation}, computed)" if parameter.computed else repr(parameter.default)


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
            value = next(rest, "--")
            if value.startswith("--"):
                raise click.UsageError(f"{name} needs a value: {name} VALUE")
        values |= dict([_pair(f"{name[2:]}={value}")])
    return values


def _unknown(log: Any, order_id: str) -> NoSuchAggregate:
    try:
        log.events(order_id)
    except NoSuchAggregate as error:
        return error
    hint = "titan inspect URL --rejected tells why"
    return NoSuchAggregate(f"all events of {order_id!r} were rejected", hint=hint)
