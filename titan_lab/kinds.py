"""The kinds of value a payload may hold, each read two ways.

`read` takes one JSON value and says what it means or why it cannot (the specification, obvious and slow);
`columns` takes a whole column and marks as *doubtful* each row that it would not vouch for; those are read
again, one by one, by `read`. So the columnar way never has to know every rule: it only must never accept what
`read` refuses.

The JSON decoder makes numbers into doubles (`wire`, the fast way), or, where a number stands as text, all
scalars into text (`wire_text`). It takes true for 1 and rounds a number of many digits; both are doubtful.
Digits of a JSON number beyond those that its double holds say nothing, in either reading: 0.99999999999999999
is 1. An amount that needs more than 15 digits is still read exactly.

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

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import polars as pl

from titan_lab.amounts import from_units
from titan_lab.clock import instant
from titan_lab.errors import InstantError
from titan_lab.event import TIMESTAMP, moments
from titan_lab.marks import marks, nulls

CENT = Decimal("0.01")
MOST_MONEY = Decimal(10) ** 15  # keeps a running sum of ten thousand amounts inside 64 bits of cents
SURE_DIGITS = 15  # a double holds any 15 digits exactly
SURE_WHOLE = 2.0**53  # and any whole number below this
SHOWN_WHOLE = 1e18  # below this the decoder writes a whole double with all its digits
# What polars and Python agree on; polars alone takes 2025-1-1, a 60th second and a small z, too.
PLAIN_MOMENT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[0-5]\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$"


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
        shown = str(value) if isinstance(value, Decimal) else repr(value)
        return Misfit(path, f"found {_shown(shown)} ({_json_name(value)}), expected {self.expected}")


class Text(Kind):
    dtype = pl.String()
    expected = "text"

    def read(self, value: Any, path: str) -> str:
        if isinstance(value, Decimal):
            value = _whole_double(value, SHOWN_WHOLE)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not _is_unicode(value):
            raise self.misfit(value, path)
        return value

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        # The decoder writes numbers and booleans as text, too; only plain whole numbers are sure to be right.
        doubtful = marks((column == "true") | (column == "false"))
        numeric = column.cast(pl.Float64, strict=False)
        if numeric.null_count() < len(numeric):
            plain = column.str.contains(r"^-?[1-9]\d{0,17}$")
            doubtful = doubtful | (~nulls(numeric) & ~marks(plain))
        return column, doubtful


class Whole(Kind):
    dtype = pl.Int64()
    wire = pl.Float64()
    expected = "a whole number"

    def read(self, value: Any, path: str) -> int:
        if isinstance(value, Decimal):
            value = _whole_double(value, SURE_WHOLE)  # JSON knows one kind of number: 2.0 is 2
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self.misfit(value, path)
        try:
            number = int(value)
        except ValueError:
            raise self.misfit(value, path) from None
        if not -(2**63) <= number < 2**63:
            raise Misfit(path, f"found {_shown(str(number))}, expected a whole number of 64 bits")
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
            amount = _cents_double(value) if isinstance(value, Decimal) else Decimal(value)
        except InvalidOperation:
            raise self.misfit(value, path) from None
        if not amount.is_finite():
            raise self.misfit(value, path)
        if not -MOST_MONEY < amount < MOST_MONEY:  # abs() would overflow on 1e9999999
            raise Misfit(path, f"found {_shown(str(value))}, expected an amount below {MOST_MONEY:,.0f}")
        cents = amount.quantize(CENT)
        if cents != amount:
            raise Misfit(path, f"found {_shown(str(value))}, expected an amount with at most two decimals")
        return cents + 0  # there is no -0.00

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        if column.dtype == pl.Float64:
            # A third decimal would be rounded away: the double nearest to the JSON text must be the one
            # nearest to whole cents. (numpy divides as IEEE says; polars multiplies by a rounded 1/100.)
            numbers = (column.fill_null(0) if column.null_count() else column).to_numpy()
            units = np.rint(numbers * 100)
            sure = (units / 100 == numbers) & (np.abs(units) < 10**SURE_DIGITS)
            amounts = from_units(np.where(sure, units, 0).astype(np.int64), self.dtype)
            return (amounts.set(column.is_null(), None) if column.null_count() else amounts), ~sure
        amounts = column.cast(pl.Decimal(38, 2), strict=False)
        exact = amounts.cast(pl.Float64) == column.cast(pl.Float64, strict=False)
        short = (column.str.len_bytes() <= SURE_DIGITS) & ~column.str.contains("[eE]")  # 1e-9999999 is not 0
        return amounts, _doubtful(column, exact & short)


def _whole_double(number: Decimal, limit: float) -> int | Decimal:
    """Give a JSON number as the whole number that its double is, if it is one below the limit."""
    double = float(number)
    return int(double) if abs(double) < limit and double.is_integer() else number


def _cents_double(number: Decimal) -> Decimal:
    """Give a JSON number as the cents that its double shows, if it shows any and 15 digits hold them."""
    double = float(number)
    if not abs(double) < 10 ** (SURE_DIGITS - 2):
        return number
    units = round(double * 100)
    return Decimal(units).scaleb(-2) if units / 100 == double else number


def _is_unicode(text: str) -> bool:
    """Tell whether text can be stored: JSON can write half of a character, such as "\\ud83d"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _doubtful(column: pl.Series, sure: pl.Series) -> np.ndarray:
    return ~nulls(column) & ~marks(sure)


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
        return read, _doubtful(column, column.str.contains(PLAIN_MOMENT) & read.is_not_null())


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


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
