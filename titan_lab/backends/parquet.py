"""Events in Parquet: one file, or a folder of files that grows by whole files."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from titan_lab.backends.contract import (
    KEY,
    Appended,
    Frontier,
    extension,
    heads,
    numbered,
    part_new,
    summed,
    versions_of,
)
from titan_lab.errors import EventsError, OpenError, ReadOnly
from titan_lab.event import EVENTS, as_text, moments
from titan_lab.scope import EVERYTHING, Scope

OPTIONAL = ("metadata",)
NUMBERED = re.compile(r"\d{6,}\.parquet")


class ParquetStore:
    """Read, and if opened for it write, Parquet files with the event store's columns."""

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = path
        self.writable = writable
        self.url = f"parquet://{path}"
        if not path.exists():
            if not writable:
                raise OpenError(
                    f"there is no file or folder {path}",
                    hint="check the path; writable=True makes a new folder",
                )
            path.mkdir(parents=True)
        for file in self.files():
            self._check(file)

    @classmethod
    def open(cls, address: str, writable: bool) -> ParquetStore:
        """Open ``parquet://relative/path`` or ``parquet:///absolute/path``, a file or a folder."""
        if not address:
            raise OpenError(
                "the URL names no file or folder", hint="write parquet://data/samples/orders.parquet"
            )
        return cls(Path(address), writable)

    def files(self) -> list[Path]:
        """List the files in order of name; a folder's hidden and half-written ones are passed over."""
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():  # which lists no file either, and is no empty folder
            raise OpenError(
                f"{self.path} is not there any more", hint="bring it back; a log reads its store when asked"
            )
        return sorted(file for file in self.path.rglob("*.parquet") if not file.name.startswith((".", "_")))

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Read file by file, pushing the ids that are asked for down into the file."""
        for file in self.files():
            with _told_as_open_errors(file):
                rows = self._rows(file).with_row_index("place")
                # Ids of another type are text only once they were checked; whoever asked filters those.
                if scope.ids != EVERYTHING.ids and rows.collect_schema()["aggregate_id"] == pl.String:
                    rows = rows.filter(scope.within())
                if scope.since is not None:
                    rows = rows.filter(_passes(rows, scope.since))
                if scope.aggregates is not None:
                    rows = rows.filter(pl.col("aggregate_id").cast(pl.String).is_in(list(scope.aggregates)))
                frame = rows.collect()
            name = pl.lit(file.name, pl.Enum([file.name]))
            frame = frame.with_columns(place=pl.struct(name.alias("file"), pl.col("place").alias("row")))
            yield from frame.iter_slices(size) if len(frame) > size else [frame]

    def frontier(self) -> Frontier:
        """Take the end of the files as complete: they are written whole."""
        last = None
        for file in self.files():
            with _told_as_open_errors(file):
                stamps = moments(pl.read_parquet(file, columns=["timestamp"], glob=False)["timestamp"])
            latest = stamps.max()
            last = latest if last is None or (latest is not None and latest > last) else last  # type: ignore[operator]
        return Frontier(last, "the end of the files")  # type: ignore[arg-type]

    def tally(self, before: datetime) -> int:
        """Count the rows whose timestamp is before an instant."""
        count = 0
        for file in self.files():
            with _told_as_open_errors(file):
                stamps = moments(pl.read_parquet(file, columns=["timestamp"], glob=False)["timestamp"])
            count += int((stamps < before).sum())
        return count

    def heads(self) -> pl.DataFrame:
        """Give each aggregate's number of rows and its highest version, as HEADS."""
        found = []
        for file in self.files():
            with _told_as_open_errors(file):
                keys = pl.read_parquet(file, columns=KEY, glob=False)
            found.append(heads(numbered(keys).lazy()))
        return summed(found)

    def facts(self) -> dict[str, list[int]]:
        """Tell size, time and inode of each file: one that took its place may have its size and its time."""
        stats = {str(file.resolve()): file.stat() for file in self.files()}
        return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}

    def ids_since(self, facts: dict[str, list[int]]) -> pl.Series | None:
        """List the ids in the files that were added since; None where another file is not as it was."""
        now = self.facts()
        if any(now.get(name) != told for name, told in facts.items()):
            return None
        new = []
        for file in now:
            if file not in facts:
                with _told_as_open_errors(file):
                    new.append(
                        as_text(pl.read_parquet(file, columns=["aggregate_id"], glob=False)["aggregate_id"])
                    )
        ids = pl.concat(new).unique()
        return None if ids.null_count() else ids

    def sample(self, most: int) -> tuple[pl.Series, int]:
        """Give about so many ids, evenly, and the number of all events."""
        ids, sizes = [pl.Series([], dtype=pl.String)], dict[Path, int]()
        for file in self.files():
            with _told_as_open_errors(file):
                sizes[file] = pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
        events = sum(sizes.values())
        for file in sizes:
            with _told_as_open_errors(file):
                rows = (
                    pl.scan_parquet(file, glob=False)
                    .select("aggregate_id")
                    .gather_every(max(events // most, 1))
                )
                ids.append(as_text(rows.collect(engine="streaming").to_series()))
        return pl.concat(ids), events

    def append(self, events: pl.DataFrame) -> Appended:
        """Write the new events as one more file, which appears whole or not at all."""
        self._refuse_unless_writable()
        while True:
            new, present, files = events, 0, self.files()
            for file in files:
                with _told_as_open_errors(file):
                    old = self._rows(file).collect()
                new, there = part_new(old, new)
                present += there
            if new.is_empty() or self._publish(new, _next_name(files)):
                return Appended(len(new), present)
            # Another process took the name since the files were read; what it wrote may clash.

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        """Write the events as one more file; who loses the race for its name looks again."""
        self._refuse_unless_writable()
        while True:
            files, stored = self.files(), [versions_of(EVENTS.to_frame(), aggregate_id)]
            for file in files:
                with _told_as_open_errors(file):
                    rows = self._rows(file).filter(pl.col("aggregate_id").cast(pl.String) == aggregate_id)
                    stored.append(versions_of(rows.collect(), aggregate_id))
            new = extension(aggregate_id, pl.concat(stored), events, expected_version)
            if isinstance(new, Appended):
                return new
            if new.is_empty() or self._publish(new, _next_name(files)):
                return Appended(len(new), 0, expected_version + len(new))
            # Another process took the name since the files were read; what it wrote may be of this aggregate.

    def _refuse_unless_writable(self) -> None:
        if not self.writable:
            raise ReadOnly(f"{self.url} is open for reading only", hint="tl.open(url, writable=True)")
        if self.path.is_file():
            raise ReadOnly(
                f"{self.path} is one file, which cannot grow",
                hint="open a folder, which grows by whole files",
            )

    def _publish(self, new: pl.DataFrame, name: str) -> bool:
        """Let a whole file appear under a name that nobody has; False where somebody has it by now."""
        unfinished = self.path / f".{name}.{uuid.uuid4().hex}.part"
        try:
            new.write_parquet(unfinished, compression="zstd")
            (self.path / name).hardlink_to(unfinished)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
        except OSError as error:
            raise ReadOnly(
                f"{self.path} cannot be written: {error}",
                hint="check the folder's permissions; appending needs a file system with hard links",
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return True

    def _rows(self, file: Path) -> pl.LazyFrame:
        rows = pl.scan_parquet(file, glob=False)
        names = rows.collect_schema().names()
        return rows.select(name for name in EVENTS if name in names)

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def _check(self, file: Path) -> None:
        try:
            names = pl.read_parquet_schema(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise OpenError(
                f"{file} is no Parquet file: {error}", hint="SQLite files open with sqlite:///path"
            ) from error
        missing = [name for name in EVENTS if name not in names and name not in OPTIONAL]
        if missing:
            raise EventsError(
                f"{file} lacks the column {', '.join(missing)}; it has {', '.join(names)}",
                hint=f"the columns are {', '.join(EVENTS)}; tl.from_frame(frame, ...) names yours",
                missing=missing,
            )


def _passes(rows: pl.LazyFrame, since: datetime) -> pl.Expr:
    """Leave out what is stamped before an instant; what is no instant, or not written as one, is left."""
    stamp, dtype = pl.col("timestamp"), rows.collect_schema()["timestamp"]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        return pl.lit(True)
    return ((stamp >= since) | (stamp < datetime.min.replace(tzinfo=UTC))).fill_null(True)


@contextmanager
def _told_as_open_errors(file: Path | str) -> Iterator[None]:
    """Let what keeps a file from being read, which was checked when the store was opened, be an OpenError."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise OpenError(
            f"{file} cannot be read as Parquet: {str(error).partition(chr(10))[0]}",
            hint="it was whole when the log was opened, or is damaged inside; write it anew",
        ) from error


def _next_name(files: list[Path]) -> str:
    """Name the file after these: of two processes that saw the same ones, only one can have it."""
    taken = [int(file.stem) for file in files if NUMBERED.fullmatch(file.name)]
    return f"{max(taken, default=0) + 1:06d}.parquet"
