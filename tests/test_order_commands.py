"""What an order may be asked, told as given, when, then; and as a property over all that can be reached."""

from __future__ import annotations

import itertools
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab import command as command_module
from titan_lab.errors import CommandError, Refused
from titan_lab.event import Event
from titan_lab.orders import commands
from titan_lab.orders.commands import DECIDERS, OrderInHand
from titan_lab.orders.events import Item, ReturnedItem
from titan_lab.testing import slow, slow_commands
from titan_lab.testing.given import as_read, scenarios
from titan_lab.testing.histories import histories

before = scenarios(OrderInHand, DECIDERS)

TEA = Item(product_id="tea", quantity=2, price=Decimal("4.50"))
POT = Item(product_id="pot", quantity=1, price=Decimal("20.00"))
CREATED = tl.OrderCreated(order_id="order-1", user_id="7", items=[TEA, POT], total=Decimal("29.00"))
PAID = tl.PaymentAuthorized(amount=Decimal("29.00"))
SHIPPED = tl.OrderShipped(tracking="T1")
DELIVERED = tl.OrderDelivered()
CANCELLED = tl.OrderCancelled()


def back(product_id: str, quantity: int) -> ReturnedItem:
    return ReturnedItem(product_id=product_id, quantity=quantity)


def create(**changes: Any) -> tl.CreateOrder:
    return tl.CreateOrder(**{"order_id": "order-1", "user_id": "7", "items": [TEA, POT]} | changes)


def modify(*items: Any) -> tl.ModifyOrder:
    return tl.ModifyOrder(order_id="order-1", items=list(items))


def pay(amount: Any, **more: Any) -> tl.AuthorizePayment:
    return tl.AuthorizePayment(order_id="order-1", amount=amount, **more)


def take_back(*items: Any) -> tl.ReturnItems:
    return tl.ReturnItems(order_id="order-1", items=list(items))


def refund(amount: Any) -> tl.IssueRefund:
    return tl.IssueRefund(order_id="order-1", amount=amount)


def correct(amount: Any, reason: str = "the pot was on offer") -> tl.CorrectOrder:
    return tl.CorrectOrder(order_id="order-1", corrected_amount=amount, reason=reason)


ship = tl.ShipOrder(order_id="order-1", tracking="T1")
deliver = tl.DeliverOrder(order_id="order-1")
cancel = tl.CancelOrder(order_id="order-1", reason="changed mind")


# --- create and modify --------------------------------------------------------------------------------------


def test_an_order_costs_what_its_items_cost() -> None:
    """The total is worked out, never taken from whoever asks."""
    before().when(create()).then(CREATED)
    before().when(create(items=[TEA, TEA])).then(
        tl.OrderCreated(order_id="order-1", user_id="7", items=[TEA, TEA], total=Decimal("18.00"))
    )


def test_an_order_is_created_once() -> None:
    """Whatever became of it."""
    for life in ([CREATED], [CREATED, PAID], [CREATED, CANCELLED]):
        before(*life).when(create()).then_refused("CreateOrder of order-1 is refused", "to CREATED")


def test_an_order_without_an_id_gets_a_new_one() -> None:
    """The command carries it, so that asking again asks for the same order."""
    first, second = (tl.CreateOrder(user_id="7", items=[TEA]) for _ in range(2))
    assert first.order_id != second.order_id
    assert first.whose() == first.order_id


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([], "there are no items"),
        ([{"product_id": "tea", "quantity": 0, "price": 1}], "the quantity is 0 at items[0]"),
        ([TEA, {"product_id": "tea", "quantity": -1, "price": 1}], "the quantity is -1 at items[1]"),
        ([{"product_id": "tea", "quantity": 1, "price": -1}], "the price is -1.00 at items[0]"),
        ([{"product_id": "tea", "quantity": 1, "price": 0}], "the items cost nothing"),
        ([{"product_id": "tea", "quantity": 10**9, "price": 10**9}], "would not be readable: found 1000000"),
    ],
)
def test_items_that_nobody_can_sell_are_refused(items: list[Any], why: str) -> None:
    """Of a new order as of a changed one."""
    before().when(create(items=items)).then_refused(why)
    before(CREATED).when(modify(*items)).then_refused(why)


