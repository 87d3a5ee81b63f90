"""What may be asked of an order, and what follows from it. The rules of the business are this page.

Which status may follow which is declared once, by the machine in order.py. Nothing is ever deleted or
changed: what was wrong is put right by CorrectOrder, and money goes back by IssueRefund.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import field
from decimal import Decimal
from typing import Any, ClassVar

import polars as pl

from titan_lab.command import ATTEMPTS, Command, Decider, Desk, allow, refuse
from titan_lab.event import Event
from titan_lab.fold import State
from titan_lab.log import EventLog
from titan_lab.orders.events import (
    Item,
    ItemsReturned,
    OrderCancelled,
    OrderCorrected,
    OrderCreated,
    OrderDelivered,
    OrderModified,
    OrderShipped,
    PaymentAuthorized,
    RefundIssued,
    ReturnedItem,
)
from titan_lab.orders.order import Order
from titan_lab.payload import EventType
from titan_lab.reducers import step

CHANGEABLE = ("CREATED", "PAID")  # nothing of it has left the house

Lines = list[dict[str, Any]]


def _add_returned(returned: Lines, event: Event) -> Lines:
    quantities = {one["product_id"]: one["quantity"] for one in returned}
    for item in event.payload.items:
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    return [{"product_id": name, "quantity": quantity} for name, quantity in quantities.items()]


class OrderInHand(Order):
    """An order, and what commands must know of it besides: how much of each product came back."""

    returned = step(
        _add_returned,
        [],
        ItemsReturned,
        dtype=pl.List(pl.Struct({"product_id": pl.String, "quantity": pl.Int64})),
    )


# --- COMMANDS -----------------------------------------------------------------------------------------------


class OrderCommand(Command):
    """Ask something of an order."""

    key: ClassVar[str] = "order_id"

    order_id: str


class CreateOrder(OrderCommand):
    """Place an order of these items; without an order_id it gets a new one. Its total is what they cost."""

    order_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    user_id: str
    items: list[Item]


class ModifyOrder(OrderCommand):
    """Have these items instead, as long as nothing was shipped."""

    items: list[Item]


class AuthorizePayment(OrderCommand):
    """Promise money, all that is owed or a part of it."""

    amount: Decimal
    method: str | None = None
    card: str | None = None


class ShipOrder(OrderCommand):
    """Send the parcel, once all of it is paid."""

    tracking: str | None = None
    carrier: str | None = None


class DeliverOrder(OrderCommand):
    """Say that the parcel arrived."""


class CancelOrder(OrderCommand):
    """Call it off, until it is delivered. Money that was paid goes back by IssueRefund."""

    reason: str | None = None


class ReturnItems(OrderCommand):
    """Take goods back, at most as many as were bought."""

    items: list[ReturnedItem]
    reason: str | None = None


class IssueRefund(OrderCommand):
    """Give money back, at most what was paid and not yet given back."""

    amount: Decimal
    reason: str | None = None


class CorrectOrder(OrderCommand):
    """Say what the total should have been, and why. `effective_at` beside the command says since when."""

    corrected_amount: Decimal
    reason: str


# --- DECISIONS ----------------------------------------------------------------------------------------------


def _create(state: State, command: CreateOrder) -> list[EventType]:
    allow(OrderInHand, state, OrderCreated, command)
    if not command.user_id.strip():
        refuse(state, command, "nobody orders: user_id is empty")
    total = _total(state, command, command.items)
    return [
        OrderCreated(order_id=command.order_id, user_id=command.user_id, items=command.items, total=total)
    ]


def _modify(state: State, command: ModifyOrder) -> list[EventType]:
    _must_exist(state, command)
    if state.status not in CHANGEABLE:
        refuse(state, command, f"it is {state.status}, and may be changed while {' or '.join(CHANGEABLE)}")
    return [OrderModified(items=command.items, total=_total(state, command, command.items))]


def _pay(state: State, command: AuthorizePayment) -> list[EventType]:
    allow(OrderInHand, state, PaymentAuthorized, command)
    _must_exist(state, command)
    _at_most(state, command, command.amount, state.total - (state.paid - state.refunded), "is owed")
    return [PaymentAuthorized(amount=command.amount, card=command.card, method=command.method)]


def _ship(state: State, command: ShipOrder) -> list[EventType]:
    allow(OrderInHand, state, OrderShipped, command)
    _must_exist(state, command)
    owed = state.total - (state.paid - state.refunded)
    if owed > 0:
        refuse(state, command, f"{owed} of {state.total} is still owed", hint="AuthorizePayment comes first")
    return [OrderShipped(tracking=command.tracking, carrier=command.carrier)]


def _deliver(state: State, command: DeliverOrder) -> list[EventType]:
    return [OrderDelivered()]


def _cancel(state: State, command: CancelOrder) -> list[EventType]:
    return [OrderCancelled(reason=command.reason)]


def _take_back(state: State, command: ReturnItems) -> list[EventType]:
    _must_exist(state, command)
    if state.shipped_at is None:
        refuse(state, command, f"it is {state.status}, and nothing was shipped that could come back")
    _check_lines(state, command, command.items)
    bought, returned = _quantities(state.items or []), _quantities(state.returned)
    for product, quantity in _quantities(command.items).items():
        left = bought[product] - returned[product]
        if product not in bought:
            refuse(state, command, f"{product!r} was not bought; {', '.join(map(repr, bought))} was")
        if quantity > left:
            refuse(
                state,
                command,
                f"{quantity} of {product!r} come back, and {max(left, 0)} can: "
                f"{bought[product]} bought, {returned[product]} returned before",
            )
    return [ItemsReturned(items=command.items, reason=command.reason)]


def _refund(state: State, command: IssueRefund) -> list[EventType]:
    _must_exist(state, command)
    _at_most(state, command, command.amount, state.paid - state.refunded, "was paid and not refunded")
    return [RefundIssued(amount=command.amount, reason=command.reason)]


def _correct(state: State, command: CorrectOrder) -> list[EventType]:
    _must_exist(state, command)
    if command.corrected_amount < 0:
        refuse(state, command, f"{command.corrected_amount} is no total: it must not be negative")
    if command.corrected_amount == state.total:
        refuse(state, command, f"the total is {state.total} already")
    if not command.reason.strip():
        refuse(state, command, "a correction says why: reason is empty")
    return [
        OrderCorrected(
            corrected_amount=command.corrected_amount,
            reason=command.reason,
            original_order_id=command.order_id,
        )
    ]


DECIDERS: dict[type[Command], Decider] = {
    CreateOrder: _create,
    ModifyOrder: _modify,
    AuthorizePayment: _pay,
    ShipOrder: _ship,
    DeliverOrder: _deliver,
    CancelOrder: _cancel,
    ReturnItems: _take_back,
    IssueRefund: _refund,
    CorrectOrder: _correct,
}


class OrderDesk(Desk):
    """Where commands of orders are handled, on a log that is open for writing.

    >>> import titan_lab as tl
    >>> desk = OrderDesk(tl.open("memory://"))
    >>> items = [{"product_id": "tea", "quantity": 2, "price": "4.50"}]
    >>> desk.handle(CreateOrder(order_id="order-1", user_id="7", items=items))
    <Handled: OrderCreated; order-1 is at version 1>
    >>> desk.handle(AuthorizePayment(order_id="order-1", amount=9)).state.status
    'PAID'
    """

    def __init__(
        self, log: EventLog, *, load: Callable[[str], State] | None = None, attempts: int = ATTEMPTS
    ) -> None:
        super().__init__(log, OrderInHand, DECIDERS, load=load, attempts=attempts)


# --- RULES THAT SEVERAL SHARE -------------------------------------------------------------------------------


def _must_exist(state: State, command: Command) -> None:
    if state.total is None:  # imported histories can be paid, and were never created
        refuse(state, command, "there is no such order", hint="CreateOrder comes first")


def _at_most(state: State, command: Command, amount: Decimal, limit: Decimal, what: str) -> None:
    if amount <= 0:
        refuse(state, command, f"{amount} is no amount: it must be more than 0")
    if amount > limit:
        refuse(state, command, f"{amount} is more than the {max(limit, Decimal('0.00'))} that {what}")


def _check_lines(state: State, command: Command, lines: Iterable[Item | ReturnedItem]) -> None:
    if not lines:
        refuse(state, command, "there are no items")
    for number, one in enumerate(lines):
        if one.quantity < 1:
            refuse(
                state, command, f"the quantity is {one.quantity} at items[{number}], and must be 1 or more"
            )
        if one.price is not None and one.price < 0:
            refuse(state, command, f"the price is {one.price} at items[{number}], and must not be negative")


def _total(state: State, command: Command, items: list[Item]) -> Decimal:
    _check_lines(state, command, items)
    total = sum((one.quantity * one.price for one in items), start=Decimal("0.00"))
    if total == 0:
        refuse(state, command, "the items cost nothing, so that nobody could ever pay")
    return total


def _quantities(lines: Iterable[Any]) -> Counter[str]:
    """Count how many there are of each product."""
    counted: Counter[str] = Counter()
    for one in lines:
        told = one if isinstance(one, dict) else vars(one)
        counted[told["product_id"]] += told["quantity"]
    return counted
