"""States as they travel to a browser: once, as JSON, and only what changed.

A column of the state is a list of places and one of values: the value after p events is the one of the last
place that is not above p, place 0 being before the first event. A column that only ever grows, such as one of
`collect`, is the list in the end and how long it was at each place. Amounts and instants are text, so that a
browser, which has floats only, shows them exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

from titan_lab.clock import Instant, from_micros, iso, micros
from titan_lab.fold import Aggregate
from titan_lab.grid import STEPS, step_for
from titan_lab.notebook.figures import colour_of
from titan_lab.notebook.html import Html, shown, table
from titan_lab.notebook.masked import masked, unmasked_now
from titan_lab.parallel import spans
from titan_lab.reducers import collect, key, machine
from titan_lab.timeline import Timeline

EXACT: Final = 2**53  # a browser's numbers are whole up to here
AT_ONCE: Final = 256  # states of which lists are held at a time: a list that grows is long in each of them
EFFECTS: Final = 20  # of one event that are named

States = Callable[[slice, list[str]], pl.DataFrame]  # the states after some of a life's events
Events = pl.DataFrame  # version, event_type, timestamp, counted_from, payload and metadata


def life(
    aggregate: type[Aggregate], aggregate_id: str, events: Events, states: States, tree: pl.DataFrame
) -> dict[str, Any]:
    """Write down one life: its events, the states between them, and the causes, as a Scrubber shows them.

    events: one row for each event in order of version, payload null where it is not known. states: gives the
    columns asked for after some of them. tree: the frame of ``Story.trace``.
    """
    count, kinds = len(events), events["event_type"].unique().sort().to_list()
    recorded, counted = (events[name].to_physical().to_list() for name in ("timestamp", "counted_from"))
    return {
        "what": "life",
        "title": f"{aggregate.__name__} {aggregate_id}",
        "unmasked": unmasked_now(),
        "version": events["version"].to_list(),
        "types": kinds,
        "type": events["event_type"]
        .replace_strict(kinds, range(len(kinds)), return_dtype=pl.Int64)
        .to_list(),
        "recorded": recorded,
        "counted": None if counted == recorded else counted,
        "payload": [_read(text) for text in events["payload"]],
        "metadata": [_read(text) for text in events["metadata"]],
        "causes": _causes(aggregate_id, events["version"].to_list(), tree),
        "fields": [
            _field(aggregate, name, count, states)
            for name, reducer in aggregate.reducers.items()
            if not isinstance(reducer, key)
        ],
    }


def grid(
    book: Timeline,
    measure: str | None,
    by: str,
    step: str | timedelta | None,
    since: Instant | None,
    until: Instant | None,
) -> tuple[dict[str, Any], Html]:
    """Write down counts and sums over time as a Scrubber shows them, and the last of them as a table.

    See ``Book.scrub``. Without `since` and `until`, the grid begins at the whole step or day before the
    history does, and ends at the one after.
    """
    ends = zip((since, until), book.span or (0, 0), strict=True)
    start, end = (moment if given is None else micros(given, book.zone) for given, moment in ends)
    step = step or step_for(start, end)
    grain = min(STEPS.get(step, STEPS["1d"]), STEPS["1d"]) if isinstance(step, str) else STEPS["1d"]
    begin = from_micros(start // grain * grain) if since is None else since
    stop = from_micros(-(-end // grain) * grain) if until is None else until
    found = book.every(step, begin, stop, by=by, measure=measure)
    instants = found["instant"].unique(maintain_order=True)
    groups = found[by].unique(maintain_order=True)
    names = [None if name is None else shown(masked(name, by)) for name in groups]
    colours = colour_of(name for name in names if name)
    title = f"All of {book.aggregate.__name__} by {by}"

    def parted(column: str, write: Callable[[Any], Any]) -> list[list[Any]]:
        values = [write(value) for value in found[column]]
        return [values[place :: len(groups)] for place in range(len(groups))]

    data = {
        "what": "book",
        "title": title,
        "by": by,
        "measure": measure,
        "instants": instants.to_physical().to_list(),
        "groups": names,
        "colours": [colours.get(name or "", "#8b98a9") for name in names],
        "counts": parted("count", int),
        "sums": None if measure is None else parted(measure, plain),
    }
    last = found.tail(len(groups)).drop("instant")
    at = f"at {shown(instants[-1])}, the last of {len(instants):,} instants" if len(instants) else ""
    return data, table(last, caption=title, note=at)


def plain(value: Any) -> Any:
    """Write a value of a state as JSON has it; the reader knows its dtype.

    >>> plain([{"price": Decimal("1.10"), "quantity": 2}])
    [{'price': '1.10', 'quantity': 2}]
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < EXACT else str(value)
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(one) for one in value]
    return shown(value)


