"""Exact numbers as whole numbers of their smallest unit: cents are added up, never floats."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa


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
