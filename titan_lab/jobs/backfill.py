"""Run a job for many instants of the past, each once.

History does not change, so a report for an instant of the past is the same today as it would have been then.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from titan_lab.clock import Instant, instant, iso
from titan_lab.errors import JobError
from titan_lab.jobs.child import Child, Request, ended_by_signal
from titan_lab.jobs.ledger import DONE, Ledger
from titan_lab.jobs.plan import plan_of
from titan_lab.jobs.record import LOCKED, USAGE

if TYPE_CHECKING:
    import polars as pl

MOST: Final = 10_000  # runs of one backfill; more are a mistake in --every
DONE_BEFORE, NOT_RUN = "done before", "not run"


def backfill(
    job: str,
    since: Instant,
    until: Instant,
    every: str = "1d",
    *,
    zone: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    again: bool = False,
    parallel: int = 1,
    beyond_frontier: bool = False,
    pipelines: str | os.PathLike[str] = "pipelines",
    out: str | os.PathLike[str] = "runs",
    ledger: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Run a job for the instants from `since`, inclusive, to `until`, exclusive, each in its own process.

    every: the step, such as "1h", "1d", "1mo", of the calendar of `zone` (UTC without one). An instant for
    which the job ended well already is passed over, unless `again`. parallel: so many runs at once.
    parameters, beyond_frontier, pipelines, out, ledger: as for `run_job`.

    SIGTERM and SIGINT end the runs under way, which are recorded as interrupted; to call it again goes on.

    Returns scheduled Datetime[us, UTC]; status String: that of the run, "done before", "locked" where
    somebody else runs it, "refused" where it could not start, "not run" after an interruption; exit_code
    Int64, null without a run; took Duration[us]; report String, from the folder of runs on; error String.
    Sorted by scheduled.

    Raises JobError for a job nobody has, parameters that do not fit, a span with no instant or with more than
    `MOST`; InstantError for what is no instant, step or zone.
    """
    import polars as pl

    moments = instants(since, until, every, zone)
    kept = Ledger(ledger, runs=out)
    plan = plan_of(job, parameters, pipelines=pipelines, out=out, scheduled=moments[0], beyond_frontier=True)
    stopping, children = threading.Event(), queue.SimpleQueue[Child]()
    counted = iter(range(1, len(moments) + 1))

    def one(moment: datetime) -> dict[str, Any]:
        row = _run(moment)
        if progress:
            progress(next(counted), len(moments))
        return {"scheduled": moment} | row

    def _run(moment: datetime) -> dict[str, Any]:
        tried = kept.attempts(plan.job, moment)
        earlier = tried.filter(pl.col("status").is_in(DONE))
        if len(earlier) and not again:
            return {"status": DONE_BEFORE, **_told(earlier.row(-1, named=True))}
        if stopping.is_set():
            return {"status": NOT_RUN}
        number = max(tried["attempt"].to_list(), default=0) + 1
        child = Child(
            Request(
                os.fspath(job),
                iso(moment),
                number,
                dict(parameters or {}),
                os.fspath(pipelines),
                os.fspath(out),
                ledger,
                beyond_frontier,
            )
        )
        children.put(child)
        if stopping.is_set():
            child.stop()
        code, said = child.wait()
        if code == LOCKED:
            return {"status": "locked", "exit_code": code, "error": "somebody else runs it"}
        if code == USAGE:
            return {"status": "refused", "exit_code": code, "error": said}
        ended = kept.attempts(plan.job, moment).filter(pl.col("attempt") == number)
        if not len(ended):
            return {"status": "died", "exit_code": code, "error": said or "its process ended before the run"}
        run = ended.row(0, named=True)
        return {"status": run["status"], "exit_code": run["exit_code"], **_told(run)}

    def stop() -> None:
        stopping.set()
        while not children.empty():
            children.get().stop()

    with ended_by_signal(stop), ThreadPoolExecutor(parallel) as pool:
        rows = list(pool.map(one, moments))
    schema: dict[str, Any] = {
        "scheduled": pl.Datetime("us", "UTC"),
        "status": pl.String,
        "exit_code": pl.Int64,
        "took": pl.Duration("us"),
        "report": pl.String,
        "error": pl.String,
    }
    return pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema)


def instants(since: Instant, until: Instant, every: str, zone: str | None = None) -> list[datetime]:
    """List the instants of a backfill: from `since`, inclusive, to `until`, exclusive.

    >>> [iso(when) for when in instants("2025-03-29", "2025-04-01", "1d", "Europe/Berlin")]
    ['2025-03-28T23:00:00Z', '2025-03-29T23:00:00Z', '2025-03-30T22:00:00Z']
    """
    from titan_lab.grid import instants as grid

    end = instant(until, zone)
    if end > datetime.now(UTC):
        raise JobError(
            f"{iso(end)} has not come yet", hint="a backfill is about the past: --to an instant of it"
        )
    found = [when for when in grid(every, since, max(end, instant(since, zone)), zone) if when < end]
    if not found:
        raise JobError(
            f"there is no instant from {iso(instant(since, zone))} to {iso(end)}, which is excluded",
            hint="let --to come after --from",
        )
    if len(found) > MOST:
        raise JobError(f"these are {len(found):,} runs", hint="take a longer --every, or a shorter span")
    return found


def exit_code(summary: pl.DataFrame) -> int:
    """Give 0 when every instant is done, now or before; else the first other exit code of a run, or 1."""
    bad = summary.filter(~summary["status"].is_in([*DONE, DONE_BEFORE]))
    return int(next((code for code in bad["exit_code"] if code), 1)) if len(bad) else 0


def _told(run: Mapping[str, Any]) -> dict[str, Any]:
    took: timedelta | None = run["finished"] - run["started"] if run["finished"] else None
    report = next((path for path in run["outputs"] or [] if path.endswith(f"{run['run_id']}.html")), None)
    return {"took": took, "report": report, "error": run["error"]}
