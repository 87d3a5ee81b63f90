"""Payload texts to columns: decoded, upcast and checked at once, and the doubtful ones one by one."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from titan_lab.event import NO_OBJECT, parse_object
from titan_lab.jsontext import PIECE, decode, in_pieces, not_objects
from titan_lab.kinds import Misfit
from titan_lab.marks import marks
from titan_lab.shapes import Nested
from titan_lab.upcast import Upcast

FEW = 8  # payloads that are read one by one from the start: columns cost as much for one as for a hundred
NOT_JSON = Misfit("$", f"payload {NO_OBJECT}")
BOOLEAN = r"[:\[,]\s*(?:true|false)"
HALF = r"\\u[dD][89abAB][0-9a-fA-F]{2}(?:[^\\]|\\[^u])"  # the first half of a character, without its second


@dataclass
class Decoded:
    """Payloads as columns: `frame` holds the good ones, `good` marks them, `faults` names the others.

    filled: by the name of a `fill` step, into which of the good ones it wrote something.
    """

    frame: pl.DataFrame
    good: np.ndarray
    faults: list[tuple[int, Misfit]]
    filled: dict[str, np.ndarray] = field(default_factory=dict)


def decode_payloads(
    texts: pl.Series, shape: Nested, steps: list[Upcast], rows: np.ndarray | None = None
) -> Decoded:
    """Decode payload texts (or some rows of them) of one event type and schema_version, through its steps."""
    pieces = in_pieces(texts, lambda piece: _decode_piece(piece, shape, steps), rows)
    if not pieces:
        return Decoded(pl.DataFrame(schema=shape.dtype.to_schema()), np.zeros(0, dtype=bool), [])
    faults = [
        (place + number * PIECE, fault)
        for number, piece in enumerate(pieces)
        for place, fault in piece.faults
    ]
    return Decoded(
        pl.concat([piece.frame for piece in pieces]),
        np.concatenate([piece.good for piece in pieces]),
        faults,
        {name: np.concatenate([piece.filled[name] for piece in pieces]) for name in pieces[0].filled},
    )


def read_payload(text: str, shape: Nested, steps: list[Upcast], filled: set[str] | None = None) -> Any:
    """Read one payload as the specification says: parse, upcast, check. Raises Misfit.

    The names of `fill` steps that wrote something are added to `filled`.
    """
    try:
        payload = parse_object(text)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise NOT_JSON
    return read_object(payload, shape, steps, filled)


def read_object(
    payload: dict[str, Any], shape: Nested, steps: list[Upcast], filled: set[str] | None = None
) -> Any:
    """Read one payload that is parsed already, as ``read_payload`` does."""
    upcast = payload
    try:
        for step in steps:
            if filled is None or step.versions is not None:
                upcast = step(upcast)
                continue
            before = copy.deepcopy(upcast)
            upcast = step(upcast)
            if isinstance(upcast, dict) and any(before.get(n) != upcast.get(n) for n in step.writes):
                filled.add(step.name)
    except Exception as error:
        shape.read(payload, "$")  # names the field that the step stumbled over, where that is what is wrong
        raise Misfit("$", f"upcast {step.name} failed with {type(error).__name__}: {error}") from error
    return shape.read(upcast, "$")


def _decode_piece(texts: pl.Series, shape: Nested, steps: list[Upcast]) -> Decoded:
    if not shape.slots:
        broken = not_objects(texts)
        return Decoded(
            pl.DataFrame(height=int((~broken).sum())),
            ~broken,
            [(int(p), NOT_JSON) for p in np.flatnonzero(broken)],
        )
    filled = {step.name: np.zeros(len(texts), dtype=bool) for step in steps if step.versions is None}
    if len(texts) <= FEW:
        frame, doubtful = pl.DataFrame(schema=shape.dtype.to_schema()), np.ones(len(texts), dtype=bool)
    else:
        frame, doubtful = _decode_columns(texts, shape, steps, filled)
    if not doubtful.any():
        return Decoded(frame, ~doubtful, [], filled)
    good, faults, second = np.ones(len(texts), dtype=bool), [], []
    for place in np.flatnonzero(doubtful):
        wrote: set[str] = set()
        try:
            second.append((place, dataclasses.asdict(read_payload(texts[int(place)], shape, steps, wrote))))
        except Misfit as fault:
            good[place] = False
            faults.append((int(place), fault))
        for name, rows in filled.items():
            rows[place] = name in wrote
    sure, filled = ~doubtful, {name: rows[good] for name, rows in filled.items()}
    read_again = pl.DataFrame([fields for _, fields in second], schema=frame.schema)
    if not sure.any():
        return Decoded(read_again, good, faults, filled)
    order = np.argsort(np.concatenate([np.flatnonzero(sure), [place for place, _ in second]]), kind="stable")
    frame = pl.concat([frame.filter(sure), read_again]).select(pl.all().gather(order))
    return Decoded(frame, good, faults, filled)


def _decode_columns(
    texts: pl.Series, shape: Nested, steps: list[Upcast], filled: dict[str, np.ndarray]
) -> tuple[pl.DataFrame, np.ndarray]:
    """Decode, upcast and check all at once, and mark the rows that are to be read again, one by one."""
    structs, broken = decode(texts, shape.fast_wire, shape.wire_text)
    frame, doubtful = shape.frame(structs)
    doubtful |= broken | _misread(texts, shape)
    for step in steps:
        if step.twin is None:
            doubtful[:] = True
            break
        before, frame = frame, step.twin(frame)
        if step.name in filled and frame is not before:
            filled[step.name] = _differing(before, frame, step.writes)
    doubtful |= shape.missing_in(frame)
    return shape.with_defaults(frame), doubtful


def _differing(before: pl.DataFrame, after: pl.DataFrame, names: list[str]) -> np.ndarray:
    """Mark the rows in which one of these columns is another afterwards."""
    found = np.zeros(before.height, dtype=bool)
    for name in names:
        if name in before.columns:
            found |= marks(before[name].ne_missing(after[name]))
    return found


def _misread(texts: pl.Series, shape: Nested) -> np.ndarray:
    """Mark texts that the decoder may take for what they are not.

    It takes true for 1, half a character for a zero byte, and a lone value for an array of one.
    """
    signs = "true|false|" if shape.fast_wire != shape.wire_text else ""
    suspects = marks(texts.str.contains(rf"{signs}\\u[dD]"))
    some = np.flatnonzero(suspects)
    if len(some):
        suspects[some] = texts.gather(some).str.contains(f"{BOOLEAN}|{HALF}").to_numpy()
    if shape.lone is not None:
        suspects = suspects | marks(texts.str.contains(shape.lone))
    return suspects
