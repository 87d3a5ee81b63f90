"""Run jobs, and list them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from titan_lab.jobs.parameters import Parameter


@click.command(
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
    from titan_lab.jobs.run import run_job

    if job is None:
        _list_jobs()
        return
    if job.startswith("-"):
        raise click.UsageError(f"name the job before its parameters: titan run JOB {job} ...")
    values = dict(named_value(pair) for pair in pairs) | _named(context.args)
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
