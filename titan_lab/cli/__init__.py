"""The `titan` command.

Nothing heavy is imported until a command runs, so that `titan --help` answers at once. What was asked for
goes to standard output, everything else to standard error. Exit codes: 0 done; 1 the question has no good
answer; 2 usage or bad input; 130 interrupted; `run` passes on the job's own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import Any

import click

from titan_lab.cli import audit, bring, jobs, lab, look, notebooks, runs, schedule, store, why
from titan_lab.cli.options import BAD_INPUT, INTERRUPTED, LOCKED, NO_ANSWER
from titan_lab.errors import Locked, NoSuchAggregate, TitanError


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


for command in (
    look.inspect,
    audit.audit,
    look.at,
    why.diff,
    why.blame,
    why.explain,
    bring.import_,
    store.schema,
    store.sync,
    store.snapshots,
    jobs.run,
    schedule.schedule,
    schedule.backfill,
    runs.jobs,
    notebooks.nb,
    lab.lab,
):
    titan.add_command(command)
runs.jobs.add_command(schedule.export)


_CODES = {NoSuchAggregate: NO_ANSWER, Locked: LOCKED}


def main() -> None:
    """Run the command line; errors of ours become a message, a hint and an exit code."""
    from titan_lab.terminal import say

    warnings.showwarning = lambda message, *_, **__: say(f"note: {message}")  # no line of ours beside it
    with contextlib.suppress(AttributeError):  # a stand-in for stdout may not have it
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        titan(standalone_mode=False)
    except TitanError as error:
        say(f"titan: {error.message}")
        if error.hint:
            say(f"  hint: {error.hint}")
        sys.exit(next((code for kind, code in _CODES.items() if isinstance(error, kind)), BAD_INPUT))
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except click.Abort:
        say("titan: interrupted")
        sys.exit(INTERRUPTED)
    except OSError as error:  # no space, no permission: the system's own words are the clearest
        say(f"titan: {error}")
        sys.exit(BAD_INPUT)
