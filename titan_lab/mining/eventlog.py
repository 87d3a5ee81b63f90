"""Event logs for process miners: one case per aggregate, as XES and as CSV."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import quoteattr

import polars as pl

from titan_lab.mining.flat import SLICE, Value, flat, stamp, text_of
from titan_lab.paths import written

CASE, ACTIVITY, TIME = "case:concept:name", "concept:name", "time:timestamp"
LIFECYCLE = "lifecycle:transition"
# XML 1.0 has no way to say these, not even escaped.
UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# What begins a name in XML, and what may follow: https://www.w3.org/TR/xml, productions 4 and 4a.
BEGINS = (
    ":A-Z_a-z\xc0-\xd6\xd8-\xf6\xf8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f"
    "\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff"
)
NO_NAME = re.compile(f"[^{BEGINS}.0-9\xb7\u0300-\u036f\u203f\u2040-]|^(?![{BEGINS}])")
KINDS: dict[type, str] = {str: "string", int: "int", bool: "boolean", Decimal: "float"}

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<log xes.version="1.0" xes.features="" xmlns="http://www.xes-standard.org/">
  <extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
  <extension name="Time" prefix="time" uri="http://www.xes-standard.org/time.xesext"/>
  <extension name="Lifecycle" prefix="lifecycle" uri="http://www.xes-standard.org/lifecycle.xesext"/>
  <global scope="trace">
    <string key="concept:name" value=""/>
  </global>
  <global scope="event">
    <string key="concept:name" value=""/>
    <date key="time:timestamp" value="1970-01-01T00:00:00+00:00"/>
    <string key="lifecycle:transition" value="complete"/>
  </global>
  <classifier name="Event type" keys="concept:name"/>
"""


def write_xes(events: pl.DataFrame, path: str | Path) -> Path:
    """Write EVENTS as XES; ``EventLog.to_xes`` tells how."""
    with written(path) as file:
        file.write(HEAD)
        for aggregate_id, life in groupby(flat(events), key=lambda event: event.aggregate_id):
            file.write(f"  <trace>\n    {_attribute(ACTIVITY, aggregate_id)}\n")
            for event in life:
                lines = [
                    _attribute(ACTIVITY, event.event_type),
                    f'<date key="{TIME}" value="{stamp(event.timestamp)}"/>',
                    _attribute(LIFECYCLE, "complete"),
                    _attribute("version", event.version),
                ]
                taken = {"version"}
                for name, value in event.attributes.items():
                    key = NO_NAME.sub("_", named(name))
                    while key in taken:
                        key += "_"
                    taken.add(key)
                    lines.append(_attribute(key, value))
                file.write("    <event>\n      " + "\n      ".join(lines) + "\n    </event>\n")
            file.write("  </trace>\n")
        file.write("</log>\n")
    return Path(path)


def write_csv(events: pl.DataFrame, path: str | Path) -> Path:
    """Write EVENTS as CSV; ``EventLog.to_csv`` tells how."""
    names = sorted({name for event in flat(events) for name in event.attributes})
    schema = dict.fromkeys([CASE, ACTIVITY, TIME, "version", *map(named, names)], pl.String())
    with written(path) as file:
        file.write(pl.DataFrame(schema=schema).write_csv())
        for part in events.iter_slices(SLICE):
            rows = [
                (
                    event.aggregate_id,
                    event.event_type,
                    stamp(event.timestamp),
                    str(event.version),
                    *(text_of(event.attributes[n]) if n in event.attributes else None for n in names),
                )
                for event in flat(part)
            ]
            file.write(pl.DataFrame(rows, schema=schema, orient="row").write_csv(include_header=False))
    return Path(path)


def named(field: str) -> str:
    """Name a payload's field so that it is none of the log's own: those have a colon, and `version`."""
    return f"payload:{field}" if ":" in field or field == "version" else field


def _attribute(key: str, value: Value) -> str:
    text = UNSPEAKABLE.sub("\ufffd", text_of(value))
    return f'<{KINDS[type(value)]} key="{key}" value={quoteattr(text)}/>'
