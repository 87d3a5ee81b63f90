"""The ledger's one table: its columns, a row from a run's record, and a frame from rows.

SQLAlchemy takes a third of a second to import, so it is imported when the table is first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from titan_lab.clock import instant
from titan_lab.errors import MissingExtra

if TYPE_CHECKING:
    import polars as pl
    from sqlalchemy import Table

STRUCTURED: Final = ("basis", "parameters", "results")  # columns of JSON


_TABLE: list[Table] = []


def runs_table() -> Table:
    """Give the one table of runs. Raises MissingExtra without SQLAlchemy."""
    if not _TABLE:
        _TABLE.append(_declare())
    return _TABLE[0]


def _declare() -> Table:
    try:
        from sqlalchemy import (
            BigInteger,
            Column,
            DateTime,
            Index,
            Integer,
            MetaData,
            String,
            Table,
            Text,
            UniqueConstraint,
        )
        from sqlalchemy.types import TypeDecorator
    except ImportError as error:
        raise MissingExtra("sqlalchemy", "run", "the ledger of runs") from error

    class Moment(TypeDecorator[datetime]):
        """An aware instant; SQLite, which knows none, keeps it in UTC."""

        impl = DateTime(timezone=True)
        cache_ok = True

        def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
            return None if value is None else instant(value)

        def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
            return None if value is None else instant(value, "UTC")

    return Table(
        "titan_runs",
        MetaData(),
        Column("run_id", String(64), primary_key=True),
        Column("job", Text, nullable=False),
        Column("scheduled", Moment, nullable=False),
        Column("attempt", Integer, nullable=False),
        Column("status", String(16), nullable=False),
        Column("exit_code", Integer),
        Column("started", Moment, nullable=False),
        Column("finished", Moment),
        Column("error", Text),
        Column("failing_cell", Integer),
        Column("basis", Text, nullable=False),
        Column("outputs", Text, nullable=False),
        Column("parameters", Text, nullable=False),
        Column("results", Text, nullable=False),
        Column("revision", Text),
        Column("pid", BigInteger),
        Column("host", Text),
        Column("record", Text),
        Column("pruned", Moment),
        UniqueConstraint("job", "scheduled", "attempt"),
        Index("titan_runs_started", "started"),
        Index("titan_runs_status", "status"),
    )


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Make the row of a run from its record."""
    error = record.get("error") or {}
    row = {
        "run_id": record["run_id"],
        "job": record["job"],
        "scheduled": instant(record["scheduled"]),
        "attempt": record["attempt"],
        "status": record["status"],
        "exit_code": record["exit_code"],
        "started": instant(record["started"]),
        "finished": instant(record["finished"]) if record["finished"] else None,
        "error": error.get("message"),
        "failing_cell": error.get("cell"),
        "basis": record.get("basis"),
        "outputs": record.get("outputs") or [],
        "parameters": record["parameters"],
        "results": record["results"],
        "revision": record["revision"],
        "pid": record["pid"],
        "host": record["host"],
        "record": record.get("record"),
    }
    texts = {name: json.dumps(row[name]) for name in (*STRUCTURED, "outputs")}
    return {k: _storable(v) for k, v in (row | texts).items()}


def _storable(value: Any) -> Any:
    # PostgreSQL keeps no NUL in a text, and neither database half a surrogate pair; messages may have both.
    if not isinstance(value, str):
        return value
    return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Make a frame of rows as `Ledger.runs` describes it."""
    import polars as pl

    moment = pl.Datetime("us", "UTC")
    kinds: dict[str, Any] = dict.fromkeys((column.name for column in runs_table().columns), pl.String)
    kinds |= dict.fromkeys(("attempt", "exit_code", "failing_cell", "pid"), pl.Int64)
    kinds |= dict.fromkeys(("scheduled", "started", "finished", "pruned"), moment)
    kinds["outputs"] = pl.List(pl.String)
    texts = [row | {name: json.dumps(row[name], ensure_ascii=False) for name in STRUCTURED} for row in rows]
    return pl.DataFrame(texts, schema=kinds)
