"""The magics: `%titan`, `%at`, `%order`, `%diff` and `%%titan_sql`, short ways to ask a book in a notebook.

Each returns what the function behind it returns, and raises what that raises. A wrong argument is a
MagicError and no UsageError, which checkers of notebooks do not see.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final

import polars as pl
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, needs_local_scope, no_var_expand
from IPython.core.magic_arguments import argument, magic_arguments
from IPython.utils.text import DollarFormatter

from titan_lab.book import Book
from titan_lab.clock import CUTS, iso
from titan_lab.errors import MagicError, nearest
from titan_lab.fold import State
from titan_lab.notebook.completion import IDENTIFIER, matcher
from titan_lab.notebook.session import AGGREGATE, NAME, Session, look
from titan_lab.notebook.sql import parameters_of, sql
from titan_lab.story import Story

# Words, where quotes hold together, and so do braces: {moments[0] + day} is one.
_WORDS: Final = re.compile(r"""(?:"[^"]*"|'[^']*'|\{[^{}]*\}|[^\s"'{}]|[{}"'])+""")
_QUOTED: Final = re.compile(r"""(\{[^{}]*\})|"([^"]*)"|'([^']*)'""")
_of = argument("--of", metavar="NAME", help="Ask this book, and not the one that was opened last.")
_columns = argument("--columns", metavar="A,B", help="Only these columns, separated by commas.")
_cut = argument(
    "--cut", choices=CUTS, default="prefix", help="Which events count where versions and clocks disagree."
)


@magics_class
class TitanMagics(Magics):
    """The magics of one notebook."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.session = Session(shell.user_ns)

    @no_var_expand
    @needs_local_scope
    @magic_arguments()
    @argument("what", nargs="?", metavar="open|use", help="Open a store, or use a book that is there.")
    @argument("which", nargs="?", metavar="URL|NAME", help="The store's URL, or the book's name.")
    @argument(
        "--as", dest="name", default=NAME, metavar="NAME", help=f"The book's variable. Default: {NAME}."
    )
    @argument(
        "--aggregate", default=AGGREGATE, help="module:Class, or a class of the notebook. Default: tl.Order."
    )
    @argument("--zone", help="How moments without a zone are read, such as Europe/Berlin.")
    @line_magic
    def titan(self, line: str, local_ns: dict[str, Any]) -> Book | Session:
        """Open a store as a book, choose the book that is asked, or list the books.

        Examples:

          %titan                                           the books that there are
          %titan open sqlite:///data/samples/orders.db     opened, folded, kept as `book`
          %titan open {url} --as tickets --aggregate Ticket
          %titan use tickets                               asked from now on
        """
        asked = self._asked(self.titan, line, local_ns)
        if asked.what is None:
            return self.session
        if asked.what not in ("open", "use"):
            hint = nearest(asked.what, ["open", "use"]) or _help("titan")
            raise MagicError(f"%titan {asked.what} is nothing; there are %titan, open and use", hint=hint)
        if asked.which is None:
            raise MagicError(f"%titan {asked.what} needs a name", hint=_help("titan"))
        if asked.what == "use":
            return self.session.use(asked.which)
        return self.session.open(asked.which, asked.name, asked.aggregate, asked.zone)

    @no_var_expand
    @needs_local_scope
    @magic_arguments()
    @argument("instant", metavar="INSTANT", help="2025-01-15T14:00Z, inclusive; a date is its first instant.")
    @_columns
    @argument("--known-at", metavar="INSTANT", help="As it was known then.")
    @_cut
    @_of
    @line_magic
    def at(self, line: str, local_ns: dict[str, Any]) -> pl.DataFrame:
        """Show the state of all aggregates at an instant: ``book.at``.

        Examples:

          %at 2025-01-15T14:00Z
          %at {moment} --columns status,total
          then = %at 2025-01-15 --known-at 2025-01-20
        """
        asked = self._asked(self.at, line, local_ns)
        book = self.session.book(asked.of)
        columns = _names(asked.columns)
        return book.at(asked.instant, cut=asked.cut, columns=columns, known_at=asked.known_at)

    @no_var_expand
    @needs_local_scope
    @magic_arguments()
    @argument("aggregate_id", metavar="ID", help="Whose life; Tab completes it.")
    @argument("--at", metavar="INSTANT", help="The state at this instant, inclusive.")
    @argument("--version", type=int, metavar="N", help="The state after this version.")
    @_of
    @line_magic
    def order(self, line: str, local_ns: dict[str, Any]) -> Story | State:
        """Show one order's life, or its state at an instant or a version: ``book[ID]``, ``.at(...)``.

        Examples:

          %order 550e8400-e29b-41d4-a716-446655440000
          %order {ids[0]} --at 2025-01-01T11:00Z
          state = %order $worst --version 3
        """
        asked = self._asked(self.order, line, local_ns)
        return look(self.session.book(asked.of), asked.aggregate_id, asked.at, asked.version)

    @no_var_expand
    @needs_local_scope
    @magic_arguments()
    @argument("since", metavar="T0", help="What changed after this instant ...")
    @argument("until", metavar="T1", help="... up to and including this one.")
    @_columns
    @_cut
    @_of
    @line_magic
    def diff(self, line: str, local_ns: dict[str, Any]) -> pl.DataFrame:
        """Show what changed between two instants, and which event changed it: ``book.diff``.

        Examples:

          %diff 2025-01-14 2025-01-15
          %diff {monday} {tuesday} --columns status
        """
        asked = self._asked(self.diff, line, local_ns)
        book = self.session.book(asked.of)
        return book.diff(asked.since, asked.until, columns=_names(asked.columns), cut=asked.cut)

    @no_var_expand
    @needs_local_scope
    @magic_arguments()
    @argument("--into", metavar="NAME", help="Keep the answer in this variable, too.")
    @argument("--at", metavar="INSTANT", help="The tables as they were at this instant, inclusive.")
    @_of
    @cell_magic
    def titan_sql(self, line: str, cell: str, local_ns: dict[str, Any]) -> pl.DataFrame:
        """Ask in SQL over the tables `events` and `states`: ``titan_lab.notebook.sql.sql``.

        A name after a colon is a variable of the notebook. Its value is bound, never written into the text.

        Example:

          %%titan_sql --at 2025-01-15 --into waiting
          SELECT status, count(*) AS orders, sum(total) AS total
          FROM states WHERE status IN :wanted AND total > :least
          GROUP BY status ORDER BY status
        """
        asked = self._asked(self.titan_sql, line, local_ns)
        if asked.into and not asked.into.isidentifier():
            raise MagicError(f"{asked.into!r} is no name for a variable", hint="%%titan_sql --into found")
        values = {name: local_ns[name] for name in parameters_of(cell) if name in local_ns}
        found = sql(self.session.book(asked.of), cell, values, asked.at)
        if asked.into:
            self.session.namespace[asked.into] = found
        return found

    def _asked(self, magic: Callable[..., Any], line: str, local_ns: dict[str, Any]) -> Any:
        """Read a magic's arguments, its {names} and $names replaced by the values of variables."""
        known = {**self.session.namespace, **local_ns}
        words = [_expanded(_unquoted(word), known) for word in _WORDS.findall(line)]
        try:
            return magic.parser.parse_args(words)  # type: ignore[attr-defined]
        except UsageError as error:  # the parser's own frames would only bury the message
            raise MagicError(f"%{magic.__name__}: {error}", hint=_help(magic.__name__)) from None


