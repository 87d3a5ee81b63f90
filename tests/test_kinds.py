"""One payload value, read two ways: the column must never accept what the specification refuses."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

import titan_lab as tl
from titan_lab import decoding, kinds
from titan_lab.decoding import decode_payloads, read_payload
from titan_lab.kinds import Misfit

# What has been written where a value belongs: JSON of every type, and the edges of each.
FRAGMENTS = r"""
0 | -0 | 1 | -1 | 1.0 | -0.0 | 0.00 | 0e10 | 1.5 | -2.5 | 1e5 | 1E5 | 1e2 | 1e-2 | 12e-1 | 1e-400 | 1e300
0.1 | 1.10 | 1.005 | 2.675 | 33.335 | 33.3350000000000000001 | 0.30000000000000004 | 5e-324 | 1e400 | 1e17
0.99999999999999999999 | 1.00000000000000001 | 19.9900000000000000001 | 12345678901234.565 | 1e18 | 1e-3
999999999999999.99 | 12345678901234.56 | 1234567890123.45 | 9999999999999.99 | 10000000000000.01
9007199254740991.0 | 9007199254740992 | 9007199254740993 | 123456789012345680.0 | 100000000000000000.5
123456789012345678 | 9223372036854775807 | 9223372036854775808 | -9223372036854775808 | 11111111111111111111
1e9999999 | 1e99999999999999999999 | 1e-99999999999999999999 | NaN | Infinity | true | false | null | {} | []
"" | "a" | "true" | "null" | "NaN" | "-Infinity" | "0" | "1" | "1.0" | "01" | " 1" | "5 " | "+1" | "--1"
"1_000" | "1e3" | "1E+2" | "0x10" | "1,5" | "1." | ".5" | "١" | "١.٥" | "12.50" | "12.505" | "-1.50"
"1.10e1" | "1e-2" | "1e9999999" | "1e-9999999" | "1e99999999999999999999"
"999999999999999.99" | "1000000000000000"
"é" | "\u00e9\ud83d\ude00" | "\ud800" | "\ud800abc" | "a\udc00" | "\u0000" | "\\ud800"
"2025-01-01" | "2025-01-01T10:00:00Z" | "2025-01-01T10:00Z" | "2025-01-01 10:00:00+02" | "20250101"
"2025-01-01T10:00:00" | "2025-1-1T10:00:00Z" | "2025-01-01T23:59:60Z" | "2025-01-01T10:00:00z"
"2025-01-01T10:00:00.123456789Z" | "+2025-01-01T10:00:00Z" | "2025-01-01T10:00:00 Z" | "2025-W01-1T10:00Z"
"2025-01-01T24:00:00Z" | "2025-01-01T10:00:00+0200" | "2025-01-01T10:00:00+25:00"
"0001-01-01T00:00:00+05:00" | "9999-12-31T23:59:59-05:00" | "0001-01-01T00:00:00Z"
{"word": "x"} | {"word": 1} | {"word": null} | {"word": true} | {"whole": true} | {"whole": 1.5}
{"money": 1e-3} | {"word": "a", "word": "b"} | [{"word": "x"}] | [{}] | [null] | [{"whole": 2.0}]
[1] | [1, 2] | [1.5] | [true] | [true, 1] | ["x"] | ["x", "y"] | ["1"] | [[1], [2]] | [["x"]]
"""


class Worded(tl.Record):
    word: str


class Counted(tl.Record):
    whole: int | None = None
    money: Decimal | None = None


DECLARED: list[Any] = [
    *(str, int, float, Decimal, bool, datetime, Worded, Counted),
    *(list[str], list[int], list[float], list[Decimal], list[bool], list[datetime]),
    *(list[Worded], list[Counted], list[list[str]], list[list[int]]),
]
every_kind = pytest.mark.parametrize("hint", DECLARED, ids=lambda hint: str(getattr(hint, "__name__", hint)))


def event_of(hint: Any) -> Any:
    """Declare an event type with one optional field."""
    return type("Told", (tl.EventType,), {"__annotations__": {"value": hint | None}, "value": None})


def plain(value: Any) -> Any:
    """Write a value with its type, so that 1 is not True, nor 0.00 minus nothing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return (value.isoformat(),) if isinstance(value, datetime) else (type(value).__name__, str(value))


def by_itself(event: Any, text: str) -> Any:
    """Read one text as the specification says."""
    try:
        return plain(read_payload(text, event.shape, []).value)
    except Misfit as fault:
        return f"refused: {fault}"


def as_column(event: Any, texts: list[str]) -> list[Any]:
    """Read texts as a column."""
    decoded = decode_payloads(pl.Series(texts), event.shape, [])
    faults = {place: f"refused: {fault}" for place, fault in decoded.faults}
    good = iter(decoded.frame.iter_rows(named=True))
    return [
        plain(event.shape.build(next(good)).value) if fine else faults[place]
        for place, fine in enumerate(decoded.good)
    ]


def read_alike(hint: Any) -> None:
    event = event_of(hint)
    texts = [f'{{"value": {fragment}}}' for fragment in FRAGMENTS.strip().replace("\n", " | ").split(" | ")]
    expected = [by_itself(event, text) for text in texts]
    assert as_column(event, texts) == expected  # together: the slow wire, for some texts resist
    for text, wanted in zip(texts, expected, strict=True):
        assert as_column(event, [text]) == [wanted], text  # alone: the fast wire, where the text fits it


