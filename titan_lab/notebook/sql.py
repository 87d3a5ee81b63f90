"""SQL over a book: two tables, bound parameters, and answers as exact as the book's own.

The engine is DuckDB in memory, walled in: it sees the two tables and no file, no network, no variable of
Python's. polars has SQL, too, but neither bound parameters nor a way into the JSON of a payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import polars as pl

from titan_lab.book import Book
from titan_lab.clock import Instant, instant
from titan_lab.errors import MissingExtra, QueryError, nearest

TABLES: Final = ("events", "states")
_WALLS: Final = (
    "SET TimeZone = 'UTC'",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
# What is no SQL of its own comes first, so that a colon in a text, a name or a comment is never looked at.
_TOKENS: Final = re.compile(
    r"""(?P<quoted> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | (?P<tag>\$\w*\$).*?(?P=tag) )
      | (?P<comment> --[^\n]* | /\* )
      | (?P<parameter> (?<![\w:"'\)\]\}]) : (?P<name>[A-Za-z_]\w*) )
      | (?P<open>[(\[{]) | (?P<close>[)\]}])
      | (?P<word>\w+)""",
    re.VERBOSE | re.DOTALL,
)


def sql(
    book: Book,
    query: str,
    parameters: Mapping[str, Any] | None = None,
    at: Instant | None = None,
) -> pl.DataFrame:
    """Ask a book in SQL (DuckDB's) over the tables `events` and `states`.

    states: one row per aggregate with the columns of ``book.at``, after its last event or at the instant
    `at`, inclusive. events: aggregate_id, version, event_type, payload (JSON text; ``payload ->> 'amount'``
    looks inside), metadata, timestamp; with `at` only those that the states are made of.

    parameters: values for each ``:name`` of the query, bound by type and never written into its text: None,
    bool, int, float, Decimal, str, UUID (as text), aware datetime, date, timedelta, and lists of one of these
    (``status IN :wanted``). A colon inside a text or a comment, a cast ``::date`` and a slice ``[1:2]`` are
    left alone.

    Returns a frame in the order that the query asks for; without an ORDER BY of its own, sorted by all
    columns from the left, nulls last. Instants are UTC, amounts exact decimals.

    Raises QueryError for what is no single query, fails, or names a parameter that is not there;
    InstantError; MissingExtra.

    >>> import titan_lab as tl
    >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
    >>> sql(book, "SELECT count(*) AS n FROM states WHERE status = :s", {"s": "PAID"}, at="2025-01-15").item()
    11
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra("duckdb", "lab", "SQL over a book") from error
    text, ordered = _prepared(query)
    tables = _tables(book, at)
    with duckdb.connect(":memory:") as engine:
        try:
            statements = engine.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                found = ", ".join(statement.type.name for statement in statements)
                raise QueryError(
                    f"expected one SELECT, found {found or 'no statement'}",
                    hint="one SELECT ... or WITH ... SELECT ...; nothing here can be written to",
                )
            bound = _bound(statements[0].named_parameters, parameters or {})
            for name in TABLES:
                if name in text.lower():  # what is not asked for is not read
                    engine.register(name, tables[name]())
            for wall in _WALLS:
                engine.execute(wall)
            answer = pl.DataFrame(engine.sql(text, params=bound).to_arrow_table())
        except duckdb.Error as error:
            message = str(error).partition("\nDid you mean")[0]  # which knows of tables that are none of ours
            raise QueryError(f"the query fails: {message}", hint=_hint(message, book), query=query) from error
        except (pl.exceptions.ComputeError, pl.exceptions.DuplicateError) as error:
            raise QueryError(
                f"the query's answer does not fit into a frame: {error}",
                hint="name each column once, and cast an interval by epoch(...)",
                query=query,
            ) from error
    return answer if ordered else _sorted(answer)


def parameters_of(query: str) -> list[str]:
    """List the names of a query's ``:parameters``, each once, in order of appearance.

    >>> parameters_of("SELECT ':no', x::int FROM t WHERE a = :yes -- :nor this")
    ['yes']
    """
    return list(dict.fromkeys(token["name"] for token in _tokens(query) if token["parameter"]))


def _tokens(query: str) -> Iterator[re.Match[str]]:
    place = 0
    while found := _TOKENS.search(query, place):
        place = found.end()
        if found["comment"] == "/*":  # they nest
            place = _end_of_comment(query, place)
        elif not found["comment"]:
            yield found


def _end_of_comment(query: str, place: int) -> int:
    depth = 1
    for mark in re.finditer(r"/\*|\*/", query[place:]):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return place + mark.end()
    return len(query)


def _prepared(query: str) -> tuple[str, bool]:
    """Write the parameters as DuckDB does, and tell whether the query itself, no part of it, is ordered."""
    parts, place, depth, previous, ordered = [], 0, 0, "", False
    for token in _tokens(query):
        if token["parameter"]:
            parts += [query[place : token.start()], f"${token['name']}"]
            place = token.end()
        depth += bool(token["open"]) - bool(token["close"])
        word = (token["word"] or "").lower()
        ordered |= depth == 0 and word == "by" and previous == "order"
        previous = word
    return "".join([*parts, query[place:]]), ordered


def _tables(book: Book, at: Instant | None) -> dict[str, Callable[[], pl.DataFrame]]:
    moment = None if at is None else instant(at, book.zone)

    def states() -> pl.DataFrame:
        if moment is None:
            return book.at(version=2**62)  # an aggregate that is younger shows its last state
        return book.at(moment)

    def events() -> pl.DataFrame:
        if book.read_events is None:
            raise QueryError("the book's store is not there to read events from", hint="ask `states` only")
        stored = book.read_events(None)
        if stored.height != len(book.typed):  # some were rejected by the fold, or not asked for
            stored = stored.join(
                book.history(columns=[]), on=["aggregate_id", "version"], how="semi", maintain_order="left"
            )
        if moment is None:
            return stored
        last = book.at(moment, columns=[]).rename({"version": "last"})
        counted = stored.join(last, on="aggregate_id", maintain_order="left")
        return counted.filter(pl.col("version") <= pl.col("last")).drop("last")

    return {"events": events, "states": states}


def _bound(named: set[str], given: Mapping[str, Any]) -> dict[str, Any]:
    bound = {}
    for name in sorted(named):
        if name.isdigit():
            raise QueryError("a parameter has no name", hint="write :name instead of ? or $1")
        if name not in given:
            raise QueryError(
                f"the query asks for :{name}, and there is no such value",
                hint=nearest(name, given) or f"set {name} = ... before",
                parameter=name,
            )
        bound[name] = _value(given[name], name)
    return bound


def _value(value: Any, name: str) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    if value is None or isinstance(value, bool | int | float | Decimal | str | date | timedelta):
        return value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset | pl.Series):
        listed = sorted(value) if isinstance(value, set | frozenset) else list(value)
        return [_value(one, name) for one in listed]
    if hasattr(value, "item") and not isinstance(value, pl.DataFrame):  # numpy's numbers
        return _value(value.item(), name)
    raise QueryError(
        f":{name} is a {type(value).__name__}, which no query can be asked with",
        hint="bind a number, text, aware datetime, date, timedelta or Decimal, or a list of one of these",
        parameter=name,
    )


def _hint(message: str, book: Book) -> str | None:
    missing = re.search(r"Table with name (\S+) does not exist", message)
    if missing:
        return nearest(missing[1], TABLES) or f"the tables are {' and '.join(TABLES)}"
    if "file system operations are disabled" in message:
        return f"only {' and '.join(TABLES)} can be asked here"
    column = re.search(r'Referenced column "([^"]+)" not found', message)
    return nearest(column[1], book.at(version=0).columns) if column else None


def _sorted(answer: pl.DataFrame) -> pl.DataFrame:
    sortable = [name for name, dtype in answer.schema.items() if not dtype.is_nested()]
    return answer.sort(sortable, nulls_last=True, maintain_order=True) if sortable else answer
