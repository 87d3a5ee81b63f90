"""What titan_lab does, shown in ten seconds on the sample orders: the text of `titan demo`."""

from __future__ import annotations

import time

import polars as pl

from titan_lab.clock import CUTS
from titan_lab.connect import from_frame, open_log
from titan_lab.orders.order import Order
from titan_lab.orders.sample import PHONE, sample_events
from titan_lab.paths import from_root, project_root
from titan_lab.terminal import bold, show

SAMPLES = "data/samples/orders.db"
NOON = "2025-01-15T12:00Z"
DISPUTED = "2025-01-14T11:04Z"
MEANING = {
    "prefix": "versions 1 to k, each in its time",
    "filter": "each stamped by then: plain SQL",
    "latest": "up to the last one stamped by then",
}


def demo() -> None:
    """Print one store, one life, all orders at an instant, and what the three cuts say of one of them."""
    there = (project_root() / SAMPLES).exists()
    source = f'tl.open("sqlite:///{SAMPLES}")' if there else "tl.from_frame(sample_events())"
    log = open_log(from_root(f"sqlite:///{SAMPLES}")) if there else from_frame(sample_events())
    events = len(log)
    _part("Every state of every order, at every instant, folded at once", f"book = {source}.fold(tl.Order)")
    started = time.perf_counter()
    book = log.fold(Order)
    took = time.perf_counter() - started
    print(f"{len(book):,} orders, {events:,} events, read and folded in {took:.2f} s")

    _part("One order's life, and what each event changed", f'order = book["{PHONE}"]', "order.log()")
    order = book[PHONE]
    show(_life(order.log()), "table")

    _part(
        "All orders as they were on 15 January at noon",
        f'states = book.at("{NOON}", columns=["status", "total"])',
        'states.group_by("status").agg(orders=pl.len(), total=pl.sum("total"))',
    )
    states = book.at(NOON, columns=["status", "total"])
    show(states.group_by("status").agg(orders=pl.len(), total=pl.sum("total")).sort("status"), "table")

    _part(
        "Where clocks disagree, a cut must be named",
        f'order.at("{DISPUTED}", cut="prefix")   # or "filter", or "latest"',
    )
    print("Version 10 above is stamped before version 9. At a moment between the two:\n")
    told = [(cut, order.at(DISPUTED, cut=cut), MEANING[cut]) for cut in CUTS]
    rows = [(cut, state.version, state.total, state.refunded, meaning) for cut, state, meaning in told]
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "cut": pl.String,
        "version": pl.Int64,
        "total": pl.Decimal(38, 2),
        "refunded": pl.Decimal(38, 2),
        "which counts": pl.String,
    }
    show(pl.DataFrame(rows, schema=schema, orient="row"), "table")

    print("\nNow you:")
    if not there:
        print(f"  python -m titan_lab.orders.sample {SAMPLES.rpartition('/')[0]}")
    print(f"  titan inspect sqlite:///{SAMPLES}\n  titan at sqlite:///{SAMPLES} {NOON} --by status")


def _life(log: pl.DataFrame) -> pl.DataFrame:
    changed = pl.col("changed").list.eval(pl.element().filter(pl.element() != "id")).list.join(", ")
    return log.select("version", "timestamp", "event_type", changed)


def _part(title: str, *code: str) -> None:
    print(f"\n{bold('# ' + title)}\n" + "".join(f">>> {line}\n" for line in code))
