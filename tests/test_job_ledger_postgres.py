"""The ledger in PostgreSQL: the same runs, and a lock that is the session's."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from titan_lab.errors import LedgerError, Locked
from titan_lab.jobs.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parent))
from test_job_ledger import DAY, ENDED, HOLD, python, race, record

pytestmark = pytest.mark.slow


@pytest.fixture
def url(database):
    """An empty database of the server."""
    return database


def test_runs_are_kept_as_in_sqlite(url, tmp_path):
    """Instants, structures, ids with zeros, text with a NUL; looking makes no table."""
    ledger = Ledger(url, runs=tmp_path)
    assert ledger.runs().is_empty()
    with ledger.claim("daily", DAY) as attempt:
        ledger.begin(record(attempt=attempt.number))
        assert ledger.runs()["status"].to_list() == ["running"]
        ledger.finish(record(**ENDED, error={"message": "a\x00b\ud800", "cell": 1}, outputs=["a"]))
    small = Ledger(runs=tmp_path)
    with small.claim("daily", DAY):
        small.begin(record())
        small.finish(record(**ENDED, error={"message": "a\x00b\ud800", "cell": 1}, outputs=["a"]))

    assert ledger.runs().equals(small.runs())
    assert ledger.run("r1") == small.run("r1")
    assert "unused" not in repr(ledger)


def test_one_claim_at_a_time_and_kill_9_frees_it(url, tmp_path):
    """The session ends with its process, and the lock with the session."""
    ledger = Ledger(url, runs=tmp_path)
    holder = python(HOLD, url, Path(__file__).parent, tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Locked, match=f"process {holder.pid}"), ledger.claim("daily", DAY):
        pass
    assert ledger.runs()["status"].to_list() == ["running"]
    assert ledger.holder("daily", DAY)["run_id"] == "r1"

    holder.kill()
    holder.communicate()
    deadline = time.monotonic() + 10
    while ledger.runs()["status"].to_list() == ["running"] and time.monotonic() < deadline:
        time.sleep(0.05)  # until the server has noticed

    (row,) = ledger.runs().iter_rows(named=True)
    assert (row["status"], row["exit_code"]) == ("died", None)
    with ledger.claim("daily", DAY) as attempt:
        assert attempt.number == 2


def test_two_schedulers_at_once_run_each_instant_once(url, tmp_path):
    """Twenty instants, two processes, no table yet."""
    found = race(url, tmp_path)

    assert found["scheduled"].n_unique() == found.height == 20


def test_a_job_runs_with_its_ledger_in_postgres(url, tmp_path, monkeypatch):
    """By the environment's URL, which no file of the run repeats."""
    import nbformat

    from titan_lab.jobs.run import run_job

    monkeypatch.setenv("TITAN_LEDGER", url)
    made = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})
    made.cells = [nbformat.v4.new_code_cell("1 + 1")]
    nbformat.write(made, tmp_path / "small.ipynb")

    run = run_job(tmp_path / "small.ipynb", out=tmp_path / "runs")

    assert Ledger(runs=tmp_path / "runs").run(run.run_id)["status"] == "ok"
    assert not (tmp_path / "runs" / "ledger.db").exists()
    assert not [
        path for path in (tmp_path / "runs").rglob("*.*") if path.is_file() and "unused" in path.read_text()
    ]


def test_a_server_that_went_away_is_told(tmp_path):
    """Without the password."""
    with pytest.raises(LedgerError, match="cannot be used") as caught:
        Ledger("postgresql://titan:s3cret@127.0.0.1:9/postgres", runs=tmp_path).runs()
    assert "s3cret" not in str(caught.value)
