"""The event store's tables: what is printed is run by the databases themselves, where they can be had."""

from __future__ import annotations

import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import titan_lab as tl
from titan_lab import cli
from titan_lab.backends.ddl import ddl, script
from titan_lab.errors import SchemaError
from titan_lab.event import EVENTS
from titan_lab.testing.readers import frame_of, row

sys.path.insert(0, str(Path(__file__).parent))
from servers import scratch_database

UPSERT = "ON CONFLICT (aggregate_id, version) DO UPDATE SET payload = excluded.payload"
ID = "550e8400-e29b-41d4-a716-446655440000"


def printed(*arguments: str) -> str:
    """What ``titan schema`` says."""
    done = CliRunner().invoke(cli.titan, ["schema", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


# --- sqlite -----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A file with the tables that are printed, and one event."""
    with closing(sqlite3.connect(tmp_path / "orders.db", isolation_level=None)) as db:
        db.executescript(printed("--dialect", "sqlite"))
        db.execute(
            "INSERT INTO order_events VALUES (?, 1, 'OrderShipped', '{}', NULL, '2025-01-01T10:00:00Z')",
            (ID,),
        )
        yield db


def test_sqlite_makes_the_services_tables_of_what_is_printed(file: sqlite3.Connection) -> None:
    """Columns, keys, what may be missing, and the indexes on time and type."""
    columns = {
        name: [
            (column, bool(needed), key)
            for _, column, _, needed, _, key in file.execute(f"PRAGMA table_info({name})")
        ]
        for name in ("order_events", "order_snapshots")
    }
    keys = {"aggregate_id": 1, "version": 2}
    assert columns["order_events"] == [(name, name != "metadata", keys.get(name, 0)) for name in EVENTS]
    assert [column for column, *_ in columns["order_snapshots"]] == [
        "aggregate_id",
        "version",
        "state",
        "timestamp",
    ]
    indexes = {
        name: [column for _, _, column in file.execute(f"PRAGMA index_info({name})")]
        for name in ("idx_timestamp", "idx_event_type")
    }
    assert indexes == {"idx_timestamp": ["timestamp"], "idx_event_type": ["event_type"]}


@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE order_events SET payload = '{}'",
        "DELETE FROM order_events",
        "DELETE FROM order_events WHERE version = 1",
    ],
)
def test_sqlite_refuses_to_change_an_event_and_names_compensation(
    file: sqlite3.Connection, attempt: str
) -> None:
    """Also to the program that made the file."""
    what = attempt.split(maxsplit=1)[0]
    with pytest.raises(sqlite3.IntegrityError, match=f"{what} of order_events is refused.*compensates"):
        file.execute(attempt)
    assert file.execute("SELECT count(*) FROM order_events").fetchone() == (1,)


def test_a_new_sqlite_store_refuses_too_and_goes_on_taking_events(tmp_path: Path) -> None:
    """The tables are written down once."""
    log = tl.open(f"sqlite:///{tmp_path}/orders.db", writable=True)
    log.append_many(frame_of([row("a", 1)]))
    assert log.append_many(frame_of([row("a", 1), row("a", 2)])).added == 1
    with (
        closing(sqlite3.connect(tmp_path / "orders.db")) as db,
        pytest.raises(sqlite3.IntegrityError, match="is refused"),
    ):
        db.execute("DELETE FROM order_events")
    assert len(log) == 2


# --- postgres ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(postgres: str) -> Iterator[str]:
    """A database with the tables that are printed, and one event."""
    with scratch_database(postgres) as scratch:
        import psycopg

        with psycopg.connect(scratch) as db:
            db.execute(printed("--dialect", "postgres"))
            db.execute("INSERT INTO order_events VALUES (%s, 1, 'OrderShipped', '{}')", (ID,))
        yield scratch


@pytest.mark.slow
def test_postgres_makes_the_services_tables_of_what_is_printed(server: str) -> None:
    """Columns with their types, what may be missing, what stands there by itself, keys and indexes."""
    import psycopg

    with psycopg.connect(server) as db:
        columns = db.execute(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM"
            " information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
        ).fetchall()
        indexes = dict(
            db.execute("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'").fetchall()
        )
        (longest,) = db.execute(  # type: ignore[misc]
            "SELECT character_maximum_length FROM information_schema.columns WHERE column_name = 'event_type'"
        ).fetchone()
    assert columns == [
        ("order_events", "aggregate_id", "uuid", "NO", None),
        ("order_events", "version", "integer", "NO", None),
        ("order_events", "event_type", "character varying", "NO", None),
        ("order_events", "payload", "jsonb", "NO", None),
        ("order_events", "metadata", "jsonb", "YES", None),
        ("order_events", "timestamp", "timestamp with time zone", "YES", "now()"),
        ("order_snapshots", "aggregate_id", "uuid", "NO", None),
        ("order_snapshots", "version", "integer", "NO", None),
        ("order_snapshots", "state", "jsonb", "NO", None),
        ("order_snapshots", "timestamp", "timestamp with time zone", "YES", "now()"),
    ]
    assert longest == 100
    assert {name: definition.partition(" USING ")[2] for name, definition in indexes.items()} == {
        "order_events_pkey": "btree (aggregate_id, version)",
        "idx_timestamp": 'btree ("timestamp")',
        "idx_event_type": "btree (event_type)",
        "order_snapshots_pkey": "btree (aggregate_id)",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "attempt",
    [
        "UPDATE order_events SET payload = '{}'",
        "DELETE FROM order_events",
        "DELETE FROM order_events WHERE version = 7",
        "TRUNCATE order_events",
        f"INSERT INTO order_events VALUES ('{ID}', 1, 'X', '{{}}') {UPSERT}",
    ],
)
def test_postgres_refuses_to_change_an_event_and_names_compensation(server: str, attempt: str) -> None:
    """To its superuser, too."""
    import psycopg

    with psycopg.connect(server) as db:
        with pytest.raises(psycopg.errors.RestrictViolation, match="never changed or removed") as refused:
            db.execute(attempt)
        db.rollback()
        assert refused.value.diag.message_hint == "append an event that compensates, such as OrderCorrected"
        assert db.execute("SELECT count(*) FROM order_events").fetchone() == (1,)


