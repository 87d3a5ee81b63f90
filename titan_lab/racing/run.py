"""The rounds of a race: writers and readers at the same time, and at the end a count."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread

import polars as pl

from titan_lab.backends.ddl import TABLE
from titan_lab.connect import open_log
from titan_lab.errors import OpenError, RaceError
from titan_lab.racing.readers import FRONTIER, NAIVE, OURS, FrontierAlone, Mirrored, Tail, Tailing
from titan_lab.racing.report import APPENDS, ROUNDS, Race, compared
from titan_lab.racing.scratch import Scratch, scratch_at
from titan_lab.racing.writers import (
    Contest,
    Key,
    Pen,
    Written,
    appending,
    busy,
    holding,
    idling,
    preparing,
)
from titan_lab.redacted import redact

APPENDERS = 4
PAUSE = 0.02  # seconds between two looks of a reader, at most
SETTLED_WITHIN = 30  # seconds after the last commit
Progress = Callable[[int, int], object]


def race(
    url: str,
    *,
    writers: int = 8,
    rounds: int = 5,
    seconds: float = 4.0,
    ours: Tailing = Mirrored,
    progress: Progress | None = None,
) -> Race:
    """Race writers against tailing readers on a scratch database, and count what each reader missed.

    url: an empty database of a server, or a file of SQLite beside which another one is made. All tables are
    the race's own, in a schema (a file) under a name that nobody has, and are dropped at the end, also after
    Ctrl-C. writers: commit and roll back with random delays; beside them four append to one place, and on a
    server one transaction is held open for half of each round, one is idle, then one is prepared. In every
    second round writers have clocks of their own: an hour or a day back, half a second off, 30 years ahead.
    ours: what is raced as ours. progress: called with the rounds done and all.

    Raises RaceError where nothing can be raced, ReadOnly where nothing may be made, OpenError for a server
    that is not there.

    >>> race("memory://")
    Traceback (most recent call last):
    titan_lab.errors.RaceError: memory:// cannot be raced: nobody else can write to it
      hint: name a scratch database of a server
    """
    if writers < 1 or rounds < 1 or seconds <= 0:
        raise RaceError(
            f"{writers} writers, {rounds} rounds and {seconds} seconds are no race",
            hint="at least one of each",
        )
    scratch = scratch_at(url)
    found = [ROUNDS.to_frame()]
    appends = dict.fromkeys(APPENDS, 0)
    try:
        for number in range(1, rounds + 1):
            if progress:
                progress(number - 1, rounds)
            scratch.make()
            with tempfile.TemporaryDirectory(prefix=scratch.name) as folder, _told(scratch, number):
                rows, counts = _Round(scratch, number, ours, Path(folder)).run(writers, seconds)
            found.append(rows)
            appends = {name: appends[name] + counts[name] for name in appends}
    finally:
        scratch.drop()
    return Race(scratch.shown, writers, seconds, scratch.prepares, pl.concat(found), appends)


@contextmanager
def _told(scratch: Scratch, number: int) -> Iterator[None]:
    """Let what a driver says be an OpenError."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("psycopg", "sqlite3"):
            raise
        raise OpenError(
            f"the race on {scratch.shown} ended in round {number}: {redact(str(error)).strip()}",
            hint="a race needs its database to itself, about 30 connections, and a server that stays up",
        ) from None


