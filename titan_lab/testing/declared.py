"""Hypothesis strategies that follow from a declaration: payloads of any event type, good and bad.

    @given(declared_histories(Ticket))
    def test_my_aggregate_folds_alike_both_ways(events): ...

The JSON is written piece by piece, not by a library, so that numbers keep their zeros and what no library
would write is tried as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from titan_lab.event import EVENTS
from titan_lab.fold import Aggregate
from titan_lab.kinds import Flag, Kind, Moment, Money, Number, Text, Whole
from titan_lab.payload import EventType
from titan_lab.shapes import Many, Nested

START = datetime(2025, 1, 1, tzinfo=UTC)
SECONDS = 5  # so few that equal timestamps and steps back are the rule
IDS = ("a", "ab", "b")  # one begins as another does, so that a border drawn wrongly shows

Fragments = st.SearchStrategy[str]  # JSON text of one value
Older = Mapping[type[EventType], Mapping[int, Fragments]]  # event type -> schema_version -> payloads

_CENTS = st.integers(-(10**6), 10**6).map(lambda cents: Decimal(cents) / 100)

GOOD: dict[type[Kind], Fragments] = {
    Text: st.one_of(
        st.sampled_from(['"u1"', '""', '"7"', "7", '"true"', '"1.50"', '"é\\u00fc\\"\\\\"', '"{,}: [true]"']),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4).map(json.dumps),
    ),
    Whole: st.one_of(
        st.integers(-9, 9).map(str),
        st.sampled_from(['"5"', "2.0", "1000000000000", "9007199254740993", "-0", "1e3"]),
    ),
    Number: st.sampled_from(["0.5", '"0.1"', "3", "-2.25", "1e300", "0.1", "-0.0", "123456789012345678"]),
    Money: st.one_of(
        _CENTS.map(lambda amount: f"{amount:.2f}"),
        _CENTS.map(lambda amount: f'"{amount}"'),
        st.sampled_from(["0.1", "0.2", "5", "1e2", "-0.00", "12.500", "999999999999999.99", '"0999.9"']),
    ),
    Flag: st.sampled_from(["true", "false"]),
    Moment: st.sampled_from(
        ['"2025-01-01T00:00:00Z"', '"2025-01-01T02:00:00.000001+02:00"', '"2024-12-31 23:59:59-03:00"']
    ),
}
BAD: dict[type[Kind], Fragments] = {
    Text: st.sampled_from(["1.5", "true", "{}", "[]"]),
    Whole: st.sampled_from(["1.5", "true", '"x"', "9223372036854775808", "[1]", '""']),
    Number: st.sampled_from(["true", '"x"', "1e999", "{}"]),
    Money: st.sampled_from(["33.335", "true", '"x"', "1000000000000000", "0.30000000000000004", '"NaN"']),
    Flag: st.sampled_from(["1", '"true"', "{}"]),
    Moment: st.sampled_from(['"2025-01-01T00:00:00"', '"soon"', "5"]),
}


def fragments(kind: Kind, bad: bool = False) -> Fragments:
    """Write values of one kind; with `bad`, some that it must refuse."""
    if isinstance(kind, Nested):
        return objects(kind, bad)
    if isinstance(kind, Many):
        inside = fragments(kind.of, bad)
        if bad:
            inside = st.one_of(inside, inside, inside, st.just("null"))
        return st.lists(inside, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    good = GOOD[type(kind)]
    return st.one_of(good, good, good, BAD[type(kind)]) if bad else good


@st.composite
def objects(draw: st.DrawFn, shape: Nested, bad: bool = False) -> str:
    """Write objects of a declared shape: optional fields may be absent or null, others may be added."""
    told = []
    for slot in shape.slots:
        must = slot.required and not (bad and draw(st.integers(0, 9)) == 0)
        how = "told" if must else draw(st.sampled_from(["told", "told", "null", "absent"]))
        if how != "absent":
            told.append((slot.name, "null" if how == "null" else draw(fragments(slot.kind, bad))))
    if draw(st.booleans()):
        told.insert(draw(st.integers(0, len(told))), ("nobody_declared", draw(GOOD[Text])))
    gap = draw(st.sampled_from(["", " "]))
    return "{" + f",{gap}".join(f"{json.dumps(name)}:{gap}{value}" for name, value in told) + "}"


@st.composite
def declared_histories(
    draw: st.DrawFn,
    aggregate: type[Aggregate],
    older: Older | None = None,
    bad: bool = False,
    most: int = 14,
) -> pl.DataFrame:
    """Make a frame of at most `most` EVENTS, in no order, of the types that an aggregate declares.

    Versions rise from 1 by life, at times with a gap; timestamps are drawn from a few seconds; some events
    are of a type nobody declared. older: the payloads of earlier schema_versions. bad: some payloads must be
    refused.
    """
    lived: dict[str, int] = {}
    rows = []
    for _ in range(draw(st.integers(0, most))):
        name = draw(st.sampled_from(IDS))
        lived[name] = lived.get(name, 0) + draw(st.sampled_from([1, 1, 1, 1, 2]))
        kind = draw(st.sampled_from([*aggregate.events.values(), None]))
        metadata: dict[str, Any] = draw(st.sampled_from([{}, {"correlation_id": "c1"}]))
        if kind is None:
            event_type, payload = "NobodyDeclared", draw(st.sampled_from(["{}", '{"total": true}']))
        else:
            event_type, newest = kind.event_type, aggregate.chain.current(kind.event_type)
            known = [newest, *(older or {}).get(kind, {})]
            stored = draw(st.sampled_from(known))
            payload = draw(objects(kind.shape, bad) if stored == newest else (older or {})[kind][stored])
            metadata = metadata | ({"schema_version": stored} if stored > 1 or draw(st.booleans()) else {})
        if bad and draw(st.integers(0, 19)) == 0:
            payload = draw(st.sampled_from(["", "{", "[]", "null", '{"a": 1}, {"b": 2}']))
        second = timedelta(seconds=draw(st.integers(0, SECONDS)))
        text = json.dumps(metadata) if metadata else None
        rows.append((name, lived[name], event_type, payload, text, START + second))
    return pl.DataFrame(draw(st.permutations(rows)), schema=EVENTS, orient="row")