def test_an_order_is_somebodys() -> None:
    """A blank user_id is nobody."""
    before().when(create(user_id="  ")).then_refused("user_id is empty")


def test_an_order_is_changed_until_it_is_shipped() -> None:
    """Paid or not."""
    changed = tl.OrderModified(items=[TEA], total=Decimal("9.00"))
    before(CREATED).when(modify(TEA)).then(changed)
    before(CREATED, PAID).when(modify(TEA)).then(changed)
    before(CREATED, PAID, SHIPPED).when(modify(TEA)).then_refused("it is SHIPPED", "CREATED or PAID")
    before(CREATED, CANCELLED).when(modify(TEA)).then_refused("it is CANCELLED")
    before().when(modify(TEA)).then_refused("there is no such order")


# --- pay and ship -------------------------------------------------------------------------------------------


def test_what_is_owed_is_paid_at_once_or_in_parts() -> None:
    """A gift card first, and another means for the rest."""
    before(CREATED).when(pay(29, method="card", card="**34")).then(
        tl.PaymentAuthorized(amount=Decimal("29.00"), method="card", card="**34")
    )
    part = tl.PaymentAuthorized(amount=Decimal("10.00"))
    before(CREATED).when(pay(10)).then(part)
    before(CREATED, part).when(pay(19)).then(tl.PaymentAuthorized(amount=Decimal("19.00")))
    before(CREATED, part).when(pay("19.01")).then_refused("19.01 is more than the 19.00 that is owed")
    before(CREATED, PAID).when(pay("0.01")).then_refused("0.01 is more than the 0.00 that is owed")


def test_a_changed_order_owes_the_difference() -> None:
    """What was refunded is owed again."""
    more = tl.OrderModified(items=[TEA, TEA, POT], total=Decimal("38.00"))
    before(CREATED, PAID, more).when(pay(9)).then(tl.PaymentAuthorized(amount=Decimal("9.00")))
    before(CREATED, PAID, more).when(ship).then_refused("9.00 of 38.00 is still owed")
    given_back = tl.RefundIssued(amount=Decimal("5.00"))
    before(CREATED, PAID, given_back).when(pay(5)).then(tl.PaymentAuthorized(amount=Decimal("5.00")))


@pytest.mark.parametrize("amount", [0, -5])
def test_money_that_is_none_does_not_move(amount: int) -> None:
    """In neither direction."""
    before(CREATED).when(pay(amount)).then_refused("must be more than 0")
    before(CREATED, PAID).when(refund(amount)).then_refused("must be more than 0")


def test_a_parcel_leaves_when_all_is_paid() -> None:
    """Once."""
    before(CREATED, PAID).when(ship).then(SHIPPED)
    before(CREATED).when(ship).then_refused("from CREATED to SHIPPED", "allowed: PAID, CANCELLED")
    before(CREATED, PAID, SHIPPED).when(ship).then_refused("from SHIPPED to SHIPPED")
    part = tl.PaymentAuthorized(amount=Decimal("10.00"))
    before(CREATED, part).when(ship).then_refused("19.00 of 29.00 is still owed", "AuthorizePayment")


def test_nothing_is_done_with_an_order_that_is_not_there() -> None:
    """The refusal says what may come first."""
    for command in (pay(1), ship, deliver, cancel):
        before().when(command).then_refused("from nothing", "allowed: CREATED")
    for command in (refund(1), correct(1), take_back(back("tea", 1)), modify(TEA)):
        before().when(command).then_refused("there is no such order", "CreateOrder")


def test_an_order_that_was_paid_and_never_created_is_not_guessed_at() -> None:
    """An imported history can begin anywhere."""
    before(PAID).when(ship).then_refused("there is no such order")
    before(PAID).when(pay(1)).then_refused("there is no such order")