def _field(aggregate: type[Aggregate], name: str, count: int, states: States) -> dict[str, Any]:
    reducer = aggregate.reducers[name]
    field: dict[str, Any] = {"name": name, "kind": _kind(aggregate, name)}
    if isinstance(reducer, collect):
        at, lengths = [0], [0]
        for piece in spans(max(count, 1), AT_ONCE):
            for place, length in enumerate(states(piece, [name])[name].list.len(), start=piece.start + 1):
                if length != lengths[-1]:
                    at.append(place)
                    lengths.append(length)
        last = states(slice(count - 1, count), [name])[name].to_list()
        return field | {"grows": True, "at": at, "lengths": lengths, "to": _shown(last[0], name)}
    before = reducer.initial
    at, to = [0], [_shown(before, name)]
    size = AT_ONCE if reducer.dtype.is_nested() else count
    for piece in spans(max(count, 1), size):
        for place, value in enumerate(states(piece, [name])[name].to_list(), start=piece.start + 1):
            if value != before:
                at.append(place)
                to.append(_shown(value, name))
                before = value
    if field["kind"] == "status":
        field["colours"] = colour_of(value for value in to if value)
    return field | {"at": at, "to": to}


def _kind(aggregate: type[Aggregate], name: str) -> str:
    dtype = aggregate.reducers[name].dtype
    if isinstance(aggregate.reducers[name], machine):
        first = next(n for n, one in aggregate.reducers.items() if isinstance(one, machine))
        return "status" if name == first else "text"
    if isinstance(dtype, pl.Datetime):
        return "instant"
    return "amount" if dtype.is_decimal() else "count" if dtype.is_integer() else "text"


def _shown(value: Any, name: str) -> Any:
    return masked(plain(value), name)


def _read(text: str | None) -> Any:
    """Read a payload for showing: numbers stay as they are written, but for those a browser has as well."""
    if text is None:
        return None
    return masked(json.loads(text, parse_float=str, parse_constant=str, parse_int=_whole))


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) < len(str(EXACT)) else digits


def _causes(aggregate_id: str, versions: Sequence[int], tree: pl.DataFrame) -> dict[str, list[Any]]:
    """Name for each event what caused it and what it led to: a place within this life, or a text."""
    place = {version: number for number, version in enumerate(versions, start=1)}
    found: dict[str, list[Any]] = {}
    above: list[int | str] = []  # the event last seen at each depth; a parent comes before its children
    names = ["depth", "cause", "aggregate_id", "version", "event_type"]
    for depth, cause, owner, version, kind in tree.select(names).iter_rows():
        own = owner == aggregate_id
        me: int | str = place[version] if own else f"{kind} of {owner} ({version})" if kind else cause
        parent = above[depth - 1] if depth else None
        above[depth:] = [me]
        if parent is None:
            continue
        if own:
            found.setdefault(str(place[version] - 1), [None, []])[0] = parent
        if isinstance(parent, int):
            effects = found.setdefault(str(parent - 1), [None, []])[1]
            if len(effects) < EFFECTS:
                effects.append(me)
    return found
