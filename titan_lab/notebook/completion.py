"""Tab completion for the magics: ids, columns, tables, event types and the magics' own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    completion_matcher,
)

from titan_lab.book import Book
from titan_lab.clock import CUTS
from titan_lab.connect import BACKENDS
from titan_lab.errors import TitanError
from titan_lab.event import EVENTS
from titan_lab.notebook.session import Session
from titan_lab.notebook.sql import TABLES

MOST: Final = 100  # ids that are offered at once
IDENTIFIER: Final = "titan_lab.magics"
OPTIONS: Final = {
    "titan": ["open", "use", "--as", "--aggregate", "--zone"],
    "at": ["--columns", "--known-at", "--cut", "--of"],
    "order": ["--at", "--version", "--of"],
    "diff": ["--columns", "--cut", "--of"],
    "titan_sql": ["--into", "--at", "--of"],
}
_MAGIC: Final = re.compile(r"%%?(titan_sql|titan|at|order|diff)\b(.*)", re.DOTALL)


def matcher(session: Session) -> Callable[[CompletionContext], SimpleMatcherResult]:
    """Make what IPython asks for completions: it answers inside of our magics, and nowhere else."""

    @completion_matcher(identifier=IDENTIFIER, api_version=2)
    def titan(context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.splitlines() or [""]
        before = "\n".join(
            [*lines[: context.cursor_line], lines[context.cursor_line][: context.cursor_position]]
        )
        found = [SimpleCompletion(text, type="titan") for text in complete(session, before, context.token)]
        return {"completions": found, "suppress": bool(found)}

    return titan


def complete(session: Session, before: str, token: str) -> list[str]:
    """List what can follow: `before` is the cell up to the cursor, `token` the part that would be replaced.

    A book that is not there completes to nothing; completion raises no error.
    """
    whole = before if before.lstrip().startswith("%%titan_sql") else before.rpartition("\n")[2]
    # In `then = %at ...` the magic does not begin the line.
    call = _MAGIC.search(whole)
    if call is None:
        return []
    try:
        book = session.book()
    except TitanError:
        book = None
    magic, said = call.groups()
    in_query = magic == "titan_sql" and "\n" in said
    offered = (
        _in_query(book) if in_query else _in_line(session, book, magic, said[: len(said) - len(token)], token)
    )
    return [word for word in dict.fromkeys(offered) if word.startswith(token)]


def _in_line(session: Session, book: Book | None, magic: str, said: str, token: str) -> Iterator[str]:
    words = said.split()
    last = words[-1] if words else ""
    if last.startswith("--columns") or (said.endswith(",") and "--columns" in words):
        yield from book.aggregate.reducers if book else ()
    elif last == "--of" or last == "use":
        yield from session.books()
    elif last == "--cut":
        yield from CUTS
    elif last == "open":
        yield from (f"{scheme}://" for scheme in BACKENDS)
    elif magic == "order" and not words:
        yield from _ids(book, token)
    elif magic != "titan" or token.startswith("-") or not words:
        yield from (o for o in OPTIONS[magic] if not words or o.startswith("--"))
    else:
        yield from (o for o in OPTIONS[magic] if o.startswith("--"))


def _ids(book: Book | None, token: str) -> list[str]:
    if book is None:
        return []
    ids = book.typed.ids  # sorted, so that a search finds where those that begin with the token begin
    start = int(ids.search_sorted(token)) if len(ids) else 0
    return ids.slice(start, MOST).to_list()


def _in_query(book: Book | None) -> Iterator[str]:
    columns = book.at(version=0).columns if book else ()
    return chain(TABLES, columns, EVENTS.names(), book.typed.kinds if book else ())