class _Round:
    """One round: fresh tables, fresh readers."""

    def __init__(self, scratch: Scratch, number: int, ours: Tailing, folder: Path) -> None:
        self.scratch, self.number, self.folder = scratch, number, folder
        self.clocks = "own" if number % 2 == 0 else "database"
        self.stop, self.settled = Event(), Event()
        self.errors: list[BaseException] = []
        self.written: list[Written] = []
        tails: dict[str, tuple[str, Tailing]] = {OURS: ("ours", ours)}
        if scratch.together:
            tails[FRONTIER] = ("frontier", FrontierAlone)
        tails |= {name: ("naive", tail) for name, tail in NAIVE.items()}
        self.tails = tails

    def run(self, writers: int, seconds: float) -> tuple[pl.DataFrame, dict[str, int]]:
        """Start all, wait, let the writers settle and the readers look once more, and count."""
        contest = Contest(APPENDERS, self.stop)
        with self._open() as tails:
            reading = [self._thread(self._tail, tail) for tail in tails.values()]
            writing = [
                self._thread(busy, *self._pen(f"writer {n}"), self.stop) for n in range(1, writers + 1)
            ]
            for n in range(1, APPENDERS + 1):
                self.written.append(Written(f"appender {n}"))
                writing.append(self._thread(appending, self.scratch, self.written[-1], contest))
            special = [holding, idling] if self.scratch.together else []
            special += [preparing] if self.scratch.prepares else []
            writing += [self._thread(one, *self._pen(one.__name__), self.stop, seconds) for one in special]
            threads = [*reading, *writing]
            try:
                for thread in threads:
                    thread.start()
                self.stop.wait(seconds)
                self.stop.set()
                for thread in writing:
                    thread.join()
            finally:
                self.stop.set()
                self.settled.set()
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
            if self.errors:  # the first: what follows it is most often its consequence
                raise self.errors[0]
            if self.scratch.together:
                self._let_the_frontier_pass()
            for tail in tails.values():
                tail.poll()
            seen = {name: tail.seen() for name, tail in tails.items()}
        kinds = {name: kind for name, (kind, _) in self.tails.items()}
        keys = [key for one in self.written for key in one.acknowledged]
        return compared(self.number, self.clocks, keys, seen, kinds), self._appends(contest)

    @contextmanager
    def _open(self) -> Iterator[dict[str, Tail]]:
        tails: dict[str, Tail] = {}
        try:
            for number, (name, (_, tailing)) in enumerate(self.tails.items()):
                own = self.folder / str(number)
                own.mkdir()
                tails[name] = tailing(self.scratch, own)
            yield tails
        finally:
            for tail in tails.values():
                tail.close()

    def _pen(self, name: str) -> tuple[Scratch, Pen]:
        self.written.append(Written(name))
        return self.scratch, Pen(self.scratch, self.written[-1], self.clocks == "own")

    def _thread(self, work: Callable[..., None], *arguments: object) -> Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        return Thread(target=guarded, daemon=True)

    def _tail(self, tail: Tail) -> None:
        rng = Random()
        while not self.settled.is_set():
            tail.poll()
            time.sleep(rng.uniform(0, PAUSE))

    def _let_the_frontier_pass(self) -> None:
        """Wait until it has passed the last commit: it may stay back a little, to be sure."""
        deadline = time.monotonic() + SETTLED_WITHIN
        session = self.scratch.session(autocommit=True)
        try:
            ((ended,),) = session.execute("SELECT now()").fetchall()
        finally:
            session.close()
        with open_log(self.scratch.url) as log:
            while (frontier := log.frontier).instant is None or frontier.instant <= ended:
                if time.monotonic() > deadline:
                    raise RaceError(
                        f"the frontier of {self.scratch.shown} stands at {frontier}, though nobody writes",
                        hint="a race needs a database that nobody else uses",
                    )
                time.sleep(PAUSE)

    def _appends(self, contest: Contest) -> dict[str, int]:
        """Compare what was acknowledged with what is stored."""
        session = self.scratch.session(autocommit=True)
        try:
            text = f"SELECT aggregate_id, version, CAST(payload AS TEXT) FROM {TABLE}"
            rows = session.execute(text).fetchall()
        finally:
            session.close()
        # JSONB has spaces of its own.
        stored = {(str(order), version): json.loads(payload) for order, version, payload in rows}
        acknowledged: dict[Key, str] = {}
        twice = 0
        for one in self.written:
            twice += one.twice + len(acknowledged.keys() & one.acknowledged.keys())
            acknowledged |= one.acknowledged
        return {
            "acknowledged": len(acknowledged),
            "lost": sum(stored.get(key) != json.loads(payload) for key, payload in acknowledged.items()),
            "unasked": len(stored.keys() - acknowledged.keys()),
            "twice": twice,
            "rolled_back": sum(one.rolled_back for one in self.written),
            "contests": contest.held,
            "won": sum(one.won for one in self.written),
            "several": contest.several,
        }
