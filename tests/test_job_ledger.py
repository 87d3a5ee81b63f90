"""The ledger: what became of every run, and one run at a time for a job and an instant."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from titan_lab.errors import LedgerError, Locked
from titan_lab.jobs.ledger import Ledger

PACKAGE = str(Path(__file__).parents[1])
DAY = "2025-01-15"


def record(run_id: str = "r1", status: str = "running", **changed) -> dict:
    """Make the record of a run, as far as the ledger reads it."""
    return {
        "run_id": run_id,
        "job": "daily",
        "scheduled": "2025-01-15T00:00:00Z",
        "attempt": 1,
        "status": status,
        "exit_code": None,
        "started": "2025-01-16T06:00:00.000001Z",
        "finished": None,
        "error": None,
        "basis": None,
        "parameters": {"top": 3, "who": "00123"},
        "results": {},
        "outputs": [],
        "revision": "abc",
        "pid": os.getpid(),
        "host": "here",
    } | changed


ENDED = {"status": "ok", "exit_code": 0, "finished": "2025-01-16T06:00:02Z"}


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """An empty ledger in a folder of its own."""
    monkeypatch.delenv("TITAN_LEDGER", raising=False)
    return Ledger(runs=tmp_path / "runs")


def python(code: str, *arguments: object) -> subprocess.Popen:
    """Start a process that knows the ledger."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": PACKAGE},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_ledger_that_nothing_was_written_to_is_empty_and_makes_no_file(ledger, tmp_path):
    """To look is not to write."""
    assert ledger.runs().is_empty()
    assert ledger.last_success("daily") is None
    assert ledger.holder("daily", DAY) is None
    assert not (tmp_path / "runs").exists()


def test_a_run_is_entered_and_ended_as_its_record_says(ledger):
    """Each column, typed, and what was structured is structured again."""
    with ledger.claim("daily", DAY) as attempt:
        ledger.begin(record(attempt=attempt.number))
        assert ledger.runs()["status"].to_list() == ["running"]
        ledger.finish(record(**ENDED, outputs=["daily/a.html"], basis={"events": 3}, results={"n": 1}))

    (row,) = ledger.runs().iter_rows(named=True)
    assert (row["status"], row["exit_code"], row["attempt"]) == ("ok", 0, 1)
    assert row["scheduled"] == datetime(2025, 1, 15, tzinfo=UTC)
    assert row["started"] == datetime(2025, 1, 16, 6, 0, 0, 1, tzinfo=UTC)
    assert row["outputs"] == ["daily/a.html"]
    assert json.loads(row["parameters"]) == {"top": 3, "who": "00123"}
    assert ledger.run("r1")["basis"] == {"events": 3}
    assert ledger.runs().schema["scheduled"] == pl.Datetime("us", "UTC")
    assert ledger.runs().schema == ledger.runs(job="nobody").schema


def test_runs_are_listed_newest_first_and_filtered(ledger):
    """By job, status, start and number."""
    for n in range(4):
        moment = f"2025-01-16T0{n}:00:00Z"
        status = "failed" if n == 2 else "ok"
        with ledger.claim("daily", f"2025-01-1{n}"):
            ledger.begin(record(f"r{n}", scheduled=f"2025-01-1{n}", started=moment))
            ledger.finish(
                record(f"r{n}", scheduled=f"2025-01-1{n}", started=moment) | ENDED | {"status": status}
            )

    assert ledger.runs()["run_id"].to_list() == ["r3", "r2", "r1", "r0"]
    assert ledger.runs(status="failed")["run_id"].to_list() == ["r2"]
    assert ledger.runs(since="2025-01-16T02:00Z", limit=1)["run_id"].to_list() == ["r3"]
    assert ledger.runs(job="other").is_empty()
    assert ledger.last_success("daily")["run_id"] == "r3"
    with pytest.raises(LedgerError, match="'faild'") as caught:
        ledger.runs(status="faild")
    assert "'failed'" in caught.value.hint