# --- deliver and cancel -------------------------------------------------------------------------------------


def test_what_was_shipped_is_delivered() -> None:
    """And nothing else is."""
    before(CREATED, PAID, SHIPPED).when(deliver).then(DELIVERED)
    before(CREATED, PAID).when(deliver).then_refused("from PAID to DELIVERED", "SHIPPED")
    before(CREATED, PAID, SHIPPED, CANCELLED).when(deliver).then_refused("nothing may follow CANCELLED")


def test_an_order_is_cancelled_until_it_is_delivered() -> None:
    """A parcel can be called back."""
    gone = tl.OrderCancelled(reason="changed mind")
    for life in ([CREATED], [CREATED, PAID], [CREATED, PAID, SHIPPED]):
        before(*life).when(cancel).then(gone)
    delivered = before(CREATED, PAID, SHIPPED, DELIVERED)
    delivered.when(cancel).then_refused("from DELIVERED to CANCELLED", "nothing may follow DELIVERED")
    before(CREATED, gone).when(cancel).then_refused("nothing may follow CANCELLED")


# --- return, refund, correct --------------------------------------------------------------------------------


def test_what_was_bought_comes_back_at_most_once() -> None:
    """Also in parts, and when a cancelled parcel comes back."""
    life = [CREATED, PAID, SHIPPED, DELIVERED]
    one = tl.ItemsReturned(items=[back("tea", 1)])
    before(*life).when(take_back(back("tea", 1))).then(one)
    before(*life, one).when(take_back(back("tea", 1))).then(one)
    before(*life, one, one).when(take_back(back("tea", 1))).then_refused(
        "1 of 'tea' come back, and 0 can: 2 bought, 2 returned before"
    )
    before(*life).when(take_back(back("tea", 2), back("tea", 1))).then_refused("3 of 'tea' come back")
    before(CREATED, PAID, SHIPPED, CANCELLED).when(take_back(back("pot", 1))).then(
        tl.ItemsReturned(items=[back("pot", 1)])
    )


def test_what_was_not_bought_or_not_shipped_does_not_come_back() -> None:
    """The refusal names what was bought."""
    before(CREATED, PAID, SHIPPED).when(take_back(back("cup", 1))).then_refused(
        "'cup' was not bought", "'tea'"
    )
    before(CREATED, PAID).when(take_back(back("tea", 1))).then_refused("it is PAID, and nothing was shipped")
    before(CREATED, PAID, SHIPPED).when(take_back()).then_refused("there are no items")
    before(CREATED, PAID, SHIPPED).when(take_back(back("tea", 0))).then_refused("the quantity is 0")


def test_money_goes_back_as_far_as_it_was_paid() -> None:
    """In parts, and whatever the order's status."""
    half = tl.RefundIssued(amount=Decimal("14.50"))
    before(CREATED, PAID, half).when(refund("14.50")).then(half)
    before(CREATED, PAID, half).when(refund("14.51")).then_refused(
        "14.51 is more than the 14.50 that was paid and not refunded"
    )
    before(CREATED, PAID, CANCELLED).when(refund(29)).then(tl.RefundIssued(amount=Decimal("29.00")))
    before(CREATED).when(refund(1)).then_refused("1.00 is more than the 0.00")


def test_a_wrong_total_is_corrected_by_an_event_that_says_why() -> None:
    """What was recorded stays; the difference goes back by a refund."""
    right = tl.OrderCorrected(
        corrected_amount=Decimal("27.00"), reason="the pot was on offer", original_order_id="order-1"
    )
    before(CREATED, PAID, SHIPPED).when(correct(27)).then(right)
    before(CREATED, PAID, SHIPPED, right).when(refund(2)).then(tl.RefundIssued(amount=Decimal("2.00")))
    before(CREATED).when(correct(-1)).then_refused("must not be negative")
    before(CREATED).when(correct(29)).then_refused("the total is 29.00 already")
    before(CREATED).when(correct(27, reason=" ")).then_refused("a correction says why")


