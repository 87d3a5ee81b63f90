"""Run jobs when they are due, and for instants of the past."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from titan_lab.cli.options import json_option, zone_option

if TYPE_CHECKING:
    from titan_lab.jobs.schedule import Scheduler


@click.command(short_help="Run the jobs that are due, from now on or once.")
@click.argument("names", nargs=-1, metavar="[JOB]...")
@click.option("--once", is_flag=True, help="Run what is due now, with its retries, then end.")
@click.option("--dry-run", is_flag=True, help="Show what is due, and when each job is next; run nothing.")
@click.option("--parallel", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at once.")
@click.option("--ledger", metavar="URL", help="Where runs are entered.  [default: runs/ledger.db]")
@json_option
def schedule(
    names: tuple[str, ...], once: bool, dry_run: bool, parallel: int, ledger: str | None, form: str | None
) -> None:
    """Run the jobs that are due by the [schedule] beside each: all of them, or only these.

    What was missed is caught up as each job says. It may be ended at any time (SIGTERM, Ctrl-C, kill -9), and
    run twice at once: the ledger knows what was done. With --once, the exit code is 1 when a run did not end
    well.
    """
    from titan_lab import terminal
    from titan_lab.jobs.plan import declaration_of_job
    from titan_lab.jobs.schedule import Scheduler

    for name in names:
        declaration_of_job(name)  # a name that nobody has is an error, and so is a file that cannot be read
    scheduler = Scheduler(names, ledger=ledger, parallel=parallel, tell=terminal.say)
    if dry_run:
        _show(scheduler, form)
    elif once:
        scheduler.once()
        sys.exit(1 if scheduler.bad else 0)
    else:
        terminal.say("scheduling until SIGTERM or Ctrl-C")
        scheduler.run()
        terminal.say("ended")


def _show(scheduler: Scheduler, form: str | None) -> None:
    import polars as pl

    from titan_lab import terminal

    declared, now = scheduler.declared(), scheduler.now()
    rows = [
        (one.job, one.scheduled, "due" if one.at <= now else "waits", one.why)
        for one in scheduler.due(declared)
    ]
    for job, said in declared.items():
        if said.schedule and (when := said.schedule.rule.next(now)):
            rows.append((job, when, "next", f"{said.schedule.rule.described} ({said.schedule.rule.zone})"))
    schema: Any = {
        "job": pl.String,
        "instant": pl.Datetime("us", "UTC"),
        "stands": pl.String,
        "why": pl.String,
    }
    terminal.show(pl.DataFrame(rows, schema=schema, orient="row"), form or "table")


@click.command(short_help="Run a job for every instant of a span of the past.")
@click.argument("job")
@click.option("--from", "since", required=True, metavar="INSTANT", help="The first instant.")
@click.option("--to", "until", required=True, metavar="INSTANT", help="The end, excluded.")
@click.option("--every", default="1d", show_default=True, help="The step, such as 1h, 1d, 1mo.")
@zone_option
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@click.option("--again", is_flag=True, help="Run those anew that ended well before.")
@click.option("--parallel", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at once.")
@click.option("--beyond-frontier", is_flag=True, help="Allow instants that the source does not reach.")
@click.option("--ledger", metavar="URL", help="Where runs are entered.  [default: runs/ledger.db]")
@json_option
def backfill(
    job: str,
    since: str,
    until: str,
    every: str,
    zone: str | None,
    pairs: tuple[str, ...],
    again: bool,
    parallel: int,
    beyond_frontier: bool,
    ledger: str | None,
    form: str | None,
) -> None:
    """Run JOB for the instants from --from to --to, in steps of the calendar of --zone.

    Those that ended well before are passed over. Prints a table; exits with 0 when every instant is done,
    else with the code of the first that is not.
    """
    import polars as pl

    from titan_lab import terminal
    from titan_lab.cli.jobs import named_value
    from titan_lab.jobs.backfill import backfill as fill
    from titan_lab.jobs.backfill import exit_code

    with terminal.Progress(f"backfilling {job}") as progress:
        done = fill(
            job,
            since,
            until,
            every,
            zone=zone,
            parameters=dict(map(named_value, pairs)),
            again=again,
            parallel=parallel,
            beyond_frontier=beyond_frontier,
            ledger=ledger,
            progress=progress,
        )
    shown = (
        done
        if form
        else done.with_columns(took=pl.duration(milliseconds=pl.col("took").dt.total_milliseconds()))
    )
    terminal.show(shown, form or "table")
    counts = done["status"].value_counts().sort("count", "status", descending=[True, False])
    terminal.say(", ".join(f"{count:,} {status}" for status, count in counts.iter_rows()))
    sys.exit(exit_code(done))


@click.command("export", short_help="Write the schedules of jobs for another scheduler.")
@click.argument("names", nargs=-1, metavar="[JOB]...")
@click.option("--cron", "form", flag_value="cron", help="A crontab.")
@click.option("--systemd", "form", flag_value="systemd", help="Services and timers.")
@click.option("--airflow", "form", flag_value="airflow", help="A file of DAGs.")
@click.option("--k8s", "form", flag_value="k8s", help="CronJobs.")
@click.option("--root", default=".", show_default=True, help="The project's folder where they will run.")
def export(names: tuple[str, ...], form: str | None, root: str) -> None:
    """Write the schedules of jobs for cron, systemd, Airflow or Kubernetes: all of them, or only these.

    The file goes to standard output.
    """
    from titan_lab.jobs.exports import export as written
    from titan_lab.jobs.plan import declaration_of_job, jobs

    if form is None:
        raise click.UsageError("say for whom: --cron, --systemd, --airflow or --k8s")
    chosen = [(name, declaration_of_job(name)) for name in names or jobs()]
    print(written(form, chosen, root), end="")