def test_a_run_is_found_by_the_beginning_of_its_id_if_only_one_has_it(ledger):
    """A wrong one is told with near ones."""
    for n, name in enumerate(("20250116T01-aa", "20250116T01-ab")):
        with ledger.claim("daily", DAY):
            ledger.begin(record(name, attempt=n + 1))
            ledger.finish(record(name) | ENDED | {"attempt": n + 1})

    assert ledger.run("20250116T01-ab")["run_id"] == "20250116T01-ab"
    with pytest.raises(LedgerError, match="2 runs begin with"):
        ledger.run("2025")
    with pytest.raises(LedgerError, match="no run '20250116T01-ax'") as caught:
        ledger.run("20250116T01-ax")
    assert "20250116T01-ab" in caught.value.hint


def test_attempts_are_counted_and_say_whether_one_succeeded(ledger):
    """A failed run may be tried again, and the next attempt knows its number."""
    with ledger.claim("daily", DAY) as first:
        ledger.begin(record("r1", attempt=first.number))
        ledger.finish(record("r1", attempt=first.number, status="failed", exit_code=1))
    with ledger.claim("daily", DAY) as second:
        ledger.begin(record("r2", attempt=second.number))
        ledger.finish(record("r2", attempt=second.number) | ENDED)
    with ledger.claim("daily", DAY) as third:
        pass

    assert [(a.number, a.succeeded) for a in (first, second, third)] == [(1, False), (2, False), (3, True)]
    assert ledger.attempts("daily", DAY)["run_id"].to_list() == ["r1", "r2"]


def test_a_second_claim_of_the_same_instant_is_refused_and_says_who_has_it(ledger):
    """By the same thread too; another instant, another job and the time after are free."""
    with ledger.claim("daily", DAY):
        ledger.begin(record())
        with (
            pytest.raises(
                Locked, match=rf"process {os.getpid()} on here since 2025-01-16T06:00:00Z \(r1\)"
            ) as e,
            ledger.claim("daily", "2025-01-15T01:00+01:00"),
        ):
            pass
        assert (e.value.data["run_id"], e.value.data["pid"]) == ("r1", os.getpid())
        with ledger.claim("daily", "2025-01-16"), ledger.claim("other", DAY):
            pass
        ledger.finish(record() | ENDED)
    with ledger.claim("daily", DAY):
        pass


HOLD = """
import sys, time
from titan_lab.jobs.ledger import Ledger
sys.path.insert(0, sys.argv[2])
from test_job_ledger import record
ledger = Ledger(sys.argv[1], runs=sys.argv[3])
with ledger.claim("daily", "2025-01-15") as attempt:
    ledger.begin(record(attempt=attempt.number))
    print("held", flush=True)
    time.sleep(60)
"""


def test_kill_9_frees_the_lock_and_the_run_is_told_as_died(ledger, tmp_path):
    """By who lists next, and by who claims next; nobody has to clean up."""
    for how in ("list", "claim"):
        ledger = Ledger(f"sqlite:///{tmp_path}/{how}.db", runs=tmp_path)
        holder = python(HOLD, f"sqlite:///{tmp_path}/{how}.db", Path(__file__).parent, tmp_path)
        assert holder.stdout.readline() == "held\n"
        assert ledger.runs()["status"].to_list() == ["running"]
        with pytest.raises(Locked, match=f"process {holder.pid}"), ledger.claim("daily", DAY):
            pass

        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()

        if how == "list":
            (row,) = ledger.runs().iter_rows(named=True)
        else:
            with ledger.claim("daily", DAY) as attempt:
                assert (attempt.number, attempt.succeeded) == (2, False)
                row = ledger.run("r1")
        assert (row["status"], row["exit_code"], row["finished"]) == ("died", None, None)
        assert f"its process ({holder.pid} on here) was killed" in row["error"]


RACE = """
import sys, time
sys.path.insert(0, sys.argv[2])
from test_job_ledger import record
from titan_lab.errors import Locked
from titan_lab.jobs.ledger import Ledger
ledger = Ledger(sys.argv[1], runs=sys.argv[3])
print("ready", flush=True)
while time.time() < float(sys.argv[4]):
    pass
for day in range(1, 21):
    when = f"2025-01-{day:02}T00:00:00Z"
    try:
        with ledger.claim("daily", when) as attempt:
            if attempt.succeeded:
                continue
            run = record(f"{sys.argv[5]}-{day}", scheduled=when, attempt=attempt.number)
            ledger.begin(run)
            time.sleep(0.01)
            ledger.finish(run | {"status": "ok", "exit_code": 0, "finished": "2025-01-16T06:00:02Z"})
    except Locked:
        continue
"""


