"""Backfills: every instant of a span once, again only when asked, and the same report whenever it is made."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import polars as pl
import pytest
from click.testing import CliRunner

from titan_lab import cli
from titan_lab.clock import instant, iso
from titan_lab.errors import InstantError, JobError
from titan_lab.jobs.backfill import MOST, backfill, exit_code, instants
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.results import results
from titan_lab.jobs.run import run_job
from titan_lab.notebook.export import FOOT

pytestmark = pytest.mark.slow

PACKAGE = str(Path(__file__).parents[1])
PIPELINES = Path(PACKAGE, "pipelines")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one job, which fails for the instants that its parameter names."""
    (tmp_path / "pipelines").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TITAN_ROOT", raising=False)
    monkeypatch.delenv("TITAN_LEDGER", raising=False)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    v4 = nbformat.v4
    made = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    parameters = 'as_of: str = ""\nbad: str = "never"'
    made.cells.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made.cells.append(
        v4.new_code_cell(
            "from titan_lab.notebook.glue import glue\n"
            "glue(day=int(as_of[8:10]), money='10.50')\nassert bad not in as_of, 'a bad day'"
        )
    )
    nbformat.write(made, tmp_path / "pipelines" / "job.ipynb")
    return tmp_path


# --- WHICH INSTANTS ----------------------------------------------------------------------------------------


def test_the_first_instant_is_in_the_span_and_its_end_is_not():
    """Days of a zone, 23 hours long where clocks go forward; months of the calendar."""
    days = instants("2025-03-29", "2025-04-01", "1d", "Europe/Berlin")
    months = instants("2025-01-31", "2025-05-01", "1mo")

    assert [iso(d) for d in days] == ["2025-03-28T23:00:00Z", "2025-03-29T23:00:00Z", "2025-03-30T22:00:00Z"]
    assert [m.day for m in months] == [31, 28, 31, 30]


@pytest.mark.parametrize(
    ("since", "until", "every", "message"),
    [
        ("2025-01-02", "2025-01-02", "1d", "there is no instant"),
        ("2025-01-03", "2025-01-02", "1d", "there is no instant"),
        ("2025-01-01", "2025-01-02", "1s", f"these are {86400:,} runs"),
        ("2025-01-01", "2999-01-01", "1d", "has not come yet"),
        ("2025-01-01", "2025-01-02", "often", "is no step"),
        ("soon", "2025-01-02", "1d", "is no instant"),
    ],
)
def test_a_span_that_cannot_be_meant_is_refused(since, until, every, message):
    """Before anything runs."""
    assert MOST < 86400
    with pytest.raises((JobError, InstantError), match=message):
        instants(since, until, every)


# --- RUNS --------------------------------------------------------------------------------------------------


def test_a_backfill_runs_each_instant_once_and_those_anew_that_failed(project):
    """Two at a time; its table says what became of each, its exit code the worst of it."""
    first = backfill("job", "2025-01-01", "2025-01-03", parameters={"bad": "01-02"}, parallel=2)

    assert first["status"].to_list() == ["ok", "failed"]
    assert first["error"].to_list() == [None, "AssertionError: a bad day"]
    assert exit_code(first) == 1
    assert all((project / "runs" / report).exists() for report in first["report"])

    done = CliRunner().invoke(
        cli.titan,
        ["backfill", "job", "--from", "2025-01-01", "--to", "2025-01-03", "--json"],
        catch_exceptions=False,
    )

    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [row["status"] for row in rows] == ["done before", "ok"]
    assert rows[0]["report"] == first["report"][0]
    again = backfill("job", "2025-01-01", "2025-01-02", again=True)
    assert again["status"].to_list() == ["ok"]
    runs = Ledger().runs("job")
    assert sorted(zip(runs["scheduled"].dt.day(), runs["attempt"], strict=True)) == [
        (1, 1), (1, 2), (2, 1), (2, 2),
    ]  # fmt: skip


def test_what_cannot_be_run_is_refused_before_the_first_run_and_what_cannot_start_in_its_row(project):
    """A parameter nobody has; and a source that does not reach an instant."""
    with pytest.raises(JobError, match="has no parameter 'bda'"):
        backfill("job", "2025-01-01", "2025-01-02", parameters={"bda": "x"})
    path = project / "pipelines" / "job.ipynb"
    text = nbformat.read(path, as_version=4)
    text.cells[0].source += f'\nsource: str = "sqlite:///{PACKAGE}/data/samples/orders.db"'
    nbformat.write(text, path)

    late = backfill("job", "2026-01-01", "2026-01-02")

    assert late["status"].to_list() == ["refused"]
    assert "lies beyond" in late["error"][0]
    assert exit_code(late) == 2
    assert Ledger().runs().is_empty()


