"""Which steps of a machine are not allowed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from titan_lab.reducers import machine
from titan_lab.typed import Typed


class Steps(NamedTuple):
    """Steps of a machine: rows of the events, and the places of both states among its names.

    `before` is one past the last name where the event brought the first state.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray


def illegal_steps(typed: Typed, declared: machine, rows: np.ndarray, owners: np.ndarray) -> Steps:
    """Find, among some rows, the events that lead to a state which may not follow the one before.

    rows, ascending, hold whole beginnings of lives; owners are their aggregates.
    """
    names = declared.names
    of_kind = [names.index(declared.states[kind]) if kind in declared.states else -1 for kind in typed.kinds]
    codes = np.array([*of_kind, -1], dtype=np.int64).take(typed.kind.take(rows))
    moving = np.flatnonzero(codes >= 0)
    rows, owners, codes = rows[moving], owners[moving], codes[moving]
    before = np.append(len(names), codes)[: len(codes)]
    before[1:][owners[1:] != owners[:-1]] = len(names)
    lawful = [[after in declared.nexts(one) for after in names] for one in (*names, None)]
    wrong = np.flatnonzero(~np.array(lawful)[before, codes])
    return Steps(rows[wrong], before[wrong], codes[wrong])
