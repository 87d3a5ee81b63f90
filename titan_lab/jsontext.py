"""Decode JSON text, a whole column at once, and say which rows would not decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import polars as pl

BITE = 16_384  # texts decoded at a time: they stay in the processor's cache, 4x faster than all at once
PIECE = 8 * BITE  # rows a thread works on at a time: enough to make the cost of each call small
OBJECT = pl.Struct({"": pl.Boolean})  # accepts any JSON object and keeps nothing of it

T = TypeVar("T")


def decode(texts: pl.Series, dtype: pl.Struct) -> tuple[pl.Series, np.ndarray]:
    """Decode JSON objects to structs of `dtype`.

    Returns the structs, one per text in the same order, and a bool array that is True where the text is no
    JSON object or does not fit the dtype (the struct is null there). Fields the dtype lacks are passed over,
    absent fields are null.
    """
    if not len(texts):
        return pl.Series(texts.name, [], dtype), np.zeros(0, dtype=bool)
    bites = [_decode_bite(texts.slice(start, BITE), dtype) for start in range(0, len(texts), BITE)]
    return pl.concat([structs for structs, _ in bites], rechunk=True), np.concatenate([bad for _, bad in bites])


def not_objects(texts: pl.Series) -> np.ndarray:
    """Tell which texts are not one JSON object; a null is not one either."""
    return joined(in_pieces(texts, lambda piece: decode(piece, OBJECT)[1]), bool)


def joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    """Put the pieces' arrays together again; of no pieces an empty one."""
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=dtype)


def in_pieces(column: pl.Series, work: Callable[[pl.Series], T], size: int = PIECE) -> list[T]:
    """Apply `work` to slices of a column on all cores, and give the results in order."""
    slices = [column.slice(start, size) for start in range(0, len(column), size)]
    if len(slices) < 2:
        return [work(piece) for piece in slices]
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        return list(pool.map(work, slices))


def _decode_bite(texts: pl.Series, dtype: pl.Struct) -> tuple[pl.Series, np.ndarray]:
    bad = ~texts.str.starts_with("{").fill_null(False).to_numpy()
    if bad.any():
        bad &= ~texts.str.contains(r"^\s*\{").fill_null(False).to_numpy()
        texts = texts.zip_with(pl.Series(~bad), pl.Series([None], dtype=pl.String).extend_constant(None, len(texts) - 1))
    structs: list[pl.Series] = []
    for start, piece, decoded in _halving(texts, dtype):
        if decoded is None:
            bad[start] = True
            decoded = pl.Series(texts.name, [None] * len(piece), dtype)
        structs.append(decoded)
    return pl.concat(structs), bad


def _halving(texts: pl.Series, dtype: pl.Struct, start: int = 0) -> Iterator[tuple[int, pl.Series, pl.Series | None]]:
    """Decode in one go where that works, else halve until the bad texts stand alone."""
    try:
        decoded = texts.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        decoded = None
    # One text with two documents ('{},{}') decodes to two rows and would shift all that follow.
    if decoded is not None and len(decoded) == len(texts):
        yield start, texts, decoded
    elif len(texts) == 1:
        yield start, texts, None
    else:
        half = len(texts) // 2
        yield from _halving(texts.slice(0, half), dtype, start)
        yield from _halving(texts.slice(half), dtype, start + half)
