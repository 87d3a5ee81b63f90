"""The oracle of the scrubber: its deltas replayed one by one, and read as the dtypes say."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl

from titan_lab.clock import instant


def replayed(data: dict[str, Any], schema: pl.Schema, place: int) -> dict[str, Any]:
    """Give the state after so many events, as ``State.as_dict`` does, from what travels to a browser."""
    state = {}
    for field in data["fields"]:
        value: Any = None
        for number, at in enumerate(field["at"]):
            if at <= place:
                grows = "grows" in field
                value = field["to"][: field["lengths"][number]] if grows else field["to"][number]
        state[field["name"]] = read(value, schema[field["name"]])
    return state


def read(value: Any, dtype: Any) -> Any:
    """Read a value of JSON as one of a dtype."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        return [read(one, dtype.inner) for one in value]
    if isinstance(dtype, pl.Struct):
        return {field.name: read(value[field.name], field.dtype) for field in dtype.fields}
    if isinstance(dtype, pl.Datetime):
        return instant(value)
    if dtype.is_decimal():
        return Decimal(value)
    return dtype.to_python()(value) if dtype.is_numeric() else value
