"""The ledger: every run of every job, with how it ended; and one run at a time for a job and an instant.

    ledger = Ledger()                                   # runs/ledger.db, or what TITAN_LEDGER names
    with ledger.claim("daily_orders", "2025-01-15") as attempt:
        ledger.begin(record)
        ...
        ledger.finish(record)
    ledger.runs(status="failed", since="2025-01-01")    # a frame, newest first

A row is made of the run's own record and of nothing else; no status is read off a notebook. A run whose
process was killed cannot say so itself. Its lock is gone with the process, and whoever claims or lists next
finds the row without one and writes `died`.

SQLite by default, for one machine: the lock is a file lock beside the ledger. PostgreSQL by URL, for many:
the lock is a session's advisory lock. SQLAlchemy takes half a second to import, so it is imported on first
use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from titan_lab.clock import Instant, instant, iso
from titan_lab.errors import LedgerError, Locked, nearest
from titan_lab.jobs.database import LEDGER_VARIABLE, Database
from titan_lab.jobs.record import close_record
from titan_lab.jobs.table import frame_of, row_of, runs_table
from titan_lab.paths import project_root

if TYPE_CHECKING:
    import polars as pl
    from sqlalchemy import Select

STATUSES: Final = ("running", "ok", "nothing", "failed", "timeout", "died", "interrupted")
DONE: Final = ("ok", "nothing")  # what need not be run again for the same instant


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to run one job for one instant, while a claim holds."""

    job: str
    scheduled: datetime  # the instant the run is about, aware UTC
    number: int  # 1 for the first run of this job for this instant
    succeeded: bool  # an earlier attempt ended `ok` or `nothing`


