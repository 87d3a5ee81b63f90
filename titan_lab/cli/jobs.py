"""Run jobs, or tell what a run would be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from titan_lab.jobs.parameters import Parameter
    from titan_lab.jobs.record import JobRun


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="",
    short_help="Run a job headless: a notebook, executed, and its report.",
)
@click.argument("job", required=False)
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@click.option("--timeout", help="For the whole run, such as 30m.")
@click.option("--dry-run", is_flag=True, help="Tell what would run, with what and where; run nothing.")
@click.option("--beyond-frontier", is_flag=True, help="Allow an --as-of that the source does not reach.")
@click.option("--ledger", metavar="URL", help="Where runs are entered.  [default: runs/ledger.db]")
@click.pass_context
def run(
    context: click.Context,
    job: str | None,
    pairs: tuple[str, ...],
    timeout: str | None,
    dry_run: bool,
    beyond_frontier: bool,
    ledger: str | None,
) -> None:
    """Run a job headless: its notebook, executed, and a report that opens anywhere. Without JOB, list them.

    The job's own parameters may be given by name, such as --as-of 2025-01-15. The report's path goes to
    standard output. Exit codes: 0 done, 1 failed, 2 bad input, 3 out of time, 4 the kernel died, 6 nothing to
    do, 75 the job runs for this instant already, 130 and 143 interrupted.
    """
    from titan_lab import terminal
    from titan_lab.jobs.run import run_job

    if job is None:
        _list_jobs()
        return
    if job.startswith("-"):
        raise click.UsageError(f"name the job before its parameters: titan run JOB {job} ...")
    values = dict(named_value(pair) for pair in pairs) | _named(context.args)
    if dry_run:
        _tell_plan(job, values, ledger, beyond_frontier)
        return
    with terminal.Progress(f"running {job}") as progress:
        done = run_job(
            job, values, timeout=timeout, progress=progress, ledger=ledger, beyond_frontier=beyond_frontier
        )
    tell(done)


def tell(done: JobRun) -> NoReturn:
    """Say how a run ended, print where its report is, and exit with its code."""
    from titan_lab import terminal

    terminal.say(f"{done.job} as of {done.as_of}: {done.status}, {done.took.total_seconds():.1f} s")
    if done.error:
        cell = done.error.get("cell")
        terminal.say(f"{'' if cell is None else f'cell {cell + 1}: '}{done.error.get('message')}")
    if done.notebook:
        terminal.say(f"notebook: {done.notebook}")
    if done.report:
        print(done.report)
    sys.stdout.flush()
    sys.exit(done.exit_code)


def _tell_plan(job: str, values: dict[str, str], url: str | None, beyond_frontier: bool) -> None:
    from titan_lab import terminal
    from titan_lab.jobs.ledger import Ledger
    from titan_lab.jobs.plan import plan_of

    plan = plan_of(job, values, beyond_frontier=beyond_frontier)
    ledger = Ledger(url, runs=plan.runs)
    holder = ledger.holder(plan.job, plan.scheduled)
    earlier = ledger.attempts(plan.job, plan.scheduled, settle=False)["status"].to_list()
    filled = plan.values(plan.folder / "RUN")
    terminal.table(
        ["parameter", "type", "value", "from"],
        [
            [
                p.name,
                p.annotation,
                repr(filled[p.name]) if p.name in filled else _default(p),
                "given" if p.name in values else "filled in" if _filled(p, filled) else "default",
            ]
            for p in plan.declared
        ],
    )
    print()
    terminal.facts(
        {
            "job": plan.job,
            "notebook": str(plan.source),
            "as of": plan.as_of,
            "instant": plan.scheduled,
            "kernel": plan.kernel,
            "files": f"{plan.folder}/RUN.{{ipynb,html,json}}, {plan.folder}/RUN/",
            "ledger": ledger.url,
            "source": f"{plan.basis['source']}, up to {plan.basis['frontier']}" if plan.basis else None,
            "lock": f"held by {holder['run_id']} (process {holder['pid']})" if holder else "free",
            "earlier": ", ".join(earlier) or "none",
            "this would be": f"attempt {len(earlier) + 1}",
        }
    )
    terminal.say("nothing was run, and nothing written")


def _filled(parameter: Parameter, values: dict[str, Any]) -> bool:
    return parameter.name in values and values[parameter.name] != parameter.default


def _list_jobs() -> None:
    from titan_lab import terminal
    from titan_lab.jobs.run import jobs, parameters_of_job

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


def named_value(text: str) -> tuple[str, str]:
    """Read ``name=value``; a dash in the name stands for an underscore."""
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
        values |= dict([named_value(f"{name[2:]}={value}")])
    return values
