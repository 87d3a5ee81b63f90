"""Schedules: what is due by the ledger and the stated policy, run once each, by two and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_lab.clock import instant, iso
from titan_lab.jobs import due as dues
from titan_lab.jobs.cron import Rule
from titan_lab.jobs.declaration import Declaration, Running, Schedule
from titan_lab.jobs.due import LOST, due
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.schedule import Scheduler
from titan_lab.testing.slow_due import pending

pytestmark = pytest.mark.slow

PACKAGE = str(Path(__file__).parents[1])
NOW = instant("2025-03-31T12:00Z")
DAILY = Rule("0 6 * * *", "Europe/Berlin")


def daily(catch_up: str, since: str | None = None, **running) -> Declaration:
    schedule = Schedule(DAILY, catch_up, instant(since) if since else None)
    return Declaration(schedule=schedule, run=Running(**running))


class Book:
    """A ledger's rows for one job, written by hand."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(
        self, when: str, status: str, error: str | None = None, exit_code: int | None = 1, ended=NOW
    ) -> Book:
        scheduled = instant(when)
        attempt = 1 + sum(row["scheduled"] == scheduled for row in self.rows)
        finished = None if status == "running" or exit_code is None else ended
        self.rows.append(
            {"scheduled": scheduled, "attempt": attempt, "status": status, "error": error}
            | {"exit_code": exit_code, "finished": finished}
        )
        return self

    def runs(self, job: str) -> pl.DataFrame:
        moment = pl.Datetime("us", "UTC")
        schema = {"scheduled": moment, "attempt": pl.Int64, "status": pl.String, "error": pl.String}
        return pl.DataFrame(self.rows, schema=schema | {"exit_code": pl.Int64, "finished": moment})


def found(book: Book, declaration: Declaration, now: datetime = NOW, started: datetime | None = None) -> list:
    return [iso(one.scheduled) for one in due("job", declaration, book, now, started or now)]


# --- WHAT WAS MISSED ---------------------------------------------------------------------------------------


def test_all_that_was_missed_is_due_since_the_last_one_on_record():
    """The night in which Berlin's clocks went forward included: three instants, an hour apart from UTC's."""
    book = Book().add("2025-03-28T05:00Z", "ok")

    assert found(book, daily("all")) == [
        "2025-03-29T05:00:00Z",
        "2025-03-30T04:00:00Z",
        "2025-03-31T04:00:00Z",
    ]


def test_only_the_latest_is_due_when_the_others_are_not_wanted():
    """One run, for the last instant that has come; and none once that is done."""
    book = Book().add("2025-03-28T05:00Z", "ok")

    assert found(book, daily("latest")) == ["2025-03-31T04:00:00Z"]
    assert found(book.add("2025-03-31T04:00Z", "ok"), daily("latest")) == []


def test_nothing_that_was_missed_is_due_when_none_of_it_is_wanted():
    """What comes due later is, and what came due in the very minute before the start."""
    started = instant("2025-03-31T04:00:30Z")

    assert found(Book(), daily("none")) == []
    assert found(Book(), daily("none"), started, started) == ["2025-03-31T04:00:00Z"]
    later = instant("2025-04-02T04:00Z")
    assert found(Book(), daily("none"), later, NOW) == ["2025-04-01T04:00:00Z", "2025-04-02T04:00:00Z"]


def test_a_job_that_never_ran_begins_with_its_latest_instant_or_with_what_it_says():
    """`since` is where history begins; nothing before it is due."""
    assert found(Book(), daily("all")) == ["2025-03-31T04:00:00Z"]
    assert found(Book(), daily("all", "2025-03-30")) == ["2025-03-30T04:00:00Z", "2025-03-31T04:00:00Z"]
    assert found(Book(), daily("latest", "2025-04-01")) == []


def test_a_run_about_another_instant_does_not_move_the_schedule():
    """Somebody asked at noon; the morning's report is due all the same."""
    book = Book().add("2025-03-30T04:00Z", "ok").add("2025-03-31T10:00Z", "ok")

    assert found(book, daily("all")) == ["2025-03-31T04:00:00Z"]
    assert found(book, daily("latest")) == ["2025-03-31T04:00:00Z"]


# --- WHAT IS TRIED AGAIN -----------------------------------------------------------------------------------

LAST = "2025-03-31T04:00Z"


@pytest.mark.parametrize(
    ("status", "error"),
    [("timeout", "not done"), ("died", "the kernel"), ("failed", "ConnectionRefusedError: no"),
     ("failed", "OperationalError: locked")],
)  # fmt: skip
def test_what_may_pass_by_itself_is_tried_again_later_and_later(status, error):
    """Two retries, after one minute and after two more."""
    said = daily("latest", retries=2, backoff=timedelta(minutes=1))
    book = Book().add(LAST, status, error, 3)

    (first,) = due("job", said, book, NOW, NOW)
    (second,) = due("job", said, book.add(LAST, status, error, 3), NOW, NOW)

    assert (first.attempt, first.at) == (2, NOW + timedelta(minutes=1))
    assert (second.attempt, second.at) == (3, NOW + timedelta(minutes=2))
    assert due("job", said, book.add(LAST, status, error, 3), NOW, NOW) == []


