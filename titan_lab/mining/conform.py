"""Conformance: where a history breaks the rules that its aggregate declares, event by event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from titan_lab.clock import instant
from titan_lab.errors import DeclarationError, InstantError
from titan_lab.event import TIMESTAMP, parse_object
from titan_lab.fold import Check
from titan_lab.mining.transitions import illegal_steps
from titan_lab.notebook import figures, html
from titan_lab.parallel import each, joined, spans
from titan_lab.reducers import machine
from titan_lab.rows import PIECE
from titan_lab.states import as_instants
from titan_lab.timeline import Timeline

if TYPE_CHECKING:
    import plotly.graph_objects as go

FINDINGS = pl.Schema(
    {
        "kind": pl.String(),
        "aggregate_id": pl.String(),
        "version": pl.Int64(),
        "event_type": pl.String(),
        "timestamp": TIMESTAMP,
        "detail": pl.String(),
    }
)
TRANSITION, GAP, SNAPSHOT = "illegal transition", "version gap", "snapshot differs from replay"
LONGEST = 120  # characters of a stored value that a detail repeats


@dataclass(frozen=True, repr=False)
class Conformance:
    """What was found, and how often. Made by ``book.conform()``.

    findings: one row per finding, sorted by kind, aggregate_id and version. counts: how many of each kind,
    0 where a rule was looked at and kept; a rule that the aggregate or the store has not is not in it.
    """

    findings: pl.DataFrame
    counts: dict[str, int]
    title: str

    def __len__(self) -> int:
        """Count the findings."""
        return len(self.findings)

    def __repr__(self) -> str:
        told = ", ".join(f"{kind}: {count:,}" for kind, count in self.counts.items())
        return f"<{self.title}: {len(self):,} findings ({told})>"

    def plot(self) -> go.Figure:
        """Draw the rules by how often they are broken; see ``notebook.figures.conformance``."""
        return figures.conformance(self)

    def _repr_html_(self) -> str:
        counts = html.card(self.title, self.counts)
        return counts + html.table(self.findings) if len(self) else str(counts)


def conform(book: Timeline) -> Conformance:
    """Hold a history to its aggregate's rules; ``Book.conform`` tells which."""
    found: dict[str, pl.DataFrame] = {}
    ruled = [
        one
        for one in book.aggregate.reducers.values()
        if isinstance(one, machine) and one.allowed is not None
    ]
    if ruled:
        found[TRANSITION] = pl.concat([_transitions(book, one) for one in ruled])
    found[GAP] = _gaps(book)
    for kind, check in book.aggregate.checks.items():
        found[kind] = _checked(book, kind, check)
    if book.read_snapshots is not None:
        found[SNAPSHOT] = pl.DataFrame(
            list(_snapshots(book, book.read_snapshots())), schema=FINDINGS, orient="row"
        )
    findings = pl.concat(found.values()).sort("kind", "aggregate_id", "version", maintain_order=True)
    return Conformance(
        findings,
        {kind: len(found[kind]) for kind in sorted(found)},
        f"Conformance of {len(book):,} {book.aggregate.__name__} lives, {len(book.typed):,} events",
    )


def _told(book: Timeline, kind: str, rows: np.ndarray, detail: pl.Series) -> pl.DataFrame:
    typed = book.typed
    return pl.DataFrame(
        {
            "kind": pl.Series([kind]).new_from_index(0, len(rows)),
            "aggregate_id": typed.ids.gather(book.rows.owners.take(rows)),
            "version": typed.version.take(rows),
            "event_type": _types(book, rows),
            "timestamp": as_instants(typed.timestamp.take(rows)),
            "detail": detail,
        },
        schema=FINDINGS,
    )


def _types(book: Timeline, rows: np.ndarray) -> pl.Series:
    return pl.Series(book.typed.kinds, dtype=pl.String).gather(book.typed.kind.take(rows).astype(np.uint32))


# --- rules ------------------------------------------------------------------------------------------------