# --- amounts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [Decimal("19.90"), "19.90", 19.9, "19.9", Decimal("19.900")])
def test_an_amount_is_taken_for_what_it_says(amount: Any) -> None:
    """A float by its shortest text, which is what its writer wrote."""
    assert pay(amount).amount == Decimal("19.90")
    assert str(pay(amount).amount) == "19.90"


@pytest.mark.parametrize(
    ("amount", "why"),
    [
        (0.1 + 0.2, "at most two decimals"),
        ("19.999", "at most two decimals"),
        (Decimal("19.990000000000000001"), "at most two decimals"),
        (float("nan"), "expected an amount"),
        ("ten", "found 'ten'"),
        (True, "found True"),
        (10**15, "expected an amount below"),
    ],
)
def test_an_amount_that_is_not_exact_is_no_amount(amount: Any, why: str) -> None:
    """It is refused where the command is made, and the field is named."""
    with pytest.raises(CommandError, match=why) as caught:
        pay(amount)
    assert "AuthorizePayment" in str(caught.value)
    assert caught.value.data["path"] == "amount"


def test_a_field_deep_inside_is_named() -> None:
    """So that a form can show it."""
    with pytest.raises(CommandError, match=r"CreateOrder: .* at items\[0\]\.quantity"):
        create(items=[{"product_id": "tea", "quantity": 1.5, "price": 1}])
    with pytest.raises(CommandError, match=r"required field missing, .* at items\[0\]\.price"):
        create(items=[{"product_id": "tea", "quantity": 1}])


# --- all that can be reached --------------------------------------------------------------------------------

often = settings(
    derandomize=True, max_examples=80, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=600, phases=[Phase.generate])

few = st.integers(0, 3)
euros = st.sampled_from([-1, 0, 1, 2, "4.50", 9, 18, 20, 29])
lines = st.lists(
    st.builds(
        lambda product_id, quantity: Item(
            product_id=product_id,
            quantity=quantity,
            price=Decimal("4.50") if product_id == "tea" else POT.price,
        ),
        st.sampled_from(["tea", "pot"]),
        few,
    ),
    min_size=1,
    max_size=2,
)
asked = st.one_of(
    st.builds(lambda items: create(items=items), lines),
    st.builds(lambda items: modify(*items), lines),
    st.builds(pay, euros),
    st.sampled_from([None, ship, deliver, cancel]),
    st.builds(lambda n, name: take_back(back(name, n)), few, st.sampled_from(["tea", "pot", "cup"])),
    st.builds(refund, euros),
    st.builds(correct, euros, st.sampled_from(["", "wrong"])),
)


begun = st.sampled_from([[], [None], [None, ship], [None, ship, deliver]])  # or few would ever be shipped


def every_decision_keeps_the_rules(wanted: list[tl.Command | None], moments: list[int]) -> None:
    """Ask one thing after the other; None pays what is owed. What is allowed is a life without a fault."""
    life: list[tl.EventType] = []
    for command in [create(), *wanted]:
        here = before(*life)
        state = here.state("order-1")
        if command is None:
            command = pay((state.total or 0) - (state.paid - state.refunded))
        try:
            decided = here.when(command).decided()
        except Refused:
            continue
        assert decided
        life += decided
        assert slow_commands.faults([(e.event_type, slow.plain(e)) for e in life]) == []
    log = tl.open("memory://")
    stamps = [slow.START_OF_ALL.replace(minute=minute) for minute in moments]
    rows = [{"payload": one, "timestamp": at} for one, at in zip(life, itertools.cycle(stamps), strict=False)]
    log.append("order-1", rows, 0, metadata=tl.Metadata(schema_version=1))
    book = log.fold(OrderInHand)
    assert book.rejected.is_empty()
    assert book.conform().findings.is_empty()
    told = book.history().drop("valid_from", "valid_to").to_dicts()
    assert told == slow.history(OrderInHand, slow.lives_of(log.read()))


