"""Exact numbers as whole numbers of their smallest unit: cents are added up, never floats."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from titan_lab.marks import nulls


def is_exact(dtype: pl.DataType) -> bool:
    """Tell whether sums of this dtype are exact."""
    return isinstance(dtype, pl.Decimal) or dtype.is_integer()


def to_units(amounts: pl.Series) -> np.ndarray:
    """Give a Decimal or whole-number column as int64 counts of its smallest unit; null is 0."""
    units = amounts.to_physical().cast(pl.Int64)
    return (units.fill_null(0) if units.null_count() else units).to_numpy()


def from_units(units: np.ndarray, dtype: pl.DataType) -> pl.Series:
    """Turn int64 counts of a Decimal's smallest unit into that Decimal; whole numbers stay as they are."""
    return from_halves(halves_of(units), dtype.scale) if isinstance(dtype, pl.Decimal) else pl.Series(units)


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


class Wide:
    """A column of decimals or moments laid out for gathering: numpy moves bytes faster than polars values."""

    def __init__(self, values: pl.Series) -> None:
        array = values.rechunk().to_arrow()
        # A type of the same width stands in: a decimal of 16 bytes travels as a complex number.
        stand_in = np.dtype(np.complex128 if isinstance(values.dtype, pl.Decimal) else np.int64)
        self.type = array.type
        self.bytes = np.frombuffer(array.buffers()[1], stand_in, len(array), array.offset * stand_in.itemsize)
        self.there = ~nulls(values) if values.null_count() else None

    def gather(self, places: np.ndarray) -> pl.Series:
        """Give the values at these places."""
        valid = None
        if self.there is not None:
            there = self.there.take(places, mode="clip")
            valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
        found = self.bytes.take(places, mode="clip")  # faster than self.bytes[places]; all are within
        return pl.Series(pa.Array.from_buffers(self.type, len(places), [valid, pa.py_buffer(found)]))
