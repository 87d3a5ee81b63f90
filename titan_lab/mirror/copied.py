"""What a log over a mirror can do besides what every log can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from titan_lab.backends.contract import Reader
from titan_lab.backends.manifest import KEPT, read_manifest
from titan_lab.backends.mirror import MirrorStore
from titan_lab.errors import KeepError, MirrorError
from titan_lab.fold import Aggregate
from titan_lab.mirror.copying import Progress
from titan_lab.mirror.sync import check_source, sync
from titan_lab.mirror.synced import Synced
from titan_lab.notebook.html import card

if TYPE_CHECKING:
    from titan_lab.book import Book


class Copied:
    """Sync a log over a mirror with its store, and keep what is folded of it."""

    url: str
    zone: str | None
    reader: Reader
    _folded: dict[str, Any]

    def __init__(self, copy: MirrorStore, *, zone: str | None = None, source: Reader | None = None) -> None:
        log: Any = super()
        log.__init__(copy, zone=copy.zone if source is None and zone is None else zone)
        self.path = copy.path
        self.source = source
        if source is not None:
            check_source(copy, source.url, zone)

    def sync(self, *, whole: bool = False, progress: Progress | None = None) -> Synced:
        """Bring the copy up to date, and tell what that was; killed at any point, it goes on the next time.

        What is stamped from the last frontier on is read; what was written behind it is found by counting,
        and read as well. whole: read everything, which also finds rows that were edited in place. progress:
        called with (rows read, rows expected).

        Raises MirrorError where the folder cannot be written, is being synced by another process, or is
        damaged, and for a mirror that was opened without its store.
        """
        if self.source is None:
            raise MirrorError(
                f"{self.url} was opened without its store",
                hint=f"tl.open(URL).mirror({str(self.path)!r}).sync()",
            )
        told = sync(self.reader, self.source, self.zone, whole, progress)  # type: ignore[arg-type]
        self.__dict__.pop("_rejected", None)
        self._folded.clear()
        return told

    def fold(self, aggregate: type[Aggregate], *, keep: str | Path | None = None, **how: Any) -> Book:
        """Fold like ``EventLog.fold``; without `keep`, all aggregates are kept in the mirror's own folder."""
        log: Any = super()
        if keep is not None or how.get("aggregates") is not None:
            return log.fold(aggregate, keep=keep, **how)
        own = self.path / KEPT / aggregate.__name__
        try:
            return log.fold(aggregate, keep=own, **how)
        except KeepError:
            if how.get("pieces") is not None or how.get("memory") is not None:
                raise
            return log.fold(aggregate, **how)  # a folder that cannot be written can be read

    def _repr_html_(self) -> str:
        log: Any = super()
        if read_manifest(self.path) is not None:
            return log._repr_html_()
        return card(f"Mirror {self.url}", {"synced": "not yet: .sync() begins"})

    def __repr__(self) -> str:
        return f"<Mirror {self.url}{f' of {self.source.url}' if self.source else ''}>"
