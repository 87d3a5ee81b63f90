"""Writers that make it hard for a reader: slow, rolled back, left open, prepared, with clocks of their own.

Each writes to orders of its own, so that none has to wait for another, save the appenders: they all want the
same place of the same order, and exactly one may have it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from threading import Barrier, BrokenBarrierError, Event
from typing import Any
from uuid import uuid4

from titan_lab.backends.ddl import TABLE
from titan_lab.connect import open_log
from titan_lab.errors import VersionConflict
from titan_lab.racing.scratch import Scratch

Key = tuple[str, int]  # aggregate_id, version

NEW = 0.4  # of the transactions begin an order: nothing of it that is seen tells that something is missing
BATCH = 4  # events of one transaction, at most
ROLLED_BACK = 0.15  # of the transactions
OWN_CLOCK = 0.4  # of the transactions, in rounds with clocks of their own
# Of a round, until when a transaction is left open, from when to when another one is prepared. One after the
# other, since the oldest of them hides what a frontier, and so a mirror, makes of the others.
OPEN, BEGUN, PREPARED, COMMITTED = 0.5, 0.5, 0.55, 0.95
EVENT = "Raced"

PLAIN = f"INSERT INTO {TABLE} (aggregate_id, version, event_type, payload) VALUES (?, ?, ?, ?)"
STAMPED = (
    f"INSERT INTO {TABLE} (aggregate_id, version, event_type, payload, timestamp) VALUES (?, ?, ?, ?, ?)"
)


@dataclass
class Written:
    """What one writer was told: the events whose commit was acknowledged, with their payloads."""

    name: str
    acknowledged: dict[Key, str] = field(default_factory=dict)
    twice: int = 0  # places that were acknowledged to it a second time
    rolled_back: int = 0  # events
    contests: int = 0  # appends to a place that others wanted, too
    won: int = 0

    def acknowledge(self, events: dict[Key, str]) -> None:
        """Take a commit's acknowledgement."""
        self.twice += len(events.keys() & self.acknowledged.keys())
        self.acknowledged |= events


class Pen:
    """Open transactions on orders of its own, and remember where each order ends."""

    def __init__(self, scratch: Scratch, written: Written, own_clock: bool) -> None:
        self._scratch, self.written = scratch, written
        self._rng = Random()
        self._own_clock = own_clock
        self._ends: dict[str, int] = {}
        self._number = count(1)

    def insert(self, session: Any) -> dict[Key, str]:
        """Insert some events into one order, in the session's transaction; none is committed."""
        rng = self._rng
        known = self._ends and rng.random() > NEW
        order = rng.choice(list(self._ends)) if known else str(uuid4())
        stamp = self._stamp()
        end = self._ends.get(order, 0)
        events = {}
        for version in range(end + 1, end + 1 + rng.randint(1, BATCH)):
            payload = json.dumps({"by": self.written.name, "number": next(self._number)})
            row = [order, version, EVENT, payload]
            if stamp is None:
                session.execute(self._scratch.sql(PLAIN), row)
            else:
                session.execute(self._scratch.sql(STAMPED), [*row, self._scratch.stamp(stamp)])
            events[order, version] = payload
        return events

    def commit(self, session: Any, events: dict[Key, str]) -> None:
        """Commit, and take the events as written once that is acknowledged."""
        session.commit()
        self.keep(events)

    def keep(self, events: dict[Key, str]) -> None:
        """Take events as written."""
        self.written.acknowledge(events)
        for order, version in events:
            self._ends[order] = max(self._ends.get(order, 0), version)

    def _stamp(self) -> datetime | None:
        """Leave the timestamp to the database, or take one from a clock that is wrong."""
        rng = self._rng
        if not self._own_clock or rng.random() >= OWN_CLOCK:
            return None
        skew = timedelta(milliseconds=rng.randint(-500, 500))
        wrong = {timedelta(hours=-1): 3, timedelta(days=-1): 3, skew: 3, timedelta(days=365 * 30): 1}
        return datetime.now(UTC) + rng.choices(list(wrong), list(wrong.values()))[0]


