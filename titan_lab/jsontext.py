"""Decode JSON text, a whole column at once, and say which rows would not decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import polars as pl

from titan_lab.marks import marks
from titan_lab.parallel import each, joined, spans

BITE = 16_384  # texts decoded at a time: they stay in the processor's cache, 4x faster than all at once
PIECE = 8 * BITE  # rows a thread works on at a time: enough to make the cost of each call small
OBJECT = pl.Struct({"": pl.Boolean})  # accepts any JSON object and keeps nothing of it
# A flat object without escapes: what most metadata is, and several times faster to recognise than to parse.
TEXT, SCALAR = r'"[^"\\\x00-\x1f]*"', r"-?[1-9][0-9]{0,9}(?:\.[0-9]{1,6})?|0|null|true|false"
# Python and Postgres write a space after each colon and comma.
FIELD = rf"{TEXT}: ?(?:{TEXT}|{SCALAR})"
FLAT = rf"^\{{(?:{FIELD}(?:, ?{FIELD})*)?\}}$"

T = TypeVar("T")


def decode(
    texts: pl.Series, dtype: pl.Struct, otherwise: pl.Struct | None = None
) -> tuple[pl.Series, np.ndarray]:
    """Decode JSON objects to structs of `dtype`; where one does not fit, all of them to `otherwise`.

    Returns the structs, one per text in the same order, and a bool array that is True where the text is no
    JSON object or does not fit (the struct is null there). Fields the dtype lacks are passed over, absent
    fields are null.
    """
    bites = [texts.slice(start, BITE) for start in range(0, len(texts), BITE)]
    if not bites:
        return pl.Series(texts.name, [], dtype), np.zeros(0, dtype=bool)
    whole = [_at_once(bite, dtype) for bite in bites]
    fitting = [structs for structs in whole if structs is not None]
    if len(fitting) == len(whole):
        return pl.concat(fitting, rechunk=True), np.zeros(len(texts), dtype=bool)
    found = [_one_by_one(bite, otherwise or dtype) for bite in bites]
    return pl.concat([structs for structs, _ in found], rechunk=True), np.concatenate(
        [bad for _, bad in found]
    )


def not_objects(texts: pl.Series, rows: np.ndarray | None = None) -> np.ndarray:
    """Tell which texts are not one JSON object; a null is not one either."""
    return joined(in_pieces(texts, _not_objects, rows), bool)


def _not_objects(texts: pl.Series) -> np.ndarray:
    bad = ~marks(texts.str.contains(FLAT))
    unsure = np.flatnonzero(bad)
    if len(unsure):
        bad[unsure] = decode(texts.gather(unsure), OBJECT)[1]
    return bad


def in_pieces(column: pl.Series, work: Callable[[pl.Series], T], rows: np.ndarray | None = None) -> list[T]:
    """Apply `work` to slices of a column, or of some of its rows, on all cores; give the results in order."""
    if rows is None or len(rows) == len(column):
        return each(lambda piece: work(column[piece]), spans(len(column), PIECE), len(column))
    return each(lambda piece: work(column.gather(rows[piece])), spans(len(rows), PIECE), len(rows))


def _at_once(texts: pl.Series, dtype: pl.Struct) -> pl.Series | None:
    """Decode all texts in one go, or give None when one of them resists."""
    if texts.null_count() or not (_first_bytes(texts) == ord("{")).all():
        return None  # the decoder would read a null or a list as something; one by one, it is told apart
    try:
        structs = texts.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        return None
    # One text with two documents ('{},{}') decodes to two rows and would shift all that follow.
    return structs if len(structs) == len(texts) else None


def _first_bytes(texts: pl.Series) -> np.ndarray:
    """Give the first byte of each text, 0 of an empty one, without looking into them one by one.

    Arrow lays a text out as 16 bytes: its length in four, and then its beginning.
    """
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    views = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, 16)
    return views[array.offset : array.offset + len(array), 4]


def _one_by_one(texts: pl.Series, dtype: pl.Struct) -> tuple[pl.Series, np.ndarray]:
    """Decode what can be decoded, by halves until the bad texts stand alone."""
    texts = texts.str.strip_chars_start(" \t\r\n")
    bad = ~marks(texts.str.starts_with("{"))
    texts = texts.scatter(np.flatnonzero(bad), "{}") if bad.any() else texts
    structs = []
    for start, piece in _halving(texts, dtype, 0):
        if isinstance(piece, int):
            bad[start] = True
            piece = pl.Series(texts.name, [None], dtype)
        structs.append(piece)
    decoded = pl.concat(structs)
    return (decoded.set(pl.Series(bad), None) if bad.any() else decoded), bad


def _halving(texts: pl.Series, dtype: pl.Struct, start: int) -> Iterator[tuple[int, pl.Series | int]]:
    decoded = _at_once(texts, dtype)
    if decoded is not None:
        yield start, decoded
    elif len(texts) == 1:
        yield start, 1
    else:
        half = len(texts) // 2
        yield from _halving(texts.slice(0, half), dtype, start)
        yield from _halving(texts.slice(half), dtype, start + half)
