"""Readers that tail a store: the mirror's sync, the frontier alone, and the cursors that people write.

Each polls again and again while the writers are at work, and once more when all is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from titan_lab.backends.contract import KEY
from titan_lab.backends.ddl import TABLE
from titan_lab.connect import open_log
from titan_lab.event import SAME_TWICE, TAKEN
from titan_lab.racing.scratch import Scratch
from titan_lab.racing.writers import Key

OURS = "the mirror's sync"
FRONTIER = "the frontier alone"
PAGE = 1000  # rows, as in the rebuild that pages by OFFSET
LOOK_BACK = timedelta(seconds=1)


class Tail(Protocol):
    """One reader at work: what it has seen, in the order it saw it, an event twice if it took it twice."""

    def poll(self) -> None:
        """Read what is new."""
        ...

    def seen(self) -> list[Key]:
        """Give the places of all events it has taken so far."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


Tailing = Callable[[Scratch, Path], Tail]  # a folder of its own is there for what it keeps


class Mirrored:
    """Keep a mirror in step."""

    def __init__(self, scratch: Scratch, folder: Path) -> None:
        self._log = open_log(scratch.url)
        self._mirror = self._log.mirror(folder / "mirror")

    def poll(self) -> None:
        self._mirror.sync()

    def seen(self) -> list[Key]:
        doubled = self._mirror.rejected.filter(pl.col("reason").is_in([SAME_TWICE, TAKEN]))
        return [row for one in (self._mirror.read(), doubled) for row in one.select(KEY).rows()]

    def close(self) -> None:
        self._mirror.close()
        self._log.close()


class _Querying:
    """Ask the database itself, as a program without this toolkit does."""

    def __init__(self, scratch: Scratch, folder: Path) -> None:
        self._scratch = scratch
        self._session = scratch.session(autocommit=True)
        self._seen: list[Key] = []

    def _rows(self, rest: str, *values: Any) -> list[tuple[str, int, Any]]:
        text = self._scratch.sql(f"SELECT aggregate_id, version, timestamp FROM {TABLE} {rest}")
        rows = self._session.execute(text, values).fetchall()
        return [(str(order), version, stamp) for order, version, stamp in rows]

    def seen(self) -> list[Key]:
        return self._seen

    def close(self) -> None:
        self._session.close()


class FrontierAlone(_Querying):
    """Take what is stamped before the frontier, once; nothing is checked afterwards."""

    def __init__(self, scratch: Scratch, folder: Path) -> None:
        super().__init__(scratch, folder)
        self._log = open_log(scratch.url)
        self._last: datetime | None = None

    def poll(self) -> None:
        instant = self._log.frontier.instant
        if instant is None or (self._last is not None and instant <= self._last):
            return
        upto = self._scratch.stamp(instant)
        if self._last is None:
            rows = self._rows("WHERE timestamp < ?", upto)
        else:
            rows = self._rows("WHERE timestamp >= ? AND timestamp < ?", self._scratch.stamp(self._last), upto)
        self._seen += [row[:2] for row in rows]
        self._last = instant

    def close(self) -> None:
        super().close()
        self._log.close()


class AfterTimestamp(_Querying):
    """Take what is stamped after the last timestamp seen."""

    def __init__(self, scratch: Scratch, folder: Path) -> None:
        super().__init__(scratch, folder)
        self._last: Any = None

    def poll(self) -> None:
        rows = self._rows("WHERE timestamp > ?", self._last) if self._last is not None else self._rows("")
        self._seen += [row[:2] for row in rows]
        self._last = max([row[2] for row in rows], default=self._last)


class LookingBack(AfterTimestamp):
    """Take what is stamped after a second before the last timestamp seen, and leave out what it knows."""

    def poll(self) -> None:
        if self._last is None:
            rows = self._rows("")
        else:
            since = self._scratch.moment(self._last) - LOOK_BACK
            rows = self._rows("WHERE timestamp > ?", self._scratch.stamp(since))
        known = set(self._seen)
        self._seen += [row[:2] for row in rows if row[:2] not in known]
        self._last = max([row[2] for row in rows], default=self._last)


class Offset(_Querying):
    """Page in order of time, each page behind as many rows as were read before."""

    def poll(self) -> None:
        while rows := self._rows(
            "ORDER BY timestamp, aggregate_id, version LIMIT ? OFFSET ?", PAGE, len(self._seen)
        ):
            self._seen += [row[:2] for row in rows]


class HighestVersion(_Querying):
    """Take what has a version above the highest one seen, as if it were a position in the whole store."""

    def poll(self) -> None:
        highest = max([version for _, version in self._seen], default=0)
        self._seen += [row[:2] for row in self._rows("WHERE version > ? ORDER BY version", highest)]


CURSORS: dict[str, Tailing] = {
    "timestamp > last seen": AfterTimestamp,
    "timestamp > last seen - 1 s": LookingBack,
    "ORDER BY timestamp OFFSET": Offset,
}
NAIVE: dict[str, Tailing] = {**CURSORS, "version > highest seen": HighestVersion}
