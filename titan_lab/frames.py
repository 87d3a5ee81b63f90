"""Frames from elsewhere: polars, pandas and arrow, taken as polars."""

from __future__ import annotations

from typing import Any

import polars as pl

from titan_lab.errors import TitanError


def as_frame(given: Any, what: str, error: type[TitanError]) -> pl.DataFrame:
    """Take a polars, pandas or arrow frame, or what polars makes one of. Raises `error` for anything else."""
    if isinstance(given, pl.LazyFrame):
        return given.collect()
    try:
        return given if isinstance(given, pl.DataFrame) else pl.DataFrame(given)
    except (TypeError, ValueError) as reason:
        raise error(
            f"{what} is a {type(given).__name__}, no frame: {reason}",
            hint="give a polars, pandas or arrow frame",
        ) from reason
