"""The oracle of commands: the rules of an order once more, as plain loops over what has happened."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

FOLLOWS = {
    "nothing": {"OrderCreated"},
    "OrderCreated": {"PaymentAuthorized", "OrderCancelled"},
    "PaymentAuthorized": {"PaymentAuthorized", "OrderShipped", "OrderCancelled"},
    "OrderShipped": {"OrderDelivered", "OrderCancelled"},
    "OrderDelivered": set[str](),
    "OrderCancelled": set[str](),
}


def faults(life: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """List what is wrong with a life of (event type, payload): each rule is looked at after each event."""
    found, last, shipped = [], "nothing", False
    total = paid = refunded = Decimal(0)
    bought: dict[str, int] = {}
    returned: dict[str, int] = {}
    for event_type, payload in life:
        if event_type in FOLLOWS:
            if event_type not in FOLLOWS[last]:
                found.append(f"{event_type} after {last}")
            last = event_type
        elif last == "nothing":
            found.append(f"{event_type} of an order that was not created")
        if event_type in ("OrderCreated", "OrderModified"):
            bought = {}
            cost = Decimal(0)
            for item in payload["items"]:
                bought[item["product_id"]] = bought.get(item["product_id"], 0) + item["quantity"]
                cost += item["quantity"] * item["price"]
                if item["quantity"] < 1 or item["price"] < 0:
                    found.append(f"{item} in {event_type}")
            total = payload["total"]
            if total != cost or total <= 0:
                found.append(f"a total of {total} for items of {cost}")
            if event_type == "OrderModified" and last not in ("OrderCreated", "PaymentAuthorized"):
                found.append(f"modified after {last}")
        if event_type == "PaymentAuthorized":
            paid += payload["amount"]
            if payload["amount"] <= 0 or paid - refunded > total:
                found.append(f"{paid} paid of {total}")
        if event_type == "OrderShipped":
            shipped = True
            if paid - refunded < total:
                found.append(f"shipped, and {paid} of {total} was paid")
        if event_type == "RefundIssued":
            refunded += payload["amount"]
            if payload["amount"] <= 0 or refunded > paid:
                found.append(f"{refunded} of {paid} refunded")
        if event_type == "ItemsReturned":
            for item in payload["items"]:
                returned[item["product_id"]] = returned.get(item["product_id"], 0) + item["quantity"]
                if item["quantity"] < 1 or returned[item["product_id"]] > bought.get(item["product_id"], 0):
                    found.append(f"{returned} returned of {bought}")
            if not shipped:
                found.append("returned what was not shipped")
        if event_type == "OrderCorrected":
            if payload["corrected_amount"] < 0 or not payload["reason"]:
                found.append(f"corrected to {payload}")
            total = payload["corrected_amount"]
    return found
