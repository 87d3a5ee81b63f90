"""Work in pieces on all cores: polars and numpy let go of the interpreter while they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import polars as pl

MANY = 200_000  # rows from which on threads pay

One = TypeVar("One")
Done = TypeVar("Done")


def each(work: Callable[[One], Done], ones: Iterable[One], rows: int = MANY) -> list[Done]:
    """Do the work on each, and give the results in order; in threads where there are many rows."""
    ones = list(ones)
    if rows < MANY or len(ones) < 2:
        return [work(one) for one in ones]
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        return list(pool.map(work, ones))


def together(*works: Callable[[], Any], rows: int) -> list[Any]:
    """Do different works at the same time where there are many rows, and give their results in order."""
    return each(lambda work: work(), works, rows)


def spans(size: int, length: int) -> list[slice]:
    """Cut `size` rows into slices of `length`."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


def joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    """Put the pieces' arrays together again; of no pieces an empty one."""
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=dtype)
