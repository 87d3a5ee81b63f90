"""A few payloads are read one by one, and a fold of them is what a fold of columns is."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given

import titan_lab as tl
from titan_lab import decoding
from titan_lab.testing.histories import histories

MANY = 10_000  # more than any of these histories has of one type


def folded(events: pl.DataFrame, few: int, monkeypatch: pytest.MonkeyPatch) -> tuple:
    monkeypatch.setattr(decoding, "FEW", few)
    log = tl.from_frame(events)
    book = log.fold(tl.Order, newer="reject")
    filled = [
        (part.event_type, part.schema_version, {name: rows.tolist() for name, rows in part.filled.items()})
        for part in book.typed.parts
    ]
    return book.history(), log.rejected, filled


def test_a_history_folds_alike_whether_its_payloads_are_few_or_many():
    with pytest.MonkeyPatch.context() as monkeypatch:

        @given(events=histories())
        def check(events):
            few, many = folded(events, MANY, monkeypatch), folded(events, 0, monkeypatch)
            assert few[0].equals(many[0])
            assert few[1].equals(many[1])
            assert few[2] == many[2]

        check()


def test_a_few_that_skip_an_upcast_would_be_noticed(monkeypatch):
    honest = decoding.read_payload
    monkeypatch.setattr(
        decoding, "read_payload", lambda text, shape, steps, filled=None: honest(text, shape, [], filled)
    )
    with pytest.raises(AssertionError):
        test_a_history_folds_alike_whether_its_payloads_are_few_or_many()
