"""A cube that grows: how many orders were in each state, and what they are worth, at every instant of a grid.

A folder of Parquet files, each with the cells that one run added. A file is there whole or not at all, and
what is there says where the next run begins: so a run that is repeated adds nothing, and one that was killed
is simply done again. The cells are the same as if all had been computed at once.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from titan_lab.book import Book
from titan_lab.clock import from_micros, instant, iso
from titan_lab.errors import KeepError
from titan_lab.grid import instants
from titan_lab.jobs.locks import FileLocks
from titan_lab.paths import project_root, written

MEASURE = "total"
CELLS = pl.Schema(
    {
        "instant": pl.Datetime("us", "UTC"),
        "status": pl.String(),
        "count": pl.Int64(),
        MEASURE: pl.Decimal(38, 2),
    }
)


class Cube:
    """A folder of cells. A relative one lies in the project.

    step, zone: of the grid, such as "1h" and "UTC"; a folder keeps the ones it was begun with.
    Raises KeepError where the folder was begun with others, or by another declaration of the orders.
    """

    def __init__(self, folder: str | os.PathLike[str], step: str, zone: str = "UTC") -> None:
        self.folder = Path(folder) if Path(folder).is_absolute() else project_root() / folder
        self.step, self.zone = step, zone

    def cells(self) -> pl.DataFrame:
        """Read all cells: instant, status, count Int64 and total Decimal, sorted by instant and status."""
        found = [pl.read_parquet(path) for path in self._files()]
        return pl.concat(found).sort("instant", "status") if found else _of(None)

    def last(self) -> datetime | None:
        """Give the last instant whose cells are there; None for an empty cube."""
        ends = [path.stem.partition("--")[2].replace("_", ":") for path in self._files()]
        return max(map(instant, ends), default=None)

    def append(self, book: Book, until: datetime) -> pl.DataFrame:
        """Add the cells of a grid's instants up to one, inclusive, that are not there yet; give those.

        States with no order in them have no cell. The grid begins with the history, at the first instant of
        its day in the zone.
        """
        with self._alone():
            self._hold_to({"step": self.step, "zone": self.zone, "fingerprint": book.basis.fingerprint})
            last = self.last()
            begin = last or self._day(book)
            if begin is None or begin > until:
                return _of(None)
            grid = [
                when for when in instants(self.step, begin, until, self.zone) if last is None or when > last
            ]
            if not grid:
                return _of(None)
            added = _of(book.every(self.step, begin, until, by="status", measure=MEASURE, zone=self.zone))
            added = added.filter(pl.col("instant") >= grid[0])
            name = f"{iso(grid[0])}--{iso(grid[-1])}.parquet".replace(":", "_")
            temporary = self.folder / f".{name}.{uuid.uuid4().hex[:12]}.tmp"
            try:
                added.write_parquet(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(self.folder / name)
            finally:
                temporary.unlink(missing_ok=True)
            return added

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*--*.parquet"))

    def _day(self, book: Book) -> datetime | None:
        if book.span is None:
            return None
        first = pl.Series([from_micros(book.span[0])]).dt.convert_time_zone(self.zone)
        return instant(first.dt.truncate("1d")[0])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with FileLocks(self.folder).alone():
            for left in self.folder.glob(".*.tmp"):  # of a run that was killed
                left.unlink(missing_ok=True)
            yield

    def _hold_to(self, made: dict[str, Any]) -> None:
        path = self.folder / "cube.json"
        if not path.exists():
            with written(path) as file:
                file.write(json.dumps(made, indent=1) + "\n")
            return
        found = json.loads(path.read_text("utf-8"))
        for name, value in made.items():
            if found.get(name) != value:
                raise KeepError(
                    f"the cube in {self.folder} was made with {name} {found.get(name)}, and this is {value}",
                    hint="remove the folder to make it anew, or name another one",
                )


def _of(grid: pl.DataFrame | None) -> pl.DataFrame:
    if grid is None:
        return CELLS.to_frame()
    return grid.filter(pl.col("count") > 0).cast(CELLS).sort("instant", "status")
