"""Look at a store: what it holds, and what was true at an instant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from titan_lab.cli.folding import folded, tell_rejected
from titan_lab.cli.options import (
    NO_ANSWER,
    csv_option,
    json_option,
    limit_option,
    limited,
    strict_option,
    zone_option,
)
from titan_lab.redacted import redact

if TYPE_CHECKING:
    from datetime import datetime

    from titan_lab.clock import Cut
    from titan_lab.story import Story

BEFORE, AFTER = 15, 3  # events of one order that are listed around an instant


@click.command(short_help="Say what a store holds, and what is odd about it.")
@click.argument("url")
@click.option("--rejected", "rows", flag_value="rejected", help="List the rejected rows and why.")
@click.option("--audit", "rows", flag_value="audit", help="List version gaps, duplicates, clock inversions.")
@limit_option
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

    with terminal.Progress(f"reading {redact(url)}"):
        log = open_log(url, zone=zone)
        events = log.read()
        book = log.fold(Order, newer="reject")  # so that payloads are looked at, too
        rejected, audit = log.rejected, log.audit()
    types = events.group_by("event_type").len("events").sort("events", "event_type", descending=[True, False])
    if rows:
        terminal.show(rejected if rows == "rejected" else audit, form or "table", limit=limited(limit, form))
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


@click.command(short_help="Show the state of all orders at an instant.")
@click.argument("url")
@click.argument("instant")
@click.option("--order", "order_id", help="Only this order: its state, and the events that led to it.")
@click.option("--cut", type=click.Choice(["prefix", "filter", "latest"]), default="prefix", show_default=True,
              help="Which events count where versions and clocks disagree.")  # fmt: skip
@click.option("--columns", help="Only these columns, separated by commas.")
@click.option("--by", help="Count the orders, and add up --measure, for each value of this column.")
@click.option("--measure", default="total", show_default=True, help="What --by adds up.")
@limit_option
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

    if by is not None and (cut != "prefix" or order_id is not None or columns is not None):
        raise click.UsageError("--by counts all orders by the default cut: no --cut, --order or --columns")
    moment = read_instant(instant, zone)  # before a long read, for nothing
    book = folded(url, zone, order_id)
    names = columns.replace(" ", "").split(",") if columns else None
    if by is not None:
        frame = book.every("1d", moment, moment, by=by, measure=measure).drop("instant")
        terminal.show(frame, form or "table", limit=limited(limit, form))
    elif order_id is not None and not form:
        _tell(book[order_id], moment, cut, names)
    else:
        if not form and names is None:
            names = ["status", "total", "paid"]
        frame = book.at(moment, cut=cut, columns=names)
        terminal.show(frame, form or "table", limit=limited(limit, form))
        if order_id is not None and frame.is_empty():
            _too_early(order_id, moment)
    tell_rejected(book, url, strict)


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
