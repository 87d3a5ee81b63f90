"""A mirror of a real server: transactions that commit late, and writers with clocks of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from titan_lab.connect import open_log

WRITE = "INSERT INTO order_events VALUES (%s, %s, 'OrderShipped', '{}', NULL, now())"
ORDER = "550e8400-e29b-41d4-a716-44665544000"


def test_a_transaction_that_is_open_over_two_syncs_is_not_missed(database: str, tmp_path: Path) -> None:
    """Its rows are stamped before those that were copied long ago; the frontier waited for it."""
    import psycopg

    with open_log(database, writable=True) as log, psycopg.connect(database) as slow:
        mirror = log.mirror(tmp_path / "mirror")
        slow.execute(WRITE, [f"{ORDER}1", 1])
        with psycopg.connect(database) as quick:
            quick.execute(WRITE, [f"{ORDER}2", 1])
        assert mirror.sync().added == 1
        with psycopg.connect(database) as quick:
            quick.execute(WRITE, [f"{ORDER}2", 2])
        assert mirror.sync().added == 1
        slow.commit()
        told = mirror.sync()
        assert (told.added, told.late, told.whole) == (1, 0, False)
        assert mirror.read().equals(log.read())


@pytest.mark.parametrize("stamp", ["now() - interval '1 hour'", "now() + interval '30 years'", "NULL"])
def test_a_clock_of_its_own_hides_nothing(database: str, tmp_path: Path, stamp: str) -> None:
    """Nor does it hide what others write after it."""
    import psycopg

    with open_log(database, writable=True) as log:
        mirror = log.mirror(tmp_path / "mirror")
        for version in (1, 2, 3):
            with psycopg.connect(database) as db:
                db.execute(WRITE, [f"{ORDER}3", version])
                db.execute(WRITE.replace("now()", stamp), [f"{ORDER}4", version])
            mirror.sync()
            assert mirror.read().equals(log.read())
            assert len(mirror.rejected) == len(open_log(database).rejected)
