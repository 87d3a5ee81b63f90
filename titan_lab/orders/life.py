"""One order's life while it is being written: its clock, its money, and the steps it can take.

A step moves the clock on as such a step does in a shop (a card is charged within a minute, a bank transfer
takes days, parcels leave with a pick-up run, couriers ring in daytime) and records one event. Timestamps are
those of a store that stamps a row with the *start* of its transaction: some steps are therefore stamped a
little before the step they follow, and steps of one transaction are stamped alike.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

WEEKDAYS = range(5)
WORKDAYS = range(6)
PICKUPS = (timedelta(hours=11, minutes=30), timedelta(hours=16, minutes=30))
CARRIERS = ("dhl", "dpd", "gls", "ups")
V2_EVERYWHERE = datetime(2025, 2, 3, tzinfo=UTC)  # when the last old client was switched off


class Cents(int):
    """Money in cents; written into JSON as a number with two decimals."""


class Line(NamedTuple):
    """One line of a basket."""

    product_id: str
    quantity: int
    price: Cents


class Row(NamedTuple):
    """One event before it has a version."""

    event_type: str
    payload: dict[str, Any]
    metadata: dict[str, Any]
    timestamp: datetime


def json_text(value: Any) -> str:
    """Write JSON without spaces, cents as amounts."""
    match value:
        case dict():
            return "{" + ",".join(f"{json_text(k)}:{json_text(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(json_text, value)) + "]"
        case Cents():
            return f"{value // 100}.{value % 100:02d}"
        case _:
            return json.dumps(value)


def iso(moment: datetime) -> str:
    """Write an instant as ISO-8601 with ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def between(rng: Random, least: timedelta, most: timedelta) -> timedelta:
    """Draw a length of time, each as likely, to the microsecond."""
    return timedelta(
        microseconds=rng.randint(least // timedelta(microseconds=1), most // timedelta(microseconds=1))
    )


def open_moment(rng: Random, earliest: datetime, hours: tuple[int, int], days: range) -> datetime:
    """Draw a moment within hours of the first open day that still has some after `earliest`."""
    midnight = earliest.replace(hour=0, minute=0, second=0, microsecond=0)
    while True:
        opens, closes = (max(earliest, midnight + timedelta(hours=hour)) for hour in hours)
        if midnight.weekday() in days and opens < closes:
            return opens + between(rng, timedelta(0), closes - opens)
        midnight += timedelta(days=1)


def next_pickup(earliest: datetime) -> datetime:
    """Give the first pick-up run at or after `earliest`."""
    midnight = earliest.replace(hour=0, minute=0, second=0, microsecond=0)
    while True:
        for run in PICKUPS:
            if midnight.weekday() in WEEKDAYS and midnight + run >= earliest:
                return midnight + run
        midnight += timedelta(days=1)


def total_of(lines: list[Line]) -> Cents:
    """Sum quantity times price."""
    return Cents(sum(line.quantity * line.price for line in lines))


def written(lines: list[Line]) -> list[dict[str, Any]]:
    """Give lines as a payload holds them."""
    return [line._asdict() for line in lines]


class Life:
    """Write one order's events, step by step.

    now: the shop's clock; it never goes back, also where a timestamp does. rows: the events so far.
    paid, refunded: money that went in and out, in cents.
    """

    def __init__(
        self, rng: Random, order_id: str, user_id: str, now: datetime, request: str, items: list[Line]
    ) -> None:
        self.rng = rng
        self.order_id = order_id
        self.user_id = user_id
        self.now = now
        self.request = request
        self.items = items
        self.total = total_of(items)
        self.paid = 0
        self.refunded = 0
        self.rows: list[Row] = []

    # --- STEPS ----------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Place the order, from a new client (schema 2) or an old one (no quantity, no schema_version)."""
        old = self.rng.random() < 0.5 * ((V2_EVERYWHERE - self.now) / timedelta(days=33))
        if old:
            self.items = [
                Line(line.product_id, 1, line.price) for line in self.items for _ in range(line.quantity)
            ]
            items = [{"product_id": line.product_id, "price": line.price} for line in self.items]
        else:
            items = written(self.items)
        payload: dict[str, Any] = {"order_id": self.order_id, "user_id": self.user_id, "items": items}
        if self.rng.random() < (0.4 if old else 0.92):
            payload["total"] = self.total
        self.record(
            "OrderCreated", payload, causation_id=self.name("cmd"), **({} if old else {"schema_version": 2})
        )

    def pay(self, method: str | None = None, part: float = 1.0) -> None:
        """Take the money still owed, or a part of it: at once by card, days later by bank transfer."""
        method = method or self.rng.choices(("card", "paypal", "bank_transfer"), (62, 23, 15))[0]
        owed = self.total - (self.paid - self.refunded)
        amount = Cents(owed if part == 1.0 else max(1, round(owed * part)))
        payload: dict[str, Any] = {"amount": amount, "method": method}
        caused = self.caused()
        at = None
        if method == "bank_transfer":
            self.request = self.name("req")
            earliest = self.now + between(self.rng, timedelta(hours=18), timedelta(days=3))
            self.now = open_moment(self.rng, earliest, (8, 16), WEEKDAYS)
        else:
            if method == "card":
                payload["card"] = f"**{self.rng.randint(10, 99)}"
            # Express checkout is one transaction, or two of which the payment's was opened first.
            match self.rng.choices(("later", "same", "earlier"), (86, 8, 6))[0]:
                case "later":
                    self.now += between(self.rng, timedelta(seconds=4), timedelta(seconds=95))
                case "earlier":
                    at = self.now - between(self.rng, timedelta(milliseconds=3), timedelta(milliseconds=900))
        self.paid += amount
        self.record("PaymentAuthorized", payload, at, causation_id=caused)

    def modify(self, items: list[Line]) -> None:
        """Change the basket minutes to hours later, and settle the difference if money has changed hands."""
        self.request = self.name("req")
        self.now += between(self.rng, timedelta(minutes=2), timedelta(minutes=80))
        self.items, self.total = items, total_of(items)
        payload: dict[str, Any] = {"items": written(items)}
        if self.rng.random() < 0.7:
            payload["total"] = self.total
        self.record("OrderModified", payload, user_id=self.user_id)
        balance = self.total - (self.paid - self.refunded)
        if self.paid and balance > 0:
            self.pay("card")
        elif self.paid and balance < 0:
            self.refund(-balance, "smaller basket")

    def ship(self) -> None:
        """Hand the parcel to a pick-up run: all parcels of a run share its correlation id."""
        run = next_pickup(self.now + between(self.rng, timedelta(hours=2), timedelta(hours=30)))
        carrier = self.rng.choice(CARRIERS)
        self.now = run + between(self.rng, timedelta(seconds=5), timedelta(minutes=25))
        self.request = f"run-{carrier}-{run:%m%d-%H%M}"
        tracking = f"{carrier[:2].upper()}{self.rng.randrange(10**8):08d}"
        payload = (
            {"tracking": tracking, "carrier": carrier} if self.rng.random() < 0.9 else {"tracking": tracking}
        )
        self.record("OrderShipped", payload)

    def deliver(self, days: tuple[float, float] = (0.7, 3.5)) -> None:
        """Ring at the door, Monday to Saturday. The carrier's feed knows of no request."""
        earliest = self.now + between(self.rng, *(timedelta(days=day) for day in days))
        self.now = open_moment(self.rng, earliest, (8, 18), WORKDAYS)
        self.request = ""
        self.record("OrderDelivered", {})

    def cancel(self, reason: str, soonest: timedelta, latest: timedelta, race: float = 0.0) -> None:
        """Cancel a while later or, with the chance `race`, in a form opened before the last step happened."""
        self.request = self.name("req")
        at = None
        if self.rng.random() < race:
            at = self.rows[-1].timestamp - between(self.rng, timedelta(seconds=1), timedelta(minutes=6))
        else:
            self.now += between(self.rng, soonest, latest)
        self.record("OrderCancelled", {"reason": reason}, at, causation_id=self.name("cmd"))

    def take_back(self, items: list[Line], reason: str, days: tuple[float, float] = (2.0, 11.0)) -> None:
        """Receive goods back at the warehouse, on a weekday."""
        self.request = self.name("req")
        earliest = self.now + between(self.rng, *(timedelta(days=day) for day in days))
        self.now = open_moment(self.rng, earliest, (7, 15), WEEKDAYS)
        self.record(
            "ItemsReturned",
            {"items": written(items), "reason": reason},
            user_id=f"dock-{self.rng.randint(1, 4)}",
        )

    def refund(
        self,
        amount: int,
        reason: str | None = None,
        odds: tuple[int, int, int] = (30, 12, 58),
        told: bool = True,
    ) -> None:
        """Pay money back: in the same transaction, in one opened a little earlier, or hours later."""
        cause = {"causation_id": self.caused()} if told else {}
        at = None
        match self.rng.choices(("same", "earlier", "later"), odds)[0]:
            case "earlier":
                at = self.now - between(self.rng, timedelta(milliseconds=40), timedelta(minutes=4))
            case "later":
                self.now += between(self.rng, timedelta(minutes=1), timedelta(hours=5))
        self.refunded += amount
        self.record(
            "RefundIssued", {"amount": Cents(amount)} | ({"reason": reason} if reason else {}), at, **cause
        )

    def correct(self, total: int, reason: str, since: datetime | None = None) -> None:
        """Book a corrected total; `since` is when it should have held, if that was earlier."""
        self.total = Cents(total)
        backdated = {"effective_at": iso(since)} if since else {}
        payload = {"corrected_amount": self.total, "reason": reason, "original_order_id": self.order_id}
        self.record("OrderCorrected", payload, user_id=f"desk-{self.rng.randint(1, 3)}", **backdated)

    # --- BOOKKEEPING ----------------------------------------------------------------------------------------

    def record(
        self, event_type: str, payload: dict[str, Any], at: datetime | None = None, /, **metadata: Any
    ) -> None:
        """Add an event at the clock's time, or stamped `at`."""
        if self.request:
            metadata = {"correlation_id": self.request, **metadata}
        self.rows.append(Row(event_type, payload, metadata, at or self.now))

    def name(self, kind: str) -> str:
        """Make up the id of a request or a command."""
        return f"{kind}-{self.rng.getrandbits(32):08x}"

    def caused(self) -> str:
        """Name the last event as the cause of the next one: ``aggregate_id/version``."""
        return f"{self.order_id}/{len(self.rows)}"