def _transitions(book: Timeline, declared: machine) -> pl.DataFrame:
    """Find the events that lead to a state which may not follow the one before."""
    track = book.tracks[declared.name]
    found = illegal_steps(book.typed, declared, track.rows, book.rows.owners.take(track.rows))
    names = declared.names
    details = [
        _transition(declared.name, before, after, declared.nexts(before))
        for before in (*names, None)
        for after in names
    ]
    texts = pl.Series(details, dtype=pl.String).gather(found.before * len(names) + found.after)
    return _told(book, TRANSITION, found.rows, texts)


def _transition(column: str, before: str | None, after: str, expected: tuple[str, ...]) -> str:
    how = f"begins as {after}" if before is None else f"goes from {before} to {after}"
    return f"{column} {how}, expected {' or '.join(expected) or 'nothing more'}"


def _gaps(book: Timeline) -> pl.DataFrame:
    """Find the events whose version is not the one after their predecessor's."""
    version = book.typed.version
    before = np.append(0, version)[: len(version)]
    before[book.typed.starts] = 0
    rows = np.flatnonzero(version != before + 1)
    told = pl.DataFrame(
        {
            "id": book.typed.ids.gather(book.rows.owners.take(rows)),
            "version": version.take(rows),
            "before": before.take(rows),
        }
    )
    begins = pl.format("begins with version {}, expected 1", "version")
    follows = pl.format("version {} follows {}, expected {}", "version", "before", pl.col("before") + 1)
    refused = (
        told.with_row_index("row")
        .join(book.rejected.select("aggregate_id", missing="version"), left_on="id", right_on="aggregate_id")
        .filter((pl.col("before") < pl.col("missing")) & (pl.col("missing") < pl.col("version")))
        .group_by("row")
        .agg(pl.col("missing").n_unique())
    )
    detail = (
        told.with_row_index("row")
        .join(refused, on="row", how="left", maintain_order="left")
        .select(
            pl.when(pl.col("before") == 0).then(begins).otherwise(follows)
            + pl.when(pl.col("missing") > 0)
            .then(pl.format(" ({} of those between are in .rejected)", "missing"))
            .otherwise(pl.lit(""))
        )
        .to_series()
    )
    return _told(book, GAP, rows, detail)


def _checked(book: Timeline, kind: str, check: Check) -> pl.DataFrame:
    """Evaluate an aggregate's own check after every event that sets a column which the check reads."""
    columns = [name for name in check.reads if name in book.tracks]
    set_by = [book.tracks[name].rows for name in columns if hasattr(book.tracks[name], "rows")]
    touched = np.full(len(book.typed), not set_by)
    for rows in set_by:
        touched[rows] = True
    places = np.flatnonzero(touched)
    names = list(dict.fromkeys(["aggregate_id", "version", *columns]))

    def look(piece: slice) -> tuple[np.ndarray, pl.Series]:
        rows = places[piece]
        states = book.frame(rows, book.rows.owners.take(rows), names, book.rows.counted("prefix"))
        states = states.with_columns(
            event_type=_types(book, rows), timestamp=as_instants(book.typed.timestamp.take(rows))
        )
        try:
            wrong = states.select(wrong=check.wrong)["wrong"]
            if wrong.dtype != pl.Boolean or len(wrong) != len(states):
                raise DeclarationError(
                    f"the check {kind!r} gives {len(wrong)} values of {wrong.dtype} for {len(states)} states",
                    hint="write an expression that is true of each state that is wrong",
                )
            some = np.flatnonzero(wrong.fill_null(False).to_numpy())
            return rows[some], states[some].select(detail=check.detail)["detail"].cast(pl.String)
        except pl.exceptions.PolarsError as error:
            raise DeclarationError(f"the check {kind!r} failed: {error}") from error

    found = each(look, spans(len(places), PIECE), len(places))
    details = pl.concat([pl.Series("detail", [], pl.String), *(detail for _, detail in found)])
    return _told(book, kind, joined([rows for rows, _ in found], np.intp), details)


# --- snapshots --------------------------------------------------------------------------------------------


