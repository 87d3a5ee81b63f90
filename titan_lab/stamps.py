"""Read timestamps as this package writes them, all digits of a column at once."""

from __future__ import annotations

import numpy as np
import polars as pl

PATTERN = b"0000-00-00T00:00:00.000000Z"  # ISO-8601 in UTC with microseconds, which sorts in order of time
DIGIT = np.frombuffer(PATTERN, np.uint8) == ord("0")


def microseconds(texts: pl.Series) -> np.ndarray | None:
    """Give int64 microseconds since 1970 if each text is a moment written so, else None."""
    if texts.null_count():
        return None
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    if (np.diff(offsets) != len(PATTERN)).any():
        return None
    signs = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    # One row for each place in the text, counted from where the pattern has its 0 or its sign.
    places = signs.reshape(-1, len(PATTERN)).T - np.frombuffer(PATTERN, np.uint8)[:, None]
    if (places[DIGIT] > 9).any() or places[~DIGIT].any():
        return None
    year, month, day = _number(places[0:4]), _number(places[5:7]), _number(places[8:10])
    hour, minute, second = _number(places[11:13]), _number(places[14:16]), _number(places[17:19])
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    first, following = months.astype("datetime64[D]"), (months + 1).astype("datetime64[D]")
    days = first.astype(np.int64) + day - 1
    real = (year > 0) & (month > 0) & (month < 13) & (day > 0) & (days < following.astype(np.int64))
    if not (real & (hour < 24) & (minute < 60) & (second < 60)).all():
        return None
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    return seconds * 1_000_000 + _number(places[20:26])


def _number(digits: np.ndarray) -> np.ndarray:
    """Put decimal digits, the highest first, together."""
    number = np.zeros(digits.shape[1], dtype=np.int64)
    for digit in digits:
        number *= 10
        number += digit
    return number
