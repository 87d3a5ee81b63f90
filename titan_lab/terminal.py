"""What the command line prints: tables for people, JSON and CSV for machines."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from titan_lab.notebook.html import shown

if TYPE_CHECKING:
    import polars as pl

SHORT = 12  # text is not cut below this
GAP = "   "


def show(frame: pl.DataFrame, form: str, title: str = "", limit: int | None = None) -> None:
    """Print a frame as a table, or whole as one JSON array or as CSV, on standard output."""
    if form == "json":
        rows = [{name: plain(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]
        print(json.dumps(rows, ensure_ascii=False, indent=None))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(frame.columns)
        writer.writerows([_cell(plain(value)) for value in row] for row in frame.iter_rows())
    else:
        table(frame.columns, frame.head(limit).iter_rows() if limit else frame.iter_rows(), title)
        if limit and frame.height > limit:
            print(f"{limit:,} of {frame.height:,} rows; --limit 0 shows all, --json and --csv always do")


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
        if left_out or sum(one.least + len(GAP) for one in drawn) + column.least > room:
            left_out.append(name)
        else:
            drawn.append(column)
    while (over := sum(one.width + len(GAP) for one in drawn) - len(GAP) - room) > 0:
        widest = max((one for one in drawn if one.width > one.least), key=lambda one: one.width)
        widest.width -= min(over, widest.width - widest.least)
    if title:
        print(title)
    print(GAP.join(column.line(column.name) for column in drawn).rstrip())
    print(GAP.join("─" * column.width for column in drawn))
    for texts in zip(*(column.texts for column in drawn), strict=True):
        print(GAP.join(column.line(text) for column, text in zip(drawn, texts, strict=True)).rstrip())
    if left_out:
        print(f"no room for {', '.join(left_out)}: widen the terminal, or use --json or --csv")


class _Column:
    """One column of a table: its texts, and how wide it is and could be."""

    def __init__(self, name: str, values: list[Any]) -> None:
        self.name = name
        self.texts = [shown(value) for value in values]
        self.number = bool(values) and all(isinstance(value, int | Decimal | None) for value in values)
        self.width = max(map(len, [name, *self.texts]))
        is_text = any(isinstance(value, str | list) for value in values)
        self.least = min(self.width, max(len(name), SHORT)) if is_text else self.width

    def line(self, text: str) -> str:
        text = text if len(text) <= self.width else text[: self.width - 1] + "…"
        return text.rjust(self.width) if self.number else text.ljust(self.width)


def facts(told: Mapping[str, Any], form: str = "table") -> None:
    """Print named values, one a line, or as one JSON object."""
    if form == "json":
        print(json.dumps({name: plain(value) for name, value in told.items()}, ensure_ascii=False))
        return
    width = max(map(len, told), default=0)
    for name, value in told.items():
        print(f"{name:<{width}}  {shown(value)}")


def plain(value: Any) -> Any:
    """Turn a value into what JSON can say: money as text, instants as ISO-8601 in UTC with a Z."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return value


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
