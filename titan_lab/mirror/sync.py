"""Bring the copy of a store up to date, one at a time, and tell what was done."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from titan_lab.backends.contract import Frontier
from titan_lab.backends.manifest import BAD, GOOD, Manifest, read_manifest
from titan_lab.backends.mirror import MirrorStore
from titan_lab.errors import MirrorError
from titan_lab.mirror.copying import Copying, Progress
from titan_lab.mirror.folder import Folder
from titan_lab.mirror.synced import Synced
from titan_lab.mirror.tail import Unclear, copy_news
from titan_lab.mirror.whole import copy_all

NEVER = Frontier(None, "it was never synced")


def sync(
    store: MirrorStore, reader: Any, zone: str | None, whole: bool = False, progress: Progress | None = None
) -> Synced:
    """Bring a copy up to date. whole: read everything, and so find what was edited in place as well.

    Raises MirrorError where the folder cannot be written, is being synced, or holds something else.
    """
    started = time.monotonic()
    check_source(store, reader.url, zone)  # before anything is made in a folder of something else
    folder = Folder(store.path)
    with folder.alone():
        before = read_manifest(store.path) or Manifest(reader.url, zone)
        folder.sweep()
        run = Copying(folder, store, reader, zone, before, progress)
        _copy(run, whole)
        folder.sweep()
    content = run.manifest.content
    assert content is not None, "a sync that ends has content"
    return Synced(
        **run.found,
        events=sum(part.rows for part in content.events),
        whole=run.whole,
        parts=run.written,
        seconds=time.monotonic() - started,
        before=before.content.frontier if before.content else NEVER,
        after=content.frontier,
    )


def check_source(store: MirrorStore, url: str, zone: str | None) -> None:
    """Refuse a folder that holds the copy of another store, or one that was read in another zone."""
    theirs, ours = url.partition("://"), store.path.resolve()
    if theirs[0] == "parquet":
        there = Path(theirs[2]).resolve()
        if there in (ours, *ours.parents) or ours in there.parents:
            raise MirrorError(
                f"{store.path} lies in the store that it would copy, or around it: {url}",
                hint="mirror into a folder apart from it",
            )
    if any((store.path / kind).is_symlink() for kind in (GOOD, BAD)):
        raise MirrorError(
            f"{store.path} has a link to elsewhere in it", hint="mirror into a folder of its own"
        )
    manifest = read_manifest(store.path)
    if manifest is None:
        return
    for what, was, now in (("of", manifest.source, url), ("read in the zone", manifest.zone, zone)):
        if was != now:
            raise MirrorError(
                f"{store.path} holds a mirror {what} {was}, not {now}",
                hint="mirror into another folder, or delete this one first",
                was=was,
                now=now,
            )


def _copy(run: Copying, whole: bool) -> None:
    cut_off = run.manifest.filling is not None
    if cut_off:
        copy_all(run)
    content = run.manifest.content
    counts = hasattr(run.reader, "tally") and hasattr(run.reader, "heads")
    if content is None or content.mark is None or not counts or (whole and not cut_off):
        if not cut_off:
            copy_all(run)
        return
    try:
        copy_news(run, content)
    except Unclear:
        run.found = dict.fromkeys(run.found, 0)
        copy_all(run)
