"""List columns as lengths and elements, so that they can be built and gathered without a loop."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from titan_lab.marks import nulls


def lists_apart(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Part a List column into each row's length and all elements in order; a null list has length 0."""
    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    if isinstance(column.dtype, pl.List):
        offsets = pl.Series(array.offsets).to_numpy()  # np.asarray would import pandas
        lengths = np.diff(offsets)
        # A null list may stand for elements, too; most do not, and then nothing needs to be moved.
        if not lengths[nulls(column)].any():
            return lengths, pl.Series(array.values[offsets[0] : offsets[-1]], dtype=column.dtype.inner)
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


class Lists:
    """A List column laid out for gathering: lists of structs are moved field by field, which is faster."""

    def __init__(self, values: pl.Series, order: np.ndarray | None = None) -> None:
        """Take the values, and the order in which they count; those past it follow as they are."""
        self.lengths, elements = lists_apart(values)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.nulls = values.is_null() if values.null_count() else None
        if order is not None:
            order = np.append(order, np.arange(len(order), len(values)))
            self.lengths, self.starts = self.lengths[order], self.starts[order]
            self.nulls = None if self.nulls is None else self.nulls.gather(order)
        self.structs = isinstance(elements.dtype, pl.Struct)
        self.fields = elements.struct.unnest().rechunk() if self.structs else elements.to_frame("")

    def gather(self, places: np.ndarray) -> pl.Series:
        """Give the lists at these places."""
        lengths = self.lengths[places]
        inner = ranges(self.starts[places], lengths)
        picked = self.fields.select(pl.all().gather(inner))
        elements = picked.to_struct("") if self.structs else picked.to_series()
        return lists_together(lengths, elements, None if self.nulls is None else self.nulls.gather(places))


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Lay out starts[i], starts[i]+1, ... for each i, lengths[i] numbers long."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts.astype(np.int64) - (ends - lengths), lengths) + np.arange(total)