@every_kind
def test_a_column_reads_each_value_as_it_is_read_by_itself(hint: Any) -> None:
    """The same value, or the same refusal at the same place, whatever stands in the rows beside it."""
    read_alike(hint)


@every_kind
def test_a_few_payloads_are_read_as_many_are(hint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, without columns: the same frames, the same refusals."""
    event = event_of(hint)
    texts = [f'{{"value": {fragment}}}' for fragment in FRAGMENTS.strip().replace("\n", " | ").split(" | ")]
    many = decode_payloads(pl.Series(texts), event.shape, [])
    monkeypatch.setattr(decoding, "FEW", len(texts))
    few = decode_payloads(pl.Series(texts), event.shape, [])
    assert few.frame.equals(many.frame)
    assert few.good.tolist() == many.good.tolist()
    assert [(place, str(fault)) for place, fault in few.faults] == [
        (place, str(fault)) for place, fault in many.faults
    ]


def trusting(self: Any, column: pl.Series) -> tuple[pl.Series, Any]:
    return column.cast(self.dtype, strict=False), column.is_null().to_numpy() & False


@pytest.mark.parametrize(
    ("hint", "where", "name", "bug"),
    [
        (str, kinds.Text, "columns", trusting),
        (int, kinds.Whole, "columns", trusting),
        (float, kinds.Number, "columns", trusting),
        (Decimal, kinds.Money, "columns", trusting),
        (Counted, decoding, "_misread", lambda texts, shape: texts.is_null().to_numpy()),
        (list[str], decoding, "_misread", lambda texts, shape: texts.is_null().to_numpy()),
        (datetime, kinds, "PLAIN_MOMENT", ""),
    ],
    ids=["text", "whole", "number", "money", "true for 1", "lone value", "moment"],
)
def test_a_kind_that_trusts_the_decoder_is_noticed(
    monkeypatch: pytest.MonkeyPatch, hint: Any, where: Any, name: str, bug: Any
) -> None:
    """The planted bugs: each kind believes what the decoder made of the text."""
    monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        read_alike(hint)


# --- the specification itself, by example ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "fragment", "value"),
    [
        (Decimal, "999999999999999.99", Decimal("999999999999999.99")),
        (Decimal, '"0.10"', Decimal("0.10")),
        (Decimal, "0.1", Decimal("0.10")),
        (Decimal, "1e2", Decimal("100.00")),
        (Decimal, "0.99999999999999999999", Decimal("1.00")),  # its double is 1
        (int, "2.0", 2),
        (int, '"12"', 12),
        (int, "9007199254740993", 9007199254740993),
        (str, "7", "7"),
        (str, "1e2", "100"),
        (datetime, '"2025-01-01T12:00:00+02:00"', tl.instant("2025-01-01T10:00:00Z")),
        (list[int], "[1, 2]", [1, 2]),
    ],
)
def test_what_a_value_may_be_written_as(hint: Any, fragment: str, value: Any) -> None:
    """Numbers and their texts; amounts keep every digit that was written."""
    assert read_payload(f'{{"value": {fragment}}}', event_of(hint).shape, []).value == value


@pytest.mark.parametrize(
    ("hint", "fragment", "reason"),
    [
        (Decimal, "33.335", "found 33.335, expected an amount with at most two decimals"),
        (Decimal, "1000000000000000", "expected an amount below 1,000,000,000,000,000"),
        (Decimal, "true", "found True (a boolean), expected an amount such as 12.50"),
        (int, "1.5", "expected a whole number"),
        (int, "9223372036854775808", "expected a whole number of 64 bits"),
        (str, "1.5", "(a number), expected text"),
        (str, r'"\ud83d"', "expected text"),  # half of a character
        (bool, "1", "found 1 (a number), expected true or false"),
        (datetime, '"2025-01-01T10:00:00"', "expected ISO-8601 text with a zone"),
        (datetime, '"0001-01-01T00:00:00+05:00"', "expected ISO-8601 text with a zone"),
        (list[str], '"x"', "found 'x' (text), expected an array"),
        (list[int], "[1, null]", "found None (null), expected a whole number at $.value[1]"),
        (list[Worded], '[{"word": "x"}, {}]', "required field missing, expected text at $.value[1].word"),
        (Worded, "[]", "found [] (an array), expected an object"),
    ],
)
def test_what_is_refused_says_what_was_found_and_expected(hint: Any, fragment: str, reason: str) -> None:
    """And where: the path leads to the value."""
    with pytest.raises(Misfit) as caught:
        read_payload(f'{{"value": {fragment}}}', event_of(hint).shape, [])
    assert reason in str(caught.value)
    assert caught.value.path.startswith("$.value")


def test_python_alone_would_take_nan_for_json() -> None:
    """Also in a field that nobody declared, where no kind looks at it."""
    event = event_of(str)
    for text in ('{"value": "x", "other": NaN}', '{"value": "x", "other": -Infinity}'):
        assert (
            by_itself(event, text)
            == as_column(event, [text])[0]
            == "refused: payload is not the text of one JSON object at $"
        )
