"""What became of runs: list, show, read, run again, and put away."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from titan_lab.cli.options import json_option, limit_option, limited

_SHOWN = ("run_id", "job", "scheduled", "attempt", "status", "took", "started", "exit_code", "error")
ledger_option = click.option("--ledger", metavar="URL", help="The ledger.  [default: runs/ledger.db]")


@click.group("jobs", invoke_without_command=True, short_help="List jobs and their runs, and tend them.")
@ledger_option
@json_option
@click.pass_context
def jobs(context: click.Context, ledger: str | None, form: str | None) -> None:
    """List the jobs, each with its last run. The subcommands ask the ledger about single runs."""
    context.obj = ledger
    if context.invoked_subcommand is None:
        _list_jobs(ledger, form)


@jobs.command("list")
@click.argument("job", required=False)
@click.option("--status", help="Only these: running, ok, nothing, failed, timeout, died, interrupted.")
@click.option("--since", metavar="INSTANT", help="Only those started at this instant or later.")
@limit_option
@json_option
@click.pass_obj
def list_(
    ledger: str | None,
    job: str | None,
    status: str | None,
    since: str | None,
    limit: int | None,
    form: str | None,
) -> None:
    """List runs, newest first; of JOB only, if it is named."""
    import polars as pl

    from titan_lab import terminal
    from titan_lab.jobs.ledger import Ledger
    from titan_lab.jobs.table import STRUCTURED

    found = Ledger(ledger).runs(job, status, since)
    if form:
        # What the frame holds as JSON gets its structure back.
        rows = [row | {name: json.loads(row[name]) for name in STRUCTURED} for row in found.to_dicts()]
        print("[", ",\n".join(terminal.as_json(row) for row in rows[: limit or None]), "]", sep="\n")
        return
    took = (pl.col("finished") - pl.col("started")).dt.total_milliseconds()
    shown = found.with_columns(
        pl.col("started").dt.truncate("1s"), took=pl.duration(milliseconds=took, time_unit="us")
    )
    terminal.show(shown.select(_SHOWN), "table", limit=limited(limit, form))


@jobs.command()
@click.argument("run_id", metavar="RUN")
@json_option
@click.pass_obj
def show(ledger: str | None, run_id: str, form: str | None) -> None:
    """Tell all that is known of a run. The beginning of its id will do."""
    from titan_lab import terminal
    from titan_lab.jobs.ledger import Ledger

    row = Ledger(ledger).run(run_id)
    terminal.facts(
        row if form else {k: v for k, v in row.items() if v not in (None, {}, [])}, form or "table"
    )


@jobs.command()
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def logs(ledger: str | None, run_id: str) -> None:
    """Print what a run's notebook printed, cell by cell, and where it failed."""
    from titan_lab import terminal
    from titan_lab.jobs.history import printed
    from titan_lab.jobs.ledger import Ledger

    for line in printed(Ledger(ledger), run_id):
        print(terminal.safe(line))


@jobs.command()
@click.argument("run_id", metavar="RUN")
@click.option("--timeout", help="For the whole run, such as 30m.")
@click.pass_obj
def retry(ledger: str | None, run_id: str, timeout: str | None) -> None:
    """Run a job once more as RUN was: the same instant, the same parameters. The exit code is the run's."""
    from titan_lab import terminal
    from titan_lab.cli.jobs import tell
    from titan_lab.jobs.history import again
    from titan_lab.jobs.ledger import Ledger

    with terminal.Progress(f"running {run_id} again") as progress:
        done = again(Ledger(ledger), run_id, timeout=timeout, progress=progress)
    tell(done)


@jobs.command()
@click.argument("job", required=False)
@click.option("--keep", type=click.IntRange(min=0), help="Keep so many runs of each job, the newest.")
@click.option("--older-than", metavar="AGE", help="Take only what is older than this, such as 90d.")
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@json_option
@click.pass_obj
def prune(
    ledger: str | None,
    job: str | None,
    keep: int | None,
    older_than: str | None,
    dry_run: bool,
    form: str | None,
) -> None:
    """Remove the files of old runs; the ledger keeps their rows, and says when they went.

    Needs --keep, --older-than or both, which then must both allow it. What runs now stays.
    """
    from titan_lab import terminal
    from titan_lab.jobs.history import prune
    from titan_lab.jobs.ledger import Ledger

    if keep is None and older_than is None:
        raise click.UsageError("say what may go: --keep N, --older-than 90d, or both")
    gone = prune(Ledger(ledger), job, keep=keep, older_than=older_than, dry_run=dry_run)
    terminal.show(gone, form or "table")
    if not form:
        what = "would be removed" if dry_run else "removed"
        print(f"{gone['bytes'].sum():,} bytes of {gone.height:,} runs {what}")


def _list_jobs(ledger: str | None, form: str | None) -> None:
    from titan_lab import terminal
    from titan_lab.jobs.ledger import Ledger
    from titan_lab.jobs.plan import jobs

    last: dict[str, Any] = {}
    for row in Ledger(ledger).runs().iter_rows(named=True):
        last.setdefault(row["job"], row | {"started": row["started"].replace(microsecond=0)})
    names = ("status", "scheduled", "run_id", "started")
    rows = [
        {"job": job} | {name: last.get(job, {}).get(name) for name in names}
        for job in sorted({*jobs(), *last})
    ]
    if form:
        print(terminal.as_json(rows))
    else:
        terminal.table(
            ["job", "last run", "about", "run_id", "started"],
            [[row["job"], row["status"] or "never run", *(row[name] for name in names[1:])] for row in rows],
        )
    sys.stdout.flush()
