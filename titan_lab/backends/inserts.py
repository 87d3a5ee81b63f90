"""Events into a server's table: all or none, and never behind another version than was expected.

`ON CONFLICT DO NOTHING` would store half a batch and tell nobody; a plain insert fails as a whole.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import polars as pl

from titan_lab.backends.columns import UUID, Events
from titan_lab.backends.contract import KEY, SNAPSHOTS, Appended, conflict, placed, there_already
from titan_lab.backends.ddl import SAVED
from titan_lab.backends.server import state_of
from titan_lab.errors import EventsError, OpenError
from titan_lab.event import EVENTS

if TYPE_CHECKING:
    from psycopg import Connection

T = TypeVar("T")

COLUMNS: Final = ", ".join(EVENTS)
WRITTEN: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"
PART: Final = 20_000  # events that go over the wire at a time
FEW: Final = 30  # events that go as values of one statement; more are copied
AGAIN: Final = ("40001", "40P01")  # a serialization failure, a deadlock: nothing was done, and may work now
TAKEN: Final = "23505"
TRIES: Final = 20


def append(db: Connection, table: Events, events: pl.DataFrame) -> Appended:
    """Copy all of them; where some are there already, look which, and copy the others."""
    _check_ids(table, events["aggregate_id"])
    return _again(lambda: _append(db, table, events.select(list(EVENTS))), (*AGAIN, TAKEN))


def _append(db: Connection, table: Events, events: pl.DataFrame) -> Appended:
    try:
        with db.transaction():
            _copy(db, table, events)
        return Appended(len(events), 0)
    except Exception as error:
        if state_of(error) != TAKEN:
            raise
        taken = error
    known = _known(db, table, events)
    clashes = events.join(known.filter(~pl.col("same")), on=KEY, how="semi", maintain_order="left")
    if len(clashes):
        raise conflict(clashes.row(0, named=True), len(clashes))
    if known.is_empty():  # it was taken back since, or something else than the key is taken
        raise taken
    new = events.join(known, on=KEY, how="anti", maintain_order="left")
    return Appended(_append(db, table, new).added if len(new) else 0, len(known))


def _kept_out(table: Events) -> OpenError:
    return OpenError(
        f"{table.name} takes no such event, and gives no reason; nothing was written",
        hint="a trigger or a rule of the table may turn it away",
    )


def _copy(db: Connection, table: Events, events: pl.DataFrame) -> None:
    cursor = db.cursor()
    with cursor.copy(f"COPY {table.name} ({COLUMNS}) FROM STDIN (FORMAT csv)") as copy:
        for part in events.iter_slices(PART):
            text = io.BytesIO()
            # A text that is quoted is a text to the server, also an empty one; what is not is NULL.
            part.write_csv(
                text, include_header=False, quote_style="non_numeric", datetime_format=WRITTEN, null_value=""
            )
            copy.write(text.getvalue())
    if cursor.rowcount not in (-1, len(events)):
        raise _kept_out(table)


def _known(db: Connection, table: Events, events: pl.DataFrame) -> pl.DataFrame:
    """Give the keys that are taken, and whether by the same event; JSON is compared as the server has it."""
    payload = "text" if table.types["payload"] not in ("jsonb", "json") else "jsonb"
    asked = (
        "SELECT n.aggregate_id, n.version, coalesce(e.event_type::text = n.event_type"
        f" AND e.payload::{payload} = n.payload::{payload} AND e.timestamp = n.timestamp, false)"
        " FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[], %s::timestamptz[])"
        " AS n (aggregate_id, version, event_type, payload, timestamp)"
        f" JOIN {table.name} AS e ON e.aggregate_id = {table.cast('aggregate_id', 'n.aggregate_id')}"
        " AND e.version = n.version"
    )
    columns = [*KEY, "event_type", "payload", "timestamp"]
    rows: list[Any] = []
    for part in events.select(columns).iter_slices(PART):
        rows += db.execute(asked, [part[name].to_list() for name in columns]).fetchall()
    return pl.DataFrame(
        rows, {"aggregate_id": pl.String(), "version": pl.Int64(), "same": pl.Boolean()}, orient="row"
    )


def extend(
    db: Connection, table: Events, aggregate_id: str, events: pl.DataFrame, expected_version: int
) -> Appended:
    """Add events behind a version; another writer who was there first makes it a VersionConflict."""
    if not table.may_be_an_id(aggregate_id):
        raise _no_id(aggregate_id)
    insert = _insert if len(events) <= FEW else _copy_behind
    # What is taken by now was free a moment ago: the other writer is found at the next try.
    return _again(lambda: _extend(db, table, aggregate_id, events, expected_version, insert), (*AGAIN, TAKEN))


def _extend(
    db: Connection,
    table: Events,
    aggregate_id: str,
    events: pl.DataFrame,
    expected: int,
    insert: Callable[[Connection, Events, str, pl.DataFrame, int], bool],
) -> Appended:
    if len(events) and insert(db, table, aggregate_id, events, expected):
        return Appended(len(events), 0, expected + len(events))
    this = f"FROM {table.name} WHERE aggregate_id = {table.cast('aggregate_id', '%s')}"
    behind = f"SELECT metadata::text {this} AND version > %s AND version <= %s ORDER BY version"
    stored = [text for (text,) in db.execute(behind, (aggregate_id, expected, expected + len(events)))]
    ((found,),) = db.execute(f"SELECT coalesce(max(version), 0) {this}", (aggregate_id,)).fetchall()
    if not there_already(aggregate_id, found, stored, events, expected) and len(events):
        raise _kept_out(table)
    return Appended(0, len(events), found)


def _insert(db: Connection, table: Events, aggregate_id: str, events: pl.DataFrame, expected: int) -> bool:
    # A SELECT of polars would take as long as the server does.
    rows = list(zip(*(events[name].to_list() for name in list(EVENTS)[2:]), strict=True))
    values: list[object] = [aggregate_id]
    for version, row in enumerate(rows, start=expected + 1):
        values += (version, *row)
    values += (expected, aggregate_id)
    return db.execute(_inserting(table, len(rows)), values).rowcount > 0


@cache
def _inserting(table: Events, events: int) -> str:
    own = table.cast("aggregate_id", "%s")
    rows = ", ".join(["(%s::bigint, %s::text, %s::text, %s::text, %s::timestamptz)"] * events)
    return (
        f"INSERT INTO {table.name} ({COLUMNS}) SELECT {own}, n.version, n.event_type,"
        f" {table.cast('payload', 'n.payload')}, {table.cast('metadata', 'n.metadata')},"
        f" coalesce(n.timestamp, {table.clock})"
        f" FROM (VALUES {rows}) AS n (version, event_type, payload, metadata, timestamp)"
        f" WHERE %s = (SELECT coalesce(max(version), 0) FROM {table.name} WHERE aggregate_id = {own})"
    )


def _copy_behind(
    db: Connection, table: Events, aggregate_id: str, events: pl.DataFrame, expected: int
) -> bool:
    own = table.cast("aggregate_id", "%s")
    looked = f"SELECT coalesce(max(version), 0), {table.clock} FROM {table.name} WHERE aggregate_id = {own}"
    with db.transaction():
        ((found, now),) = db.execute(looked, (aggregate_id,)).fetchall()
        if found != expected:
            return False
        _copy(db, table, placed(aggregate_id, events, expected, now))
    return True


def save(db: Connection, states: pl.DataFrame) -> None:
    """Save states, none in the place of a later one."""
    statement = (
        f"INSERT INTO {SAVED} ({', '.join(SNAPSHOTS)}) VALUES (%s, %s, %s) ON CONFLICT (aggregate_id)"
        " DO UPDATE SET version = excluded.version, state = excluded.state, timestamp = excluded.timestamp"
        f" WHERE excluded.version >= {SAVED}.version"
    )
    rows = states.select(list(SNAPSHOTS)).sort("aggregate_id").rows()  # two writers lock in one order

    def attempt() -> None:
        with db.transaction():
            db.cursor().executemany(statement, rows)

    _again(attempt, AGAIN)


def _again(attempt: Callable[[], T], states: tuple[str, ...]) -> T:
    """Try again, a bounded number of times, what failed as a whole because of somebody else."""
    for tried in range(1, TRIES + 1):
        try:
            return attempt()
        except Exception as error:
            if state_of(error) not in states or tried == TRIES:
                raise
        time.sleep(random.uniform(0, 0.005 * 2 ** min(tried, 6)))
    raise AssertionError("the last try returns or raises")


def _check_ids(table: Events, ids: pl.Series) -> None:
    if table.uuids:
        other = ids.filter(~ids.str.contains(f"^{UUID}$"))
        if len(other):
            raise _no_id(other[0])


def _no_id(aggregate_id: str) -> EventsError:
    return EventsError(
        f"{aggregate_id!r} is no id in this table; nothing was written",
        hint="a UUID in lower case, 550e8400-e29b-41d4-a716-446655440000; uuid5 makes one of a name",
        aggregate_id=aggregate_id,
    )
