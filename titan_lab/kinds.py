"""The kinds of value a payload may hold, each read two ways.

`read` takes one JSON value and says what it means or why it cannot (the specification, obvious and slow);
`columns` takes a whole column and marks as *doubtful* each row that it would not vouch for; those are read
again, one by one, by `read`. So the columnar way never has to know every rule: it only must never accept what
`read` refuses.

The JSON decoder makes numbers into doubles (`wire`, the fast way), or, where a number stands as text, all
scalars into text (`wire_text`). It takes true for 1 and rounds a number of many digits; both are doubtful.

    annotation          kind      JSON accepted                            column
    str                 Text      text, or a whole number as its digits    String
    int                 Whole     a whole number, or its text              Int64
    float               Number    a number, or its text                    Float64
    Decimal             Money     a number or its text, at most 2 decimals Decimal(38, 2)
    bool                Flag      true, false                              Boolean
    datetime            Moment    ISO-8601 text with a zone                Datetime(us, UTC)
    a Record            Nested    an object                                Struct
    list[...]           Many      an array                                 List
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from titan_lab.clock import instant
from titan_lab.errors import InstantError
from titan_lab.event import TIMESTAMP, moments

CENT = Decimal("0.01")
MOST_MONEY = Decimal(10) ** 15  # keeps a running sum of ten thousand amounts inside 64 bits of cents
SURE_DIGITS = 15  # a double holds any 15 digits exactly
SURE_WHOLE = 2.0**53  # and any whole number below this


class Misfit(Exception):
    """A value that does not fit its declaration: where it stands, and what was found and expected there."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{reason} at {path}")
        self.path = path
        self.reason = reason


class Kind:
    """One kind of payload value."""

    dtype: pl.DataType  # of the finished column
    wire: pl.DataType = pl.String()  # of the column that the JSON decoder makes, the fast way
    wire_text: pl.DataType = pl.String()  # and where that way does not fit
    expected: str

    def __repr__(self) -> str:
        return type(self).__name__  # no address: a fingerprint is made of it

    def read(self, value: Any, path: str) -> Any:
        """Read one JSON value, or raise Misfit."""
        raise NotImplementedError

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        """Read a column; the second answer marks the rows to be read again by `read`."""
        raise NotImplementedError

    def missing(self, column: pl.Series) -> np.ndarray:
        """Tell for each row whether something required is missing inside it; it may itself be null."""
        return np.zeros(len(column), dtype=bool)

    def build(self, value: Any) -> Any:
        """Turn a value taken from a finished column into what `read` gives."""
        return value

    def misfit(self, value: Any, path: str) -> Misfit:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        return Misfit(path, f"found {shown} ({_json_name(value)}), expected {self.expected}")


class Text(Kind):
    dtype = pl.String()
    expected = "text"

    def read(self, value: Any, path: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.misfit(value, path)
        return value

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        # The decoder writes numbers and booleans as text, too; only plain whole numbers are sure to be right.
        doubtful = column.is_in(["true", "false"]).fill_null(False)
        numeric = column.cast(pl.Float64, strict=False)
        if numeric.null_count() < len(numeric):
            plain = column.str.contains(r"^-?[1-9]\d{0,17}$").fill_null(False)
            doubtful = doubtful | (numeric.is_not_null() & ~plain)
        return column, doubtful.to_numpy()


class Whole(Kind):
    dtype = pl.Int64()
    wire = pl.Float64()
    expected = "a whole number"

    def read(self, value: Any, path: str) -> int:
        if isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)  # JSON knows one kind of number: 2.0 is 2
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self.misfit(value, path)
        try:
            number = int(value)
        except ValueError:
            raise self.misfit(value, path) from None
        if not -(2**63) <= number < 2**63:
            raise Misfit(path, f"found {number}, expected a whole number of 64 bits")
        return number

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        numbers = column.cast(pl.Int64, strict=False)
        if column.dtype == pl.Float64:
            sure = (numbers == column) & (column.abs() < SURE_WHOLE)
        else:
            sure = numbers.is_not_null() & (column.str.len_bytes() <= SURE_DIGITS)
        return numbers, _doubtful(column, sure)