lives = {
    "wanted": st.builds(list.__add__, begun, st.lists(asked, max_size=9)),
    "moments": st.lists(st.integers(0, 59), min_size=1, max_size=3),
}


def test_what_is_decided_is_allowed_and_folds_alike_as_columns_and_step_by_step() -> None:
    """From every state that commands can lead to; clocks may step back."""
    often(given(**lives)(every_decision_keeps_the_rules))()


def let_all_pass(*_: Any) -> None:
    """Refuse nothing."""


def count_lines(lines: list[Any]) -> Counter[str]:
    """Take a line for one piece."""
    return Counter(one["product_id"] if isinstance(one, dict) else one.product_id for one in lines)


@pytest.mark.parametrize(
    "bugs",
    [
        [(commands, "allow", let_all_pass), (command_module, "allow", let_all_pass)],
        [(commands, "_at_most", let_all_pass)],
        [(commands, "_must_exist", let_all_pass), (commands, "CHANGEABLE", ("CREATED", "PAID", "SHIPPED"))],
        [(commands, "_quantities", count_lines)],
        [(commands, "_check_lines", let_all_pass)],
    ],
    ids=lambda bugs: bugs[0][1],
)
def test_that_property_notices_a_rule_that_is_not_kept(
    bugs: list[tuple[Any, str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bugs: each takes one rule away."""
    for where, name, bug in bugs:
        monkeypatch.setattr(where, name, bug)
    with pytest.raises(AssertionError):
        hunting(given(**lives)(every_decision_keeps_the_rules))()


def test_in_any_history_at_all_a_command_is_decided_or_refused() -> None:
    """Also in one that no command could have led to; nothing else is raised."""

    @often
    @given(events=histories(max_aggregates=1), command=asked)
    def check(events: Any, command: tl.Command | None) -> None:
        for life in slow.lives_of(events).values():
            state = OrderInHand.fold(life)
            try:
                decided = command_module.decide(OrderInHand, DECIDERS, state, command or pay(1))
            except Refused:
                continue
            assert all(as_read(one) == one for one in decided)

    check()


# --- the samples --------------------------------------------------------------------------------------------


def asked_for(order_id: str, event: tl.EventType) -> tl.Command:
    """Give the command that a recorded event may have come from."""
    told = {name: value for name, value in vars(event).items() if name not in ("total", "original_order_id")}
    kinds = dict(
        zip(
            (
                "OrderCreated",
                "OrderModified",
                "PaymentAuthorized",
                "OrderShipped",
                "OrderDelivered",
                "OrderCancelled",
                "ItemsReturned",
                "RefundIssued",
                "OrderCorrected",
            ),
            (
                tl.CreateOrder,
                tl.ModifyOrder,
                tl.AuthorizePayment,
                tl.ShipOrder,
                tl.DeliverOrder,
                tl.CancelOrder,
                tl.ReturnItems,
                tl.IssueRefund,
                tl.CorrectOrder,
            ),
            strict=True,
        )
    )
    return kinds[event.event_type](**told | {"order_id": order_id})


def test_the_sample_orders_are_what_commands_would_have_led_to() -> None:
    """But for a standing order that is changed for weeks, and three parcels that came after all."""
    refused: Counter[str] = Counter()
    log = tl.open("sqlite:///data/samples/orders.db")
    for order_id, life in slow.lives_of(log.read()).items():
        state = OrderInHand.initial(order_id)
        for stored in life:
            event: Event = OrderInHand.read(stored)
            try:
                (decided,) = command_module.decide(
                    OrderInHand, DECIDERS, state, asked_for(order_id, event.payload)
                )
            except Refused:
                refused[f"{event.event_type} of {state.status}"] += 1
            else:
                told = slow.plain(event.payload)
                if event.event_type == "OrderCorrected":
                    told["original_order_id"] = order_id
                assert slow.plain(decided) == told
            state = OrderInHand.evolve(state, event)
    assert refused == {"OrderModified of SHIPPED": 4511, "OrderDelivered of CANCELLED": 3}
