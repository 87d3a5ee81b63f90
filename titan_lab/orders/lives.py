"""The lives that sample orders lead: each is a short function that reads like its name.

One order is a cart (who, when, which products) and one of these lives, both drawn from the seed and the
order's number, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from random import Random
from uuid import UUID

from titan_lab.orders.life import Cents, Life, Line, open_moment, total_of

START = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2025, 2, 11, tzinfo=UTC)  # exclusive: what would happen later has not happened yet
USERS = 240

CATALOGUE = {
    "iphone-15": 99900,
    "headphones-anc": 24950,
    "usb-c-cable": 1990,
    "clear-case": 2490,
    "kettle-1.7l": 3990,
    "espresso-cups-6": 2795,
    "filter-coffee-500g": 849,
    "desk-lamp": 5900,
    "office-chair": 18900,
    "notebook-a5": 475,
    "gel-pens-10": 890,
    "running-shoes-42": 11995,
    "rain-jacket-m": 8999,
    "wool-socks": 1250,
    "yoga-mat": 3499,
    "water-bottle": 1799,
    "board-game-harbour": 3299,
    "puzzle-1000": 1649,
    "atlas-paperback": 1495,
    "bicycle-light-set": 2999,
    "tool-box-72": 6490,
    "smoke-alarm-2": 3180,
    "plant-pot-24cm": 1375,
    "bed-linen-160": 5450,
}
PRODUCTS = tuple(CATALOGUE)
# Cheap things sell more often than dear ones, and so does what stands on the front page.
FEATURED = {"iphone-15": 2.5, "kettle-1.7l": 3.0}
POPULARITY = tuple(accumulate(FEATURED.get(name, 60 / cents**0.5) for name, cents in CATALOGUE.items()))
BY_WEEKDAY = (1.15, 1.1, 1.05, 1.05, 1.0, 0.72, 0.85)
BY_HOUR = (3, 2, 1, 1, 1, 2, 5, 10, 16, 22, 25, 25, 22, 20, 20, 21, 22, 24, 27, 31, 32, 26, 15, 7)

# For a week the shop forgot to apply its offer on kettles. One request put all of those orders right.
KETTLE, KETTLE_OFFER = "kettle-1.7l", Cents(3490)
OFFER_FROM = datetime(2025, 1, 6, tzinfo=UTC)
OFFER_APPLIED_AT = datetime(2025, 1, 14, 9, 0, 12, 480_000, tzinfo=UTC)

# Of equal products, one is bought most often.
LINES, QUANTITY = (58, 27, 11, 4), (82, 12, 4, 2)
TWINS = 33  # every 33rd cart is split in two orders: one request, one user, one moment


# --- LIVES --------------------------------------------------------------------------------------------------


def abandoned(life: Life) -> None:
    """Nobody ever pays."""
    life.create()


def paid_and_delivered(life: Life) -> None:
    """As it should be."""
    life.create()
    life.pay()
    life.ship()
    life.deliver()


def modified_then_paid(life: Life) -> None:
    """The basket changes before the money moves."""
    life.create()
    life.modify(other_basket(life))
    life.pay()
    life.ship()
    life.deliver()


def modified_after_payment(life: Life) -> None:
    """The basket changes after the money moved: the difference is charged or paid back."""
    life.create()
    life.pay("card")
    life.modify(other_basket(life))
    life.ship()
    life.deliver()


def paid_in_two_parts(life: Life) -> None:
    """A gift card first, and another means for the rest."""
    life.create()
    life.pay("gift_card", part=0.4)
    life.pay("card")
    life.ship()
    life.deliver()


def partly_returned(life: Life) -> None:
    """Some of it comes back, and is paid back."""
    paid_and_delivered(life)
    line = life.rng.choice(life.items)
    back = [line._replace(quantity=life.rng.randint(1, line.quantity))]
    life.take_back(back, life.rng.choice(("too small", "not as described", "ordered twice")))
    life.refund(total_of(back))


def fully_returned(life: Life) -> None:
    """All of it comes back; now and then the money goes out in two pieces."""
    paid_and_delivered(life)
    life.take_back(life.items, life.rng.choice(("changed mind", "broken", "arrived too late")))
    if life.rng.random() < 0.3:
        life.refund(life.total // 2, "first half")
    life.refund(life.paid - life.refunded)


def late_with_goodwill(life: Life) -> None:
    """The parcel is late, and some money goes back for the wait."""
    life.create()
    life.pay()
    life.ship()
    life.deliver(days=(6, 9))
    life.request = life.name("req")
    life.refund(max(1, life.total // 20), "late delivery", odds=(0, 0, 1))


def cancelled_unpaid(life: Life) -> None:
    """The payment never comes, so the shop gives up."""
    life.create()
    life.cancel("not paid", timedelta(days=3), timedelta(days=5))


def cancelled_before_shipping(life: Life) -> None:
    """Paid, then cancelled, then paid back in full."""
    life.create()
    life.pay()
    life.cancel(life.rng.choice(("changed mind", "out of stock")), timedelta(minutes=4), timedelta(hours=2))
    life.refund(life.paid)


def cancelled_after_shipping(life: Life) -> None:
    """Too late to stop the parcel: it comes back unopened, and the money follows."""
    life.create()
    life.pay()
    life.ship()
    life.cancel("changed mind", timedelta(minutes=20), timedelta(hours=9), race=0.5)
    life.take_back(life.items, "came back unopened", days=(3, 6))
    life.refund(life.paid)


def cancelled_yet_delivered(life: Life) -> None:
    """The courier delivers what was cancelled on its way, and the customer keeps it."""
    life.create()
    life.pay()
    life.ship()
    life.cancel("changed mind", timedelta(minutes=20), timedelta(hours=5), race=0.5)
    life.deliver()


def corrected(life: Life) -> None:
    """A voucher was forgotten: the total is put right, mostly as of the purchase, and the rest paid back."""
    created = life.now
    paid_and_delivered(life)
    life.request = life.name("req")
    life.now = open_moment(life.rng, life.now + timedelta(hours=3), (8, 17), range(5))
    life.correct(
        life.total - life.total // 10, "voucher was forgotten", created if life.rng.random() < 0.75 else None
    )
    life.refund(life.paid - life.total)


LIVES: dict[Callable[[Life], None], float] = {
    paid_and_delivered: 52,
    modified_then_paid: 7,
    modified_after_payment: 5,
    paid_in_two_parts: 3,
    partly_returned: 8,
    fully_returned: 4,
    late_with_goodwill: 4,
    abandoned: 2,
    cancelled_unpaid: 4,
    cancelled_before_shipping: 5,
    cancelled_after_shipping: 3,
    cancelled_yet_delivered: 1,
    corrected: 4,
}


# --- CHECKOUT -----------------------------------------------------------------------------------------------


@cache
def hours() -> tuple[list[datetime], list[float]]:
    """Give every hour of the span, and how many purchases fall before its end, up to a factor."""
    every = [START + timedelta(hours=n) for n in range((END - START) // timedelta(hours=1))]
    holiday = {START.date(): 0.55}
    return every, list(
        accumulate(BY_WEEKDAY[h.weekday()] * BY_HOUR[h.hour] * holiday.get(h.date(), 1.0) for h in every)
    )


def basket(rng: Random) -> list[Line]:
    """Fill a basket with one to four products."""
    wanted = dict.fromkeys(
        rng.choices(PRODUCTS, cum_weights=POPULARITY, k=rng.choices((1, 2, 3, 4), LINES)[0])
    )
    return [Line(name, rng.choices((1, 2, 3, 4), QUANTITY)[0], Cents(CATALOGUE[name])) for name in wanted]


def other_basket(life: Life) -> list[Line]:
    """Change a basket by one step: more of a product, one product more, or one less."""
    items, rng = list(life.items), life.rng
    match rng.choices(("more", "another", "fewer"), (35, 40, 25))[0]:
        case "fewer" if len(items) > 1:
            items.pop(rng.randrange(len(items)))
        case "another":
            had = {line.product_id for line in items}
            new = [line for line in basket(rng) if line.product_id not in had]
            items += new or [Line("gel-pens-10", 1, Cents(CATALOGUE["gel-pens-10"]))]
        case _:
            place = rng.randrange(len(items))
            items[place] = items[place]._replace(quantity=items[place].quantity + 1)
    return items


def one_order(seed: int, number: int) -> Life:
    """Tell the life of one order; it depends on the seed and its number alone."""
    cart = Random(f"{seed}/cart/{number - (number % TWINS == 0)}")
    every, weights = hours()
    moment = cart.choices(every, cum_weights=weights)[0] + timedelta(
        microseconds=cart.randrange(3600 * 10**6)
    )
    user = str(10_000 + int(cart.random() ** 1.7 * USERS))  # some users buy again and again
    request = f"req-{cart.getrandbits(32):08x}"
    rng = Random(f"{seed}/order/{number}")
    order_id = str(UUID(int=rng.getrandbits(128), version=4))
    life = Life(rng, order_id, user, moment, request, basket(rng))
    rng.choices(tuple(LIVES), tuple(LIVES.values()))[0](life)
    return life


def apply_kettle_offer(life: Life, number: int) -> None:
    """Put an order right that was placed and paid during the offer, together with all the others."""
    before = [row for row in life.rows if row.timestamp < OFFER_APPLIED_AT]
    kettles = sum(line.quantity for line in life.items if line.product_id == KETTLE)
    due = (
        kettles
        and life.rows[0].timestamp >= OFFER_FROM
        and "PaymentAuthorized" in [row.event_type for row in before]
    )
    others = {row.event_type for row in life.rows} & {"OrderCancelled", "OrderCorrected", "RefundIssued"}
    changed = {row.event_type for row in life.rows[len(before) :]} & {"OrderModified", "PaymentAuthorized"}
    if not due or others or changed:
        return
    off = kettles * (CATALOGUE[KETTLE] - KETTLE_OFFER)
    after, life.rows = life.rows[len(before) :], before
    life.now, life.request = OFFER_APPLIED_AT + timedelta(milliseconds=number % 50), "req-kettle-offer"
    life.correct(life.total - off, "kettle offer was not applied", life.rows[0].timestamp)
    life.refund(off, "price difference", odds=(100, 0, 0))
    life.rows += after