class Number(Kind):
    dtype = pl.Float64()
    wire = pl.Float64()
    expected = "a number"

    def read(self, value: Any, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            raise self.misfit(value, path)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise self.misfit(value, path) from None
        if not np.isfinite(number):
            raise self.misfit(value, path)
        return number

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        numbers = column.cast(pl.Float64, strict=False)
        return numbers, _doubtful(column, numbers.is_finite())


class Money(Kind):
    dtype = pl.Decimal(38, 2)
    wire = pl.Float64()
    expected = "an amount such as 12.50"

    def read(self, value: Any, path: str) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            raise self.misfit(value, path)
        try:
            amount = Decimal(value)
        except InvalidOperation:
            raise self.misfit(value, path) from None
        if not amount.is_finite():
            raise self.misfit(value, path)
        if abs(amount) >= MOST_MONEY:
            raise Misfit(path, f"found {value}, expected an amount below {MOST_MONEY:,.0f}")
        cents = amount.quantize(CENT)
        if cents != amount:
            raise Misfit(path, f"found {value}, expected an amount with at most two decimals")
        return cents

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        if column.dtype == pl.Float64:
            # A third decimal would be rounded away: the double nearest to the JSON text must be the one
            # nearest to whole cents. (numpy divides as IEEE says; polars multiplies by a rounded 1/100.)
            numbers = column.fill_null(0).to_numpy()
            units = np.rint(numbers * 100)
            sure = (units / 100 == numbers) & (np.abs(units) < 10**SURE_DIGITS)
            return from_units(pl.Series(np.where(sure, units, 0).astype(np.int64)), 2, column), ~sure
        amounts = column.cast(pl.Decimal(38, 2), strict=False)
        exact = amounts.cast(pl.Float64) == column.cast(pl.Float64, strict=False)
        return amounts, _doubtful(column, exact & (column.str.len_bytes() <= SURE_DIGITS))


def _doubtful(column: pl.Series, sure: pl.Series) -> np.ndarray:
    return (column.is_not_null() & ~sure.fill_null(False)).to_numpy()


def from_units(units: pl.Series, scale: int, nulls_of: pl.Series | None = None) -> pl.Series:
    """Turn an Int64 column of a Decimal's smallest units into that Decimal, null where `nulls_of` is."""
    amounts = from_halves(halves_of(units.to_numpy()), scale)
    return amounts if nulls_of is None or not nulls_of.null_count() else amounts.set(nulls_of.is_null(), None)


def halves_of(units: np.ndarray) -> np.ndarray:
    """Lay int64 units out as Arrow holds a decimal: 128 bits each, the units and their sign side by side."""
    halves = np.empty((len(units), 2), dtype=np.int64)
    halves[:, 0] = units
    np.right_shift(units, 63, out=halves[:, 1])
    return halves.view(np.complex128).reshape(-1)  # any type of 128 bits: numpy moves it whole


def from_halves(halves: np.ndarray, scale: int) -> pl.Series:
    """Take what `halves_of` laid out as a Decimal column, without copying."""
    return pl.Series(
        pa.Array.from_buffers(pa.decimal128(38, scale), len(halves), [None, pa.py_buffer(halves)])
    )


class Flag(Kind):
    dtype = pl.Boolean()
    wire = pl.Boolean()
    wire_text = pl.Boolean()
    expected = "true or false"

    def read(self, value: Any, path: str) -> bool:
        if not isinstance(value, bool):
            raise self.misfit(value, path)
        return value

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        return column, np.zeros(len(column), dtype=bool)


class Moment(Kind):
    dtype = TIMESTAMP
    expected = "ISO-8601 text with a zone"

    def read(self, value: Any, path: str) -> datetime:
        if not isinstance(value, str):
            raise self.misfit(value, path)
        try:
            return instant(value)
        except InstantError:
            raise self.misfit(value, path) from None

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        read = moments(column)
        return read, (column.is_not_null() & read.is_null()).to_numpy()


@dataclass(frozen=True)
class Slot:
    """One field of a Record: its name, its kind, and what stands there when nothing does.

    A null counts as absent. `default` is only used when `required` is False.
    """

    name: str
    kind: Kind
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Nested(Kind):
    """An object with declared fields; fields nobody declared are passed over."""

    slots: tuple[Slot, ...]
    make: Any = dict  # what `read` builds from the fields
    expected = "an object"

    @cached_property
    def dtype(self) -> pl.Struct:  # type: ignore[override]
        return pl.Struct({slot.name: slot.kind.dtype for slot in self.slots})

    @cached_property
    def wire(self) -> pl.Struct:  # type: ignore[override]
        # A struct without fields decodes nothing, so one that is never there stands in.
        return pl.Struct({slot.name: slot.kind.wire for slot in self.slots} or {"": pl.Boolean})

    @cached_property
    def wire_text(self) -> pl.Struct:  # type: ignore[override]
        return pl.Struct({slot.name: slot.kind.wire_text for slot in self.slots} or {"": pl.Boolean})

    @cached_property
    def fast_wire(self) -> pl.Struct:
        """Give the fast wire, unless a boolean is declared: then true as a number would not stand out."""
        return self.wire_text if "Boolean" in repr(self.dtype) else self.wire

    def read(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise self.misfit(value, path)
        fields = {}
        for slot in self.slots:
            found = value.get(slot.name)
            if found is not None:
                fields[slot.name] = slot.kind.read(found, f"{path}.{slot.name}")
            elif slot.required:
                raise Misfit(f"{path}.{slot.name}", f"required field missing, expected {slot.kind.expected}")
            else:
                fields[slot.name] = slot.default
        return self.make(**fields)

    def build(self, value: Any) -> Any:
        return (
            None if value is None else self.make(**{s.name: s.kind.build(value[s.name]) for s in self.slots})
        )

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        frame, doubtful = self.frame(column)
        return _with_nulls_of(column, frame.to_struct(column.name)), doubtful

    def frame(self, column: pl.Series) -> tuple[pl.DataFrame, np.ndarray]:
        """Read a column of objects as one column for each field."""
        doubtful = np.zeros(len(column), dtype=bool)
        fields = []
        for slot in self.slots:
            stored = column.struct.field(slot.name)
            if stored.null_count() == len(stored):
                fields.append(pl.Series(slot.name, [None], slot.kind.dtype).new_from_index(0, len(stored)))
                continue
            field, doubts = slot.kind.columns(stored)
            fields.append(field.alias(slot.name))
            doubtful |= doubts
        return pl.DataFrame(fields) if fields else pl.DataFrame(height=len(column)), doubtful

    def missing(self, column: pl.Series) -> np.ndarray:
        there = column.is_not_null().to_numpy()
        return (
            self.missing_in(column.struct.unnest() if self.slots else pl.DataFrame(height=len(column)))
            & there
        )

    def missing_in(self, frame: pl.DataFrame) -> np.ndarray:
        """Tell which rows of the fields' columns lack something required."""
        missing = np.zeros(frame.height, dtype=bool)
        for slot in self.slots:
            field = frame[slot.name]
            if slot.required and field.null_count():
                missing |= field.is_null().to_numpy()
            missing |= slot.kind.missing(field)
        return missing

    def with_defaults(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Fill the fields' defaults where nothing stands."""
        defaults = {s.name: s.default for s in self.slots if not s.required and s.default is not None}
        return frame.with_columns(
            pl.col(n).fill_null(pl.lit(v, dtype=frame.schema[n])) for n, v in defaults.items()
        )


@dataclass(frozen=True)
class Many(Kind):
    """An array whose elements are all of one kind."""

    of: Kind
    expected = "an array"

    @cached_property
    def dtype(self) -> pl.List:  # type: ignore[override]
        return pl.List(self.of.dtype)

    @cached_property
    def wire(self) -> pl.List:  # type: ignore[override]
        return pl.List(self.of.wire)

    @cached_property
    def wire_text(self) -> pl.List:  # type: ignore[override]
        return pl.List(self.of.wire_text)

    def read(self, value: Any, path: str) -> list:
        if not isinstance(value, list):
            raise self.misfit(value, path)
        elements = []
        for place, element in enumerate(value):
            if element is None:
                raise self.of.misfit(element, f"{path}[{place}]")
            elements.append(self.of.read(element, f"{path}[{place}]"))
        return elements

    def build(self, value: Any) -> Any:
        return None if value is None else [self.of.build(element) for element in value]

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        lengths, elements = lists_apart(column)
        read, doubts = self.of.columns(elements)
        doubts = doubts | elements.is_null().to_numpy()
        return lists_together(lengths, read, column.is_null()), _any_in_list(doubts, lengths)

    def missing(self, column: pl.Series) -> np.ndarray:
        lengths, elements = lists_apart(column)
        return _any_in_list(self.of.missing(elements), lengths)


def lists_apart(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Part a List column into each row's length and all elements in order; a null list has length 0."""
    lengths = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    return lengths, column.explode(empty_as_null=False, keep_nulls=False).rechunk()


def lists_together(lengths: np.ndarray, elements: pl.Series, nulls: pl.Series | None = None) -> pl.Series:
    """Build a List column from each row's length and all elements in order, without copying them."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    # These Arrow arrays come from polars: `pa.array` imports pandas to see whether it was given one.
    mask = pl.Series(nulls).to_arrow() if nulls is not None and nulls.any() else None
    values = elements.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    together = pa.LargeListArray.from_arrays(pl.Series(offsets).to_arrow(), values, mask=mask)
    return pl.Series(together, dtype=pl.List(elements.dtype))


def _any_in_list(marks: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    found = np.zeros(len(lengths), dtype=bool)
    if marks.any():
        found[np.repeat(np.arange(len(lengths)), lengths)[marks]] = True
    return found


def _with_nulls_of(column: pl.Series, read: pl.Series) -> pl.Series:
    return read.set(column.is_null(), None) if column.null_count() else read


def _json_name(value: Any) -> str:
    names = {
        str: "text",
        bool: "a boolean",
        int: "a number",
        Decimal: "a number",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "null" if value is None else type(value).__name__)
