"""What an attack on the stores found: each of these lost something, or told it to somebody, once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.backends.manifest import LOCK
from titan_lab.errors import CommandError, MirrorError, OpenError
from titan_lab.redacted import redact
from titan_lab.testing.rows import row

SAMPLES = "sqlite:///data/samples/orders.db"


def test_a_mirror_leaves_a_folder_of_something_else_alone(tmp_path):
    theirs = tmp_path / "lake" / "events" / "2024.parquet"
    theirs.parent.mkdir(parents=True)
    log = tl.open(SAMPLES)
    log.read().write_parquet(theirs)
    with pytest.raises(MirrorError, match="is there and is no mirror"):
        log.mirror(tmp_path / "lake").sync()
    assert len(pl.read_parquet(theirs)) == 12_123


def test_a_sweep_takes_only_what_the_mirror_wrote(tmp_path):
    log = tl.open(SAMPLES)
    mirror = log.mirror(tmp_path / "mirror")
    mirror.sync()
    theirs = tmp_path / "mirror" / "events" / "notes.parquet"
    log.read().head(1).write_parquet(theirs)
    mirror.sync(whole=True)
    assert theirs.exists()


def test_what_a_killed_first_sync_left_is_begun_again(tmp_path):
    place = tmp_path / "mirror"
    (place / "events").mkdir(parents=True)
    (place / LOCK).touch()
    (place / "events" / "000001.parquet").write_bytes(b"half")
    assert tl.open(SAMPLES).mirror(place).sync().added == 12_123


@pytest.mark.parametrize("inside", ["", "mirror"])
def test_a_mirror_does_not_lie_in_its_own_store(tmp_path, inside):
    store = tmp_path / "store"
    tl.open(f"parquet://{store}", writable=True).append_many(tl.open(SAMPLES).read())
    log = tl.open(f"parquet://{store}")
    with pytest.raises(MirrorError, match="lies in the store that it would copy"):
        log.mirror(store / inside).sync()
    with pytest.raises(MirrorError, match="or around it"):
        log.mirror(tmp_path).sync()
    assert len(log) == 12_123


def test_a_mirror_writes_through_no_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mirror = tl.open(SAMPLES).mirror(tmp_path / "mirror")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "events").symlink_to(elsewhere)
    with pytest.raises(MirrorError, match="link to elsewhere"):
        mirror.sync()


def test_brackets_and_stars_in_a_path_are_no_patterns(tmp_path):
    for name in ("a1", "a[1]", "a*"):
        tl.open(f"parquet://{tmp_path / name}", writable=True).append_many(pl.DataFrame([row(name)]))
        log = tl.open(f"parquet://{tmp_path / name}")
        assert log.read()["aggregate_id"].to_list() == [name]
        mirror = log.mirror(tmp_path / f"m-{name}")
        mirror.sync()
        assert mirror.read()["aggregate_id"].to_list() == [name]


def test_a_table_that_may_hold_a_place_twice_is_not_written_to(tmp_path):
    file = tmp_path / "free.db"
    with sqlite3.connect(file) as db:
        db.execute(
            "CREATE TABLE order_events (aggregate_id, version, event_type, payload, metadata, timestamp,"
            " UNIQUE (aggregate_id, version, timestamp))"
        )
    db.close()
    assert len(tl.open(f"sqlite:///{file}")) == 0
    with pytest.raises(OpenError, match="two events in one place"):
        tl.open(f"sqlite:///{file}", writable=True)


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (aggregate_id, version, timestamp)"])
def test_a_servers_table_that_may_hold_a_place_twice_is_not_written_to(database, key):
    import psycopg

    with psycopg.connect(database) as db:
        db.execute(
            "CREATE TABLE order_events (aggregate_id text, version int, event_type text, payload jsonb,"
            f" metadata jsonb, timestamp timestamptz{key})"
        )
    assert len(tl.open(database)) == 0
    with pytest.raises(OpenError, match="two events in one place"):
        tl.open(database, writable=True)


def test_a_trigger_that_swallows_events_is_told(database):
    import psycopg

    log = tl.open(database, writable=True)
    with psycopg.connect(database) as db:
        db.execute("CREATE FUNCTION swallow() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        db.execute("CREATE TRIGGER t BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION swallow()")
    order = "550e8400-e29b-41d4-a716-446655440000"
    with pytest.raises(OpenError, match="takes no such event"):
        log.append_many(pl.DataFrame([row(order)]))
    with pytest.raises(OpenError, match="takes no such event"):
        log.append(order, tl.OrderShipped(), 0)


def interrupted(log):
    with log.reader.server.session() as session:
        session.execute("BEGIN")
        raise KeyboardInterrupt


def test_an_interrupt_within_a_transaction_does_not_swallow_the_next_append(database):
    log = tl.open(database, writable=True)
    order = "550e8400-e29b-41d4-a716-446655440000"
    with pytest.raises(KeyboardInterrupt):
        interrupted(log)
    assert log.append(order, tl.OrderShipped(), 0).added == 1
    assert len(tl.open(database).events(order)) == 1


def test_the_command_line_tells_no_password(database):
    import psycopg

    tl.open(database, writable=True)
    with psycopg.connect(database) as db:
        db.execute(
            "INSERT INTO order_events VALUES"
            " ('bbbbbbbb-0000-4000-8000-000000000001', 1, 'OrderCreated', '{\"user_id\": \"x\"}', NULL)"
        )
    assert ":unused@" in database or "TITAN_TEST_POSTGRES" in os.environ
    for asked in (["inspect", database], ["at", database, "2024-01-01"], ["audit", database]):
        told = subprocess.run(
            [sys.executable, "-c", "from titan_lab.cli import main; main()", *asked],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "rejected" in told.stdout + told.stderr, asked
        assert "unused" not in told.stdout + told.stderr, asked


def test_a_command_id_belongs_to_one_command():
    desk = tl.OrderDesk(tl.open("memory://"))
    items = [{"product_id": "tea", "quantity": 1, "price": 9}]
    asked = tl.CreateOrder(order_id="order-1", user_id="7", items=items)
    assert desk.handle(asked, command_id="c-1").version == 1
    assert desk.handle(asked, command_id="c-1").version == 1
    desk.handle(tl.AuthorizePayment(order_id="order-1", amount=4), command_id="c-2")
    for other in (tl.AuthorizePayment(order_id="order-1", amount=5), tl.ShipOrder(order_id="order-1")):
        with pytest.raises(CommandError, match="belongs to another command"):
            desk.handle(other, command_id="c-2")
    assert desk.handle(tl.AuthorizePayment(order_id="order-1", amount=4), command_id="c-2").version == 2


@pytest.mark.parametrize("text", ["postgresql:/titan:SECRET@db/o", "titan:SECRET@db/o", "x//t:SECRET@db"])
def test_what_was_meant_as_a_url_tells_no_password_either(text):
    with pytest.raises(OpenError) as caught:
        tl.open(text)
    assert "SECRET" not in str(caught.value)


def test_a_password_with_an_at_is_not_told_as_a_host():
    with pytest.raises(OpenError) as caught:
        tl.open("postgresql://titan:a@SECRET@127.0.0.1:1/orders")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("password", ["my SECRET", "a@SECRET", "SECRET", "it's SECRET"])
def test_no_password_gets_through(password):
    shown = redact(f"cannot open postgresql://titan:{password}@db/orders today")
    assert "SECRET" not in shown
    assert shown == "cannot open postgresql://titan:***@db/orders today"
