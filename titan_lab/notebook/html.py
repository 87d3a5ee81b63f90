"""Small pieces of HTML for `_repr_html_`: a table, a card, a row of tiles, escaped text.

Standard library only, since every object that shows itself uses it. Four rules hold for all of it:
payload text is untrusted, so every value passes `escape`; what `titan_lab.notebook.masked` hides is masked by
the name of its column or fact; colours are mixed from the text colour around them,
so a light and a dark page both stay readable; and equal values give equal bytes, so nbval can compare
outputs.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import repeat
from typing import Any, Final

from titan_lab.notebook.masked import masked

LONGEST: Final = 80  # characters of one value before it is cut; more of it stays in the cell's title
MOST: Final = 400  # characters of a text that nobody can see the end of: a title, or a note such as an error
LONG: Final = 40  # characters from which on a text may break into lines; ids and instants are shorter

# `color-mix` with currentColor needs no light or dark variant: it follows whatever the page around it uses.
# An id in `:is()` that nothing has lends its weight: JupyterLab's own rules for tables would win otherwise.
_STYLE: Final = """<style>
.titan{font-family:var(--jp-ui-font-family,system-ui,-apple-system,"Segoe UI",sans-serif);font-size:13px;
line-height:1.45;color:var(--jp-ui-font-color1,inherit);margin:.4em 0}
.titan .titan-title{font-weight:600;font-size:1.08em;margin:0 0 .35em}
.titan .titan-note{opacity:.7;margin:.4em 0 0;font-size:.93em}
.titan .titan-scroll{overflow-x:auto;max-width:100%}
.titan-card{border:1px solid color-mix(in srgb,currentColor 18%,transparent);border-radius:8px;
padding:.75em 1em;display:inline-block;max-width:100%;box-sizing:border-box}
:is(.titan,#titan-) table{border-collapse:collapse;border:0;margin:0;font-size:inherit;
font-variant-numeric:tabular-nums}
:is(.titan,#titan-) caption{caption-side:top;text-align:left;font-weight:600;padding:0 0 .4em;color:inherit}
:is(.titan,#titan-) :is(th,td){padding:.28em .8em .28em 0;border:0;text-align:left;vertical-align:top;
background:none;color:inherit;white-space:nowrap}
:is(.titan,#titan-) thead th{font-weight:600;
border-bottom:1px solid color-mix(in srgb,currentColor 35%,transparent)}
:is(.titan,#titan-) tbody tr{background:none}
:is(.titan,#titan-) tbody tr>*{border-bottom:1px solid color-mix(in srgb,currentColor 11%,transparent)}
:is(.titan,#titan-) tbody th{font-weight:400;opacity:.7}
:is(.titan,#titan-) .titan-card tbody tr:last-child>*{border-bottom:0}
:is(.titan,#titan-) .titan-number{text-align:right}
:is(.titan,#titan-) .titan-none{opacity:.45}
:is(.titan,#titan-) .titan-long{white-space:normal;min-width:18em;max-width:34em}
:is(.titan,#titan-) i{display:inline-block;width:.62em;height:.62em;border-radius:2px;margin-right:.4em}
:is(.titan,#titan-) .titan-tiles,.titan-tiles tbody{display:block}
.titan-tiles tr{display:flex;flex-wrap:wrap;gap:.7em}
:is(.titan,#titan-) .titan-tiles .titan-tile{border:1px solid color-mix(in srgb,currentColor 18%,transparent);
border-radius:8px;padding:.6em .85em;flex:1 1 auto;min-width:6em}
.titan-tile br{display:none}
.titan-tile b{display:block;font-size:1.5em;line-height:1.4;font-weight:600;letter-spacing:-.01em}
</style>"""


class Html(str):
    """Text that is HTML already: a notebook draws it when a cell ends with it. Its repr is short: `said`."""

    __slots__ = ("said",)
    said: str

    def __new__(cls, text: str, said: str) -> Html:
        made = super().__new__(cls, text)
        made.said = said
        return made

    def __repr__(self) -> str:
        return f"<{self.said}>"

    def _repr_html_(self) -> str:
        return str(self)


def escape(value: object) -> str:
    """Turn any value into text that is safe inside HTML, in a tag's body and in a quoted attribute."""
    return html.escape(str(value), quote=True)


def json_in_html(value: Any) -> str:
    """Write JSON for a `<script type="application/json">`: nothing in it can end the script."""
    # Inside <script>, only "<" can end it or open a comment; as an escape it is the same JSON.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def safe(text: str) -> str:
    """Write what would break a line, or a terminal would obey, as what it is: it is other people's text.

    >>> safe("green\\x1b[32m\\n")
    'green\\\\x1b[32m\\\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def line(value: object, name: str = "") -> str:
    """Write a value into a repr: as `shown` does, masked by its name, on one line, and cut if it is long."""
    text = safe(shown(masked(value, name)))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def shown(value: object) -> str:
    """Write one value the way the whole package shows it: plain text, not yet escaped.

    Instants are UTC with `Z` and lose trailing zeros of their seconds' fraction; money keeps its digits;
    counts get thousands separators; lists say how many they hold; None is a dash.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value:,f}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, str | date):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={shown(v)}" for k, v in value.items())
    if isinstance(value, Iterable):
        parts = list(value)
        return (
            "–" if not parts else f"{len(parts):,} × {shown(parts[0])}" if len(parts) > 1 else shown(parts[0])
        )
    return str(value)


def table(
    rows: Any,
    columns: Sequence[str] | None = None,
    caption: str = "",
    note: str = "",
    *,
    limit: int = 20,
    marks: Mapping[str, str] | None = None,
) -> Html:
    """Draw rows as an HTML table, numbers to the right, at most `limit` of them.

    rows: a polars frame, or sequences of values, or mappings by column name (a missing key shows as a dash).
    columns: the headings, and for mappings and frames also which columns; may be left out for a frame.
    note: a line under the table; when rows were left off, or there are none, the line says so by itself.
    marks: by value, a CSS colour for a small mark before it, such as that of a status in the figures.
    """
    names, values, total = _grid(rows, columns, limit)
    right = [_all_numbers(row[i] for row in values) for i in range(len(names))]
    head = "".join(f'<th scope="col"{_side(r)}>{escape(n)}</th>' for n, r in zip(names, right, strict=True))
    body = "".join("<tr>" + "".join(map(_cell, row, names, right, repeat(marks))) + "</tr>" for row in values)
    left_off = f"first {len(values):,} of {total:,} rows" if total > len(values) else ""
    under = " · ".join(part for part in (left_off, note) if part) or ("" if total else "no rows")
    return Html(
        f'{_STYLE}<div class="titan"><div class="titan-scroll"><table>'
        + (f"<caption>{escape(_within(caption))}</caption>" if caption else "")
        + f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{_note(under)}</div>",
        f"table of {total:,} rows: {', '.join(names)}",
    )


def card(title: str, facts: Mapping[str, object], note: str = "", *, body: str = "") -> Html:
    """Draw a titled box of facts: what an object is and holds, one line each.

    body: further HTML below the facts, from `table` or another function here. It is not escaped again.
    """
    lines = "".join(f'<tr><th scope="row">{escape(k)}</th>{_cell(v, k)}</tr>' for k, v in facts.items())
    head = f'<div class="titan-title">{escape(_within(title))}</div>'
    return Html(
        f'{_STYLE}<div class="titan"><div class="titan-card">{head}'
        f'<div class="titan-scroll"><table><tbody>{lines}</tbody></table></div>'
        f"{_note(note)}{body}</div></div>",
        f"card: {title}",
    )


def tiles(
    facts: Iterable[tuple[str, object, str]], colours: Mapping[str, str] | None = None, note: str = ""
) -> Html:
    """Draw a row of headline numbers, each with its label above and a remark below: (label, value, remark).

    colours: by label, a CSS colour for a small mark before it, such as that of the status in the figures.
    note: a line under them all.
    """
    told = list(facts)
    # A table's row and line breaks, so that they stay tiles where styles are not let through: in a notebook
    # that is not trusted yet, and on the web pages of code hosts.
    drawn = "".join(
        f'<td class="titan-tile"><span>{_mark((colours or {}).get(label))}{escape(label)}</span><br>'
        f"<b>{escape(shown(masked(value, label)))}</b><br>{_note(remark)}</td>"
        for label, value, remark in told
    )
    said = ", ".join(f"{label} {shown(masked(value, label))}" for label, value, _ in told)
    row = f'<table class="titan-tiles"><tbody><tr>{drawn}</tr></tbody></table>'
    return Html(f'{_STYLE}<div class="titan">{row}{_note(note)}</div>', said)


def _mark(colour: str | None) -> str:
    return f'<i style="background:{escape(colour)}"></i>' if colour else ""


def _grid(rows: Any, columns: Sequence[str] | None, limit: int) -> tuple[list[str], list[Any], int]:
    # Duck-typed: a polars frame is known by its attributes, so that this file imports nothing.
    if hasattr(rows, "iter_rows") and hasattr(rows, "columns"):
        frame = rows.select(list(columns)) if columns is not None else rows
        return list(frame.columns), list(frame.head(limit).iter_rows()), int(frame.height)
    listed = list(rows)
    if columns is None:
        columns = list(listed[0]) if listed and isinstance(listed[0], Mapping) else []
    first = listed[:limit]
    grid = [tuple(r.get(c) for c in columns) if isinstance(r, Mapping) else tuple(r) for r in first]
    return list(columns), grid, len(listed)


def _cell(value: object, name: str, right: bool = False, marks: Mapping[str, str] | None = None) -> str:
    text = shown(masked(value, name))
    if value is None:
        return f"<td{_side(right, 'titan-none')}>{text}</td>"
    if len(text) <= LONGEST:
        long = "titan-long" if len(text) > LONG else ""
        return f"<td{_side(right, long)}>{_mark((marks or {}).get(text))}{escape(text)}</td>"
    cut = escape(text[: LONGEST - 1])
    return f'<td{_side(right, "titan-long")} title="{escape(_within(text))}">{cut}…</td>'


def _side(right: bool, also: str = "") -> str:
    classes = " ".join(name for name in (also, "titan-number" if right else "") if name)
    return f' class="{classes}"' if classes else ""


def _note(text: str) -> str:
    return f'<div class="titan-note">{escape(_within(text))}</div>' if text else ""


def _within(text: str) -> str:
    return text if len(text) <= MOST else f"{text[: MOST - 1]}…"


def _all_numbers(values: Iterable[object]) -> bool:
    seen = [v for v in values if v is not None]
    return bool(seen) and all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in seen)


def _instant(value: datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat(" ")
    text = value.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
    return (text.rstrip("0") if "." in text else text) + "Z"


def _duration(value: timedelta) -> str:
    if value < timedelta(0):
        return "-" + _duration(-value)
    hours, rest = divmod(value.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if value.days:
        return f"{value.days:,} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {seconds} s"
    return f"{seconds + value.microseconds / 1e6:g} s"