def busy(scratch: Scratch, pen: Pen, stop: Event) -> None:
    """Commit, or roll back, one transaction after the other, each after a random delay."""
    rng = Random()
    session = scratch.session()
    try:
        while not stop.is_set():
            events = pen.insert(session)
            time.sleep(rng.expovariate(1) * scratch.pause)
            if rng.random() < ROLLED_BACK:
                session.rollback()
                pen.written.rolled_back += len(events)
            else:
                pen.commit(session, events)
            time.sleep(rng.expovariate(1) * scratch.rest)
    finally:
        session.close()


def holding(scratch: Scratch, pen: Pen, stop: Event, seconds: float) -> None:
    """Write at once, and commit in the middle of the round."""
    session = scratch.session()
    try:
        events = pen.insert(session)
        stop.wait(seconds * OPEN)
        pen.commit(session, events)
    finally:
        session.close()


def idling(scratch: Scratch, pen: Pen, stop: Event, seconds: float) -> None:
    """Begin, do nothing for half of the round, then write: stamped when the transaction began."""
    session = scratch.session()
    try:
        session.execute("SELECT 1")
        stop.wait(seconds * OPEN)
        pen.commit(session, pen.insert(session))
    finally:
        session.close()


def preparing(scratch: Scratch, pen: Pen, stop: Event, seconds: float) -> None:
    """Write, prepare a little later, and go away; another session commits when the round is nearly over."""
    gid = f"{scratch.name}_{uuid4().hex}"
    stop.wait(seconds * BEGUN)
    session = scratch.session()
    try:
        events = pen.insert(session)
        stop.wait(seconds * (PREPARED - BEGUN))
        session.execute(f"PREPARE TRANSACTION '{gid}'")
        session.commit()  # ends the driver's own idea of a transaction
    finally:
        session.close()
    stop.wait(seconds * (COMMITTED - PREPARED))
    session = scratch.session(autocommit=True)
    try:
        session.execute(f"COMMIT PREPARED '{gid}'")
        pen.keep(events)
    finally:
        session.close()


class Contest:
    """The place that all appenders want at once: behind version `expected` of one order."""

    def __init__(self, appenders: int, stop: Event) -> None:
        self.order = str(uuid4())
        self.expected = 0
        self.winners: list[int] = []  # the version after each append that won, of this contest
        self.several = 0  # contests that did not have exactly one winner
        self.held = 0
        self.over = False
        self._stop = stop
        self.barrier = Barrier(appenders, action=self._next)

    def _next(self) -> None:
        """Judge the last contest, and open the next: in one thread, while all wait."""
        if self.held:
            self.several += len(self.winners) != 1
            self.expected = max(self.winners, default=self.expected)
        self.winners = []
        self.over = self._stop.is_set()
        self.held += not self.over

    def __iter__(self) -> Iterator[int]:
        """Wait for the others, and give the expected version, until the round is over."""
        while True:
            self.barrier.wait()
            if self.over:
                return
            yield self.expected


def appending(scratch: Scratch, written: Written, contest: Contest) -> None:
    """Append to the same place as the others do, through the store's own append."""
    rng = Random()
    try:
        with open_log(scratch.url, writable=True) as log:
            for expected in contest:
                payloads = [{"by": written.name, "id": str(uuid4())} for _ in range(rng.randint(1, BATCH))]
                events = [{"event_type": EVENT, "payload": payload} for payload in payloads]
                written.contests += 1
                try:
                    done = log.append(contest.order, events, expected)
                except VersionConflict:
                    continue
                written.won += 1
                contest.winners.append(expected + done.added)
                places = [(contest.order, version) for version, _ in enumerate(payloads, expected + 1)]
                written.acknowledge(dict(zip(places, map(json.dumps, payloads), strict=True)))
    except BrokenBarrierError:  # another one failed, and tells why
        pass
    except BaseException:
        contest.barrier.abort()
        raise
