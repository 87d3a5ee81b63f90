"""Bring orders from elsewhere into a store."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from titan_lab.cli.options import NO_ANSWER, ROWS, json_option, strict_option


@click.group(name="import")
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
