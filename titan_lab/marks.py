"""Boolean columns as numpy arrays of marks; a null is no mark."""

from __future__ import annotations

import numpy as np
import polars as pl


def marks(column: pl.Series) -> np.ndarray:
    """Tell where a Boolean column says true."""
    return (column.fill_null(False) if column.null_count() else column).to_numpy()


def nulls(column: pl.Series) -> np.ndarray:
    """Tell where a column is null."""
    return column.is_null().to_numpy() if column.null_count() else np.zeros(len(column), dtype=bool)