@pytest.mark.parametrize("error", ["AssertionError: a sum is off", "Unhealthy: gaps", "KeyError: 'x'", None])
def test_an_answer_is_never_tried_again(error):
    """A failed assertion will fail again, however many retries there are."""
    assert found(Book().add(LAST, "failed", error), daily("latest", retries=5)) == []


def test_what_was_stopped_goes_on_and_what_kills_its_process_is_given_up():
    """Without any retries being asked for."""
    book = Book().add(LAST, "interrupted", "SIGTERM", 143)
    assert found(book, daily("latest")) == [iso(instant(LAST))]
    for lost in range(1, LOST + 1):
        book.add(LAST, "died", "its process was killed", None)
        assert len(found(book, daily("latest"))) == (lost < LOST)


def test_what_runs_now_is_not_due():
    """Whoever runs it."""
    assert found(Book().add(LAST, "running"), daily("all")) == []


STATUSES = st.sampled_from(
    [("ok", None, 0), ("nothing", None, 6), ("failed", "AssertionError: no", 1), ("timeout", "x", 3),
     ("failed", "ConnectionError: no", 1), ("died", "kernel", 4), ("died", "killed", None),
     ("interrupted", "SIGTERM", 143), ("running", None, None)]
)  # fmt: skip


@st.composite
def ledgers(draw):
    """Days of a week with some runs each; the last of a day decides, and an `ok` ends it."""
    book = Book()
    for day in range(25, 32):
        when = f"2025-03-{day}T{'05' if day < 30 else '04'}:00Z"
        for status, error, code in draw(st.lists(STATUSES, max_size=4)):
            book.add(when, status, error, code, NOW - timedelta(hours=1))
            if status in ("ok", "nothing", "running"):
                break
    if draw(st.booleans()):
        book.add("2025-03-31T11:00Z", "ok")
    return book


def what_is_due_is_what_is_pending(book, catch_up, since, retries, started) -> None:
    said = daily(catch_up, since, retries=retries, backoff=timedelta(seconds=1))
    expected = pending(said, book.rows, NOW, started)
    assert [(one.scheduled, one.attempt) for one in due("job", said, book, NOW, started)] == expected


asked = given(
    ledgers(),
    st.sampled_from(["all", "latest", "none"]),
    st.sampled_from([None, "2025-03-27", "2025-03-31"]),
    st.integers(0, 2),
    st.sampled_from([NOW, instant("2025-03-29T00:00Z"), instant("2025-03-31T04:00:30Z")]),
)


@asked
@settings(max_examples=150, deadline=None)
def test_what_is_due_is_what_a_walk_over_all_instants_finds(book, catch_up, since, retries, started):
    """Every policy, over random ledgers."""
    what_is_due_is_what_is_pending(book, catch_up, since, retries, started)


def test_an_answer_that_is_tried_again_is_noticed(monkeypatch):
    """The planted bug: every failure is taken for one that passes by itself."""
    monkeypatch.setattr(dues, "is_transient", lambda run: run["status"] == "failed")
    with pytest.raises(AssertionError):
        what_is_due_is_what_is_pending(Book().add(LAST, "failed", "AssertionError: no"), "all", None, 2, NOW)


# --- REAL RUNS ---------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one job that says which instant it saw, and waits as long as it is told."""
    (tmp_path / "pipelines").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TITAN_ROOT", raising=False)
    monkeypatch.delenv("TITAN_LEDGER", raising=False)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    note(tmp_path, "tick", "wait.txt")

    def declare(text: str) -> Path:
        (tmp_path / "pipelines" / "tick.toml").write_text(textwrap.dedent(text))
        return tmp_path

    return declare


def note(folder: Path, name: str, wait: str) -> None:
    v4 = nbformat.v4
    made = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    made.cells.append(v4.new_code_cell('as_of: str = ""', metadata={"tags": ["parameters"]}))
    made.cells.append(
        v4.new_code_cell(
            "import os, time\nroot = os.environ['TITAN_ROOT']\n"
            "open(root + '/seen.txt', 'a').write(as_of + '\\n')\n"
            f"while os.path.exists(root + '/{wait}'): time.sleep(0.05)"
        )
    )
    nbformat.write(made, folder / "pipelines" / f"{name}.ipynb")


