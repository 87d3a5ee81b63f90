"""What the command line prints: tables for people, JSON and CSV for machines, a bar while something lasts."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from titan_lab.notebook.html import safe, shown
from titan_lab.notebook.masked import masked

if TYPE_CHECKING:
    import polars as pl

SHORT = 12  # text is not cut below this
KEY = 40  # nor is the first column, which says what a row is about, below this
GAP = "  "


def show(frame: pl.DataFrame, form: str, title: str = "", limit: int | None = None) -> None:
    """Print a frame as a table, as a JSON array with one row a line, or as CSV, on standard output.

    limit: print only so many rows; 0 and None print all.
    """
    rows = frame.head(limit) if limit else frame
    if form == "json":
        separator = "["
        for row in rows.iter_rows(named=True):
            print(separator, as_json(row), sep="\n", end="")
            separator = ","
        print("\n]" if len(rows) else "[]")
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(rows.columns)
        writer.writerows([_cell(value) for value in row] for row in rows.iter_rows())
    else:
        table(rows.columns, rows.iter_rows(), title)
        if rows.height < frame.height:
            print(f"{rows.height:,} of {frame.height:,} rows; --limit 0 shows all")


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str = "") -> None:
    """Print rows as a table: numbers to the right, no value on two lines, and no wider than the terminal.

    Text is cut where room is short. A number or an instant that is cut would be a wrong one, so columns that
    find no room at all are left out, and named below the table.
    """
    listed = [list(row) for row in rows]
    room = shutil.get_terminal_size().columns
    drawn: list[_Column] = []
    left_out: list[str] = []
    for place, name in enumerate(columns):
        column = _Column(name, [row[place] for row in listed])
        if not drawn:
            column.least = min(column.width, max(column.least, KEY))
        if drawn and (left_out or sum(one.least + len(GAP) for one in drawn) + column.least > room):
            left_out.append(column.name)
        else:
            drawn.append(column)
    while (over := sum(one.width + len(GAP) for one in drawn) - len(GAP) - room) > 0:
        able = [one for one in drawn if one.width > one.least]
        if not able:
            break
        widest = max(able, key=lambda one: one.width)
        widest.width -= min(over, widest.width - widest.least)
    if title:
        print(bold(title))
    print(bold(GAP.join(column.line(column.name) for column in drawn).rstrip()))
    print(GAP.join("─" * column.width for column in drawn))
    for texts in zip(*(column.texts for column in drawn), strict=True):
        print(GAP.join(column.line(text) for column, text in zip(drawn, texts, strict=True)).rstrip())
    if left_out:
        print(f"no room for {', '.join(left_out)}: widen the terminal, or use --json or --csv")


class _Column:
    """One column of a table: its texts, and how wide it is and could be."""

    def __init__(self, name: str, values: list[Any]) -> None:
        self.name = safe(name)
        self.texts = ["" if value == [] else safe(shown(masked(value, name))) for value in values]
        self.number = bool(values) and all(isinstance(value, int | Decimal | None) for value in values)
        self.width = max(map(_cells, [self.name, *self.texts]))
        is_text = any(isinstance(value, str | list) for value in values)
        self.least = min(self.width, max(_cells(self.name), SHORT)) if is_text else self.width

    def line(self, text: str) -> str:
        if _cells(text) > self.width:
            text = _cut(text, self.width - 1) + "…"
        space = " " * (self.width - _cells(text))
        return space + text if self.number else text + space


def facts(told: Mapping[str, Any], form: str = "table") -> None:
    """Print named values, one a line, or as one JSON object."""
    if form == "json":
        print(as_json(told))
        return
    width = max(map(len, told), default=0) + 2
    room = max(shutil.get_terminal_size().columns - width, SHORT)
    for name, value in told.items():
        first, *more = textwrap.wrap(safe(shown(masked(value, name))), room, break_on_hyphens=False) or [""]
        print(name.ljust(width) + first, *(" " * width + line for line in more), sep="\n")


def say(text: str) -> None:
    """Tell a person something beside the answer, on standard error."""
    print("\n".join(safe(line) for line in text.split("\n")), file=sys.stderr)


def as_json(value: Any) -> str:
    """Write a value as JSON: money as text, instants as ISO-8601 in UTC with a Z, lengths in seconds."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not unicode, default=plain)


def plain(value: Any) -> Any:
    """Turn a value that JSON does not know into one that it does."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def bold(text: str) -> str:
    """Mark text as a heading where a person looks at a terminal that can show it."""
    plainly = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plainly else f"\x1b[1m{text}\x1b[0m"


class Progress:
    """Draw a bar on standard error while there is somebody to see it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        if sys.stderr.isatty() and os.environ.get("TITAN_PROGRESS") != "0":
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[counted]}"),
                TimeElapsedColumn(),
            )
            self.bar = Bars(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=None, counted="")
        return self.step

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, counted=f"{done:,} of {total:,}")


def _cells(text: str) -> int:
    """Count the places a text takes in a terminal: Chinese characters and emoji take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    if text.isascii():
        return text[:width]
    while _cells(text) > width:
        text = text[:-1]
    return text


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return as_json(value)
    return value if value is None or isinstance(value, str | int | float) else plain(value)