# --- WHAT THEY FOUND ---------------------------------------------------------------------------------------


def enter(ledger: Ledger, when: str, found: dict, status: str = "ok", attempt: int = 1) -> None:
    record = {
        "run_id": f"{when}-{attempt}", "job": "job", "scheduled": when, "attempt": attempt, "status": status,
        "exit_code": 0, "started": "2025-02-01T00:00:00Z", "finished": "2025-02-01T00:00:01Z",
        "parameters": {},
        "results": found, "revision": None, "pid": 1, "host": "h", "error": None, "outputs": [],
    }  # fmt: skip
    ledger.begin(record)
    ledger.finish(record)


def test_results_are_the_numbers_of_the_last_good_run_for_each_instant(tmp_path):
    """Amounts stay exact; what a run did not hand over is null; text and structures are no numbers."""
    ledger = Ledger(runs=tmp_path)
    enter(ledger, "2025-01-02T00:00:00Z", {"n": 1, "money": "10.50", "who": "ann", "basis": {"a": 1}})
    enter(ledger, "2025-01-02T00:00:00Z", {"n": 2, "money": "99999999999999.99"}, attempt=2)
    enter(ledger, "2025-01-02T00:00:00Z", {"n": 3}, "failed", attempt=3)
    enter(ledger, "2025-01-01T00:00:00Z", {"share": 0.5, "n": 7, "fine": True})

    found = results(ledger, "job")

    assert found.columns == ["scheduled", "money", "n", "share"]
    assert found["n"].to_list() == [7, 2]
    assert found["money"].cast(pl.String).to_list() == [None, "99999999999999.99"]
    assert found["share"].to_list() == [0.5, None]
    assert results(ledger, "job", "2025-01-02").height == 1
    assert results(ledger, "job", until="2025-01-01T12:00Z")["n"].to_list() == [7]
    assert results(ledger, "nobody").columns == ["scheduled"]


# --- THE SAME AGAIN ----------------------------------------------------------------------------------------

SHIPPED = {
    "daily_orders": ({}, {}),
    "order_health": ({}, {}),
    "state_cube": ({"cube": "cubes/a"}, {"cube": "cubes/b"}),  # what is added to one cube is not added again
    "backfill_report": ({"job": "job"}, {"job": "job"}),
}


def body(report: Path) -> str:
    """Give a report without what stands in its marked foot."""
    text = report.read_text("utf-8")
    assert text.count(FOOT[0]) == text.count(FOOT[1]) == 1
    return re.sub(f"{re.escape(FOOT[0])}.*?{re.escape(FOOT[1])}", "", text, flags=re.DOTALL)


def test_every_shipped_job_is_looked_at_below():
    """A new one is to be added there."""
    assert set(SHIPPED) == {path.stem for path in PIPELINES.glob("*.ipynb")}


@pytest.mark.parametrize("job", SHIPPED)
def test_a_run_for_the_same_instant_gives_the_same_report_to_the_byte(job, tmp_path, monkeypatch):
    """But for its foot, which says which run it was; and the same files. Another day differs."""
    shutil.copytree(PIPELINES, tmp_path / "pipelines")
    (tmp_path / "data").symlink_to(Path(PACKAGE, "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TITAN_ROOT", raising=False)
    monkeypatch.delenv("TITAN_LEDGER", raising=False)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    ledger = Ledger()
    for day in (10, 14, 20):
        enter(ledger, f"2025-01-{day}T00:00:00Z", {"n": day, "money": f"{day}.50"})

    asked = [{**given, "as_of": "2025-01-19"} for given in SHIPPED[job]]
    first, second = (run_job(job, given, ledger=ledger) for given in asked)

    assert (first.status, second.status) == ("ok", "ok"), first.error
    assert body(first.report) == body(second.report)
    if job == "backfill_report":  # the quickest one
        other = run_job(job, {**asked[0], "as_of": "2025-01-20"}, ledger=ledger)
        assert body(first.report) != body(other.report)
    written = [
        {path.name: path.read_bytes() for path in (run.folder / run.run_id).iterdir()}
        for run in (first, second)
    ]
    assert written[0] == written[1]
    assert written[0]
    assert first.results == second.results


def test_the_end_of_a_backfill_may_be_now():
    """Every instant before this one has come."""
    now = datetime.now(UTC)

    assert instants(now - timedelta(hours=3), now, "1h")[0] == now - timedelta(hours=3)
    assert instant(iso(now)) == now
