"""What a store must offer to be read, and to be written.

A backend translates between its technology and frames; everything else (checks, rejects, order, duplicates)
is done once, in ``titan_lab.log``, for all of them. ``titan_lab.testing`` has the suite that each must pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import polars as pl

from titan_lab.clock import iso
from titan_lab.errors import VersionConflict
from titan_lab.event import EVENTS, as_json, as_text, check, whole
from titan_lab.notebook.html import card
from titan_lab.scope import Scope

KEY = ["aggregate_id", "version"]
HEADS = pl.Schema({"aggregate_id": pl.String(), "events": pl.Int64(), "version": pl.Int64()})
SNAPSHOTS = pl.Schema({"aggregate_id": pl.String(), "version": pl.Int64(), "state": pl.String()})


@dataclass(frozen=True, slots=True)
class Frontier:
    """The instant before which a log is provably complete, and how that is known.

    instant: None for a log without events. live: writers may be at work, so that an answer about a later
    instant is provisional; a store of files is known to its end.
    """

    instant: datetime | None
    how: str
    live: bool = False

    def __str__(self) -> str:
        return f"{iso(self.instant) if self.instant else 'empty'} ({self.how})"

    def _repr_html_(self) -> str:
        return card("Frontier", {"complete before": self.instant, "known by": self.how})


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: how many events were added, and how many were there already, unchanged.

    version: the aggregate's version after it, where one aggregate was appended to.
    """

    added: int
    present: int
    version: int | None = None

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version={self.version}"
        return f"Appended(added={self.added}, present={self.present}{version})"

    def _repr_html_(self) -> str:
        return card("Appended", {"added": self.added, "there already": self.present})


class Reader(Protocol):
    """Rows out of one store."""

    url: str  # as people may see it: no password

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Give the rows of a scope as they are stored, in frames of about `size` rows.

        Each frame has the columns of EVENTS, as text where the store has no better type, and `place`, which
        says where a row stands, where its key alone does not. Rows may come in any order and may be bad; none
        may be left out that a later check could reject, so a bad timestamp or type passes every filter.
        One call sees one consistent state of the store.
        """
        ...

    def frontier(self) -> Frontier:
        """Tell up to when the store is known to be complete."""
        ...

    def close(self) -> None:
        """Let go of what is open; a second time does nothing."""
        ...


class Snapshots(Protocol):
    """What a Reader may offer beside its events: the states that were saved with them."""

    def snapshots(self) -> pl.DataFrame:
        """Give the stored states as SNAPSHOTS, in any order; a version that is no number is null."""
        ...


class Saving(Snapshots, Protocol):
    """What a store may offer so that states are saved in it, one for each aggregate at most."""

    def snapshot(self, aggregate_id: str) -> tuple[int, str] | None:
        """Give one aggregate's stored version and state, or None."""
        ...

    def rows_from(self, aggregate_id: str, version: int, most: int) -> list[tuple[Any, ...]]:
        """Give an aggregate's rows from a version on, in its order, and at most so many.

        Each is version, event_type, payload, metadata and timestamp as the store has them, moments as text;
        who asks checks them. May be left out: ``frames`` gives the same rows, and takes longer for a few.
        """
        ...

    def save_snapshots(self, states: pl.DataFrame) -> None:
        """Save states, as SNAPSHOTS without nulls, all or none.

        One takes the place of what its aggregate has of the same version or an earlier one, never of a later
        one, which another writer may have saved meanwhile.
        """
        ...


class Tallied(Protocol):
    """What a Reader may offer so that a copy of it is kept in step without reading all of it again."""

    def tally(self, before: datetime) -> int:
        """Count the rows whose timestamp is before an instant, exclusive."""
        ...

    def heads(self) -> pl.DataFrame:
        """Give each aggregate's number of rows and its highest version, as HEADS, in any order.

        Rows that are no events count as well, and those that have no aggregate_id stand under null.
        """
        ...


