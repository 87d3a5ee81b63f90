"""Objects and arrays of kinds: what a payload's declaration is made of. See kinds.py for the two readings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from titan_lab.kinds import Kind, Misfit
from titan_lab.lists import lists_apart, lists_together
from titan_lab.marks import nulls


@dataclass(frozen=True)
class Slot:
    """One field of a Record: its name, its kind, and what stands there when nothing does.

    A null counts as absent. `default` is only used when `required` is False.
    """

    name: str
    kind: Kind
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Nested(Kind):
    """An object with declared fields; fields nobody declared are passed over."""

    slots: tuple[Slot, ...]
    make: Any = dict  # what `read` builds from the fields
    expected = "an object"

    @cached_property
    def dtype(self) -> pl.Struct:  # type: ignore[override]
        return pl.Struct({slot.name: slot.kind.dtype for slot in self.slots})

    @cached_property
    def wire(self) -> pl.Struct:  # type: ignore[override]
        # A struct without fields decodes nothing, so one that is never there stands in.
        return pl.Struct({slot.name: slot.kind.wire for slot in self.slots} or {"": pl.Boolean})

    @cached_property
    def wire_text(self) -> pl.Struct:  # type: ignore[override]
        return pl.Struct({slot.name: slot.kind.wire_text for slot in self.slots} or {"": pl.Boolean})

    @cached_property
    def fast_wire(self) -> pl.Struct:
        """Give the fast wire, unless a boolean is declared: then true as a number would not stand out."""
        return self.wire_text if "Boolean" in repr(self.dtype) else self.wire

    @cached_property
    def lone(self) -> str | None:
        """Give a pattern of texts in which a single value may stand where an array of such is declared."""
        found = [name for name, kind in self._fields() if isinstance(kind, Many) and kind.wraps]
        names = "|".join(re.escape(json.dumps(name)) for name in found)
        # An array of arrays hides what stands in it from so plain a look.
        deep = any(isinstance(kind, Many) and isinstance(kind.of, Many) for _, kind in self._fields())
        return ".*" if deep else rf"(?:{names})\s*:\s*[^\s\[n]" if found else None

    def _fields(self) -> Iterator[tuple[str, Kind]]:
        """Walk through all fields, and those of the objects in them."""
        for slot in self.slots:
            yield slot.name, slot.kind
            inside = slot.kind
            while isinstance(inside, Many):
                inside = inside.of
            if isinstance(inside, Nested):
                yield from inside._fields()

    def read(self, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise self.misfit(value, path)
        fields = {}
        for slot in self.slots:
            found = value.get(slot.name)
            if found is not None:
                fields[slot.name] = slot.kind.read(found, f"{path}.{slot.name}")
            elif slot.required:
                raise Misfit(f"{path}.{slot.name}", f"required field missing, expected {slot.kind.expected}")
            else:
                fields[slot.name] = slot.default
        return self.make(**fields)

    def build(self, value: Any) -> Any:
        return (
            None if value is None else self.make(**{s.name: s.kind.build(value[s.name]) for s in self.slots})
        )

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        frame, doubtful = self.frame(column)
        return _with_nulls_of(column, frame.to_struct(column.name)), doubtful

    def frame(self, column: pl.Series) -> tuple[pl.DataFrame, np.ndarray]:
        """Read a column of objects as one column for each field."""
        doubtful = np.zeros(len(column), dtype=bool)
        fields = []
        wire = column.struct.unnest() if self.slots else None
        for slot in self.slots:
            stored = wire[slot.name]  # type: ignore[index]
            if stored.null_count() == len(stored):
                fields.append(pl.Series(slot.name, [None], slot.kind.dtype).new_from_index(0, len(stored)))
                continue
            field, doubts = slot.kind.columns(stored)
            fields.append(field.alias(slot.name))
            doubtful |= doubts
        return pl.DataFrame(fields) if fields else pl.DataFrame(height=len(column)), doubtful

    def missing(self, column: pl.Series) -> np.ndarray:
        there = ~nulls(column)
        return (
            self.missing_in(column.struct.unnest() if self.slots else pl.DataFrame(height=len(column)))
            & there
        )

    def missing_in(self, frame: pl.DataFrame) -> np.ndarray:
        """Tell which rows of the fields' columns lack something required."""
        missing = np.zeros(frame.height, dtype=bool)
        for slot in self.slots:
            field = frame[slot.name]
            if slot.required:
                missing |= nulls(field)
            missing |= slot.kind.missing(field)
        return missing

    def with_defaults(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Fill the fields' defaults where nothing stands."""
        defaults = {s.name: s.default for s in self.slots if not s.required and s.default is not None}
        if not defaults:
            return frame
        return frame.with_columns(
            pl.col(n).fill_null(pl.lit(v, dtype=frame.schema[n])) for n, v in defaults.items()
        )


@dataclass(frozen=True)
class Many(Kind):
    """An array whose elements are all of one kind."""

    of: Kind
    expected = "an array"

    @property
    def wraps(self) -> bool:
        """Tell whether the JSON decoder takes one element without brackets for an array of one."""
        return not isinstance(self.of, Nested)

    @cached_property
    def dtype(self) -> pl.List:  # type: ignore[override]
        return pl.List(self.of.dtype)

    @cached_property
    def wire(self) -> pl.List:  # type: ignore[override]
        return pl.List(self.of.wire)

    @cached_property
    def wire_text(self) -> pl.List:  # type: ignore[override]
        return pl.List(self.of.wire_text)

    def read(self, value: Any, path: str) -> list:
        if not isinstance(value, list):
            raise self.misfit(value, path)
        elements = []
        for place, element in enumerate(value):
            if element is None:
                raise self.of.misfit(element, f"{path}[{place}]")
            elements.append(self.of.read(element, f"{path}[{place}]"))
        return elements

    def build(self, value: Any) -> Any:
        return None if value is None else [self.of.build(element) for element in value]

    def columns(self, column: pl.Series) -> tuple[pl.Series, np.ndarray]:
        lengths, elements = lists_apart(column)
        read, doubts = self.of.columns(elements)
        doubts = doubts | nulls(elements)
        return lists_together(lengths, read, column.is_null()), _any_in_list(doubts, lengths)

    def missing(self, column: pl.Series) -> np.ndarray:
        lengths, elements = lists_apart(column)
        return _any_in_list(self.of.missing(elements), lengths)


def _any_in_list(marks: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    found = np.zeros(len(lengths), dtype=bool)
    if marks.any():
        found[np.repeat(np.arange(len(lengths)), lengths)[marks]] = True
    return found


def _with_nulls_of(column: pl.Series, read: pl.Series) -> pl.Series:
    return read.set(column.is_null(), None) if column.null_count() else read