def race(url: str, folder: Path) -> pl.DataFrame:
    """Let two processes run twenty instants at once; return the ledger."""
    start = time.time() + 3
    racers = [python(RACE, url, Path(__file__).parent, folder, start, name) for name in "ab"]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.wait(timeout=60) == 0
        racer.stdout.close()
    return Ledger(url, runs=folder).runs()


def test_two_schedulers_at_once_run_each_instant_once(tmp_path):
    """Twenty instants, two processes that start at the same moment, on a ledger that neither has made."""
    found = race(f"sqlite:///{tmp_path}/ledger.db", tmp_path)

    assert found["scheduled"].n_unique() == found.height == 20
    assert set(found["status"]) == {"ok"}


def test_without_the_lock_two_schedulers_would_do_it_twice(ledger, monkeypatch):
    """The lock is what keeps them apart: planted, one that everybody gets lets both in."""
    monkeypatch.setattr("titan_lab.jobs.locks._flock", lambda file, wait: True)

    with ledger.claim("daily", DAY) as one, ledger.claim("daily", DAY) as two:
        assert (one.number, two.number) == (1, 1)


def test_those_who_list_never_stand_in_the_way_of_those_who_claim(ledger):
    """A look at a lock must not look like a holder."""
    with ledger.claim("daily", DAY):
        ledger.begin(record())
    over = threading.Event()

    def look():
        while not over.is_set():
            ledger._base.locks.held("daily@2025-01-15T00:00:00Z")

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        with ledger.claim("daily", DAY):
            pass
    over.set()
    for looker in lookers:
        looker.join()


def test_a_finished_run_is_never_called_dead_by_who_read_it_a_moment_before(ledger):
    """Between reading the row and looking at the lock, the run may end."""
    with ledger.claim("daily", DAY):
        ledger.begin(record())
        row = ledger.run("r1")
        ledger.finish(record() | ENDED)
    ledger._bury(row)

    assert ledger.run("r1")["status"] == "ok"


def test_no_lock_file_outlives_its_claim(ledger, tmp_path):
    """Ten years of instants do not leave ten years of files."""
    with ledger.claim("daily", DAY):
        assert len(list((tmp_path / "runs" / "ledger.db.locks").glob("*.lock"))) == 1
    assert list((tmp_path / "runs" / "ledger.db.locks").glob("*.lock")) == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:s3cret@h/db", "no place for a ledger"),
        ("runs.db", "no place for a ledger"),
        ("postgresql://u:s3cret@127.0.0.1:1/db?password=s3cret", "cannot be used"),
        ("sqlite:////proc/nowhere/ledger.db", "cannot be used"),
    ],
)
def test_a_ledger_that_cannot_be_is_told_without_its_password(url, told):
    """By URL, and by trying."""
    with pytest.raises(LedgerError, match=told) as caught, Ledger(url).claim("daily", DAY):
        pass
    assert "s3cret" not in str(caught.value)


def test_text_that_no_database_keeps_is_kept_readable(ledger):
    """A NUL and half a surrogate pair in an error message."""
    with ledger.claim("daily", DAY):
        ledger.begin(record())
        ledger.finish(record(**ENDED, error={"message": "a\x00b\ud800c", "cell": 3}))
    row = ledger.run("r1")

    assert (row["error"], row["failing_cell"]) == ("a\\x00b\\ud800c", 3)


def test_the_environment_names_the_ledger(tmp_path, monkeypatch):
    """An argument goes before it; a relative file lies in the project."""
    monkeypatch.setenv("TITAN_LEDGER", "postgresql://u:s3cret@db/runs")
    monkeypatch.setenv("TITAN_ROOT", str(tmp_path))

    assert repr(Ledger()) == "Ledger('postgresql+psycopg://u:***@db/runs')"
    assert Ledger("sqlite:///a/b.db").url == f"sqlite:///{tmp_path}/a/b.db"
