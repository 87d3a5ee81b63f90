"""What can happen to an order, as Titan Commerce records it."""

from __future__ import annotations

from decimal import Decimal

from titan_lab.payload import EventType, Record


class Item(Record):
    """One line of an order: so many of a product at a price each."""

    product_id: str
    quantity: int
    price: Decimal


class ReturnedItem(Record):
    """One line that came back; the price is told only where it matters."""

    product_id: str
    quantity: int
    price: Decimal | None = None


class OrderCreated(EventType):
    """A customer placed the order. `total` is the sum of quantity x price where the payload does not say."""

    order_id: str | None = None
    user_id: str
    items: list[Item]
    total: Decimal


class OrderModified(EventType):
    """The customer changed what is in it."""

    items: list[Item]
    total: Decimal


class PaymentAuthorized(EventType):
    """The money is promised."""

    amount: Decimal
    card: str | None = None
    method: str | None = None


class OrderShipped(EventType):
    """The parcel left."""

    tracking: str | None = None
    carrier: str | None = None


class OrderDelivered(EventType):
    """The parcel arrived."""


class OrderCancelled(EventType):
    """The order will not be fulfilled."""

    reason: str | None = None


class ItemsReturned(EventType):
    """Something came back."""

    items: list[ReturnedItem]
    reason: str | None = None


class RefundIssued(EventType):
    """Money went back."""

    amount: Decimal
    reason: str | None = None


class OrderCorrected(EventType):
    """An earlier amount was wrong; events are never changed, so this one says what is right."""

    corrected_amount: Decimal
    reason: str | None = None
    original_order_id: str | None = None