def _snapshots(book: Timeline, stored: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Compare each stored state, field by field, with the replay at its version; give FINDINGS rows."""
    stored = stored.sort("aggregate_id", "version", maintain_order=True)
    owners, rows = book.rows.index.find(stored["aggregate_id"]), np.full(len(stored), -1)
    version, bounds = book.typed.version, book.typed.bounds
    for place, (owner, wanted) in enumerate(zip(owners, stored["version"], strict=True)):
        if owner >= 0 and wanted is not None:
            start, end = bounds[owner], bounds[owner + 1]
            row = start + int(np.searchsorted(version[start:end], wanted))
            if row < end and version[row] == wanted:
                rows[place] = row
    there = np.flatnonzero(rows >= 0)
    names = ["aggregate_id", "version", *book.aggregate.reducers]
    replays: dict[int, dict[str, Any]] = {}
    for place, (id_, wanted, text) in enumerate(
        stored.select("aggregate_id", "version", "state").iter_rows()
    ):
        if place % PIECE == 0:
            some = there[(there >= place) & (there < place + PIECE)]
            frame = book.frame(rows[some], owners[some], names, book.rows.counted("prefix")).with_columns(
                _event_type=_types(book, rows[some]),
                _timestamp=as_instants(book.typed.timestamp.take(rows[some])),
            )
            replays = dict(zip(some.tolist(), frame.iter_rows(named=True), strict=True))
        replay = replays.get(place)
        if replay is None:
            known = f"up to {version[bounds[owners[place] + 1] - 1]}" if owners[place] >= 0 else "none at all"
            yield SNAPSHOT, id_, wanted, None, None, f"is of version {wanted}, the log has {known}"
            continue
        event = replay.pop("_event_type"), replay.pop("_timestamp")
        for detail in _differences(text, replay, book.zone):
            yield SNAPSHOT, id_, wanted, *event, detail


def _differences(text: str | None, replay: dict[str, Any], zone: str | None) -> Iterator[str]:
    try:
        state = parse_object(text) if text is not None else None
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        yield "its state is no JSON object"
        return
    fields = {_plain(name): value for name, value in state.items()}
    compared = [name for name in replay if _plain(name) in fields]
    if not compared:
        yield f"its state has none of the columns {', '.join(replay)}"
    for name in compared:
        found = fields[_plain(name)]
        if not _same(found, replay[name], zone):
            yield f"{name} is {_short(found)}, the replay gives {_short(replay[name])}"


def _plain(name: str) -> str:
    """Let ``UserID``, as another language writes it, be ``user_id``."""
    return name.replace("_", "").lower()


def _same(stored: Any, value: Any, zone: str | None) -> bool:
    """Tell whether a value as JSON holds it means the one that the replay gives."""
    if stored is None or value is None:
        return stored is value or (stored is None and value == [])
    if isinstance(value, dict):
        if not isinstance(stored, dict):
            return False
        fields = {_plain(name): one for name, one in stored.items()}
        return all(_same(fields.get(_plain(name)), one, zone) for name, one in value.items())
    if isinstance(value, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(value)
            and all(_same(one, other, zone) for one, other in zip(stored, value, strict=True))
        )
    if isinstance(stored, bool) or isinstance(value, bool):
        return stored is value
    try:
        if isinstance(value, Decimal | int):
            return isinstance(stored, str | int | Decimal) and Decimal(stored) == value
        if isinstance(value, float):
            return isinstance(stored, str | int | Decimal) and float(stored) == value
        if isinstance(value, datetime):
            return isinstance(stored, str) and instant(stored, zone) == value
    except (InstantError, InvalidOperation, ValueError, OverflowError):
        return False
    return str(stored) == value if isinstance(stored, str | int) else bool(stored == value)


def _short(value: Any) -> str:
    if isinstance(value, Decimal) and abs(value.adjusted()) > LONGEST:
        text = str(value)  # 1e999999 has a million digits
    elif isinstance(value, list | dict):
        text = json.dumps(value, default=_short, ensure_ascii=False, sort_keys=True)
    else:
        text = html.shown(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
