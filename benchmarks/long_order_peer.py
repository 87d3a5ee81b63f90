"""The peer of `long_order`: the order as an aggregate of `eventsourcing`, written as its manual does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from eventsourcing.domain import Aggregate, event

Items = list[dict[str, Any]]


class Order(Aggregate):
    """Amounts come as text: cheaper for the library than decimals, which it would transcode one by one."""

    @event("Created")
    def __init__(
        self, user_id: str, items: Items, total: str | None = None, order_id: str | None = None
    ) -> None:
        self.user_id = user_id
        self.items = items
        self.total = amount_of(items) if total is None else Decimal(total)
        self.status = "CREATED"
        self.paid = self.refunded = Decimal(0)
        self.tracking: str | None = None
        self.reason: str | None = None

    @staticmethod
    def create_id(order_id: str) -> UUID:
        """Keep the id that the order has in the other store."""
        return UUID(order_id)

    @event("Modified")
    def modify(self, items: Items, total: str) -> None:
        self.items = items
        self.total = Decimal(total)

    @event("Paid")
    def pay(self, amount: str, method: str | None = None, card: str | None = None) -> None:
        self.paid += Decimal(amount)
        self.status = "PAID"

    @event("Shipped")
    def ship(self, tracking: str, carrier: str) -> None:
        self.tracking = tracking
        self.status = "SHIPPED"

    @event("Delivered")
    def deliver(self, signed_by: str) -> None:
        self.status = "DELIVERED"

    @event("Cancelled")
    def cancel(self, reason: str) -> None:
        self.reason = reason
        self.status = "CANCELLED"

    @event("Corrected")
    def correct(self, corrected_amount: str, reason: str) -> None:
        self.total = Decimal(corrected_amount)

    @event("Returned")
    def take_back(self, items: Items, reason: str) -> None:
        pass

    @event("Refunded")
    def refund(self, amount: str, reason: str) -> None:
        self.refunded += Decimal(amount)


def amount_of(items: Items) -> Decimal:
    return sum((Decimal(item["price"]) * item.get("quantity", 1) for item in items), Decimal(0))
