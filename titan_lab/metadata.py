"""What metadata says of an event, a whole column at once: who asked for it, and what caused it."""

from __future__ import annotations

import numpy as np
import polars as pl

from titan_lab.jsontext import decode, in_pieces

# A text that begins like this says its correlation_id first, as most do: to look for the closing quote is
# three times faster than to decode it. Python writes the space.
HEADS = '{"correlation_id":"', '{"correlation_id": "'


def correlation_ids(metadata: pl.Series) -> pl.Series:
    """Read the correlation_id of each metadata text: text, or a number or boolean as JSON writes it.

    Null where there is no metadata, where it does not say, and where it says an object or an array.
    """
    pieces = in_pieces(metadata, _correlation_ids)
    return pl.concat(pieces, rechunk=True) if pieces else pl.Series([], dtype=pl.String)


def _correlation_ids(texts: pl.Series) -> pl.Series:
    first = texts.first(ignore_nulls=True)
    head = HEADS[1] if isinstance(first, str) and first.startswith(HEADS[1]) else HEADS[0]
    rest = texts.str.slice(len(head))
    said = rest.str.head(rest.str.find('"', literal=True))
    # `find` counts bytes and `head` characters, which are the same in ASCII only.
    plain = (said.str.len_bytes() == said.str.len_chars()) & ~said.str.contains("\\", literal=True)
    sure = texts.str.starts_with(head) & plain
    unsure = np.flatnonzero(~sure.fill_null(True).to_numpy())
    if len(unsure):
        said = said.scatter(unsure, told(texts.gather(unsure), "correlation_id"))
    return said.alias("correlation_id")


def told(texts: pl.Series, name: str) -> pl.Series:
    """Decode one field of metadata texts, as ``correlation_ids`` does."""
    there = np.flatnonzero(texts.is_not_null().to_numpy())
    found = decode(texts.gather(there), pl.Struct({name: pl.String}))[0].struct.field(name)
    if len(there) == len(texts):
        return found
    return pl.Series(name, [None], dtype=pl.String).new_from_index(0, len(texts)).scatter(there, found)
