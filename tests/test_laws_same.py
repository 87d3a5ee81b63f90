"""Laws 3, 5 and 10 once more: whatever way a history is cut, migrated or shared out, its book is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import grid
from titan_lab.clock import CUTS
from titan_lab.event import EVENTS
from titan_lab.testing import slow
from titan_lab.testing.histories import histories, moments, order_payloads
from titan_lab.upcast import Chain, Payload

often = settings(
    derandomize=True, max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=300, phases=[Phase.generate])


def fold(events: pl.DataFrame, **options: Any) -> Any:
    return tl.from_frame(events).fold(tl.Order, **options)


# --- 3. shards -------------------------------------------------------------------------------------------


def shards_are_the_whole(events: pl.DataFrame, names: list[str], moment: Any) -> None:
    """Fold some aggregates alone, and the others alone."""
    whole = fold(events)
    others = [name for name in events["aggregate_id"].unique() if name not in names]
    parts = [fold(events, aggregates=some) for some in (names, others)]
    for ask in (lambda book: book.history(), *(lambda book, c=cut: book.at(moment, cut=c) for cut in CUTS)):
        together = pl.concat([ask(part) for part in parts])
        assert together.sort("aggregate_id", "version").equals(ask(whole))


def test_books_of_parts_are_parts_of_the_book() -> None:
    """Aggregates do not know of each other, so that a history can be shared out."""
    some = st.lists(st.sampled_from(["a", "ab", "b", "é", "nobody"]), unique=True)
    often(given(events=histories(), names=some, moment=moments)(shards_are_the_whole))()


def test_the_law_of_shards_notices_aggregates_that_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a clock that steps back moves the lives after it."""
    from titan_lab import rows

    monkeypatch.setattr(
        rows,
        "counted_from",
        lambda stamps, starts, cut: np.maximum.accumulate(stamps) if len(stamps) else stamps,
    )
    some = st.lists(st.sampled_from(["a", "ab", "b", "é"]), unique=True)
    with pytest.raises(AssertionError):
        hunting(given(events=histories(), names=some, moment=moments)(shards_are_the_whole))()


# --- 5. upcasts ------------------------------------------------------------------------------------------


def migrated(events: pl.DataFrame) -> pl.DataFrame:
    """Write every payload as it would be written today, as a migration by hand would do."""
    chain, rows = tl.Order.chain, []
    for row in events.to_dicts():
        metadata = json.loads(row["metadata"] or "{}")
        payload = json.loads(row["payload"], parse_float=Decimal)
        today = chain(row["event_type"], payload, metadata.get("schema_version", 1))
        metadata["schema_version"] = chain.current(row["event_type"])
        rows.append(row | {"payload": json.dumps(today, default=str), "metadata": json.dumps(metadata)})
    return pl.DataFrame(rows, schema=EVENTS)


def a_migrated_history_folds_alike(events: pl.DataFrame) -> None:
    assert fold(migrated(events)).history().equals(fold(events).history())


def test_upcasting_on_reading_is_migrating_by_hand() -> None:
    """Nobody has to rewrite a store: its old payloads mean today what a rewritten store would say."""
    often(given(events=histories())(a_migrated_history_folds_alike))()


def test_the_law_of_migration_notices_old_payloads_that_are_read_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: the columnar way takes every payload for current."""
    from titan_lab import typed

    honest = typed.decode_payloads
    monkeypatch.setattr(
        typed, "decode_payloads", lambda texts, shape, steps, rows: honest(texts, shape, [], rows)
    )
    with pytest.raises(AssertionError):
        hunting(given(events=histories())(a_migrated_history_folds_alike))()


class Renamed(tl.EventType):
    """A field `name` became `who`; later a new `name` came, which means something else."""

    who: str
    name: str | None = None


@tl.upcaster(Renamed, since=1, to=2, before={"name": "ann"}, after={"who": "ann"})
def name_is_who(payload: Payload) -> Payload:
    if "name" not in payload:
        return payload
    return {"who": payload["name"], **{k: v for k, v in payload.items() if k not in ("name", "who")}}


@tl.upcaster(Renamed, since=2, to=3, before={"who": "ann"}, after={"who": "ann", "name": "unnamed"})
def has_a_name(payload: Payload) -> Payload:
    return {"name": "unnamed", **payload}


class Thing(tl.Aggregate):
    upcasts = (name_is_who, has_a_name)
    who = tl.latest(Renamed)
    name = tl.latest(Renamed)


VERSIONS = [
    ('{"name": "ann"}', 1, ("ann", "unnamed")),
    ('{"who": "ann"}', 2, ("ann", "unnamed")),
    ('{"who": "ann", "name": "lamp"}', 3, ("ann", "lamp")),
]


def each_payload_goes_through_its_own_steps() -> None:
    rows = [
        (f"thing-{version}", 1, "Renamed", text, f'{{"schema_version": {version}}}', "2025-01-01T00:00Z")
        for text, version, _ in VERSIONS
    ]
    log = tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row"))
    columns = log.fold(Thing).history(columns=["who", "name"]).drop("aggregate_id", "version").rows()
    steps = [Thing.fold(life) for life in slow.lives_of(log.read()).values()]
    wanted = [state for _, _, state in VERSIONS]
    assert columns == wanted
    assert [(state.who, state.name) for state in steps] == wanted


def test_a_payload_goes_through_the_steps_from_its_own_version_on() -> None:
    """What a name means depends on when it was written."""
    each_payload_goes_through_its_own_steps()


def test_the_law_of_upcasts_notices_steps_that_are_applied_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: every payload goes through the whole chain, current ones too."""
    monkeypatch.setattr(Chain, "steps_for", lambda self, event_type, schema_version: list(self.steps))
    with pytest.raises(AssertionError):
        each_payload_goes_through_its_own_steps()


