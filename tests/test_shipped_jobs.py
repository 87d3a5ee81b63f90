"""What the shipped jobs rest on: findings that stay as they were, and a cube the same however it grew."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titan_lab.clock import instant
from titan_lab.connect import open_log
from titan_lab.errors import KeepError, Unhealthy
from titan_lab.jobs.run import run_job
from titan_lab.notebook import figures
from titan_lab.orders import cube as cubes
from titan_lab.orders import health
from titan_lab.orders.cube import Cube
from titan_lab.orders.order import Order

PACKAGE = str(Path(__file__).parents[1])
LOG = open_log("sqlite:///data/samples/orders.db")
BOOK = LOG.fold(Order)
START, END = instant("2025-01-01"), instant("2025-02-11")


# --- HEALTH ------------------------------------------------------------------------------------------------


def test_findings_are_those_of_the_rules_and_of_the_clocks_in_a_window():
    """Begin excluded, end included; a short inversion is a transaction that waited."""
    found = health.findings(LOG, BOOK, "2025-01-08", "2025-01-15", timedelta(minutes=1))

    assert found["kind"].unique(maintain_order=True).to_list() == ["clock inversion", "illegal transition"]
    assert found["timestamp"].min() > instant("2025-01-08")
    assert found["timestamp"].max() <= instant("2025-01-15")
    every = health.findings(LOG, BOOK, "2024-12-01", "2025-03-01", timedelta(0))
    assert len(every) == len(BOOK.conform()) + len(LOG.audit())


def test_an_inversion_is_measured_against_the_event_before_it():
    """By a walk over the events."""
    wait = timedelta(minutes=1)
    events = LOG.read().sort("aggregate_id", "version").rows(named=True)
    slow = [
        (after["aggregate_id"], after["version"])
        for before, after in itertools.pairwise(events)
        if before["aggregate_id"] == after["aggregate_id"] and before["timestamp"] - after["timestamp"] > wait
    ]

    found = health.findings(LOG, BOOK, "2024-12-01", "2025-03-01", wait)

    assert found.filter(kind=health.INVERSION).select("aggregate_id", "version").rows() == slow
    assert slow


def test_more_than_is_allowed_is_an_error_that_says_what_to_look_at():
    """And as much as is allowed is none."""
    found = health.findings(LOG, BOOK, "2025-01-08", "2025-01-15", timedelta(minutes=10))

    health.require_health(found, {"illegal transition": 1}, END)
    with pytest.raises(
        Unhealthy, match=r"1 × illegal transition \(0 allowed\), first at 38b4b24a.* v5"
    ) as error:
        health.require_health(found, {"illegal transition": 0}, END)
    assert "log()" in error.value.hint
    verdict = health.verdict(found, {"version gap": 3})
    assert verdict.rows() == [("illegal transition", 1, 0, False), ("version gap", 0, 3, True)]


def test_order_health_fails_or_passes_by_its_thresholds(tmp_path, monkeypatch):
    """The error is the run's own, and what was found is kept all the same."""
    monkeypatch.setenv("PYTHONPATH", PACKAGE)

    bad = run_job("order_health", {"as_of": "2025-01-15"}, out=tmp_path)
    fine = run_job(
        "order_health", {"as_of": "2025-01-15", "transitions": "1", "inversions": "1"}, out=tmp_path
    )

    assert (bad.status, bad.exit_code, fine.status) == ("failed", 1, "ok")
    assert bad.error["message"].startswith(
        "Unhealthy: the orders are not in order as of 2025-01-15T00:00:00Z"
    )
    assert bad.results["illegal transition"] == 1
    assert (bad.folder / bad.run_id / "findings.csv").read_text().count("\n") == 3


# --- THE CUBE ----------------------------------------------------------------------------------------------

steps = st.sampled_from([("1d", "UTC"), ("12h", "America/Sao_Paulo"), ("1w", "UTC"), ("7h", "UTC")])
ends = st.lists(st.integers(0, 41 * 24 * 60), min_size=1, max_size=5)


