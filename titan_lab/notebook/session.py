"""What a notebook has open: its books by their names, and the one that is asked when none is named.

The magics are written on top of this; whatever they do can be done with these functions and a Book's verbs.
"""

from __future__ import annotations

import keyword
from collections.abc import MutableMapping
from importlib import import_module
from typing import Any, Final

from titan_lab.book import Book
from titan_lab.clock import Instant
from titan_lab.connect import open_log
from titan_lab.errors import MagicError, nearest
from titan_lab.fold import Aggregate, State
from titan_lab.notebook import html
from titan_lab.story import Story

AGGREGATE: Final = "titan_lab.orders.order:Order"  # imported when it is asked for, as any other is
NAME: Final = "book"


class Session:
    """The books of a namespace, and which one of them is asked."""

    def __init__(self, namespace: MutableMapping[str, Any]) -> None:
        self.namespace = namespace
        self.current = NAME

    def open(self, url: str, name: str = NAME, aggregate: str = AGGREGATE, zone: str | None = None) -> Book:
        """Open a store, fold it, keep the book under a name, and ask it from now on.

        Raises MagicError where the name is no name or belongs to something that is no book, and what
        ``open_book`` raises.
        """
        if not name.isidentifier() or keyword.iskeyword(name):
            raise MagicError(f"{name!r} is no name for a variable", hint="%titan open URL --as orders")
        if name in self.namespace and not isinstance(self.namespace[name], Book):
            kind = type(self.namespace[name]).__name__
            raise MagicError(
                f"{name} is a {kind} of yours, and is left as it is", hint="choose another name: --as orders"
            )
        book = open_book(url, aggregate, zone, self.namespace)
        self.namespace[name] = book
        self.current = name
        return book

    def use(self, name: str) -> Book:
        """Ask this book from now on. Raises MagicError where there is none of that name."""
        book = self.book(name)
        self.current = name
        return book

    def book(self, name: str | None = None) -> Book:
        """Give the book of a name, or the one that is asked. Raises MagicError where there is none."""
        wanted = name or self.current
        found = self.namespace.get(wanted)
        if isinstance(found, Book):
            return found
        books = self.books()
        told = f"{wanted} is a {type(found).__name__}, and no book" if found is not None else (
            f"there is no book {wanted!r}" if name or books else "no book is open"
        )  # fmt: skip
        hint = nearest(wanted, books) or (
            f"%titan use {' or '.join(books)}" if books else "%titan open sqlite:///data/samples/orders.db"
        )
        raise MagicError(told, hint=hint)

    def books(self) -> dict[str, Book]:
        """List the books of the notebook by name, however they were made, sorted by name."""
        # IPython keeps what cells showed under names with an underscore; those are no names of the user's.
        named = {n: b for n, b in self.namespace.items() if isinstance(b, Book) and not n.startswith("_")}
        return dict(sorted(named.items()))

    def __repr__(self) -> str:
        told = [
            f"{'*' if name == self.current else ''}{name}: {book!r}" for name, book in self.books().items()
        ]
        return f"<Session: {', '.join(told) or 'no book is open'}>"

    def _repr_html_(self) -> str:
        rows = [
            ("→" if name == self.current else "", name, book.aggregate.__name__, len(book), len(book.typed),
             book.basis.source)
            for name, book in self.books().items()
        ]  # fmt: skip
        columns = ["asked", "name", "aggregate", "aggregates", "events", "source"]
        return html.table(rows, columns, note="" if rows else "%titan open sqlite:///data/samples/orders.db")


def open_book(
    url: str,
    aggregate: str = AGGREGATE,
    zone: str | None = None,
    namespace: MutableMapping[str, Any] | None = None,
) -> Book:
    """Open a store for reading and fold it.

    aggregate: ``module:Class``, or the name of a class in `namespace`. zone: how moments without a zone are
    read. Raises MagicError for what is no aggregate, and what ``tl.open`` and ``log.fold`` raise.

    >>> len(open_book("sqlite:///data/samples/orders.db", "titan_lab.orders.order:Order"))
    500
    """
    declared = _aggregate(aggregate, namespace or {})
    return open_log(url, zone=zone).fold(declared)


def look(
    book: Book, aggregate_id: str, at: Instant | None = None, version: int | None = None
) -> Story | State:
    """Give one life of a book, or its state at an instant (inclusive) or after its version n.

    Raises NoSuchAggregate, InstantError.

    >>> book = open_book("sqlite:///data/samples/orders.db")
    >>> look(book, "550e8400-e29b-41d4-a716-446655440000", version=2).status
    'PAID'
    """
    story = book[aggregate_id]
    return story if at is None and version is None else story.at(at, version=version)


def _aggregate(name: str, namespace: MutableMapping[str, Any]) -> type[Aggregate]:
    module, separator, inside = name.partition(":")
    if separator:
        try:
            found = getattr(import_module(module), inside)
        except (ImportError, AttributeError, ValueError) as error:
            raise MagicError(
                f"{name!r} cannot be imported: {error}", hint="--aggregate package.module:Class"
            ) from error
    else:
        declared = [n for n, v in namespace.items() if isinstance(v, type) and issubclass(v, Aggregate)]
        if name not in namespace:
            hint = nearest(name, declared) or "--aggregate package.module:Class, or declare one in a cell"
            raise MagicError(f"the notebook has no aggregate {name!r}", hint=hint)
        found = namespace[name]
    if not (isinstance(found, type) and issubclass(found, Aggregate)):
        raise MagicError(f"{name!r} is no Aggregate", hint="class Ticket(tl.Aggregate): ...")
    return found
