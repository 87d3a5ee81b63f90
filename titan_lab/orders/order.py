"""Order: how its state follows from its events. The whole aggregate is this page."""

from __future__ import annotations

import polars as pl

from titan_lab.fold import Aggregate, Check
from titan_lab.orders.events import (
    ItemsReturned,
    OrderCancelled,
    OrderCreated,
    OrderDelivered,
    OrderModified,
    OrderShipped,
    PaymentAuthorized,
    RefundIssued,
)
from titan_lab.orders.upcasts import ORDER_UPCASTS
from titan_lab.reducers import first, key, latest, machine, total_of

ITEM = pl.element().struct
IN_ITEMS = pl.col("items").list.agg((ITEM.field("quantity") * ITEM.field("price")).sum())
TELLS_ITEMS = pl.col("event_type").is_in([OrderCreated.event_type, OrderModified.event_type])


class Order(Aggregate):
    """An order of Titan Commerce, from created to delivered, cancelled, returned or refunded."""

    upcasts = ORDER_UPCASTS
    also = (ItemsReturned,)  # what came back is told by the refund, where it is told in money
    objects = {"user": "user_id", "product": "items.product_id"}
    checks = {
        "total differs from items": Check(  # an OrderCorrected says another total on purpose
            TELLS_ITEMS & (pl.col("total") != IN_ITEMS),
            pl.format("total is {}, its items add up to {}", "total", IN_ITEMS),
        )
    }

    id = key()
    user_id = latest(OrderCreated)
    items = latest(OrderCreated, OrderModified)
    status = machine(
        {
            OrderCreated: "CREATED",
            PaymentAuthorized: "PAID",
            OrderShipped: "SHIPPED",
            OrderDelivered: "DELIVERED",
            OrderCancelled: "CANCELLED",
        },
        allowed={
            None: ["CREATED"],
            "CREATED": ["PAID", "CANCELLED"],
            "PAID": ["PAID", "SHIPPED", "CANCELLED"],  # a gift card and a credit card, say, are two payments
            "SHIPPED": ["DELIVERED", "CANCELLED"],  # a parcel can still be called back, not shipped twice
            "DELIVERED": [],
            "CANCELLED": [],
        },
    )
    total = latest(OrderCreated, OrderModified, OrderCorrected="corrected_amount")
    paid = total_of(PaymentAuthorized, "amount")
    refunded = total_of(RefundIssued, "amount")
    tracking = latest(OrderShipped)
    reason = latest(OrderCancelled)
    created_at = first(OrderCreated, "timestamp")
    paid_at = first(PaymentAuthorized, "timestamp")
    shipped_at = latest(OrderShipped, "timestamp")
    delivered_at = latest(OrderDelivered, "timestamp")
    cancelled_at = latest(OrderCancelled, "timestamp")