def grown_is_the_same_as_made_at_once(folder: Path, step: str, zone: str, minutes: list[int]) -> None:
    moments = [START + timedelta(minutes=m) for m in minutes]
    grown, whole = Cube(folder / "grown", step, zone), Cube(folder / "whole", step, zone)
    added = [grown.append(BOOK, moment) for moment in moments]
    whole.append(BOOK, max(moments))

    assert grown.cells().equals(whole.cells())
    assert grown.last() == whole.last()
    assert pl.concat(added).sort("instant", "status").equals(whole.cells())
    assert grown.append(BOOK, max(moments)).is_empty()
    if len(whole.cells()):
        last = whole.cells().filter(pl.col("instant") == pl.col("instant").max())
        assert last["count"].sum() == len(BOOK.at(last["instant"][0]))
        assert last["total"].sum() == BOOK.at(last["instant"][0])["total"].sum()


@given(steps, ends)
@settings(max_examples=25, deadline=None)
def test_a_cube_that_grew_is_the_one_that_was_made_at_once(tmp_path_factory, grid, minutes):
    """In any pieces and any order, and a piece that is repeated adds nothing."""
    grown_is_the_same_as_made_at_once(tmp_path_factory.mktemp("cube"), *grid, minutes)


def test_a_cube_that_adds_its_last_instant_again_is_noticed(tmp_path, monkeypatch):
    """The planted bug: the next piece begins where the last one ended, not after it."""
    real = Cube.append

    def forgetful(self, book, until):
        added = real(self, book, until)
        for path in self._files()[1:]:
            pl.concat([pl.read_parquet(self._files()[0]).tail(3), pl.read_parquet(path)]).write_parquet(path)
        return added

    monkeypatch.setattr(cubes.Cube, "append", forgetful)
    with pytest.raises(AssertionError):
        grown_is_the_same_as_made_at_once(tmp_path, "1d", "UTC", [5 * 1440, 20 * 1440])


def test_a_cube_is_held_to_the_grid_it_was_begun_with(tmp_path):
    """And to the declaration of the orders; the folder is named."""
    Cube(tmp_path, "1d").append(BOOK, END)

    with pytest.raises(KeepError, match="was made with step 1d, and this is 1h"):
        Cube(tmp_path, "1h").append(BOOK, END)
    with pytest.raises(KeepError, match="zone UTC"):
        Cube(tmp_path, "1d", "Europe/Berlin").append(BOOK, END)


def test_a_cube_that_is_killed_while_it_writes_is_whole_and_goes_on(tmp_path):
    """kill -9 at a dozen moments of a process that appends a day at a time."""
    script = textwrap.dedent(f"""
        from datetime import timedelta
        from titan_lab.clock import instant
        from titan_lab.connect import open_log
        from titan_lab.orders.cube import Cube
        from titan_lab.orders.order import Order
        book = open_log("sqlite:///{PACKAGE}/data/samples/orders.db").fold(Order)
        print("go", flush=True)
        for day in range(41 * 24):
            Cube({str(tmp_path / "grown")!r}, "1h").append(book, instant("2025-01-01") + timedelta(hours=day))
    """)
    for number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": PACKAGE}, stdout=subprocess.PIPE
        )
        assert process.stdout.read(3) == b"go\n"
        time.sleep(0.05 + 0.13 * number)
        process.kill()
        process.wait()
        process.stdout.close()
        Cube(tmp_path / "grown", "1h").cells()

    grown, whole = Cube(tmp_path / "grown", "1h"), Cube(tmp_path / "whole", "1h")
    grown.append(BOOK, END)
    whole.append(BOOK, END)

    assert grown.cells().equals(whole.cells())
    assert not [path for path in (tmp_path / "grown").iterdir() if path.name.endswith(".tmp")]


# --- THE FIGURE --------------------------------------------------------------------------------------------


def test_results_are_drawn_in_a_strip_each_and_names_are_text():
    """A dozen at most; a number that a run has not is a gap."""
    table = pl.DataFrame(
        {"scheduled": [START, END], "<b>n</b>": [1, None], **{f"x{i}": [i, i] for i in range(20)}}
    )

    drawn = figures.results_over_time(table)

    assert len(drawn.data) == 12
    assert drawn.data[0].y == (1.0, None)
    assert drawn.layout.annotations[0].text == "&lt;b&gt;n&lt;/b&gt;"
    assert [t.name for t in figures.results_over_time(table, names=["x3"]).data] == ["x3"]
    assert not figures.results_over_time(table.select("scheduled")).data
