"""Run jobs when they are due, for as long as this runs, or once.

    Scheduler().run()           # until SIGTERM or Ctrl-C
    Scheduler().once()          # what is due now, and then end: for cron, or a test

What is due comes from the ledger and nowhere else, so a scheduler that was killed goes on where it was, and
two of them do nothing twice. The instant that a run is about is the one it was due at, never the time it
happens to start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from titan_lab.clock import iso
from titan_lab.errors import LedgerError, TitanError
from titan_lab.jobs.child import Child, Request, ended_by_signal
from titan_lab.jobs.cron import told
from titan_lab.jobs.declaration import Declaration, Keep
from titan_lab.jobs.due import Due, due
from titan_lab.jobs.history import prune
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.plan import declaration_of_job, jobs
from titan_lab.jobs.record import LOCKED, USAGE

LOOK: Final = timedelta(seconds=30)  # so often at least: files are edited, clocks are set
LATER: Final = timedelta(seconds=5)  # after which an instant that somebody else has is looked at again
NAMES: Final = {
    0: "ok",
    1: "failed",
    2: "refused",
    3: "timeout",
    4: "died",
    6: "nothing to do",
    LOCKED: "run by another",
}


class Scheduler:
    """Runs the jobs of a folder when they are due.

    names: only these jobs. parallel: at most so many runs at once, of all jobs together; each job has a limit
    of its own beside its notebook. tell: called with a line of text for whatever happens. now: what time it
    is, for tests.
    """

    def __init__(
        self,
        names: tuple[str, ...] = (),
        *,
        pipelines: str | os.PathLike[str] = "pipelines",
        out: str | os.PathLike[str] = "runs",
        ledger: str | None = None,
        parallel: int = 2,
        tell: Callable[[str], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.names, self.pipelines, self.out, self.url = names, os.fspath(pipelines), os.fspath(out), ledger
        self.parallel, self.tell, self.now = parallel, tell, now
        self.ledger = Ledger(ledger, runs=out)
        self.started = now()
        self.bad: set[tuple[str, datetime]] = set()  # what was run and did not end well, at last
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._running: dict[tuple[str, datetime], tuple[Child, threading.Thread]] = {}
        self._not_before: dict[tuple[str, datetime], datetime] = {}
        self._complaints: dict[str, str] = {}

    # --- LOOKING -----------------------------------------------------------------------------------------

    def declared(self) -> dict[str, Declaration]:
        """Read which jobs have a schedule. One that cannot be read is told, and does not stop the others."""
        found = {}
        for job in self.names or jobs(self.pipelines):
            try:
                declaration = declaration_of_job(job, pipelines=self.pipelines)
            except TitanError as error:
                self._complain(job, f"{job} cannot be scheduled: {error}")
                continue
            self._complaints.pop(job, None)
            if declaration.schedule:
                found[job] = declaration
            elif self.names:
                self._complain(job, f"{job} has no [schedule] in {job}.toml")
        return found

    def due(self, declared: dict[str, Declaration] | None = None) -> list[Due]:
        """List what is due, the earliest first; retries that still wait come with the time they wait for."""
        declared = self.declared() if declared is None else declared
        now = self.now()
        found = [
            one for job, said in declared.items() for one in due(job, said, self.ledger, now, self.started)
        ]
        return sorted(found, key=lambda one: (one.scheduled, one.job))

    # --- RUNNING -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run what is due, whenever it is, until `stop` is called, SIGTERM comes or SIGINT."""
        with ended_by_signal(self.stop):
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    declared = self.declared()
                    self._start(declared)
                    pause = self._pause(declared)
                except LedgerError as error:  # the database is away; it will be back
                    self._complain("ledger", str(error))
                    pause = LOOK
                self._wake.wait(pause.total_seconds())
            self._end()

    def once(self) -> None:
        """Run what is due now, with the retries that it takes, and end."""
        with ended_by_signal(self.stop):
            while not self._stopping.is_set():
                self._wake.clear()
                declared = self.declared()
                left = self._start(declared)
                waits = [one.at for one in self.due(declared) if one.at > self.now()]
                if not left and not waits and not self._running:
                    return
                self._wake.wait(min([LOOK, *(when - self.now() for when in waits)]).total_seconds())
            self._end()

    def stop(self) -> None:
        """End the runs under way, so that they are recorded as interrupted, and then `run` or `once`."""
        self._stopping.set()
        self._wake.set()

    def _start(self, declared: dict[str, Declaration]) -> list[Due]:
        """Start what is due as far as there is room; give what has to wait for some."""
        now = self.now()
        left = []
        for one in self.due(declared):
            key = (one.job, one.scheduled)
            if one.at > now or key in self._running or self._not_before.get(key, now) > now:
                continue
            of_job = sum(job == one.job for job, _ in list(self._running))
            if len(self._running) >= self.parallel or of_job >= declared[one.job].run.concurrency:
                left.append(one)
                continue
            zone = declared[one.job].schedule.rule.zone  # type: ignore[union-attr]
            self.tell(f"{one.job} for {told(one.scheduled, zone)}: begins ({one.why})")
            child = Child(self._request(one))
            waiter = threading.Thread(target=self._wait, args=(key, child), daemon=True)
            self._running[key] = child, waiter
            waiter.start()
        return left

    def _request(self, one: Due) -> Request:
        # The clock of a schedule is the wall's. A store whose frontier is its newest event would hold back
        # every report of a quiet night.
        return Request(
            one.job,
            iso(one.scheduled),
            one.attempt,
            pipelines=self.pipelines,
            out=self.out,
            ledger=self.url,
            beyond_frontier=True,
        )

    def _wait(self, key: tuple[str, datetime], child: Child) -> None:
        code, said = child.wait()
        name = NAMES.get(code, "interrupted" if code > 128 or code < 0 else f"exit code {code}")
        self.tell(f"{key[0]} for {iso(key[1])}: {name}" + (f": {said}" if code == USAGE else ""))
        if code == LOCKED:
            self._not_before[key] = self.now() + LATER
        elif code == USAGE:  # nothing was entered, so it would be due for ever
            self._not_before[key] = datetime.max.replace(tzinfo=UTC)
        (self.bad.discard if code in (0, 6, LOCKED) else self.bad.add)(key)
        if code not in (USAGE, LOCKED):
            self._prune(key[0])
        self._running.pop(key, None)
        self._wake.set()

    def _prune(self, job: str) -> None:
        try:
            keep = declaration_of_job(job, pipelines=self.pipelines).keep
            if keep != Keep():
                prune(self.ledger, job, keep=keep.runs, older_than=keep.age)
        except (TitanError, OSError) as error:
            self._complain(job, f"old runs of {job} cannot be removed: {error}")

    def _pause(self, declared: dict[str, Declaration]) -> timedelta:
        now = self.now()
        times = [one.at for one in self.due(declared) if one.at > now]
        times += [when for when in self._not_before.values() if when > now]
        for said in declared.values():
            times += filter(None, [said.schedule.rule.next(now)])  # type: ignore[union-attr]
        return min([LOOK, *(max(when - now, timedelta()) for when in times)])

    def _end(self) -> None:
        under_way = list(self._running.values())
        for child, _ in under_way:
            child.stop()
        for _, waiter in under_way:
            waiter.join()

    def _complain(self, about: str, text: str) -> None:
        if self._complaints.get(about) != text:
            self._complaints[about] = text
            self.tell(text)
