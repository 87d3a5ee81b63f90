"""Order: how its state follows from its events. The whole aggregate is this page."""

from __future__ import annotations

from titan_lab.fold import Aggregate
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


class Order(Aggregate):
    """An order of Titan Commerce, from created to delivered, cancelled, returned or refunded."""

    upcasts = ORDER_UPCASTS
    also = (ItemsReturned,)  # what came back is told by the refund, where it is told in money

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
