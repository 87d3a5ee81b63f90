"""Look after notebooks: check that they are true, and bring their outputs up to date."""

from __future__ import annotations

import sys

import click

from titan_lab.cli.options import NO_ANSWER, csv_option, json_option

paths_argument = click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True))


@click.group()
def nb() -> None:
    """Check notebooks, or bring their outputs up to date."""


@nb.command(short_help="Execute notebooks, and compare them with their outputs.")
@paths_argument
@click.option(
    "--timeout", default=300, show_default=True, type=click.IntRange(1), help="Seconds for one cell."
)
@click.option("--strict", is_flag=True, help="Exit with 1 for advice, too.")
@json_option
@csv_option
def check(paths: tuple[str, ...], timeout: int, strict: bool, form: str | None) -> None:
    """Check notebooks, or all those in a folder: each is executed, and must show what it is kept with.

    Also found: cells that were never run, errors that are only printed, absolute paths, secrets; and, as
    advice, cells of more than 15 lines and a notebook without a cell tagged `parameters`. No notebook is
    changed, but what one writes when it runs is written. Exit codes: 0 all is well, 1 an error was found, 2
    bad input.
    """
    from titan_lab import terminal
    from titan_lab.notebook.check import check as check_all
    from titan_lab.notebook.check import notebooks

    listed = notebooks(paths)
    with terminal.Progress(f"executing {len(listed)} notebook{'s' * (len(listed) > 1)}, twice each"):
        found = check_all(listed, timeout)
    errors = found.filter(level="error").height
    if form:
        terminal.show(found, form)
    else:
        for (path,), rows in found.group_by("notebook", maintain_order=True):
            terminal.show(rows.drop("notebook", "id"), "table", str(path))
    terminal.say(f"{len(listed):,} checked, {errors:,} errors, {found.height - errors:,} pieces of advice")
    if errors or (strict and found.height):
        sys.exit(NO_ANSWER)


@nb.command(short_help="Execute notebooks in place.")
@paths_argument
def refresh(paths: tuple[str, ...]) -> None:
    """Execute notebooks, or all those in a folder, in place, so that their outputs are of today's code.

    A notebook that fails stays as it is, and is told; the others are refreshed. What tells of the run and not
    of the answer (times, releases) is left out, so that a second refresh changes no byte. Exit codes: 0 done,
    1 a notebook failed, 2 bad input.
    """
    from titan_lab import terminal
    from titan_lab.notebook.check import notebooks, read, strip_colour
    from titan_lab.notebook.refresh import refresh as refresh_one

    listed = notebooks(paths)
    for path in listed:
        read(path)  # one that cannot be read is told before any of them is changed
    failed = 0
    for path in listed:
        try:
            with terminal.Progress(f"executing {path}"):
                changed = refresh_one(path)
        except Exception as error:  # nbclient's, for whatever a cell raises
            failed += 1
            said = [line for line in strip_colour(str(error)).splitlines() if line.strip()]
            # The last line is the error's, unless that has a hint of its own below it.
            last = said[-2:] if said[-1].lstrip().startswith("hint:") else said[-1:]
            terminal.say(f"failed    {path}: {' '.join(line.strip() for line in last)}")
        else:
            print(f"{'changed ' if changed else 'the same'}  {path}")
    if failed:
        sys.exit(NO_ANSWER)