class Ledger:
    """Keep what became of every run, in SQLite or PostgreSQL.

    url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`; without one what the environment
    variable TITAN_LEDGER names, else `ledger.db` in the folder of runs. Nothing is made before the first run.
    runs: the folder of runs, which the paths in `outputs` start at; a relative one lies in the project.

    Raises LedgerError for a URL of another kind, and whenever the database cannot be reached or written.

    >>> Ledger("postgresql://ann:s3cret@db/titan")
    Ledger('postgresql+psycopg://ann:***@db/titan')
    """

    def __init__(self, url: str | None = None, *, runs: str | os.PathLike[str] = "runs") -> None:
        self.folder = Path(runs) if Path(runs).is_absolute() else project_root() / runs
        given = url or os.environ.get(LEDGER_VARIABLE) or f"sqlite:///{self.folder / 'ledger.db'}"
        self._base = Database(given)

    @property
    def url(self) -> str:
        """Give where the ledger is, without what is secret in it."""
        return self._base.shown

    def __repr__(self) -> str:
        return f"Ledger({self.url!r})"

    # --- WRITING -----------------------------------------------------------------------------------------

    @contextmanager
    def claim(self, job: str, scheduled: Instant) -> Iterator[Attempt]:
        """Hold the one right to run a job for an instant, while the block runs.

        Raises Locked, naming the run, its process and since when, where somebody else holds it: another
        thread, another process, another scheduler. The right ends with the process that has it, however that
        ends.
        """
        moment = instant(scheduled)
        with self.hold(job, moment):
            yield self.attempt(job, moment)

    @contextmanager
    def hold(self, job: str, scheduled: Instant) -> Iterator[None]:
        """Hold the lock of a claim alone, which on one machine needs no database. Raises as `claim` does."""
        moment = instant(scheduled)
        with ExitStack() as held:
            with self._base.told():
                mine = held.enter_context(self._base.locks.hold(_name(job, moment)))
            if not mine:
                raise self._locked(job, moment)
            yield

    def attempt(self, job: str, scheduled: Instant) -> Attempt:
        """Count the attempts so far, for who holds the lock; those that died unseen are told as such now."""
        moment = instant(scheduled)
        self._base.make()
        self._settle(job, moment, mine=True)
        earlier = self._base.rows(_attempts(job, moment))
        number = max((row["attempt"] for row in earlier), default=0) + 1
        return Attempt(job, moment, number, any(row["status"] in DONE for row in earlier))

    def begin(self, record: Mapping[str, Any]) -> None:
        """Enter a run that starts now, from its record."""
        self._base.make()
        with self._base.connection() as connection:
            connection.execute(runs_table().insert().values(row_of(record)))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write how a run ended, from its record."""
        row = row_of(record)
        with self._base.connection() as connection:
            table = runs_table()
            connection.execute(table.update().where(table.c.run_id == row.pop("run_id")).values(row))

    def mark_pruned(self, run_id: str) -> None:
        """Write that the files of a run are removed now."""
        with self._base.connection() as connection:
            c = runs_table().c
            chosen = runs_table().update().where(c.run_id == run_id, c.status != "running")
            connection.execute(chosen.values(pruned=datetime.now(UTC), outputs="[]"))

    # --- READING -----------------------------------------------------------------------------------------

    def runs(
        self,
        job: str | None = None,
        status: str | None = None,
        since: Instant | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """List runs, newest first by when they started, then by run_id.

        job, status: only these. since: started at this instant or later. limit: at most so many.

        Returns run_id, job String; scheduled Datetime[us, UTC], the instant the run is about; attempt Int64,
        from 1; status String; exit_code Int64, null while running and after `kill -9`; started, finished
        Datetime[us, UTC]; error String, a sentence; failing_cell Int64, from 0; basis, parameters, results
        String, as JSON; outputs List[String], paths from the folder of runs on; revision String; pid Int64;
        host String; record String, the path of its JSON record from there; pruned Datetime[us, UTC], when
        its files were removed.

        Raises LedgerError for a status that none can have.
        """
        return frame_of(self.listed(job, status, since, limit))

    def listed(
        self,
        job: str | None = None,
        status: str | None = None,
        since: Instant | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """List runs as `runs` does, as dicts with what is JSON read; loads no polars."""
        if status is not None and status not in STATUSES:
            raise LedgerError(
                f"no run can have the status {status!r}",
                hint=nearest(status, STATUSES) or f"there are {', '.join(STATUSES)}",
            )
        self._settle(job)
        c, conditions = runs_table().c, []
        if job is not None:
            conditions.append(c.job == job)
        if status is not None:
            conditions.append(c.status == status)
        if since is not None:
            conditions.append(c.started >= instant(since))
        chosen = (
            runs_table().select().where(*conditions).order_by(c.started.desc(), c.run_id.desc()).limit(limit)
        )
        return self._base.rows(chosen)

    def run(self, run_id: str) -> dict[str, Any]:
        """Give one run as a dict with the columns of `runs`, those of JSON read; a unique beginning will do.

        Raises LedgerError where no run is called so, or several are.
        """
        self._settle()
        c = runs_table().c
        found = self._base.rows(
            runs_table().select().where(c.run_id.startswith(run_id, autoescape=True)).limit(9)
        )
        exact = [row for row in found if row["run_id"] == run_id] or found
        if len(exact) != 1:
            names = [row["run_id"] for row in exact] or self.runs(limit=200)["run_id"].to_list()
            raise LedgerError(
                f"{len(found)} runs begin with {run_id!r}" if found else f"there is no run {run_id!r}",
                hint=f"they are {', '.join(names)}"
                if found
                else nearest(run_id, names) or "titan jobs list shows them",
                run_id=run_id,
            )
        return exact[0]

    def last_success(self, job: str) -> dict[str, Any] | None:
        """Give the run that ended `ok` or `nothing` for the latest scheduled instant; None without one."""
        c = runs_table().c
        chosen = runs_table().select().where(c.job == job, c.status.in_(DONE))
        found = self._base.rows(chosen.order_by(c.scheduled.desc(), c.attempt.desc()).limit(1))
        return found[0] if found else None

    def attempts(self, job: str, scheduled: Instant, *, settle: bool = True) -> pl.DataFrame:
        """List all runs of a job for one instant, the first attempt first; columns as in `runs`.

        settle: write down first which of them died unseen; without it, this writes nothing at all.
        """
        moment = instant(scheduled)
        if settle:
            self._settle(job, moment)
        return frame_of(self._base.rows(_attempts(job, moment)))

    def holder(self, job: str, scheduled: Instant) -> dict[str, Any] | None:
        """Give the run that holds a job's instant now; None when it is free. Writes nothing."""
        moment = instant(scheduled)
        if not self._base.there() or not self._base.locks.held(_name(job, moment)):
            return None
        c = runs_table().c
        chosen = runs_table().select().where(c.job == job, c.scheduled == moment, c.status == "running")
        found = self._base.rows(chosen.order_by(c.attempt.desc()).limit(1))
        return found[0] if found else {"run_id": None, "pid": None, "host": None, "started": None}

    # --- WHAT A DEAD PROCESS LEFT ------------------------------------------------------------------------

    def _settle(self, job: str | None = None, moment: datetime | None = None, *, mine: bool = False) -> None:
        """Write `died` for runs that are "running" without a lock (or under mine, which no other can have).

        A run is entered after its lock is taken, and its end before the lock is freed: a row without a lock
        is either dead, or finished since it was read, and then it is no more "running" when written.
        """
        c = runs_table().c
        chosen = runs_table().select().where(c.status == "running")
        if job is not None:
            chosen = chosen.where(c.job == job)
        if moment is not None:
            chosen = chosen.where(c.scheduled == moment)
        for row in self._base.rows(chosen):
            if mine or not self._base.locks.held(_name(row["job"], row["scheduled"])):
                self._bury(row)

    def _bury(self, row: dict[str, Any]) -> None:
        """Enter the end of a run that could not do so: as its record has it, else as `died`."""
        told = f"its process ({row['pid']} on {row['host']}) was killed, or the machine stopped"
        path = self.folder / row["record"] if row["record"] else None
        record = close_record(path, told) if path else None
        values = row_of(record) if record else {"status": "died", "error": told}
        c = runs_table().c
        with self._base.connection() as connection:
            connection.execute(
                runs_table()
                .update()
                .where(c.run_id == row["run_id"], c.status == "running")
                .values({k: v for k, v in values.items() if k != "run_id"})
            )

    def _locked(self, job: str, moment: datetime) -> Locked:
        holder = self.holder(job, moment) or {"run_id": None, "pid": None, "started": None}
        about = f"{job} for {iso(moment)}"
        if holder["run_id"] is None:
            told = f"{about} has just been taken by another process"
        else:
            since = iso(holder["started"].replace(microsecond=0))
            told = f"{about} is being run by process {holder['pid']} on {holder['host']} since {since}"
            told += f" ({holder['run_id']})"
        return Locked(
            told,
            hint="wait for it to end, or end it; a killed one frees its place at once",
            job=job,
            scheduled=moment,
            run_id=holder["run_id"],
            pid=holder["pid"],
            since=holder["started"],
        )


def _name(job: str, moment: datetime) -> str:
    return f"{job}@{iso(moment)}"


def _attempts(job: str, moment: datetime) -> Select[Any]:
    c = runs_table().c
    return runs_table().select().where(c.job == job, c.scheduled == moment).order_by(c.attempt)
