"""How older order payloads become today's."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import polars as pl

from titan_lab.amounts import from_units, to_units
from titan_lab.kinds import Money, Whole
from titan_lab.lists import lists_apart
from titan_lab.orders.events import OrderCreated, OrderModified
from titan_lab.upcast import Payload, fill, upcaster

MOST_CENTS = 10**13


# A step is proven where it stands, so what it uses stands above it.


def _with_quantity(item: object) -> object:
    if isinstance(item, dict) and item.get("quantity") is None:
        return {**item, "quantity": 1}
    return item


def _amount(item: Payload) -> Decimal:
    # Read as they will be read: 1e999999999 is a short text, and no quantity.
    return Whole().read(item["quantity"], "$") * Money().read(item["price"], "$")


@upcaster(
    OrderCreated,
    since=1,
    to=2,
    before={"items": [{"product_id": "123", "price": 100}]},
    after={"items": [{"product_id": "123", "price": 100, "quantity": 1}]},
)
def one_of_each(payload: Payload) -> Payload:
    """Read items without a quantity, as they were before version 2, as one of each."""
    items = payload.get("items")
    if not isinstance(items, list):
        return payload
    return {**payload, "items": [_with_quantity(item) for item in items]}


@one_of_each.columns
def _one_of_each(frame: pl.DataFrame) -> pl.DataFrame:
    one = pl.element().struct.with_fields(pl.field("quantity").fill_null(1))
    return frame.with_columns(pl.col("items").list.eval(one))


@fill(
    OrderCreated,
    OrderModified,
    before={"items": [{"quantity": 2, "price": Decimal("1.10")}]},
    after={"items": [{"quantity": 2, "price": Decimal("1.10")}], "total": Decimal("2.20")},
)
def total_of_items(payload: Payload) -> Payload:
    """Compute a total that is missing: the sum of quantity x price."""
    if payload.get("total") is not None:
        return payload
    return {**payload, "total": sum((_amount(item) for item in payload["items"]), start=Decimal(0))}


@total_of_items.columns
def _total_of_items(frame: pl.DataFrame) -> pl.DataFrame:
    missing = frame["total"].is_null() & frame["items"].is_not_null()
    if not missing.any():
        return frame
    lengths, items = lists_apart(frame["items"].filter(missing))
    quantity, price = (
        items.struct.field("quantity").fill_null(0).to_numpy(),
        to_units(items.struct.field("price")),
    )
    if len(price) and np.abs(quantity.astype(float) * price).max() > MOST_CENTS:
        return (
            frame  # beyond what 64 bits add up safely; what stays missing is read again, exactly, row by row
        )
    running = np.concatenate([[0], np.cumsum(quantity * price)])
    ends = np.cumsum(lengths)
    totals = from_units(running[ends] - running[ends - lengths], frame.schema["total"])
    return frame.with_columns(total=frame["total"].scatter(missing.arg_true(), totals))


ORDER_UPCASTS = (one_of_each, total_of_items)
