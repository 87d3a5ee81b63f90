"""The benchmarks agree with their peers at a tiny size; no time is looked at."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from benchmarks import BENCHES, data, harness, peers, table
from benchmarks.harness import Disagreement, Engine, Options, compare

pytestmark = pytest.mark.slow

TINY = 5_000
README = Path(__file__).parent.parent / "benchmarks" / "README.md"

peers_installed = pytest.mark.skipif(
    not all(find_spec(name) for name in ("duckdb", "eventsourcing", "pandas")),
    reason="the peers come with pip install 'titan-lab[bench]'",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


def quiet(line: dict) -> None:
    """Keep the lines off the screen."""


@peers_installed
@pytest.mark.parametrize("name", BENCHES)
def test_every_engine_gives_our_answer(name: str, cache: Path) -> None:
    """Each benchmark runs at a tiny size, and would raise before timing if an engine disagreed."""
    module = import_module(f"benchmarks.{BENCHES[name]}")

    lines = list(module.measure(Options(events=TINY, runs=1, cache=cache, report=quiet)))

    assert {line["bench"] for line in lines} == {name}
    assert all(line["equal"] and line["seconds"] > 0 for line in lines)
    assert {line["what"] for line in lines if line["engine"] == harness.OURS} == {
        line["what"] for line in lines
    }


@peers_installed
@pytest.mark.parametrize(
    "name", ["at_status_total", "tally", "grid", "at_all", "fold", "cold", "diff", "pit_join"]
)
def test_engines_that_differ_get_no_time(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the peers take shipping for delivery, and the run ends without a single line."""
    monkeypatch.setattr(peers, "STATES", {**peers.STATES, peers.SHIPPED: "DELIVERED"})
    reported: list[dict] = []
    module = import_module(f"benchmarks.{BENCHES[name]}")

    with pytest.raises(Disagreement, match=name):
        list(module.measure(Options(events=TINY, runs=1, cache=cache, report=reported.append)))

    assert reported == []