class _Written(DollarFormatter):
    """Write values as the magics read them: instants as ISO-8601, lists with commas."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, datetime):
            return iso(value) if value.tzinfo else value.isoformat()
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, list | tuple):
            return ",".join(self.format_field(one, "") for one in value)
        return str(super().format_field(value, format_spec))


def load(shell: InteractiveShell) -> None:
    """Register the magics and their completion with a shell; again is fine."""
    unload(shell)
    magics = TitanMagics(shell)
    shell.register_magics(magics)
    shell.Completer.custom_matchers.append(matcher(magics.session))


def unload(shell: InteractiveShell) -> None:
    """Take the magics and their completion away from a shell; what is not there is no error."""
    for kind, names in TitanMagics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(TitanMagics.__name__, None)
    kept = [m for m in shell.Completer.custom_matchers if getattr(m, "matcher_identifier", "") != IDENTIFIER]
    shell.Completer.custom_matchers[:] = kept


def _expanded(word: str, known: dict[str, Any]) -> str:
    try:
        return _Written().vformat(word, args=[], kwargs=known)
    except Exception:  # as everywhere in IPython: what is no variable stays as it is written
        return word


def _unquoted(word: str) -> str:
    return _QUOTED.sub(lambda found: next(group for group in found.groups() if group is not None), word)


def _names(columns: str | None) -> list[str] | None:
    return None if columns is None else [name for name in columns.replace(" ", "").split(",") if name]


def _help(name: str) -> str:
    return f"%{name}? shows what it understands; quote what holds a space"
