"""Values written as text, a whole column at once, for columns in which values of several dtypes meet."""

from __future__ import annotations

import json

import polars as pl

from titan_lab.lists import lists_apart, lists_together

ISO = "%Y-%m-%dT%H:%M:%S%.6fZ"
ESCAPED = r'["\\\x00-\x1f]'  # what a text cannot hold in JSON as it stands


def as_written(values: pl.Series) -> pl.Series:
    """Write values as text: amounts with their decimals, instants as ISO-8601 with six digits and a ``Z``.

    Lists and structs become JSON, text stays as it is, null stays null.
    """
    if values.null_count() == len(values):  # as most are before a life begins
        return pl.Series(values.name, [None], dtype=pl.String).new_from_index(0, len(values))
    if isinstance(values.dtype, pl.Datetime):
        return values.dt.strftime(ISO)
    if not values.dtype.is_nested():
        return values.cast(pl.String)
    text = as_json(values)
    return text.set(values.is_null(), None) if values.null_count() else text


def as_json(values: pl.Series) -> pl.Series:
    """Write values as JSON without spaces: numbers as they stand, instants as text, null as ``null``."""
    if isinstance(values.dtype, pl.List):
        lengths, elements = lists_apart(values)
        text = _between("[", lists_together(lengths, as_json(elements)).list.join(","), "]")
    elif isinstance(values.dtype, pl.Struct):
        fields = [
            _between(json.dumps(one.name, ensure_ascii=False) + ":", as_json(one))
            for one in values.struct.unnest()
        ]
        text = _between("{", pl.concat_str(fields, separator=","), "}")
    elif values.dtype.is_numeric() or values.dtype == pl.Boolean:
        text = as_written(values)
    else:
        text = _quoted(as_written(values))
    return text.set(values.is_null(), "null") if values.null_count() else text


def _quoted(texts: pl.Series) -> pl.Series:
    quoted, special = _between('"', texts, '"'), texts.str.contains(ESCAPED)
    if not special.any():
        return quoted
    escaped = [json.dumps(text, ensure_ascii=False) for text in texts.filter(special)]
    return quoted.scatter(special.arg_true(), escaped)


def _between(before: str, text: pl.Series | pl.Expr, after: str = "") -> pl.Series:
    return pl.select(pl.concat_str(pl.lit(before), text, pl.lit(after))).to_series()