def seen(folder: Path) -> list[str]:
    path = folder / "seen.txt"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def titan(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "titan_lab", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_schedulers_at_once_run_an_instant_once_each(project):
    """Real processes over one ledger: what was missed in two days is run, nothing twice."""
    since = (datetime.now(UTC) - timedelta(days=1)).date()
    folder = project(
        f'[schedule]\ncron = "0 0 * * *"\ncatch_up = "all"\nsince = {since}\n[run]\nconcurrency = 2'
    )
    due_instants = [f"{since}T00:00:00Z", f"{since + timedelta(days=1)}T00:00:00Z"]

    both = [titan("schedule", "--once"), titan("schedule", "--once")]
    told = [one.communicate(timeout=120)[1] for one in both]

    assert [one.returncode for one in both] == [0, 0], told
    assert sorted(seen(folder)) == due_instants
    runs = Ledger().runs("tick")
    assert sorted(map(iso, runs["scheduled"])) == due_instants
    assert runs["status"].to_list() == ["ok", "ok"]
    assert (runs["attempt"] == 1).all()


def test_a_scheduler_that_is_ended_or_killed_goes_on_where_it_was(project):
    """SIGTERM records the run as interrupted; after kill -9 of everything, the next one runs it."""
    folder = project('[schedule]\ncron = "0 0 1 1 *"')
    (folder / "wait.txt").touch()
    first = titan("schedule")
    wait_for(lambda: len(seen(folder)) == 1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0, first.communicate()
    assert Ledger().runs("tick")["status"].to_list() == ["interrupted"]

    second = titan("schedule")
    wait_for(lambda: len(seen(folder)) == 2)
    running = Ledger().runs("tick", "running").row(0, named=True)
    second.kill()
    os.kill(running["pid"], signal.SIGKILL)
    assert second.wait(60) == -signal.SIGKILL
    wait_for(lambda: Ledger().runs("tick", "running").is_empty())

    (folder / "wait.txt").unlink()
    third = titan("schedule", "--once")
    told = third.communicate(timeout=120)[1]

    assert third.returncode == 0, told
    assert "its process was killed" in told
    assert Ledger().runs("tick")["status"].to_list() == ["ok", "died", "interrupted"]
    year = f"{datetime.now(UTC).year}-01-01T00:00:00Z"
    assert seen(folder) == [year] * 3
    for one in (first, second, third):
        one.stdout.close()
        one.stderr.close()


def test_a_job_that_cannot_be_read_does_not_stop_the_others_and_is_told_once(project, tmp_path):
    """And one that cannot start is refused once, with the reason."""
    project("[schedule]\ncorn = '0 0 * * *'")
    told: list[str] = []
    scheduler = Scheduler(tell=told.append)

    assert scheduler.declared() == {}
    assert scheduler.declared() == {}
    assert [line.partition("\n")[0] for line in told] == [
        "tick cannot be scheduled: tick.toml: [schedule] corn is no key"
    ]

    project("[schedule]\ncron = '0 0 * * *'")
    text = json.loads((tmp_path / "pipelines" / "tick.ipynb").read_text())
    text["metadata"]["kernelspec"]["name"] = "julia-9"
    (tmp_path / "pipelines" / "tick.ipynb").write_text(json.dumps(text))
    scheduler.once()
    scheduler.once()
    assert sum("refused: " in line and "julia-9" in line for line in told) == 1
    assert len(scheduler.bad) == 1


def test_a_dry_run_shows_what_is_due_and_what_is_next_and_writes_nothing(project):
    """For people, and for machines."""
    folder = project('[schedule]\ncron = "0 0 * * *"\nzone = "America/Sao_Paulo"')

    shown = titan("schedule", "--dry-run", "--json")
    out, told = shown.communicate(timeout=60)

    assert shown.returncode == 0, told
    rows = json.loads(out)
    assert [row["stands"] for row in rows] == ["due", "next"]
    assert rows[0]["instant"].endswith("T03:00:00Z")
    assert rows[1]["why"] == "At 00:00 every day (America/Sao_Paulo)"
    assert not (folder / "runs").exists()


def test_the_scheduler_removes_the_files_of_runs_that_need_not_be_kept(project):
    """By the [keep] beside the job; the ledger keeps the rows, and `titan jobs prune` does the same."""
    folder = project('[schedule]\ncron = "0 0 1 1 *"\n[keep]\nruns = 1')
    for when in ("2020-01-01", "2021-01-01"):
        old = folder / "runs" / "tick" / when
        old.mkdir(parents=True)
        record = {
            "run_id": f"r{when}", "job": "tick", "scheduled": f"{when}T00:00:00Z", "attempt": 1,
            "exit_code": 0, "status": "ok", "started": f"{when}T00:00:00Z", "finished": f"{when}T00:00:01Z",
            "results": {}, "parameters": {}, "revision": None, "pid": 1, "host": "h", "error": None,
            "outputs": [], "record": f"tick/{when}/r{when}.json",
        }  # fmt: skip
        (old / f"r{when}.json").write_text(json.dumps(record))
        Ledger().begin(record)

    pruned = titan("jobs", "prune", "--json")
    out, told = pruned.communicate(timeout=60)
    assert pruned.returncode == 0, told
    assert [row["run_id"] for row in json.loads(out)] == ["r2020-01-01"]

    Scheduler(tell=print).once()

    assert Ledger().runs("tick")["pruned"].is_null().to_list() == [True, False, False]
    assert len(list((folder / "runs").rglob("*.html"))) == 1
    assert not list((folder / "runs").rglob("r202*.json"))
