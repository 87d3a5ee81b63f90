"""A store whose transactions are written out by hand, on a clock that is told to tick.

A row is stamped when its transaction begins, and is seen when that commits, as in PostgreSQL: what commits
late is stamped behind what was seen before it. Its frontier is where the oldest open transaction began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import polars as pl

from titan_lab.backends.contract import Frontier
from titan_lab.backends.memory import MemoryStore
from titan_lab.event import EVENTS
from titan_lab.scope import Scope
from titan_lab.testing.histories import START

Told = dict[str, object]


class Transactions(MemoryStore):
    """Begin, write and commit; read what was committed.

    between: called before the rows of each read are given and after, as if other writers were at work.
    """

    def __init__(self, url: str = "memory://transactions") -> None:
        rows = EVENTS.to_frame().with_columns(pl.col("timestamp").cast(pl.String))
        super().__init__(rows, url)
        self.now = START
        self.begun: dict[int, tuple[datetime, list[Told]]] = {}
        self.versions: dict[str, int] = {}
        self.between: Callable[[], None] | None = None

    def tick(self) -> None:
        """Let a microsecond pass."""
        self.now += timedelta(microseconds=1)

    def begin(self, number: int) -> None:
        """Begin a transaction."""
        self.begun.setdefault(number, (self.now, []))

    def write(self, number: int, aggregate_id: str, **changes: object) -> None:
        """Write an event in a transaction; nobody sees it yet."""
        self.begin(number)
        began, rows = self.begun[number]
        version = self.versions.get(aggregate_id, 0) + 1
        self.versions[aggregate_id] = version
        row: Told = {
            "aggregate_id": aggregate_id,
            "version": version,
            "event_type": "OrderShipped",
            "payload": f'{{"tracking": "{version}"}}',
            "metadata": None,
            "timestamp": began.isoformat(),
        }
        rows.append(row | changes)

    def commit(self, number: int) -> None:
        """Let everybody see what a transaction wrote."""
        _, rows = self.begun.pop(number, (None, []))
        self.raw = pl.concat([self.raw, pl.DataFrame(rows, schema=self.raw.schema)])

    def roll_back(self, number: int) -> None:
        """Let nobody ever see it; its versions stay away."""
        self.begun.pop(number, None)

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Give what is committed when the reading begins; `between` runs before and after."""
        if self.between is not None:
            self.between()
        yield from list(super().frames(scope, size))
        if self.between is not None:
            self.between()

    def frontier(self) -> Frontier:
        """Tell where the oldest open transaction began; the present without one."""
        return Frontier(min((began for began, _ in self.begun.values()), default=self.now), "as told", True)
