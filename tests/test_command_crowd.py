"""Many at one desk: no acknowledged command is lost, none is done twice, no version is skipped."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.event import records
from titan_lab.testing.readers import kill_in_the_middle

WRITERS, COMMANDS = 8, 12
ORDERS = tuple(str(uuid.UUID(int=n)) for n in (1, 2, 3))
CENT = Decimal("0.01")
Told = list[tuple[str, str, int]]  # the command, and the order and version that it was acknowledged with

CROWD = f"""
import pathlib, sys, time
import titan_lab as tl
url, go, me = sys.argv[1:]
desk = tl.OrderDesk(tl.open(url, writable=True))
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
for n in range({COMMANDS}):
    refund = tl.IssueRefund(order_id={ORDERS}[n % {len(ORDERS)}], amount="0.01")
    done = desk.handle(refund, command_id=f"{{me}}-{{n}}")
    print(f"{{me}}-{{n}}", done.aggregate_id, done.version, flush=True)
"""


def open_shop(log: tl.EventLog) -> tl.OrderDesk:
    """Have three orders paid, from which much can be refunded."""
    desk = tl.OrderDesk(log, attempts=200)
    for name in ORDERS:
        items = [{"product_id": "tea", "quantity": 2, "price": "4.50"}]
        desk.handle(tl.CreateOrder(order_id=name, user_id="7", items=items))
        desk.handle(tl.AuthorizePayment(order_id=name, amount=9))
    return desk


def nothing_is_lost(log: tl.EventLog, told: Told) -> None:
    """Hold what was acknowledged against what is stored."""
    events = [event for event in records(log.read()) if event.event_type == "RefundIssued"]
    assert log.audit().filter(pl.col("kind") != "clock inversion").is_empty()
    assert log.rejected.is_empty()
    assert sorted((e.metadata["causation_id"], e.aggregate_id, e.version) for e in events) == sorted(told)
    assert set(Counter(name for name, _, _ in told).values()) == {1}
    assert len(told) == WRITERS * COMMANDS
    assert log.fold(tl.Order).now["refunded"].sum() == len(told) * CENT


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that several processes can write to."""
    if request.param == "postgres":
        return request.getfixturevalue("database")
    return f"sqlite:///{tmp_path}/orders.db"


@pytest.mark.slow
def test_of_a_crowd_of_processes_nobody_is_lost_or_heard_twice(url: str, tmp_path: Path) -> None:
    """Eight of them on three orders."""
    log = tl.open(url, writable=True)
    open_shop(log)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, url, str(tmp_path / "go"), f"w{n}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(WRITERS)
    ]
    for writer in crowd:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    lines = [line.split() for writer in crowd for line in writer.communicate(timeout=240)[0].splitlines()]
    assert [writer.returncode for writer in crowd] == [0] * WRITERS
    nothing_is_lost(log, [(name, order_id, int(version)) for name, order_id, version in lines])


def in_threads(log: tl.EventLog) -> Told:
    """Let the same crowd meet in one process."""
    desk = open_shop(log)
    told: Told = []

    def work(me: int) -> None:
        for n in range(COMMANDS):
            refund = tl.IssueRefund(order_id=ORDERS[n % len(ORDERS)], amount=CENT)
            done = desk.handle(refund, command_id=f"w{me}-{n}")
            told.append((f"w{me}-{n}", done.aggregate_id, done.version))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


@pytest.mark.parametrize("address", ["memory://", "sqlite:///{}/orders.db"])
def test_of_a_crowd_of_threads_nobody_is_lost_or_heard_twice(address: str, tmp_path: Path) -> None:
    """In memory, and in a file."""
    log = tl.open(address.format(tmp_path), writable=True)
    nothing_is_lost(log, in_threads(log))


class Unlocked:
    """A lock that lets everybody in."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_that_proof_notices_a_store_that_looks_and_then_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: between the look at the version and the write, another may come."""
    log = tl.open("memory://")
    monkeypatch.setattr(log.reader, "_writing", Unlocked())
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        told = in_threads(log)
    finally:
        sys.setswitchinterval(switching)
    with pytest.raises(AssertionError):
        nothing_is_lost(log, told)


# --- the same command, more than once -----------------------------------------------------------------------


def test_one_command_that_a_crowd_asks_for_is_done_once(tmp_path: Path) -> None:
    """All of them are told where it stands."""
    desk = open_shop(tl.open(f"sqlite:///{tmp_path}/orders.db", writable=True))
    told: list[int] = []

    def work() -> None:
        refund = tl.IssueRefund(order_id=ORDERS[0], amount=CENT)
        told.append(desk.handle(refund, command_id="cmd-1").version)

    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [3] * WRITERS
    assert desk.load(ORDERS[0]).refunded == CENT


LOST = f"""
import sys, time
import titan_lab as tl
from titan_lab.backends.sqlite import SqliteStore
honest = SqliteStore.extend
def lose_the_answer(self, *arguments):
    honest(self, *arguments)
    print("in the middle", flush=True)
    time.sleep(600)
SqliteStore.extend = lose_the_answer
desk = tl.OrderDesk(tl.open(sys.argv[1], writable=True))
desk.handle(tl.IssueRefund(order_id="{ORDERS[0]}", amount="0.01"), command_id="cmd-1")
"""


def test_a_command_whose_answer_was_lost_is_not_done_again(tmp_path: Path) -> None:
    """Its process was killed between the append and the answer; whoever asked asks again."""
    url = f"sqlite:///{tmp_path}/orders.db"
    desk = open_shop(tl.open(url, writable=True))
    kill_in_the_middle(LOST, url)
    handled = desk.handle(tl.IssueRefund(order_id=ORDERS[0], amount=CENT), command_id="cmd-1")
    assert (handled.version, handled.state.refunded, desk.load(ORDERS[0]).version) == (3, CENT, 3)
