"""The table of events as a server has it: its columns, their types, and what is asked of them in SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from titan_lab.backends.ddl import TABLE
from titan_lab.clock import iso
from titan_lab.errors import EventsError, OpenError, nearest
from titan_lab.event import EVENTS
from titan_lab.scope import Scope

if TYPE_CHECKING:
    from psycopg import Connection

TEXTS: Final = ("text", "character varying")
JSONS: Final = ("jsonb", "json", *TEXTS)
TYPES: Final = {  # what each column may be; the first is what the service has
    "aggregate_id": ("uuid", *TEXTS),
    "version": ("integer", "bigint", "smallint"),
    "event_type": ("character varying", "text"),
    "payload": JSONS,
    "metadata": JSONS,
    "timestamp": ("timestamp with time zone", "timestamp without time zone"),
}
UUID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # as a server writes it
# Beyond these no `datetime` goes; `infinity` and a year before Christ are instants to a server.
FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
DESCRIBED: Final = """
SELECT a.attname, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL),
       pg_get_expr(d.adbin, d.adrelid), has_table_privilege(a.attrelid, 'SELECT')
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum"""
OTHERS: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'crdb_internal', 'pg_extension')
ORDER BY n.nspname = current_schema() DESC, 1, 2 LIMIT 20"""


@dataclass(frozen=True)
class Events:
    """The table `order_events`, or one of another name, that was found and is fit to be read."""

    name: str  # quoted, as it stands in SQL
    types: Mapping[str, str] = field(hash=False)
    clock: str  # the SQL by which the table tells an event's timestamp
    told: bool = field(default=True)  # whether that is the table's own

    @property
    def uuids(self) -> bool:
        """Tell whether ids are UUIDs, so that any other text is nobody's id."""
        return self.types["aggregate_id"] == "uuid"

    def cast(self, column: str, value: str) -> str:
        """Write text in SQL as a value of a column's type."""
        return f"CAST({value} AS {self.types[column]})"

    def selected(self) -> str:
        """Write the SELECT that gives EVENTS; a timestamp beyond all datetimes is told in `place`."""
        beyond = f"timestamp < '{FIRST}' OR timestamp > '{LAST}'"
        return (
            "SELECT aggregate_id::text AS aggregate_id, version::bigint AS version, "
            "event_type::text AS event_type, payload::text AS payload, metadata::text AS metadata, "
            f"CASE WHEN {beyond} THEN NULL ELSE timestamp END AS timestamp, "
            f"CASE WHEN {beyond} THEN 'timestamp ' || timestamp::text END AS place FROM {self.name}"
        )

    def within(self, scope: Scope, literal: Callable[[object], str]) -> str | None:
        """Write a scope as a WHERE; None where nothing can be in it.

        What a part of it cannot judge is let through. literal: writes a value as SQL.
        """
        parts = []
        if scope.aggregates is not None:
            ids = [one for one in dict.fromkeys(scope.aggregates) if self.may_be_an_id(one)]
            if not ids:
                return None
            parts.append(f"aggregate_id = ANY({literal(ids)}::{self.types['aggregate_id']}[])")
        if scope.types is not None:
            kinds = [one for one in scope.types if storable(one)]
            parts.append(
                f"(event_type = ANY({literal(kinds)}::text[]) OR event_type IS NULL OR event_type = '')"
            )
        if (
            self.types["timestamp"] == "timestamp with time zone"
        ):  # a naive one is judged by whoever has the zone
            if scope.since is not None:
                least = literal(iso(scope.since))
                parts.append(f"(timestamp >= {least} OR timestamp IS NULL OR timestamp < '{FIRST}')")
            if scope.until is not None:
                most = literal(iso(scope.until))
                parts.append(f"(timestamp <= {most} OR timestamp IS NULL OR timestamp > '{LAST}')")
        if scope.from_version is not None:
            parts.append(f"version >= {literal(scope.from_version)}")
        first, end = scope.ids
        if first is not None:
            parts.append(f"{self._in_order(first)} >= {literal(first)}")
        if end is not None:
            before = f"{self._in_order(end)} < {literal(end)}"
            # What has no id comes before all; with an OR no index would end the search.
            parts.append(before if first is not None else f"({before} OR aggregate_id IS NULL)")
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def may_be_an_id(self, text: str) -> bool:
        """Tell whether an aggregate can have this id here; a UUID has one notation, that of the server."""
        return bool(re.fullmatch(UUID, text)) if self.uuids else storable(text)

    def _in_order(self, bound: str) -> str:
        # UUIDs sort as their texts do, and by their index; texts must be compared byte by byte.
        return "aggregate_id" if self.uuids and self.may_be_an_id(bound) else 'aggregate_id::text COLLATE "C"'


def storable(text: str) -> bool:
    """Tell whether a server can hold a text: no NUL, and nothing that is no character."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def describe(db: Connection, table: str, shown: str) -> Events | None:
    """Look a table up; None where there is none.

    Raises EventsError for a column that is missing or of a type that holds no such thing, OpenError where
    the role may not read.
    """
    quoted = '"' + table.replace('"', '""') + '"'
    found = db.execute(DESCRIBED, (quoted,)).fetchall()
    if not found:
        return None
    types = {name: kind for name, kind, *_ in found}
    missing = [name for name in EVENTS if name not in types]
    if missing:
        raise EventsError(
            f"{table} in {shown} lacks {', '.join(missing)}; it has {', '.join(types)}",
            hint=f"the event store's columns are {', '.join(EVENTS)}; titan schema --dialect postgres",
            missing=missing,
        )
    wrong = [name for name, fit in TYPES.items() if types[name] not in fit]
    if wrong:
        told = "; ".join(f"{name} is {types[name]}, expected {' or '.join(TYPES[name])}" for name in wrong)
        raise EventsError(
            f"{table} in {shown}: {told}", hint="a view can cast them: ?table=ITS_NAME", wrong=wrong
        )
    if not found[0][3]:
        raise OpenError(
            f"the role may not read {table} in {shown}",
            hint=f"its owner can say: GRANT SELECT ON {table} TO the role",
        )
    default = next(default for name, _, default, _ in found if name == "timestamp")
    return Events(quoted, types, default or "now()", default is not None)


def no_table(db: Connection, table: str, shown: str) -> OpenError:
    """Say which tables there are instead of the one that was wanted."""
    others = [(schema, name) for schema, name in db.execute(OTHERS).fetchall()]
    names = ", ".join(f"{schema}.{name}" for schema, name in others) or "none"
    near = next((f"?schema={schema}" for schema, name in others if name == table), None)
    hint = f"add {near} to the URL" if near else nearest(table, [name for _, name in others])
    if hint is None and table == TABLE:
        hint = "check the database's name; tl.open(url, writable=True) makes the tables"
    return OpenError(f"{shown} has no table {table}; it has {names}", hint=hint)
