"""Columns on disk: written piece after piece, and mapped into memory as if they had been written at once.

A column is taken apart into the buffers that Arrow lays out, each a file that only grows: nothing is encoded,
so nothing is decoded when it is opened, and a page is read when it is first looked at.

    number, moment    its values                     text      16 bytes each, and the long texts behind them
    list              where each ends; its elements  object    its fields, column by column
    null              a bit for each value, from the first null on
"""

from __future__ import annotations

import base64
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from titan_lab.errors import KeepError
from titan_lab.lists import lists_apart
from titan_lab.marks import nulls

LONG = 12  # bytes of text that stand in its 16; a longer one stands elsewhere
NEWEST = pl.CompatLevel.newest()

Layout = dict[str, Any]  # JSON: what was written under which name


class Writer:
    """Write arrays and columns into a folder; what is written twice under one name is put end to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout: Layout = {"arrays": {}, "columns": {}}
        self._rest: dict[str, np.ndarray] = {}  # bits that do not fill a byte yet

    def array(self, name: str, values: np.ndarray) -> None:
        """Append numbers."""
        told = self.layout["arrays"].setdefault(name, [self._file(), values.dtype.str, 0])
        if told[1] != values.dtype.str:
            raise AssertionError(f"{name} was written as {told[1]}, now as {values.dtype.str}")
        told[2] += len(values)
        self._append(told[0], np.ascontiguousarray(values))

    def fork(self, name: str, copy: str) -> None:
        """Let what was written so far stand under a second name, too."""
        file, dtype, length = self.layout["arrays"][name]
        self.layout["arrays"][copy] = [self._file(), dtype, length]
        with told_as_keep_errors(self.folder):
            shutil.copyfile(self.folder / file, self.folder / self.layout["arrays"][copy][0])

    def column(self, name: str, values: pl.Series) -> None:
        """Append values of any dtype that Arrow has. Raises KeepError for another."""
        plain = values.cast(_plain(values.dtype)) if _plain(values.dtype) != values.dtype else values
        told = self.layout["columns"]
        kind = _written(name, plain)
        if name in told and told[name]["type"] != kind:
            raise AssertionError(f"{name} was written as another dtype than {plain.dtype}")
        if name not in told:
            told[name] = {
                "type": kind,
                "cast": plain.dtype != values.dtype,
                "tree": self._node(),
            }
        self._grow(told[name]["tree"], plain.rechunk())

    def close(self) -> Layout:
        """Write what is left, and tell the layout, with the size of every file."""
        for file, rest in self._rest.items():
            self._append(file, np.packbits(rest, bitorder="little"))
        stats = {file.name: file.stat() for file in sorted(self.folder.iterdir())}
        self.layout["files"] = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
        return self.layout

    def _node(self) -> dict[str, Any]:
        return {"length": 0, "there": None, "files": [], "blocks": [], "parts": []}

    def _grow(self, node: dict[str, Any], values: pl.Series) -> None:
        if values.null_count() and node["there"] is None and values.dtype != pl.Null:
            node["there"] = file = self._file()
            self._bits(file, np.ones(node["length"], dtype=bool))
        if node["there"] is not None:
            self._bits(node["there"], ~nulls(values))
        node["length"] += len(values)
        if values.dtype == pl.Null:
            return
        if isinstance(values.dtype, pl.Struct):
            fields = values.struct.unnest().get_columns() if len(values.dtype.fields) else []
            for part, field in zip(self._parts(node, len(fields)), fields, strict=True):
                self._grow(part, field)
        elif isinstance(values.dtype, pl.List):
            lengths, elements = lists_apart(values)
            (part,) = self._parts(node, 1)
            ends = part["length"] + np.cumsum(lengths, dtype=np.int64)
            if not node["files"]:
                ends = np.concatenate([np.zeros(1, dtype=np.int64), ends])
            self._append(self._only_file(node), ends)
            self._grow(part, elements)
        elif values.dtype in (pl.String, pl.Binary):
            self._texts(node, values)
        elif values.dtype == pl.Boolean:
            self._bits(self._only_file(node), values.fill_null(False).to_numpy())
        else:
            array = values.to_arrow(compat_level=NEWEST)
            width = array.type.bit_width // 8
            data = array.buffers()[1]
            start = array.offset * width
            self._append(self._only_file(node), memoryview(data)[start : start + len(array) * width])

    def _texts(self, node: dict[str, Any], values: pl.Series) -> None:
        # By way of the older layout, since a column that was chosen from another holds on to all its texts.
        close = pl.Series(values.to_arrow(compat_level=pl.CompatLevel.oldest()))
        array = close.rechunk().to_arrow(compat_level=NEWEST)
        _, views, *texts = array.buffers()
        start = array.offset * 16
        places = np.frombuffer(views, np.int32)[start // 4 : start // 4 + len(array) * 4].reshape(-1, 4)
        if node["blocks"]:
            places = places.copy()
            places[:, 2] += np.where(places[:, 0] > LONG, np.int32(len(node["blocks"])), 0)
        self._append(self._only_file(node), places)
        for block in texts:
            file = self._file()
            self._append(file, memoryview(block))
            node["blocks"].append(file)

    def _parts(self, node: dict[str, Any], count: int) -> list[dict[str, Any]]:
        if len(node["parts"]) < count:
            node["parts"] = [self._node() for _ in range(count)]
        return node["parts"]

    def _only_file(self, node: dict[str, Any]) -> str:
        if not node["files"]:
            node["files"].append(self._file())
        return node["files"][0]

    def _bits(self, file: str, marks: np.ndarray) -> None:
        rest = self._rest.get(file)
        marks = marks if rest is None else np.concatenate([rest, marks])
        whole = len(marks) // 8 * 8
        self._append(file, np.packbits(marks[:whole], bitorder="little"))
        self._rest[file] = marks[whole:].copy()

    def _file(self) -> str:
        self._count = getattr(self, "_count", 0) + 1
        return f"{self._count:05d}"

    def _append(self, file: str, data: Any) -> None:
        with told_as_keep_errors(self.folder), (self.folder / file).open("ab", buffering=0) as out:
            rest = memoryview(data).cast("B") if len(data) else memoryview(b"")
            while len(rest):
                rest = rest[out.write(rest) :]


class Files:
    """What a Writer wrote, mapped into memory; it may be unlinked meanwhile, and can be read to the end."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self._maps: dict[str, Any] = {}

    def open(self) -> str | None:
        """Map all files, and tell which one is not as it was written, or None."""
        for name, (size, stamp) in self.layout["files"].items():
            try:
                with (self.folder / name).open("rb") as opened:
                    found = os.fstat(opened.fileno())
                    if found.st_size != size:
                        return f"{name} has {found.st_size:,} bytes of {size:,}"
                    if found.st_mtime_ns != stamp:
                        return f"{name} was written to since"
                    # A map outlives its file's name; of an empty file there is none.
                    self._maps[name] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            except OSError as error:
                return f"{name} cannot be read ({error.strerror})"
        return None

    def array(self, name: str) -> np.ndarray:
        """Map an array."""
        file, dtype, length = self.layout["arrays"][name]
        return np.frombuffer(self._maps[file], dtype, length) if length else np.zeros(0, dtype)

    def has(self, name: str) -> bool:
        """Tell whether an array was written."""
        return name in self.layout["arrays"]

    def column(self, name: str, dtype: pl.DataType | None = None) -> pl.Series:
        """Map a column; `dtype` is what it was, where it had to be written as another."""
        told = self.layout["columns"][name]
        kind = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["type"]))).field(0).type
        column = pl.Series(self._read(told["tree"], kind))
        return column.cast(dtype) if told["cast"] and dtype is not None else column

    def _read(self, node: dict[str, Any], kind: Any) -> Any:
        length = node["length"]
        there = None if node["there"] is None else self._buffer(node["there"])
        if pa.types.is_null(kind):
            return pa.nulls(length)
        if pa.types.is_struct(kind):
            parts = [self._read(part, field.type) for part, field in zip(node["parts"], kind, strict=True)]
            return pa.Array.from_buffers(kind, length, [there], children=parts)
        data = [self._buffer(file) for file in (*node["files"], *node["blocks"])] or [pa.py_buffer(b"")]
        if pa.types.is_large_list(kind):
            parts = [self._read(node["parts"][0], kind.value_type)]
            return pa.Array.from_buffers(kind, length, [there, *data], children=parts)
        return pa.Array.from_buffers(kind, length, [there, *data])

    def _buffer(self, file: str) -> Any:
        return pa.py_buffer(self._maps[file])


def _plain(dtype: pl.DataType) -> pl.DataType:
    """Give the dtype in which values of a dtype are written: one that is nothing but buffers."""
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_plain(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _plain(field.dtype) for field in dtype.fields})  # type: ignore[arg-type]
    return dtype


@contextmanager
def told_as_keep_errors(path: Path) -> Iterator[None]:
    """Let what the file system refuses be a KeepError."""
    try:
        yield
    except OSError as error:
        raise KeepError(
            f"the folded history cannot be kept in {path}: {error.strerror or error}",
            hint="check the folder's permissions and the room on its disk, or fold without keep=",
        ) from error


def _written(name: str, values: pl.Series) -> str:
    try:
        kind = values.head(0).to_arrow(compat_level=NEWEST).type
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise KeepError(
            f"{name} is {values.dtype}, which cannot be written: {error}",
            hint="give the column another dtype, or fold without keep=",
        ) from error
    return base64.b64encode(pa.schema([("", kind)]).serialize().to_pybytes()).decode()
