"""What a race says it found, without racing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

import titan_lab as tl
from titan_lab import cli
from titan_lab.errors import OpenError, RaceError, UnknownScheme
from titan_lab.racing import run
from titan_lab.racing.report import APPENDS, Race, compared

KINDS = {"the mirror's sync": "ours", "the frontier alone": "frontier", "timestamp > last seen": "naive"}
WRITTEN = [("a", 1), ("a", 2), ("b", 1)]


def raced(
    clocks: str = "database", appends: dict[str, int] | None = None, **seen: list[tuple[str, int]]
) -> Race:
    """One round, in which each kind of reader saw all that was written, unless another is given."""
    places = {reader: seen.get(kind, WRITTEN) for reader, kind in KINDS.items()}
    counts = dict.fromkeys(APPENDS, 0) | {"acknowledged": 3, "contests": 1, "won": 1} | (appends or {})
    return Race("postgresql://db/scratch", 8, 3.0, True, compared(1, clocks, WRITTEN, places, KINDS), counts)


def test_it_is_proven_where_ours_missed_none_and_a_naive_reader_did() -> None:
    """Missed, doubled and rounds with a miss are counted for each reader, ours first."""
    race = raced(naive=[("a", 1), ("a", 1), ("b", 1)])
    assert race.verdict == "proven"
    assert race.readers.rows() == [
        ("the mirror's sync", "ours", 3, 3, 0, 0, 0),
        ("the frontier alone", "frontier", 3, 3, 0, 0, 0),
        ("timestamp > last seen", "naive", 3, 2, 1, 1, 1),
    ]
    assert "none of 3 events, while beside it others missed some: timestamp > last seen" in race.said


def test_it_proves_nothing_where_nobody_missed_anything() -> None:
    """Whoever passes a test that all pass has shown nothing."""
    assert raced().verdict == "nothing"
    assert "proved nothing" in raced().said
    assert raced(naive=[], appends={"contests": 0}).verdict == "nothing"


def test_a_reader_that_misses_some_without_any_race_is_no_witness() -> None:
    """One that a clock ahead of time has fooled, or that takes a version for a position."""
    assert raced("own", naive=[]).verdict == "nothing"
    seen = {"version > highest seen": [("a", 1)]}
    rounds = compared(1, "database", WRITTEN, seen, {"version > highest seen": "naive"})
    race = raced()
    assert replace(race, rounds=pl.concat([race.rounds, rounds])).verdict == "nothing"


def test_where_writers_exclude_each_other_wrong_clocks_are_what_is_raced() -> None:
    """As in a file of SQLite, of which no frontier is judged."""
    race = raced("own", naive=[])
    assert replace(race, rounds=race.rounds.filter(pl.col("kind") != "frontier")).verdict == "proven"


@pytest.mark.parametrize("seen", [WRITTEN[:2], [*WRITTEN, ("a", 1)]], ids=["missed", "doubled"])
def test_it_is_broken_where_ours_missed_or_doubled_one(seen: list[tuple[str, int]]) -> None:
    """Whatever the naive readers did. The frontier is judged where all clocks are the database's."""
    assert raced(ours=seen, naive=[]).verdict == "broken"
    assert raced(frontier=seen, naive=[]).verdict == "broken"
    assert raced("own", ours=seen, naive=[]).verdict == "broken"
    assert raced("own", frontier=seen).faults == []
    assert "the mirror's sync missed" in raced(ours=seen, naive=[]).said


@pytest.mark.parametrize("name", ["lost", "unasked", "twice", "several"])
def test_it_is_broken_where_an_append_is_not_as_it_was_acknowledged(name: str) -> None:
    """And the sentence says how."""
    race = raced(naive=[], appends={name: 2})
    assert race.verdict == "broken"
    assert f"2 {APPENDS[name]}" in race.said


def test_a_race_shows_itself() -> None:
    """In a notebook, and on one line."""
    race = raced(naive=[])
    assert repr(race) == "<Race postgresql://db/scratch: proven>"
    assert "timestamp &gt; last seen" in race._repr_html_()


def here(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(cli.titan, arguments, catch_exceptions=False)


@pytest.mark.parametrize(
    ("race", "code"),
    [(raced(naive=[]), 0), (raced(ours=[], naive=[]), 1), (raced(), 2)],
    ids=["proven", "broken", "nothing"],
)
def test_the_command_ends_with_the_verdict(monkeypatch: pytest.MonkeyPatch, race: Race, code: int) -> None:
    """As an exit code, a sentence, and in JSON; --csv gives the rounds."""
    asked: list[dict[str, Any]] = []

    def stand_in(url: str, **given: Any) -> Race:
        asked.append({"url": url, **given})
        return race

    monkeypatch.setattr(run, "race", stand_in)
    done = here("audit", "postgresql://db/scratch", "--race", "--rounds", "2", "--seconds", "0.5")
    assert done.exit_code == code
    assert f"{race.verdict} {race.said}" in " ".join(done.stdout.split())
    assert {k: v for k, v in asked[0].items() if k != "progress"} == {
        "url": "postgresql://db/scratch",
        "rounds": 2,
        "seconds": 0.5,
    }
    told = json.loads(here("audit", "postgresql://db/scratch", "--race", "--json").stdout)
    assert (told["verdict"], told["readers"]) == (race.verdict, race.readers.to_dicts())
    rows = pl.read_csv(here("audit", "postgresql://db/scratch", "--race", "--csv").stdout.encode())
    assert rows.height == race.rounds.height


def test_the_options_of_a_race_and_of_an_audit_do_not_mix() -> None:
    """Which would be a misunderstanding."""
    assert here("audit", "memory://", "--rounds", "2").exit_code == 2
    assert here("audit", "memory://", "--race", "--limit", "2").exit_code == 2


@pytest.mark.parametrize("url", ["memory://", "parquet://somewhere", "mirror://somewhere"])
def test_where_nothing_can_be_raced_the_error_says_why(url: str) -> None:
    """One process, whole files, one writer."""
    with pytest.raises(RaceError, match=r"cannot be raced: "):
        tl.race(url)


def test_bad_input_is_told_apart(tmp_path: Path) -> None:
    """A store nobody knows, with its password kept; a folder that is not there; no round at all."""
    with pytest.raises(UnknownScheme, match=r"no race is run on 'mysql://me:\*\*\*@db/x'"):
        tl.race("mysql://me:secret@db/x")
    with pytest.raises(OpenError, match="there is no folder"):
        tl.race(f"sqlite:///{tmp_path}/nowhere/orders.db")
    with pytest.raises(RaceError, match="0 rounds"):
        tl.race(f"sqlite:///{tmp_path}/orders.db", rounds=0)
    assert list(tmp_path.iterdir()) == []
