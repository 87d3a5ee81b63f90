"""Two writers on one order of a PostgreSQL store: exactly one wins, and the other is told what it can do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from uuid import uuid4

import psycopg
import pytest

import titan_lab as tl
from titan_lab.errors import Refused, VersionConflict
from titan_lab.event import records

pytestmark = pytest.mark.slow

ORDERS = 30
PAID = Decimal("9.00")


def paid_orders(url: str) -> list[str]:
    """Make an event store with orders of which all was paid."""
    names = [str(uuid4()) for _ in range(ORDERS)]
    with tl.open(url, writable=True) as log:
        desk = tl.OrderDesk(log)
        for name in names:
            items = [{"product_id": "tea", "quantity": 2, "price": "4.50"}]
            desk.handle(tl.CreateOrder(order_id=name, user_id="7", items=items))
            desk.handle(tl.AuthorizePayment(order_id=name, amount=PAID))
    return names


def at_once(url: str, names: list[str], ask: Callable[[tl.OrderDesk, str], object]) -> list[list[object]]:
    """Ask two desks, each with sessions of its own, the same of each order, both at the same moment."""
    barrier = Barrier(2)

    def work(_: int) -> list[object]:
        told: list[object] = []
        with tl.open(url, writable=True) as log:
            desk = tl.OrderDesk(log)
            for name in names:
                barrier.wait(timeout=60)
                try:
                    told.append(ask(desk, name))
                except (Refused, VersionConflict) as error:
                    told.append(error)
        return told

    with ThreadPoolExecutor(2) as pool:
        return [list(pair) for pair in zip(*pool.map(work, range(2)), strict=True)]


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_of_two_refunds_of_all_the_money_one_is_made(database: str, isolation: str) -> None:
    """The other is decided again on what is there then, and refused: no cent goes back twice."""
    names = paid_orders(database)
    with psycopg.connect(database, autocommit=True) as session:
        here = session.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]
        session.execute(f"ALTER DATABASE {here} SET default_transaction_isolation = '{isolation}'")

    pairs = at_once(
        database, names, lambda desk, name: desk.handle(tl.IssueRefund(order_id=name, amount=PAID))
    )
    for pair in pairs:
        (refused,) = [one for one in pair if isinstance(one, Refused)]
        assert "not yet given back" in str(refused) or "is more than the 0.00" in str(refused)
    with tl.open(database) as log:
        assert log.fold(tl.Order).now["refunded"].to_list() == [PAID] * ORDERS
        assert log.read()["version"].to_list() == [1, 2, 3] * ORDERS


def test_who_names_the_version_that_was_seen_is_told_which_is_there_and_can_try_again(database: str) -> None:
    """Nothing of the loser is stored; on the version that the error names it succeeds."""
    names = paid_orders(database)

    def ask(desk: tl.OrderDesk, name: str) -> object:
        return desk.handle(tl.IssueRefund(order_id=name, amount="0.01"), expected_version=2)

    pairs = at_once(database, names, ask)
    with tl.open(database, writable=True) as log:
        desk = tl.OrderDesk(log)
        for name, pair in zip(names, pairs, strict=True):
            (conflict,) = [one for one in pair if isinstance(one, VersionConflict)]
            assert "version 3" in str(conflict)
            assert "2" in str(conflict)
            assert [event.version for event in records(log.events(name))] == [1, 2, 3]
            again = desk.handle(tl.IssueRefund(order_id=name, amount="0.01"), expected_version=3)
            assert again.version == 4