@pytest.mark.slow
def test_an_analyst_may_read_and_nothing_else(server: str) -> None:
    """A role that the script makes."""
    import psycopg

    name = f"analyst-{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as db:
        for statement in ddl("postgres", analyst=name)[-2:]:
            db.execute(statement)
        try:
            db.execute(f'SET ROLE "{name}"')
            assert db.execute("SELECT count(*) FROM order_events").fetchone() == (1,)
            for attempt in (
                f"INSERT INTO order_snapshots VALUES ('{ID}', 1, '{{}}')",
                "DROP TABLE order_events",
                "ALTER TABLE order_events DISABLE TRIGGER ALL",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    db.execute(attempt)
        finally:
            db.execute("RESET ROLE")
            db.execute(f'DROP OWNED BY "{name}"')
            db.execute(f'DROP ROLE "{name}"')


# --- cockroach: there was no server to run it, so this is the text itself -----------------------------------


def test_cockroach_gets_a_database_over_its_regions() -> None:
    """The first region is the primary one; a whole table has one home, so that the key stays as it is."""
    regions = ["us-east-1", "eu-west-1", "ap-southeast-1"]
    told = ddl("cockroach", regions=regions, survive="region")
    assert told[0] == (
        'CREATE DATABASE titan PRIMARY REGION "us-east-1"'
        ' REGIONS "us-east-1", "eu-west-1", "ap-southeast-1" SURVIVE REGION FAILURE'
    )
    assert told[1] == "USE titan"
    assert told[2:6] == ddl("postgres")[:4]
    assert told[6:8] == [
        "ALTER TABLE order_events SET LOCALITY REGIONAL BY TABLE IN PRIMARY REGION",
        "ALTER TABLE order_snapshots SET LOCALITY REGIONAL BY TABLE IN PRIMARY REGION",
    ]
    assert script(told) == printed(
        "--dialect", "cockroach", "--regions", ", ".join(regions), "--survive", "region"
    )


def test_cockroach_refuses_row_by_row_what_it_has_triggers_for() -> None:
    """It has none for a statement, and none for TRUNCATE."""
    function, trigger = ddl("cockroach")[-2:]
    assert function == ddl("postgres")[-2]
    assert trigger == (
        "CREATE TRIGGER order_events_keep BEFORE UPDATE OR DELETE ON order_events\n"
        "    FOR EACH ROW EXECUTE FUNCTION order_events_refuse()"
    )


@pytest.mark.parametrize("survive", ["zone", None])
def test_two_regions_are_enough_to_survive_a_zone(survive: Any) -> None:
    """Which is also what CockroachDB does if nothing is said."""
    (made, *_) = ddl("cockroach", regions=["a", "b"], survive=survive)
    assert made == 'CREATE DATABASE titan PRIMARY REGION "a" REGIONS "a", "b"' + (
        " SURVIVE ZONE FAILURE" if survive else ""
    )


def test_a_name_cannot_say_more_than_a_name() -> None:
    """Quotes are doubled."""
    (made, *_) = ddl("cockroach", regions=['a"; DROP TABLE x; --'])
    assert (
        made == 'CREATE DATABASE titan PRIMARY REGION "a""; DROP TABLE x; --" REGIONS "a""; DROP TABLE x; --"'
    )
    assert ddl("postgres", analyst='a"b')[-2:] == [
        'CREATE ROLE "a""b"',
        'GRANT SELECT ON order_events, order_snapshots TO "a""b"',
    ]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            {"dialect": "mysql"},
            "no tables are written for 'mysql'; the dialects are postgres, cockroach, sqlite",
        ),
        ({"dialect": "postgress"}, "Did you mean 'postgres'"),
        ({"dialect": "postgres", "regions": ["a"]}, "postgres has no regions"),
        ({"dialect": "sqlite", "survive": "zone"}, "sqlite has no regions"),
        ({"dialect": "cockroach", "survive": "region"}, "needs regions, and none is named"),
        (
            {"dialect": "cockroach", "regions": ["a", "b"], "survive": "region"},
            "takes 3 regions, and 2 are named",
        ),
        (
            {"dialect": "cockroach", "regions": ["a"], "survive": "planet"},
            "a zone or of a region, not of 'planet'",
        ),
        ({"dialect": "cockroach", "regions": ["a", "a", "b"]}, "named twice in a, a, b"),
        ({"dialect": "cockroach", "regions": "us-east-1"}, "is one text, not several"),
        ({"dialect": "cockroach", "regions": [""]}, "'' is no name"),
        ({"dialect": "sqlite", "analyst": "ann"}, "sqlite has no roles"),
    ],
)
def test_what_a_database_does_not_have_is_refused(asked: dict[str, Any], told: str) -> None:
    """With what was found, and what could be asked for."""
    with pytest.raises(SchemaError, match=told.replace("(", r"\(")):
        ddl(**asked)
