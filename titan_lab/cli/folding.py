"""Fold a store for a command, and tell what was rejected on the way."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from titan_lab.cli.options import NO_ANSWER
from titan_lab.errors import NoSuchAggregate
from titan_lab.redacted import redact

if TYPE_CHECKING:
    from titan_lab.book import Book
    from titan_lab.log import EventLog


def folded(url: str, zone: str | None, order_id: str | None = None) -> Book:
    """Fold all orders of a store, or one of them. Raises NoSuchAggregate, which suggests near ids."""
    from titan_lab import terminal
    from titan_lab.connect import open_log
    from titan_lab.orders.order import Order

    with terminal.Progress(f"folding {redact(url)}"):
        log = open_log(url, zone=zone)
        book = log.fold(Order, aggregates=order_id)
    if order_id is not None and order_id not in book:
        raise _unknown(log, order_id)
    return book


def tell_rejected(book: Book, url: str, strict: bool) -> None:
    """Say on standard error how many rows were rejected; with `strict` that is no good answer."""
    from titan_lab import terminal

    if book.rejected.height:
        terminal.say(f"{book.rejected.height:,} rows were rejected: titan inspect {redact(url)} --rejected")
        if strict:
            sys.exit(NO_ANSWER)


def _unknown(log: EventLog, order_id: str) -> NoSuchAggregate:
    try:
        log.events(order_id)
    except NoSuchAggregate as error:
        return error
    hint = "titan inspect URL --rejected tells why"
    return NoSuchAggregate(f"all events of {order_id!r} were rejected", hint=hint)
