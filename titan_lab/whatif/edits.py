"""What a what-if changes: which events are meant, and how an event is rewritten."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from titan_lab.clock import Instant, instant, micros
from titan_lab.draft import as_written
from titan_lab.errors import BranchError, NoSuchColumn, nearest
from titan_lab.event import EVENTS, check, parse_object
from titan_lab.fold import Aggregate
from titan_lab.lists import ranges
from titan_lab.marks import marks
from titan_lab.payload import Record
from titan_lab.scope import scope
from titan_lab.typed import Typed, typed
from titan_lab.whatif.splice import places

Look = Callable[[np.ndarray, list[str]], pl.DataFrame]  # these columns of EVENTS, of these rows


@dataclass(frozen=True)
class Choice:
    """Which events an edit is about: those that pass every filter that is not None."""

    where: pl.Expr | None = None
    aggregate_id: str | Iterable[str] | None = None
    event_type: Any = None
    version: int | Iterable[int] | None = None
    since: Instant | None = None
    until: Instant | None = None

    def __post_init__(self) -> None:
        # Whatever can be gone through only once is needed twice: to choose, and to be told.
        for name in ("aggregate_id", "event_type", "version"):
            value = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str | type):
                object.__setattr__(self, name, tuple(value))
        for one in self.version if isinstance(self.version, tuple) else (self.version,):
            if one is not None and not isinstance(one, int):
                raise BranchError(f"version is {one!r}, no whole number", hint="version=3, or version=[3, 4]")

    def __str__(self) -> str:
        told = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
        return ", ".join(f"{name}={_short(value)}" for name, value in told.items())

    def rows(self, history: Typed, declared: Iterable[str], zone: str | None, look: Look) -> np.ndarray:
        """Find the rows of a history that are meant, ascending.

        Raises BranchError where nothing is asked for or `where` is no Boolean, NoSuchColumn.
        """
        if not str(self):
            raise BranchError(
                "no event is named", hint="say which: event_type='OrderCancelled', or where=pl.col(...) > ..."
            )
        wanted = scope(self.aggregate_id, self.event_type, self.since, self.until, zone)
        passed = np.ones(len(history), dtype=bool)
        if wanted.types is not None:
            known = {*history.kinds, *declared}
            for name in wanted.types:
                if name not in known:
                    raise BranchError(
                        f"no event is of type {name!r}; there are {', '.join(sorted(known)) or 'none'}",
                        hint=nearest(name, known),
                        event_type=name,
                    )
            codes = [history.kinds.index(name) for name in wanted.types if name in history.kinds]
            passed &= np.isin(history.kind, codes) if len(codes) != 1 else history.kind == codes[0]
        if self.version is not None:
            passed &= np.isin(history.version, np.array(self.version))
        if wanted.since is not None:
            passed &= history.timestamp >= micros(wanted.since)
        if wanted.until is not None:
            passed &= history.timestamp <= micros(wanted.until)
        if wanted.aggregates is not None:
            found = places(history.ids, pl.Series(sorted(set(wanted.aggregates)), dtype=pl.String))
            lives = found.number[found.known]
            theirs = ranges(history.starts[lives], (history.ends - history.starts)[lives])
            rows = theirs[passed[theirs]]
        else:
            rows = np.flatnonzero(passed)
        return rows if self.where is None else rows[says_yes(self.where, rows, look)]


def says_yes(where: pl.Expr, rows: np.ndarray, look: Look) -> np.ndarray:
    """Tell for which events an expression over the columns of EVENTS holds; null is no."""
    if not isinstance(where, pl.Expr):
        raise BranchError(
            f"where is a {type(where).__name__}, no polars expression",
            hint="write where=pl.col('timestamp') > pl.datetime(2025, 1, 15, time_zone='UTC')",
        )
    names = known_columns(where)
    # The version comes along for its length, where the expression names no column at all.
    frame = look(rows, names or [name for name in EVENTS if name != "payload"])
    try:
        answer = frame.select(where)
    except pl.exceptions.PolarsError as error:
        raise BranchError(f"where cannot be worked out: {error}", hint="try it on log.read()") from error
    if answer.width != 1 or answer.dtypes[0] != pl.Boolean:
        found = ", ".join(map(str, answer.dtypes)) or "nothing"
        raise BranchError(
            f"where gives {found}, not true or false for each event",
            hint="compare: where=pl.col('version') > 3",
        )
    if len(answer) not in (1, len(frame)):
        raise BranchError(f"where gives {len(answer):,} answers for {len(frame):,} events")
    yes = marks(answer.to_series())
    return np.full(len(frame), yes[0]) if len(yes) == 1 else yes


def known_columns(expression: pl.Expr) -> list[str]:
    """List the columns of EVENTS that an expression reads. Raises NoSuchColumn for another."""
    names = list(dict.fromkeys(expression.meta.root_names()))
    for name in names:
        if name not in EVENTS:
            raise NoSuchColumn(
                f"events have no column {name!r}; they have {', '.join(EVENTS)}",
                hint=nearest(name, EVENTS)
                or f"a payload's field is pl.col('payload').str.json_path_match('$.{name}')",
                column=name,
            )
    return names


# --- rewriting --------------------------------------------------------------------------------------------


def rewritten(
    events: pl.DataFrame, values: Mapping[str, Any], aggregate: type[Aggregate], zone: str | None
) -> pl.DataFrame:
    """Set fields of events: the envelope's by their names in EVENTS, any other in the payload.

    A payload whose field is set is brought to its current shape first, so that a name means what it means
    in the declaration. A value may be a polars expression over the columns of EVENTS.
    """
    for name in ("aggregate_id", "version"):
        if name in values:
            raise BranchError(
                f"an event's {name} is its place, which no edit changes",
                hint="leave the event out with .without(...) and put another in with .insert(...)",
            )
    told = {name: _evaluated(name, value, events) for name, value in values.items()}
    fields = {name: value for name, value in told.items() if name not in EVENTS}
    kinds = [getattr(kind, "event_type", kind) for kind in told.get("event_type", events["event_type"])]
    _check_fields(fields, kinds, aggregate)
    inside = bool(fields) or "event_type" in told or "payload" in told
    rows = []
    for place, (row, kind) in enumerate(zip(events.iter_rows(named=True), kinds, strict=True)):
        metadata = parse_object(row["metadata"]) if row["metadata"] else {}
        stored = {"schema_version": metadata["schema_version"]} if "schema_version" in metadata else {}
        if "metadata" in told:
            metadata = stored | _object(told["metadata"][place], "metadata")
        if inside:
            if "payload" in told:
                payload = _object(told["payload"][place], "payload")
            else:
                old = parse_object(row["payload"])
                payload = aggregate.chain(row["event_type"], old, int(stored.get("schema_version") or 1))
            row["payload"] = as_written(
                payload | {name: value[place] for name, value in fields.items()}, BranchError
            )
            if stored or aggregate.chain.current(kind) > 1:
                metadata["schema_version"] = aggregate.chain.current(kind)
        if inside or "metadata" in told:
            row["metadata"] = as_written(metadata, BranchError) if metadata or row["metadata"] else None
        if "timestamp" in told:
            row["timestamp"] = instant(told["timestamp"][place], zone)
        rows.append(tuple((row | {"event_type": kind}).values()))
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


def _evaluated(name: str, value: Any, events: pl.DataFrame) -> list[Any]:
    if not isinstance(value, pl.Expr):
        return [value] * len(events)
    known_columns(value)
    try:
        found = events.with_columns(value.alias("")).get_column("")
    except pl.exceptions.PolarsError as error:
        raise BranchError(f"the value of {name} cannot be worked out: {error}") from error
    return found.to_list()


def _object(value: Any, name: str) -> dict[str, Any]:
    try:
        found = parse_object(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if isinstance(found, Record):
        found = dataclasses.asdict(found)  # type: ignore[call-overload]
    if not isinstance(found, Mapping):
        raise BranchError(f"{name} is set to {value!r}, which is no JSON object", hint="give a dict")
    return dict(found)


def _check_fields(fields: Iterable[str], kinds: Iterable[str], aggregate: type[Aggregate]) -> None:
    for kind in sorted({kind for kind in kinds if kind in aggregate.events}):
        slots = [slot.name for slot in aggregate.events[kind].shape.slots]
        for name in fields:
            if name not in slots:
                raise NoSuchColumn(
                    f"{kind} has no field {name!r}; it has {', '.join(slots) or 'none'}",
                    hint=nearest(name, [*slots, *EVENTS])
                    or f"choose the events that have it: event_type=..., here {kind} is among them",
                    column=name,
                    event_type=kind,
                )


def decoded(events: pl.DataFrame, aggregate: type[Aggregate], what: str) -> Typed:
    """Check and decode the events of an edit. Raises BranchError for one that is none, or does not fit."""
    refuse(check(events, parse_json=False)[1], what)
    columns, rejected = typed(events, aggregate.events, aggregate.chain)
    refuse(rejected, what)
    return columns


def refuse(rejected: pl.DataFrame, what: str) -> None:
    """Raise BranchError for the first of the rejected rows, if there is one."""
    if rejected.is_empty():
        return
    first = rejected.row(0, named=True)
    more = f" ({len(rejected):,} such events)" if len(rejected) > 1 else ""
    raise BranchError(
        f"{first['aggregate_id']} version {first['version']} would be no event: {first['reason']}"
        f" at {first['path']}{more}; nothing was {what}",
        hint="error.data['rejected'] lists them all",
        rejected=rejected,
    )


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, type) else value.__name__
    text = str(value) if isinstance(value, pl.Expr) else text
    return text if len(text) <= 60 else text[:57] + "..."