class Checked(Protocol):
    """What a Reader may offer whose rows were checked when they were written."""

    def checked(self, scope: Scope) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Give EVENTS that pass every check, and REJECTED rows; duplicates are among the events."""
        ...


class Writer(Reader, Protocol):
    """A store that takes events, too."""

    def append(self, events: pl.DataFrame) -> Appended:
        """Add EVENTS, all or none. One that is there already is left alone.

        Raises VersionConflict when a different event has the same (aggregate_id, version).
        """
        ...

    def extend(self, aggregate_id: str, events: pl.DataFrame, expected_version: int) -> Appended:
        """Add events to one aggregate, behind its version `expected_version` (0: it has none), all or none.

        events: event_type, payload, metadata and timestamp as in EVENTS, in order; a timestamp that is null
        is told by the store's own clock. They take the versions after the expected one. Where those versions
        hold events with the same event_id in their metadata already, nothing is added.

        Raises VersionConflict, which names both versions, where the aggregate has any other version.
        """
        ...


def heads(rows: pl.LazyFrame) -> pl.DataFrame:
    """Count the rows of each aggregate_id, and take the highest of its versions, as HEADS."""
    grouped = rows.group_by("aggregate_id").agg(events=pl.len(), version=pl.col("version").max())
    return grouped.select(pl.col(name).cast(dtype) for name, dtype in HEADS.items()).collect(
        engine="streaming"
    )


def numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """Read the keys of rows of any type: text, and a whole number or null."""
    return rows.select(as_text(rows["aggregate_id"]), whole(rows["version"]))


def summed(found: list[pl.DataFrame]) -> pl.DataFrame:
    """Put the HEADS of parts of a store together."""
    whole = pl.concat([HEADS.to_frame(), *found])
    return whole.group_by("aggregate_id").agg(pl.col("events").sum(), pl.col("version").max())


def part_new(stored: pl.DataFrame, events: pl.DataFrame, zone: str | None = None) -> tuple[pl.DataFrame, int]:
    """Give the events that are not stored yet, and how many are. Stored rows may be of any type, and bad.

    Raises VersionConflict when a stored event has the same key and another type, payload or timestamp, or is
    a row that cannot be read.
    """
    keys = stored.select(as_text(stored["aggregate_id"]), stored["version"].cast(pl.Int64, strict=False))
    known = events.join(keys, on=KEY, how="semi")
    if known.is_empty():
        return events, 0
    readable, _ = check(stored, zone, parse_json=False)
    same = known.join(
        readable, on=["aggregate_id", "version", "event_type", "timestamp", "payload"], how="semi"
    )
    if len(same) < len(known):
        first = known.join(same, on=KEY, how="anti").sort(KEY).row(0, named=True)
        raise conflict(first, len(known) - len(same))
    return events.join(known, on=KEY, how="anti", maintain_order="left"), len(known)


def placed(aggregate_id: str, events: pl.DataFrame, expected_version: int, now: datetime) -> pl.DataFrame:
    """Give events that are to extend an aggregate as EVENTS: with their versions, and a timestamp each."""
    first = expected_version + 1
    return events.select(
        aggregate_id=pl.lit(aggregate_id),
        version=pl.int_range(first, first + len(events), dtype=pl.Int64, eager=True),
        event_type="event_type",
        payload="payload",
        metadata="metadata",
        timestamp=pl.col("timestamp").fill_null(pl.lit(now, dtype=EVENTS["timestamp"])),
    )


def there_already(
    aggregate_id: str, found: int, stored: Sequence[str | None], events: pl.DataFrame, expected_version: int
) -> bool:
    """Tell whether events that are to extend an aggregate are stored already; if not, they may be.

    found: the aggregate's version. stored: the metadata of its events behind the expected version, in order,
    as many as are to be added, or as there are.

    Raises VersionConflict where the aggregate has another version, and these events are not why.
    """
    if found == expected_version:
        return False
    told = [_event_id(text) for text in events["metadata"]]
    if told and None not in told and told == [_event_id(text) for text in stored]:
        return True
    raise out_of_step(aggregate_id, expected_version, found)


def out_of_step(aggregate_id: str, expected_version: int, found: int) -> VersionConflict:
    """Say that an aggregate has another version than its writer saw."""
    return VersionConflict(
        f"{aggregate_id} is at version {found}, and was expected at {expected_version}; nothing was written",
        hint=f"read it again, and append after version {found} what is still right then",
        aggregate_id=aggregate_id,
        expected=expected_version,
        found=found,
    )


def versions_of(rows: pl.DataFrame, aggregate_id: str) -> pl.DataFrame:
    """Give version Int64 and metadata String of one aggregate's rows, which may be of any type, and bad."""
    own = rows.filter(as_text(rows["aggregate_id"]) == aggregate_id)
    told = as_json(own["metadata"]) if "metadata" in own.columns else pl.lit(None, pl.String)
    return own.select(version=own["version"].cast(pl.Int64, strict=False), metadata=told)


def extension(
    aggregate_id: str, stored: pl.DataFrame, events: pl.DataFrame, expected_version: int
) -> pl.DataFrame | Appended:
    """Give the EVENTS that extend an aggregate now, or, where they did so before, what that comes to.

    stored: of the aggregate, as `versions_of` gives them.
    """
    found: int = stored["version"].max() or 0  # type: ignore[assignment]
    theirs = pl.col("version").is_between(expected_version, expected_version + len(events), closed="right")
    behind = stored.filter(theirs).sort("version")["metadata"].to_list()
    if there_already(aggregate_id, found, behind, events, expected_version):
        return Appended(0, len(events), found)
    return placed(aggregate_id, events, expected_version, datetime.now(UTC))


def _event_id(metadata: str | None) -> object:
    try:
        said = json.loads(metadata or "{}")
    except (ValueError, RecursionError):
        return None
    return said.get("event_id") if isinstance(said, dict) else None


def conflict(event: dict, count: int) -> VersionConflict:
    """Say which place is taken."""
    return VersionConflict(
        f"version {event['version']} of {event['aggregate_id']} is already another event; nothing was written"
        + (f" ({count} events of this append clash)" if count > 1 else ""),
        hint="read the aggregate again and append after its last version",
        aggregate_id=event["aggregate_id"],
        version=event["version"],
    )
