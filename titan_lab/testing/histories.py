"""Random histories: several aggregates whose clocks step back, tie and stand still.

Whatever an application could have written is drawn: unknown event types, both schema versions, amounts as
numbers and as text, fields that are absent or null.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from titan_lab.event import EVENTS

START = datetime(2025, 1, 1, tzinfo=UTC)

cents = st.integers(min_value=-(10**9), max_value=10**9) | st.sampled_from([0, 1, 10, 99, 10**12])
texts = st.sampled_from(["", "tea", "it is true", "12", "007", "1e5", "<script>", "é😀", 'say "no"', "null"])
metadatas: st.SearchStrategy[Any] = st.sampled_from([{}, {"correlation_id": "req-1"}, {"schema_version": 1}])


@st.composite
def amounts(draw: st.DrawFn) -> Any:
    """Draw an amount as JSON may hold it: a number, or its text."""
    value = Decimal(draw(cents)) / 100
    return draw(st.sampled_from([float(value), str(value)])) if abs(value) < 10**10 else str(value)


@st.composite
def items(draw: st.DrawFn, with_quantity: bool = True) -> list[dict[str, Any]]:
    """Draw the lines of an order."""
    lines = []
    for _ in range(draw(st.integers(0, 3))):
        line: dict[str, Any] = {"product_id": draw(texts), "price": draw(amounts())}
        if with_quantity or draw(st.booleans()):
            line["quantity"] = draw(st.integers(0, 5))
        lines.append(line)
    return lines


def _optional(draw: st.DrawFn, payload: dict[str, Any], name: str, values: st.SearchStrategy[Any]) -> None:
    how = draw(st.sampled_from(["there", "absent", "null"]))
    if how != "absent":
        payload[name] = draw(values) if how == "there" else None


@st.composite
def order_payloads(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Draw one event of an order: its type, payload and metadata."""
    metadata: dict[str, Any] = draw(metadatas)
    kind = draw(
        st.sampled_from(
            [
                "OrderCreated",
                "OrderModified",
                "PaymentAuthorized",
                "OrderShipped",
                "OrderDelivered",
                "OrderCancelled",
                "ItemsReturned",
                "RefundIssued",
                "OrderCorrected",
                "OrderArchived",
            ]
        )
    )
    payload: dict[str, Any] = {}
    if kind == "OrderCreated":
        old = draw(st.booleans())
        metadata = dict(metadata) if old else {**metadata, "schema_version": 2}
        payload = {
            "user_id": draw(texts | st.integers(1, 10**6)),
            "items": draw(items(with_quantity=not old)),
        }
        _optional(draw, payload, "total", amounts())
    elif kind == "OrderModified":
        payload = {"items": draw(items())}
        _optional(draw, payload, "total", amounts())
    elif kind in ("PaymentAuthorized", "RefundIssued"):
        payload = {"amount": draw(amounts())}
        _optional(draw, payload, "reason" if kind == "RefundIssued" else "card", texts)
    elif kind == "OrderShipped":
        _optional(draw, payload, "tracking", texts)
    elif kind == "OrderCancelled":
        _optional(draw, payload, "reason", texts)
    elif kind == "ItemsReturned":
        payload = {"items": [{"product_id": line["product_id"], "quantity": 1} for line in draw(items())]}
    elif kind == "OrderCorrected":
        payload = {"corrected_amount": draw(amounts())}
    else:
        payload = {"anything": [1, {"deep": None}]}
    return kind, payload, metadata


@st.composite
def histories(
    draw: st.DrawFn,
    payloads: st.SearchStrategy[tuple[str, dict[str, Any], dict[str, Any]]] | None = None,
    max_aggregates: int = 4,
    max_events: int = 7,
) -> pl.DataFrame:
    """Draw a frame of EVENTS; timestamps lie within a few seconds of each other, in any order."""
    payloads = order_payloads() if payloads is None else payloads
    rows = []
    for aggregate in draw(
        st.lists(st.sampled_from(["a", "ab", "b", "é", "z-1", "Z"]), max_size=max_aggregates, unique=True)
    ):
        for version in range(1, draw(st.integers(1, max_events)) + 1):
            kind, payload, metadata = draw(payloads)
            stamp = START + timedelta(seconds=draw(st.integers(0, 4)), microseconds=draw(st.integers(0, 1)))
            empty_rather_than_null = draw(st.booleans())
            text = json.dumps(metadata) if metadata or empty_rather_than_null else None
            rows.append((aggregate, version, kind, json.dumps(payload), text, stamp))
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


moments = st.builds(
    lambda seconds, micros: START + timedelta(seconds=seconds, microseconds=micros),
    st.integers(-1, 5),
    st.integers(0, 1),
)
