"""From a URL to a log: which backend answers to which scheme, in one visible table."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from titan_lab.backends.memory import MemoryStore
from titan_lab.clock import zone_of
from titan_lab.errors import EventsError, UnknownScheme, nearest
from titan_lab.event import as_json
from titan_lab.frames import as_frame
from titan_lab.log import EventLog, Mirror
from titan_lab.redacted import redact_meant

# scheme -> module and class, imported when first asked for; README's table of stores is checked against it.
BACKENDS: dict[str, tuple[str, str]] = {
    "cockroachdb": ("titan_lab.backends.cockroach", "CockroachStore"),
    "memory": ("titan_lab.backends.memory", "MemoryStore"),
    "mirror": ("titan_lab.backends.mirror", "MirrorStore"),
    "parquet": ("titan_lab.backends.parquet", "ParquetStore"),
    "postgresql": ("titan_lab.backends.postgres", "PostgresStore"),
    "sqlite": ("titan_lab.backends.sqlite", "SqliteStore"),
}
ALIASES = {"cockroach": "cockroachdb", "postgres": "postgresql"}


def open_log(url: str, *, writable: bool = False, zone: str | None = None) -> EventLog:
    """Open a store by its URL; public as ``tl.open``.

    url: ``sqlite:///relative.db`` (four slashes: absolute), ``parquet://folder_or_file`` (three: absolute),
    ``postgresql://USER@HOST/DATABASE``, ``cockroachdb://USER@HOST:26257/DATABASE``, ``mirror://folder``,
    ``memory://``. writable: allow appending, and make a store that is not there. zone: how moments and bare
    dates without a zone are read, an IANA name; without one a naive moment is an error.

    Raises UnknownScheme, OpenError for what is no such store, EventsError for a missing column.

    >>> open_log("sqlite:///data/samples/orders.db")
    <EventLog sqlite:///data/samples/orders.db>
    """
    zone_of(zone)
    scheme, separator, address = str(url).partition("://")
    scheme = ALIASES.get(scheme, scheme)
    if not separator or scheme not in BACKENDS:
        known = [f"{name}://" for name in BACKENDS]
        hint = nearest(f"{scheme}://", known) if separator else _guess(str(url))
        raise UnknownScheme(
            f"no backend opens {redact_meant(str(url))!r}; the known schemes are {', '.join(known)}",
            hint=hint,
            known=known,
        )
    module, name = BACKENDS[scheme]
    store = getattr(import_module(module), name).open(address, writable)
    if scheme == "mirror":
        return Mirror(store, zone=zone)
    return EventLog(store, zone=zone, writable=writable or scheme == "memory")


def from_frame(
    frame: Any,
    *,
    aggregate_id: str = "aggregate_id",
    event_type: str = "event_type",
    timestamp: str = "timestamp",
    version: str | None = None,
    payload: str | list[str] | None = None,
    metadata: str | None = None,
    zone: str | None = None,
) -> EventLog:
    """Take a pandas, polars or arrow frame of events as a log in memory.

    Each argument names the frame's column. version: without one, an aggregate's events count in the order of
    their rows. payload: a column of JSON text, dicts or structs, or a list of plain columns that make it up;
    without one a column "payload" is taken if there is one, else all columns not named otherwise. zone: of
    moments that have none.

    Raises EventsError for a column that is not there.

    >>> calls = {"case": ["a", "a"], "what": ["Opened", "Closed"], "when": ["2025-01-01T10:00Z"] * 2}
    >>> log = from_frame(pl.DataFrame(calls), aggregate_id="case", event_type="what", timestamp="when")
    >>> log.read()["version"].to_list()
    [1, 2]
    """
    table = as_frame(frame, "what is given as events", EventsError)
    if version is None and "version" in table.columns:
        version = "version"
    if payload is None and "payload" in table.columns:
        payload = "payload"
    if metadata is None and "metadata" in table.columns:
        metadata = "metadata"
    named = {
        "aggregate_id": aggregate_id,
        "version": version,
        "event_type": event_type,
        "payload": payload if isinstance(payload, str) else None,
        "metadata": metadata,
        "timestamp": timestamp,
    }
    wanted = [name for name in named.values() if name is not None] + (
        payload if isinstance(payload, list) else []
    )
    for name in wanted:
        if name not in table.columns:
            raise EventsError(
                f"the frame has no column {name!r}; it has {', '.join(table.columns) or 'none'}",
                hint=nearest(name, table.columns)
                or "tl.from_frame(frame, aggregate_id='case', event_type='activity', timestamp='time')",
                column=name,
            )
    columns = {role: table[name] for role, name in named.items() if name is not None}
    if version is None:
        columns["version"] = table.select(pl.int_range(1, pl.len() + 1).over(aggregate_id)).to_series()
    if not isinstance(payload, str):
        fields = payload if payload is not None else [name for name in table.columns if name not in wanted]
        columns["payload"] = _as_payload(table, fields)
    raw = pl.DataFrame([column.alias(role) for role, column in columns.items()])
    return EventLog(MemoryStore(raw, url="memory://frame", zone=zone), zone=zone, writable=True)


def _as_payload(table: pl.DataFrame, fields: list[str]) -> pl.Series:
    if not fields:
        return (
            pl.Series(["{}"]).new_from_index(0, len(table)) if len(table) else pl.Series([], dtype=pl.String)
        )
    return as_json(table.select(fields).to_struct("payload"))


def _guess(url: str) -> str | None:
    suffixes = {
        ".db": "sqlite:///",
        ".sqlite": "sqlite:///",
        ".sqlite3": "sqlite:///",
        ".parquet": "parquet://",
    }
    prefix = suffixes.get(Path(url).suffix)
    return f"write {prefix}{url}" if prefix else "write a URL such as sqlite:///data/samples/orders.db"