@peers_installed
def test_a_long_order_read_halfway_gets_no_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask ours for the middle of the life and the peer for its end, and the run ends without a line."""
    from benchmarks import long_order

    monkeypatch.setattr(long_order, "LATER", long_order.BEGIN.replace(hour=12))
    reported: list[dict] = []

    with pytest.raises(Disagreement, match="long_order"):
        list(long_order.measure(Options(events=TINY, runs=1, cache=cache, report=reported.append)))

    assert reported == []


def test_one_wrong_cell_is_found_before_anything_is_timed() -> None:
    """A single nested cell that differs is told by its place, and each engine was asked once only."""
    calls = []
    right = pl.DataFrame({"id": ["a", "b"], "items": [[1, 2], [3]]})
    wrong = pl.DataFrame({"id": ["a", "b"], "items": [[1, 2], [4]]})

    def engine(name: str, answer: pl.DataFrame) -> Engine:
        return Engine(name, lambda: calls.append(name) or answer)

    with pytest.raises(Disagreement, match=r"(?s)ours and theirs differ: column 'items', row 1"):
        compare(
            "b",
            "w",
            [engine("ours", right), engine("theirs", wrong)],
            Options(report=quiet),
            events=1,
            orders=1,
        )

    assert calls == ["ours", "theirs"]


def test_engines_take_turns() -> None:
    """After one untimed answer each, the engines alternate."""
    calls: list[str] = []
    engines = [Engine(name, lambda name=name: calls.append(name)) for name in "AB"]

    lines = compare("b", "w", engines, Options(runs=2, report=quiet), events=1, orders=1)

    assert calls == ["A", "B", "A", "B", "A", "B"]
    assert [line["engine"] for line in lines] == ["A", "B"]


def test_the_events_are_the_same_every_time(tmp_path: Path) -> None:
    """Two files made from the same arguments have the same bytes, and exactly as many events as asked for."""
    first, second = (data.events_file(TINY, cache=tmp_path / name) for name in ("a", "b"))

    assert first.read_bytes() == second.read_bytes()
    assert pl.scan_parquet(first).select(pl.len()).collect().item() == TINY


def test_the_events_are_whole_lives_in_order(cache: Path) -> None:
    """Versions run 1, 2, 3 without a gap, stamps never step back, and every kind of event is there."""
    events = pl.read_parquet(data.events_file(TINY, cache=cache))
    lives = events.group_by("aggregate_id").agg(
        gapless=(pl.col("version") == pl.int_range(1, pl.len() + 1)).all(),
        forward=(pl.col("timestamp").diff().dt.total_microseconds().fill_null(0) >= 0).all(),
    )

    assert events.equals(events.sort("aggregate_id", "version"))
    assert lives["gapless"].all()
    assert lives["forward"].all()
    assert set(events["event_type"]) == {event for event, _ in data.PLACES}
    assert events.height / lives.height == pytest.approx(data.EVENTS_PER_ORDER, rel=0.02)


def test_the_events_have_every_shape_of_payload(cache: Path) -> None:
    """Old payloads lack quantities, some lack a total, some metadata is absent or says schema_version 1."""
    events = pl.read_parquet(data.events_file(TINY, cache=cache))
    created = events.filter(pl.col("event_type") == "OrderCreated")

    def share(texts: pl.Series, part: str) -> float:
        return texts.str.contains(part, literal=True).fill_null(False).mean()

    assert share(created["payload"], '"quantity"') == pytest.approx(0.85, abs=0.04)
    assert share(created["payload"], '"total"') == pytest.approx(0.92, abs=0.04)
    assert 0 < share(created["metadata"], '"schema_version":1') < 0.15
    assert events["metadata"].null_count() > 0


def line(**changed: object) -> dict:
    """Make one measurement."""
    machine = {"cpu": "a processor", "cores": 2, "ram_gb": 8, "system": "Linux", "python": "3.11.7"}
    told = {
        "bench": "cold",
        "what": "a question",
        "engine": "titan_lab",
        "events": 10,
        "orders": 3,
        "seconds": 0.5,
    }
    return {**told, "min": 0.4, "max": 0.6, "ratio_to_ours": 1, "promise": 2.0, "machine": machine, **changed}


def test_the_table_keeps_the_last_of_a_repeated_measurement(tmp_path: Path) -> None:
    """A line measured again replaces the one before."""
    results = tmp_path / "results.jsonl"
    results.write_text("\n".join(json.dumps(one) for one in (line(seconds=9.0), line(seconds=0.25))))

    text = table.render(table.read(results))

    assert "| titan_lab | 250 ms | 400 ms to 600 ms |  | ≤ 2 s |" in text
    assert "9 s" not in text


def test_the_table_goes_between_the_marks() -> None:
    """What stands around the marks stays; a document without them is refused."""
    document = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"

    assert table.put("new", document) == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    with pytest.raises(SystemExit, match="no marks"):
        table.put("new", "nothing here")


def test_the_table_in_the_readme_is_what_was_measured() -> None:
    """The README's table is the one its command writes from the kept results."""
    text = README.read_text()

    assert table.put(table.render(table.read(README.with_name("results.jsonl"))), text) == text


def test_growth_puts_the_sizes_of_one_question_side_by_side() -> None:
    """Ours alone, a column for each number of events; what was asked of one size only is left out."""
    lines = [line(events=10, seconds=0.5), line(events=100, seconds=2.0), line(what="once", events=10)]
    text = table.grow([*lines, line(events=10, engine="a peer", ratio_to_ours=3)])

    assert text.splitlines()[0] == "| question | 10 events | 100 events |"
    assert "| 500 ms | 2 s |" in text
    assert "once" not in text
    assert "a peer" not in text


def test_the_growth_in_the_readme_is_what_was_measured() -> None:
    """From the kept results of both sizes."""
    text = README.read_text()
    lines = [one for size in ("-1m", "") for one in table.read(README.with_name(f"results{size}.jsonl"))]

    assert table.put(table.grow(lines), text, table.GROWTH, table.GROWN) == text
