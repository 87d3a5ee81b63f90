"""PostgreSQL: the suite, on a table of texts and on the service's own of UUIDs and JSONB."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from servers import scratch_database

import titan_lab as tl
from titan_lab.backends.columns import Events
from titan_lab.backends.ddl import ddl
from titan_lab.backends.postgres import PostgresStore
from titan_lab.errors import VersionConflict
from titan_lab.event import EVENTS
from titan_lab.log import EventLog
from titan_lab.scope import Scope
from titan_lab.testing.histories import histories
from titan_lab.testing.readers import WriterSuite, frame_of
from titan_lab.testing.rows import Row, row

COLUMNS = ", ".join(EVENTS)
# As a store of any aggregates may have it: ids are any text, JSON keeps its bytes.
TEXTS = (
    "aggregate_id TEXT, version BIGINT, event_type TEXT, payload TEXT, metadata TEXT, timestamp TIMESTAMPTZ"
)
FAR = datetime(2025, 6, 1, tzinfo=UTC)
KEY = ", PRIMARY KEY (aggregate_id, version)"


class Suite(WriterSuite):
    """A schema for each store, in a database for each test."""

    live = True
    tables: str

    @pytest.fixture(autouse=True)
    def _server(self, suite_database: str) -> None:
        type(self).server = suite_database

    def schema(self, place: Path) -> str:
        return f"s_{uuid.uuid5(uuid.NAMESPACE_URL, str(place)).hex}"

    def url(self, place: Path) -> str:
        return f"{self.server}?schema={self.schema(place)}"

    def session(self, place: Path) -> Any:
        import psycopg

        options = f"-c search_path={self.schema(place)} -c timezone=UTC"
        return psycopg.connect(self.server, autocommit=True, options=options)

    def make(self, db: Any, keyed: bool) -> None:
        raise NotImplementedError

    def seed(self, place: Path, rows: Sequence[Row]) -> None:
        keyed = len({(one["aggregate_id"], one["version"]) for one in rows}) == len(rows)
        with self.session(place) as db:
            db.execute(f"CREATE SCHEMA {self.schema(place)}")
            self.make(db, keyed)
            values = [tuple(self.stored(one).values()) for one in rows]
            db.cursor().executemany(
                f"INSERT INTO order_events ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s)", values
            )

    def stored(self, one: Row) -> Row:
        """A column of instants holds no other text, and one that no datetime reaches."""
        return one | {"timestamp": "infinity" if one["timestamp"] == "soon" else one["timestamp"]}

    def peek(self, place: Path) -> list[Row]:
        asked = COLUMNS.replace("payload, metadata", "payload::text, metadata::text")
        with self.session(place) as db:
            rows = db.execute(f"SELECT {asked} FROM order_events ORDER BY 1, 2").fetchall()
        return [dict(zip(EVENTS, one, strict=True)) for one in rows]

    def test_a_timestamp_without_a_zone_needs_the_logs_zone(self, place: Path) -> None:
        """Here the whole column has none."""
        self.seed(place, [row("b", 1)])
        with self.session(place) as db:
            db.execute("ALTER TABLE order_events ALTER timestamp TYPE TIMESTAMP")
        naive = self.open(place)
        assert naive.read().is_empty()
        assert "zone=" in naive.rejected["reason"][0]
        told = self.open(place, zone="America/Sao_Paulo").read()
        assert str(told["timestamp"][0]) == "2025-01-01 13:00:00+00:00"


class TestTexts(Suite):
    """A table whose ids are any text."""

    def make(self, db: Any, keyed: bool) -> None:
        db.execute(f"CREATE TABLE order_events ({TEXTS}{KEY if keyed else ''})")


def named(name: str) -> str:
    """Give the UUID that stands for a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


class Named:
    """A store of UUIDs whose aggregates are called by names, as the suite does."""

    def __init__(self, store: PostgresStore, names: dict[str, str]) -> None:
        self.store, self.names, self.url = store, names, store.url
        self.frontier, self.close = store.frontier, store.close

    def uuid(self, name: str) -> str:
        self.names[named(name)] = name
        return named(name)

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        if scope.aggregates is not None:
            scope = replace(scope, aggregates=tuple(map(self.uuid, scope.aggregates)))
        for frame in self.store.frames(scope, size):
            yield frame.with_columns(pl.col("aggregate_id").replace(self.names))

    def told(self, error: VersionConflict) -> VersionConflict:
        found = error.data["aggregate_id"]
        error.message = error.message.replace(found, self.names[found])
        error.args = (error.message,)
        error.data["aggregate_id"] = self.names[found]
        return error

    def append(self, events: pl.DataFrame) -> Any:
        ids = [self.uuid(one) for one in events["aggregate_id"]]
        try:
            return self.store.append(events.with_columns(aggregate_id=pl.Series(ids, dtype=pl.String)))
        except VersionConflict as error:
            raise self.told(error) from None

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Any:
        try:
            return self.store.extend(self.uuid(aggregate_id), events, expected_version)
        except VersionConflict as error:
            raise self.told(error) from None