@often
@given(drawn=order_payloads())
def test_upcasting_leaves_the_payload_that_was_handed_over_alone(drawn: tuple[str, dict, dict]) -> None:
    """It may be shown, or read by another aggregate, afterwards."""
    kind, payload, metadata = drawn
    payload = json.loads(json.dumps(payload), parse_float=Decimal)
    before = repr(payload)
    tl.Order.chain(kind, payload, metadata.get("schema_version", 1))
    assert repr(payload) == before


# --- 10. same question, same answer ----------------------------------------------------------------------


def a_grid_is_a_look_at_each_instant(events: pl.DataFrame) -> None:
    book, start = fold(events), slow.START_OF_ALL
    cells = book.every("1s", start, start.replace(second=7), by="status", measure="paid")
    for (when,), here in cells.group_by("instant"):
        states = book.at(when).group_by("status").agg(pl.len().alias("count"), pl.col("paid").sum())
        there = here.filter(pl.col("count") > 0).select("status", "count", "paid")
        assert sorted(there.rows(), key=str) == sorted(states.rows(), key=str)


def test_the_law_of_grids_notices_states_that_come_one_instant_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: what comes at an instant is not yet in it."""
    law = given(events=histories())
    often(law(a_grid_is_a_look_at_each_instant))()

    def late(self: grid.Cells, moments: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.stamps[:-1], moments, side="right")

    monkeypatch.setattr(grid.Cells, "of", late)
    with pytest.raises(AssertionError):
        hunting(law(a_grid_is_a_look_at_each_instant))()


ANSWERS = """
import hashlib, polars as pl, titan_lab as tl
from titan_lab import parallel
parallel.MANY = 1
book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
spine = book.history(columns=["valid_from"])
for frame in (book.history(), *(book.at("2025-01-15", cut=cut) for cut in ("prefix", "filter", "latest")),
              book.every("1d", measure="total", age=True), book.cuts("2025-01-15"), book.rejected,
              book.dwell(), book.stays("total"), book.conform().findings,
              book.asof(spine, on="valid_from", prefix="was_")):
    print(hashlib.sha256(frame.write_json().encode()).hexdigest())
print(pl.thread_pool_size())
"""


def test_the_number_of_threads_does_not_matter() -> None:
    """One thread and three give the same bytes, on every question, with all work cut into pieces."""
    told = []
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, "-c", ANSWERS],
            env={"POLARS_MAX_THREADS": threads, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        *answers, used = done.stdout.split()
        assert used == threads
        told.append(answers)
    assert len(told[0]) == 11
    assert told[0] == told[1]


@often
@given(events=histories(), seed=st.integers(0, 5))
def test_what_comes_back_is_sorted_as_it_says(events: pl.DataFrame, seed: int) -> None:
    """Whatever order the rows stood in."""
    log = tl.from_frame(events.sample(fraction=1.0, shuffle=True, seed=seed))
    book = log.fold(tl.Order)
    start, end = slow.START_OF_ALL, slow.START_OF_ALL.replace(second=5)
    sorted_by = {
        ("aggregate_id", "version"): [log.read(), book.history(), book.history(start, start)],
        ("aggregate_id",): [*(book.at(start, cut=cut) for cut in CUTS), book.at(version=2), book.cuts(start)],
        ("instant", "status"): [book.every("1s", start, end), book.every("1s", end, end)],
        ("kind", "aggregate_id", "version"): [log.audit()],
    }
    for keys, frames in sorted_by.items():
        for frame in frames:
            assert frame.equals(frame.sort(keys, nulls_last=True, maintain_order=True))
