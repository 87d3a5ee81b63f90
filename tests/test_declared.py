"""Laws 1 and 6 for any declaration: payloads follow from the event types, written as people write them."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import titan_lab as tl
from titan_lab import decoding, kinds, tracks
from titan_lab.event import Event
from titan_lab.kinds import Misfit
from titan_lab.testing import slow
from titan_lab.testing.declared import Older, declared_histories, objects
from titan_lab.upcast import Payload

often = settings(
    derandomize=True, max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=400, phases=[Phase.generate])


class Part(tl.Record):
    name: str
    amount: Decimal
    pieces: int | None = None


class Opened(tl.EventType):
    who: str
    amount: Decimal
    parts: list[Part]
    urgent: bool = False
    due: datetime | None = None


class Changed(tl.EventType):
    who: str | None = None
    amount: Decimal | None = None
    points: int | None = None
    ratio: float | None = None
    parts: list[Part] | None = None
    urgent: bool | None = None


class Moved(tl.EventType):
    points: int
    place: str | None = None


class Closed(tl.EventType):
    pass


@tl.upcaster(Opened, since=1, to=2, before={"name": "u"}, after={"who": "u"})
def name_became_who(payload: Payload) -> Payload:
    """Rename a field; it has no columnar twin, for the decoder does not know the old name."""
    return {("who" if name == "name" else name): value for name, value in payload.items()}


def weigh(value: int, event: Event) -> int:
    return (value * 31 + event.version * 7 + len(event.event_type)) % 1_000_003


def last_places(value: str | None, event: Event) -> str:
    return f"{(value or '')[-6:]}>{event.payload.place}"


class Case(tl.Aggregate):
    """Every reducer, over every kind of value, on events that share fields and on one that has none."""

    upcasts = (name_became_who,)

    who = tl.latest(Opened, Changed)
    first_who = tl.first(Opened, Changed, "who")
    opened_at = tl.first(Opened, "timestamp")
    touched_at = tl.latest(Opened, Changed, Moved, Closed, "timestamp")
    seen = tl.latest(Changed, Moved, "version")
    changes = tl.count(Changed, Moved)
    amount = tl.latest(Opened, Changed)
    first_amount = tl.first(Changed, Opened, "amount")
    spent = tl.total_of(Opened, Changed, "amount")
    points = tl.total_of(Changed, Moved)
    lowest = tl.smallest(Opened, Changed, "amount")
    highest = tl.largest(Opened, Changed, "amount")
    best_ratio = tl.largest(Changed, "ratio")
    first_name = tl.smallest(Opened, Changed, "who")
    due = tl.smallest(Opened)
    ratios = tl.collect(Changed, "ratio")
    names = tl.collect(Opened, Changed, "who")
    amounts = tl.collect(Changed, Opened, "amount")
    parts = tl.latest(Opened, Changed)
    first_parts = tl.first(Changed, "parts")
    urgent = tl.latest(Opened, Changed)
    status = tl.machine({Opened: "OPEN", Moved: "MOVED", Closed: "CLOSED"})
    weight = tl.step(weigh, 0)
    places = tl.step(last_places, None, Moved, dtype=pl.String)


OLDER: Older = {Opened: {1: objects(Opened.shape).map(lambda text: text.replace('"who":', '"name":', 1))}}


def refused_by_reading(aggregate: Any, events: pl.DataFrame) -> dict[tuple[str, int], str]:
    """Read each payload by itself, as the specification says; give the keys and paths of the refused."""
    refused = {}
    for row in events.iter_rows(named=True):
        try:
            payload = json.loads(row["payload"], parse_float=Decimal)
        except ValueError:
            payload = None
        metadata = json.loads(row["metadata"]) if row["metadata"] else {}
        try:
            if not isinstance(payload, dict):
                raise Misfit("$", "no object")
            aggregate.read(
                Event(
                    row["aggregate_id"],
                    row["version"],
                    row["event_type"],
                    payload,
                    metadata,
                    row["timestamp"],
                )
            )
        except Misfit as misfit:
            refused[row["aggregate_id"], row["version"]] = misfit.path
    return refused


def columns_agree_with_steps(events: pl.DataFrame) -> None:
    book = tl.from_frame(events).fold(Case)
    refused = refused_by_reading(Case, events)
    told = book.rejected.select("aggregate_id", "version", "path").rows()
    assert {(name, version): path for name, version, path in told} == refused
    assert len(told) == len(refused)
    bad = [
        (name, version) in refused for name, version in events.select("aggregate_id", "version").iter_rows()
    ]
    good = events.filter(~pl.Series(bad, dtype=pl.Boolean))
    steps = slow.history(Case, slow.lives_of(good))
    assert book.history().drop("valid_from", "valid_to").to_dicts() == steps


@pytest.mark.parametrize("bad", [False, True], ids=["good payloads", "bad ones among them"])
def test_any_declaration_folds_alike_as_columns_and_as_steps(bad: bool) -> None:
    """Every kind of value, in every way of writing it; and both refuse the same payloads at the same path."""

    @often
    @given(events=declared_histories(Case, OLDER, bad=bad))
    def check(events: pl.DataFrame) -> None:
        columns_agree_with_steps(events)

    check()


def trusting(self: Any, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
    return column.cast(self.dtype, strict=False), np.zeros(len(column), dtype=bool)


def forgetful(self: Any, rows: np.ndarray, owners: np.ndarray) -> np.ndarray:
    return self.seen.first[owners]


def leaking(self: Any, rows: np.ndarray, owners: np.ndarray) -> pl.Series:
    return pl.Series(self.seen.latest[rows].astype(np.int64) + 1)


@pytest.mark.parametrize(
    ("where", "name", "bug"),
    [
        (kinds.Whole, "columns", trusting),
        (kinds.Money, "columns", trusting),
        (kinds.Text, "columns", trusting),
        (kinds.Number, "columns", trusting),
        (tracks.First, "places", forgetful),
        (tracks.Count, "at", leaking),
        (decoding, "_misread", lambda texts, shape: np.zeros(len(texts), dtype=bool)),
    ],
    ids=["Whole", "Money", "Text", "Number", "First", "Count", "true for 1"],
)
def test_a_planted_bug_in_a_kind_or_a_track_is_noticed(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, bug: Any
) -> None:
    """Values that are trusted unread, a first that forgets to look, a count that leaks into the next life."""

    @hunting
    @given(events=declared_histories(Case, OLDER, bad=True))
    def check(events: pl.DataFrame) -> None:
        columns_agree_with_steps(events)

    monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        check()