class TestService(Suite):
    """The service's own table."""

    between_processes = False  # a process of its own opens no `Named`; the texts' table has the same key

    def make(self, db: Any, keyed: bool) -> None:
        for statement in ddl("postgres"):
            if keyed or "PRIMARY KEY (aggregate_id, version)" not in statement:
                db.execute(statement)
            else:
                db.execute(statement.replace(KEY.removeprefix(", "), "CHECK (true)"))

    def stored(self, one: Row) -> Row:
        self.names: dict[str, str] = getattr(self, "names", {})
        self.names[named(one["aggregate_id"])] = one["aggregate_id"]
        return super().stored(one) | {"aggregate_id": named(one["aggregate_id"])}

    def open(self, place: Path, *, writable: bool = False, zone: str | None = None) -> EventLog:
        store = tl.open(self.url(place), writable=writable).reader
        return EventLog(Named(store, getattr(self, "names", {})), zone=zone, writable=writable)

    def peek(self, place: Path) -> list[Row]:
        rows = super().peek(place)
        for one in rows:
            one["aggregate_id"] = self.names.get(str(one["aggregate_id"]))
        return sorted(rows, key=lambda one: (one["aggregate_id"], one["version"]))

    def test_a_bad_row_is_set_aside_and_the_good_ones_beside_it_are_read(self, place: Path) -> None:
        """What this table can hold of them."""
        bad = [row("a", 2, payload="[]"), row("a", 3, metadata="1"), row("a", 4, timestamp="infinity")]
        bad += [row("a", 5, timestamp=None), row("a", 0), row("a", 6, event_type="")]
        bad += [row("a", 8, timestamp="20000-01-01Z"), row("a", 9, timestamp="0044-03-15 BC")]
        self.seed(place, [row("a", 1), *bad, row("a", 7)])
        log = self.open(place)
        assert log.read()["version"].to_list() == [1, 7]
        assert log.rejected["version"].sort().to_list() == [0, 2, 3, 4, 5, 6, 8, 9]
        assert "timestamp infinity" in log.rejected["place"].to_list()
        no_instant = pl.concat(log.reader.frames(Scope(since=FAR, until=FAR), 100))
        assert no_instant["version"].sort().to_list() == [4, 5, 8, 9]
        no_type = pl.concat(log.reader.frames(Scope(types=("OrderDelivered",)), 100))
        assert no_type["version"].to_list() == [6]

    def test_what_is_written_is_there_for_the_plain_driver_to_see(self, place: Path, log: EventLog) -> None:
        """JSONB keeps values, digits and all, and not their bytes."""
        new = row(
            "c", 1, payload='{"amount":  10.50, "é": "\\u00e9"}', timestamp="2025-01-01T10:00:00.000001Z"
        )
        assert log.append_many(frame_of([new])).added == 1
        (stored,) = [one for one in self.peek(place) if one["aggregate_id"] == "c"]
        assert stored["payload"] == '{"é": "é", "amount": 10.50}'
        assert str(stored["timestamp"]) == "2025-01-01 10:00:00.000001+00:00"
        assert (
            log.append_many(frame_of([new])).present == 1
        )  # the same value in other bytes is the same event

    def test_random_histories_read_as_they_do_from_memory(self) -> None:
        """Payloads as values, since JSONB keeps no bytes."""

        @settings(derandomize=True, max_examples=10, database=None, deadline=None)
        @given(events=histories())
        def check(events: pl.DataFrame) -> None:
            place = Path(str(uuid.uuid4()))
            self.seed(place, events.with_columns(pl.col("timestamp").cast(pl.String)).to_dicts())
            for mine, theirs in zip(
                self.open(place).read().iter_rows(named=True),
                tl.from_frame(events).read().iter_rows(named=True),
                strict=True,
            ):
                assert _values(mine) == _values(theirs)

        check()


def _values(event: Row) -> Row:
    told = {name: json.loads(event[name] or "null") for name in ("payload", "metadata")}
    return event | told


@pytest.fixture(scope="module")
def suite_database(postgres: str) -> Iterator[str]:
    """One database for the whole suite, with a schema for each store."""
    with scratch_database(postgres) as url:
        yield url


# --- SCOPES ARE ASKED OF THE SERVER -------------------------------------------------------------------------


def scopes_that_differ(url: str, examples: int) -> None:
    """Read random scopes of random histories: the server's answer is that of memory."""

    # A failure is not made smaller: that would take longer than to find it.
    @settings(derandomize=True, max_examples=examples, database=None, deadline=None, phases=[Phase.generate])
    @given(events=histories(), choices=st.data())
    def check(events: pl.DataFrame, choices: st.DataObject) -> None:
        moments = st.sampled_from([None, *events["timestamp"]])
        since, until = choices.draw(moments), choices.draw(moments)
        if since is not None and until is not None:
            since, until = min(since, until), max(since, until)
        several = {"min_size": 1, "max_size": 3}
        ids = st.lists(st.sampled_from([*events["aggregate_id"].unique().sort(), "nobody"]), **several)
        types = st.lists(st.sampled_from([*events["event_type"].unique().sort(), "Nothing"]), **several)
        wanted = {
            "aggregates": choices.draw(ids | st.none()),
            "types": choices.draw(types | st.none()),
            "since": since,
            "until": until,
        }
        place = Path(str(uuid.uuid4()))
        suite = TestTexts()
        suite.server = url
        suite.seed(place, events.with_columns(pl.col("timestamp").cast(pl.String)).to_dicts())
        with suite.open(place) as log:
            assert log.read(**wanted).equals(tl.from_frame(events).read(**wanted))

    check()


def test_a_scope_is_answered_by_the_server_as_by_memory(suite_database: str) -> None:
    """Ids, types and both ends of the window."""
    scopes_that_differ(suite_database, 25)


@pytest.mark.parametrize(
    ("right", "wrong"), [("timestamp >=", "timestamp >"), ("timestamp <=", "timestamp <")]
)
def test_the_law_notices_a_window_that_is_open_at_an_end(
    suite_database: str, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    """A planted bug in the WHERE must be caught."""
    honest = Events.within

    def buggy(self: Events, scope: Scope, literal: Any) -> str | None:
        where = honest(self, scope, literal)
        return where and where.replace(right, wrong)

    monkeypatch.setattr(Events, "within", buggy)
    with pytest.raises(AssertionError):
        scopes_that_differ(suite_database, 200)
