"""Explain a change: what differs between two instants, who set a value, and why a sum moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from titan_lab.cli.folding import folded, tell_rejected
from titan_lab.cli.options import (
    csv_option,
    json_option,
    limit_option,
    limited,
    order_option,
    strict_option,
    zone_option,
)

if TYPE_CHECKING:
    import polars as pl


@click.command(short_help="List what changed between two instants, and which event changed it.")
@click.argument("url")
@click.argument("since", metavar="T0")
@click.argument("until", metavar="T1")
@click.option("--columns", help="Only these columns, separated by commas.")
@order_option
@limit_option
@zone_option
@strict_option
@json_option
@csv_option
def diff(
    url: str,
    since: str,
    until: str,
    columns: str | None,
    order_id: str | None,
    limit: int | None,
    zone: str | None,
    strict: bool,
    form: str | None,
) -> None:
    """List what changed after T0 and until T1, one row for each field, with the event that changed it.

    T0 and T1 have a zone, such as 2025-01-15T14:00Z; a bare date is its first instant.
    """
    from titan_lab.clock import instant

    moments = instant(since, zone), instant(until, zone)  # before a long read, for nothing
    book = folded(url, zone, order_id)
    names = columns.replace(" ", "").split(",") if columns else None
    _show(book.diff(*moments, columns=names), form, limit)
    tell_rejected(book, url, strict)


@click.command(short_help="Tell which event set the value that a column has.")
@click.argument("url")
@click.argument("column")
@click.option("--at", "when", help="The value that it had at this instant, instead of its last.")
@order_option
@limit_option
@zone_option
@strict_option
@json_option
@csv_option
def blame(
    url: str,
    column: str,
    when: str | None,
    order_id: str | None,
    limit: int | None,
    zone: str | None,
    strict: bool,
    form: str | None,
) -> None:
    """Tell, for every order, the value of COLUMN and the event that set it."""
    from titan_lab.clock import instant

    moment = None if when is None else instant(when, zone)
    book = folded(url, zone, order_id)
    _show(book.blame(column, moment), form, limit)
    tell_rejected(book, url, strict)


@click.command(short_help="Tell why the sum of a column moved between two instants.")
@click.argument("url")
@click.argument("measure")
@click.argument("since", metavar="T0")
@click.argument("until", metavar="T1")
@click.option(
    "--by", default="event_type", show_default=True, help="event_type, day, or a column of the state."
)
@limit_option
@zone_option
@strict_option
@json_option
@csv_option
def explain(
    url: str,
    measure: str,
    since: str,
    until: str,
    by: str,
    limit: int | None,
    zone: str | None,
    strict: bool,
    form: str | None,
) -> None:
    """Tell why the sum of MEASURE over all orders moved after T0 and until T1; the parts add up exactly."""
    from titan_lab.clock import instant

    moments = instant(since, zone), instant(until, zone)
    book = folded(url, zone)
    _show(book.explain(measure, *moments, by=by), form, limit)
    tell_rejected(book, url, strict)


def _show(frame: pl.DataFrame, form: str | None, limit: int | None) -> None:
    from titan_lab import terminal

    terminal.show(frame, form or "table", limit=limited(limit, form))
