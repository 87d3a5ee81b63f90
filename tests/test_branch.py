"""Branches by example: what an edit may say, what it refuses, and what a branch tells of itself."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import polars as pl
import pytest

import titan_lab as tl
from titan_lab.book import Book, Branch
from titan_lab.errors import BranchError, InstantError, NoSuchColumn
from titan_lab.event import EVENTS
from titan_lab.timeline import Timeline

START = datetime(2025, 1, 1, 10, tzinfo=UTC)
ITEMS = [{"product_id": "cup", "quantity": 1, "price": "5.00"}]


def row(life: str, version: int | None, kind: str, minute: int, payload: dict | str | None = None, **also):
    text = payload if isinstance(payload, str) else json.dumps(payload or {})
    stamp = START + timedelta(minutes=minute)
    return {
        "aggregate_id": life,
        "version": version,
        "event_type": kind,
        "payload": text,
        "metadata": None,
        "timestamp": stamp,
    } | also


CREATED = {"user_id": "u", "items": ITEMS, "total": "5.00"}
HISTORY = [
    row("a", 1, "OrderCreated", 0, CREATED),
    row("a", 2, "PaymentAuthorized", 1, {"amount": "5.00"}),
    row("a", 3, "OrderShipped", 2, {"tracking": "T1"}),
    row("a", 4, "OrderDelivered", 3),
    row("b", 1, "OrderCreated", 1, CREATED),
    row("b", 2, "OrderCancelled", 4, {"reason": "dear"}),
    row("c", 1, "OrderCreated", 5, CREATED),
]


def events(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


@pytest.fixture
def book() -> Book:
    return tl.from_frame(events(*HISTORY)).fold(tl.Order)


def text(made: str) -> str:
    """Take off the markup, as a reader does."""
    return " ".join(re.sub(r"<style.*?</style>|<[^>]*>", " ", made, flags=re.DOTALL).split())


# --- what a branch answers ----------------------------------------------------------------------------------


def test_what_is_left_out_leaves_a_gap(book: Book):
    """The other versions stay as they are, so that they can be found in the base."""
    one = book.branch().without(event_type=tl.PaymentAuthorized)

    assert one["a"].log()["version"].to_list() == [1, 3, 4]
    assert one["a"].log()["payload"].to_list() == [HISTORY[n]["payload"] for n in (0, 2, 3)]
    assert one["a"].now.paid == 0
    assert book["a"].now.paid == Decimal("5.00")


def test_an_order_without_any_event_is_not_there(book: Book):
    """And its values are missing from the sums."""
    one = book.branch().without(aggregate_id="c")

    assert "c" not in one
    assert len(one) == 2
    told = one.compare()
    assert told.states.row(0) == (None, None, 3, 2, -1)
    assert told.totals.row(0) == ("total", Decimal("15.00"), Decimal("10.00"), Decimal("-5.00"))
    assert told.of("status").rows() == [("c", "CREATED", None)]
    assert set(told.orders["aggregate_id"]) == {"c"}


def test_every_edit_is_a_book_and_a_timeline(book: Book):
    """So it answers whatever a book answers."""
    one = book.branch("x").without(version=2)

    assert isinstance(one, Branch)
    assert isinstance(one, Book)
    assert isinstance(one, Timeline)
    assert one.span == (book.span[0], book.span[1])
    assert one.undeclared == {}
    assert one.every("1d", START, START)["count"].sum() == 1


def test_an_edited_amount_is_exact(book: Book):
    """A decimal is written with its digits, and read back as itself."""
    one = book.branch().edit(set={"amount": Decimal("0.10")}, event_type="PaymentAuthorized")

    assert one["a"].now.paid == Decimal("0.10")
    assert one["a"].log()["payload"][1] == '{"amount": 0.10}'


def test_a_value_may_be_an_expression_over_the_event(book: Book):
    """A payment that comes an hour later."""
    later = pl.col("timestamp") + pl.duration(hours=1)
    one = book.branch().edit(set={"timestamp": later}, event_type="PaymentAuthorized")

    assert one["a"].now.paid_at == START + timedelta(minutes=61)
    assert one["a"].at("2025-01-01T10:30Z").status == "CREATED"


def test_an_old_payload_is_brought_to_its_current_shape_before_it_is_edited():
    """So that a field means what the declaration says, and the rest stays as it was read."""
    old = row(
        "a", 1, "OrderCreated", 0, {"user_id": "u", "items": [{"product_id": "p", "price": 2}], "total": 2}
    )
    one = tl.from_frame(events(old)).fold(tl.Order).branch().edit(set={"user_id": "v"}, version=1)

    assert one["a"].now.user_id == "v"
    assert one["a"].now.items[0]["quantity"] == 1
    assert json.loads(one["a"].log()["metadata"][0]) == {"schema_version": 2}


def test_metadata_is_set_without_losing_the_schema_version():
    """Else the payload would be read as an older one."""
    first = row("a", 1, "OrderCreated", 0, CREATED, metadata='{"schema_version": 2, "correlation_id": "r"}')
    one = tl.from_frame(events(first)).fold(tl.Order).branch().edit(set={"metadata": {"by": "me"}}, version=1)

    assert json.loads(one["a"].log()["metadata"][0]) == {"schema_version": 2, "by": "me"}


def test_an_event_may_become_another_type(book: Book):
    """What was cancelled is paid instead."""
    one = book.branch().edit(
        event_type="OrderCancelled", set={"event_type": tl.PaymentAuthorized, "amount": 5}
    )

    assert one["b"].now.status == "PAID"
    assert one["b"].now.paid == 5


def test_a_whole_payload_may_be_set_and_lists_of_records_too(book: Book):
    """As dicts."""
    one = book.branch().edit(aggregate_id="c", set={"payload": CREATED | {"total": 7}})
    two = one.edit(
        aggregate_id="c", set={"items": [{"product_id": "pot", "quantity": 2, "price": Decimal(3)}]}
    )

    assert one["c"].now.total == 7
    assert two["c"].now.items == [{"product_id": "pot", "quantity": 2, "price": Decimal("3.00")}]


def test_events_may_come_as_pandas_and_arrow_and_records(book: Book):
    """Whatever polars takes."""
    frame = events(row("c", 2, "PaymentAuthorized", 9, {"amount": 5}))
    for form in (frame, frame.lazy(), frame.to_arrow(), pd.DataFrame(frame.to_dicts()), frame.to_dicts()):
        assert book.branch().insert(form)["c"].now.paid == 5


def test_an_event_without_a_version_comes_after_the_last(book: Book):
    """Several in the order of their rows, also after what an earlier edit inserted."""
    new = events(row("c", None, "PaymentAuthorized", 9, {"amount": 5}), row("c", None, "OrderShipped", 8))
    one = book.branch().insert(new).insert(new.drop("version"))

    assert one["c"].log()["version"].to_list() == [1, 2, 3, 4, 5]
    assert one["c"].log()["event_type"].to_list()[1:3] == ["PaymentAuthorized", "OrderShipped"]


def test_a_place_that_was_left_out_can_be_taken(book: Book):
    """A history is corrected by leaving out and putting in."""
    new = events(row("a", 2, "PaymentAuthorized", 1, {"amount": "4.00"}))
    one = book.branch().without(aggregate_id="a", version=2).insert(new)

    assert one["a"].now.paid == Decimal("4.00")
    assert len(one.typed) == len(book.typed)


def test_room_is_made_in_the_middle(book: Book):
    """The events from there on move up by one."""
    one = book.branch().insert(events(row("a", 2, "OrderCancelled", 1)), shift=True)

    kinds = ["OrderCreated", "OrderCancelled", "PaymentAuthorized", "OrderShipped", "OrderDelivered"]
    assert one["a"].log().select("version", "event_type").rows() == list(enumerate(kinds, start=1))
    assert one["a"].log()["payload"][2] == HISTORY[1]["payload"]
    assert one.compare().illegal.select("version", "from_state", "to_state").rows() == [
        (3, "CANCELLED", "PAID")
    ]


def test_a_new_life_begins_at_version_one(book: Book):
    """Between others, in order."""
    one = book.branch().insert(events(row("aa", 1, "OrderCreated", 7, CREATED)))

    assert one.ids.to_list() == ["a", "aa", "b", "c"]
    assert one.touched == 1
    assert one.compare().of("total").rows() == [("aa", None, Decimal("5.00"))]


# --- branches of branches, and of the past ------------------------------------------------------------------


def test_a_branch_can_be_branched_from(book: Book):
    """It is then what the second one is compared with; the book can be asked for, too."""
    one = book.branch("one").without(event_type="OrderCancelled")
    two = one.branch("two").without(aggregate_id="c")

    assert two.compare().of("status").rows() == [("c", "CREATED", None)]
    assert two.compare(book).of("status").rows() == [("b", "CANCELLED", "CREATED"), ("c", "CREATED", None)]
    assert two.compare(one).orders.equals(two.compare().orders)
    assert repr(two).startswith("<Branch 'two' of Order on 'one': without(aggregate_id='c'); 1 events gone")


def test_fifty_edits_in_a_row(book: Book):
    """Each gives a branch; none changes the one before."""
    one = book.branch()
    for n in range(50):
        one = one.insert(events(row("c", None, "PaymentAuthorized", n, {"amount": "0.01"})))
    assert one["c"].now.paid == Decimal("0.50")
    assert one.edits.height == 50
    assert repr(one).startswith("<Branch 'what-if' of Order: 47 edits; insert(1 events)")
    for n in range(2, 52):
        one = one.without(aggregate_id="c", version=n)
    assert one.touched == 0
    assert one.history().equals(book.history())


def test_before_all_events_there_is_nothing_and_a_life_can_begin(book: Book):
    """A branch of an empty past is empty, and takes events."""
    one = book.branch(at="2020-01-01")

    assert len(one) == 0
    assert one.at("2025-02-01").is_empty()
    assert one.compare().states.row(0) == (None, None, 0, 0, 0)
    one = one.insert(events(row("z", 1, "OrderCreated", 7, CREATED)))
    assert one.at("2025-02-01")["aggregate_id"].to_list() == ["z"]
    assert one.compare().totals.row(0)[1:] == (Decimal("0.00"), Decimal("5.00"), Decimal("5.00"))


def test_a_branch_at_a_version_knows_no_later_one(book: Book):
    """Of each aggregate that many."""
    one = book.branch(at=2)

    assert one.typed.version.max() == 2
    assert one["a"].now.status == "PAID"
    assert one.without(version=2)["a"].now.status == "CREATED"
    assert one.insert(events(row("a", 3, "OrderCancelled", 9)))["a"].now.status == "CANCELLED"


@pytest.mark.parametrize("at", ["yesterday", datetime(2025, 1, 1), True, 1.5])
def test_a_branch_begins_at_an_instant_or_a_version(book: Book, at: object):
    """Nothing else, and no naive moment."""
    with pytest.raises(InstantError):
        book.branch(at=at)


# --- another declaration ------------------------------------------------------------------------------------


class Patient(tl.Order):
    """Nothing may follow a delivery or a shipment."""

    status = tl.machine(
        {tl.OrderCreated: "NEW", tl.OrderShipped: "SHIPPED", tl.OrderCancelled: "CANCELLED"},
        allowed={None: ["NEW"], "NEW": ["SHIPPED"], "SHIPPED": [], "CANCELLED": []},
    )
    payments = tl.count(tl.PaymentAuthorized)


class Paid(tl.EventType):
    event_type = "PaymentAuthorized"
    amount: int


class Counted(tl.Aggregate):
    paid = tl.total_of(Paid, "amount")
    events = tl.count(Paid)


def test_a_book_is_folded_by_another_declaration(book: Book):
    """Columns that both have are compared, with what is illegal by the new one."""
    one = book.branch().without(aggregate_id="c").refold(Patient)

    assert one["a"].now.payments == 1
    assert one.touched == 3
    told = one.compare()
    assert told.of("status").rows() == [("a", "DELIVERED", "SHIPPED"), ("c", "CREATED", None)]
    assert told.illegal.select("aggregate_id", "from_state", "to_state").rows() == [("b", "NEW", "CANCELLED")]


def test_other_event_types_are_decoded_anew_and_what_does_not_fit_is_told():
    """An amount with cents is no whole number."""
    rows = [
        row("a", 1, "PaymentAuthorized", 0, {"amount": 5}),
        row("a", 2, "PaymentAuthorized", 1, {"amount": 1.5}),
    ]
    one = tl.from_frame(events(*rows)).fold(tl.Order).branch().refold(Counted)

    assert one["a"].now.paid == 5
    assert one.rejected.select("version", "path").rows() == [(2, "$.amount")]
    assert one.compare().of("paid").rows() == [("a", Decimal("6.50"), 5)]


class Other(tl.Aggregate):
    """Shares no column with an order."""

    parcels = tl.count(tl.OrderShipped)


def test_what_has_no_column_in_common_is_not_compared(book: Book):
    """Nor would it tell anything."""
    with pytest.raises(BranchError, match="Other and Order have no column in common"):
        book.branch().refold(Other).compare()


# --- what is refused ----------------------------------------------------------------------------------------


def refused(says: str, edit, error: type[Exception] = BranchError) -> str:
    with pytest.raises(error, match=re.escape(says)) as caught:
        edit()
    return str(caught.value.hint)


def test_a_version_that_is_taken_is_refused(book: Book):
    """With what to do instead."""
    one = book.branch()
    new = events(row("a", 3, "OrderCancelled", 9))

    hint = refused("version 3 of a is taken by OrderShipped", lambda: one.insert(new))
    assert "shift=True" in hint
    assert one.history().equals(book.history())


def test_a_version_that_leaves_a_gap_is_refused(book: Book):
    """Also with shift, also within the frame."""
    one = book.branch()
    far = events(row("a", 7, "OrderCancelled", 9))
    two = events(row("a", 5, "OrderCancelled", 9), row("a", 7, "OrderCancelled", 9))

    assert "the next version is 5" in refused(
        "version 7 of a would follow version 4", lambda: one.insert(far)
    )
    refused("version 7 of a would follow version 4", lambda: one.insert(far, shift=True))
    refused("version 7 of a would follow version 5", lambda: one.insert(two))
    begun = events(row("z", 1, "OrderCreated", 0, CREATED), row("z", 3, "OrderShipped", 1))
    refused("version 3 of z would follow version 1", lambda: one.insert(begun))


@pytest.mark.parametrize("version", [None, 2])
def test_an_event_of_nobody_is_refused(book: Book, version: int | None):
    """It belongs to no aggregate, and begins none."""
    other = tl.from_frame(
        events(*[{**one, "aggregate_id": "order-" + one["aggregate_id"]} for one in HISTORY])
    )
    one = other.fold(tl.Order).branch()

    hint = refused(
        "nobody has the aggregate 'ordr-a'", lambda: one.insert(events(row("ordr-a", version, "X", 0)))
    )
    assert "Did you mean 'order-a'" in hint
    assert "version 1" in hint


def test_a_version_twice_in_one_frame_is_refused(book: Book):
    """Neither is the first one."""
    new = events(row("c", 2, "OrderShipped", 1), row("c", 2, "OrderCancelled", 1))
    refused("the frame has version 2 of c more than once", lambda: book.branch().insert(new))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"payload": "[1]"}, "payload is not the text of one JSON object at $"),
        ({"timestamp": None}, "no instant"),
        ({"event_type": None}, "event_type is missing"),
        ({"version": -1}, "version is not a whole number from 1 on"),
        (
            {"payload": '{"amount": "much"}'},
            "found 'much' (text), expected an amount such as 12.50 at $.amount",
        ),
        ({"payload": "{}"}, "required field missing, expected an amount such as 12.50 at $.amount"),
    ],
)
def test_a_row_that_is_no_event_is_refused(book: Book, change: dict, says: str):
    """With its place and the reason that reading would give."""
    new = events({**row("c", 2, "PaymentAuthorized", 9, {"amount": 1}), **change})
    refused(says, lambda: book.branch().insert(new))


def test_a_payload_that_an_edit_breaks_is_refused_and_nothing_is_changed(book: Book):
    """With aggregate, version, path and reason."""
    one = book.branch()

    refused(
        "a version 2 would be no event: found 'a lot' (text), expected an amount such as 12.50 at $.amount;"
        " nothing was changed",
        lambda: one.edit(event_type="PaymentAuthorized", set={"amount": "a lot"}),
    )
    refused(
        "a version 1 would be no event: found 'two' (text), expected a whole number at $.items[0].quantity"
        " (3 such events)",
        lambda: one.edit(event_type="OrderCreated", set={"items": [{**ITEMS[0], "quantity": "two"}]}),
    )
    refused(
        "required field missing, expected text at $.user_id",
        lambda: one.edit(event_type="OrderCreated", set={"user_id": None}),
    )
    refused(
        "required field missing, expected an amount such as 12.50 at $.amount",
        lambda: one.edit(event_type="OrderShipped", set={"event_type": "PaymentAuthorized"}),
    )
    assert one.history().equals(book.history())
    assert one.touched == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"event_type": None}, "event_type is missing"),
        ({"metadata": "{"}, "metadata is set to '{', which is no JSON object"),
        ({"metadata": {"schema_version": 0}}, "schema_version is not a whole number from 1 on"),
        ({"payload": [1]}, "payload is set to [1], which is no JSON object"),
        ({"tracking": START.date()}, "cannot be written as JSON"),
        ({"tracking": {"a": 1}}, "expected text at $.tracking"),
        ({"timestamp": pl.lit(None, EVENTS["timestamp"])}, "no instant"),
        ({"tracking": pl.col("timestamp").str.contains("x")}, "the value of tracking cannot be worked out"),
    ],
)
def test_what_an_event_cannot_hold_is_refused(book: Book, values: dict, says: str):
    """Before anything is changed."""
    refused(says, lambda: book.branch().edit(event_type="OrderShipped", set=values), tl.TitanError)


def test_an_event_may_take_the_place_of_one_that_was_refused():
    """The store holds both then, and the branch knows which one counts."""
    broken = row("a", 2, "PaymentAuthorized", 1, {"amount": "much"})
    paid = row("a", 2, "PaymentAuthorized", 1, {"amount": 4})
    book = tl.from_frame(events(HISTORY[0], broken)).fold(tl.Order)
    one = book.branch().insert(events(paid))

    assert one["a"].log()["payload"].to_list()[1] == paid["payload"]
    assert one.edit(version=2, set={"amount": 5})["a"].now.paid == 5


def test_a_store_that_lost_events_is_noticed(book: Book):
    """An edit would otherwise be one of nothing."""
    book.read_events = lambda ids: EVENTS.to_frame()
    refused(
        "1 of 1 events are not in the store any more",
        lambda: book.branch().without(pl.col("payload") == "", version=4),
    )


def test_an_edit_that_meets_no_event_says_so(book: Book):
    """No error: a branch that equals its base, and counts nothing."""
    for one in (
        book.branch().without(aggregate_id="nobody"),
        book.branch().without(pl.col("version") > 99),
        book.branch().edit(set={"amount": 1}, until="2020-01-01"),
        book.branch().without(event_type="RefundIssued"),  # declared, and never seen
        book.branch().insert(EVENTS.to_frame()),
    ):
        assert one.touched == 0
        assert one.edits["events"].to_list() == [0]
        assert "0 aggregates touched" in repr(one)
        assert "no edit met any event" in text(one._repr_html_())
        assert one.history().equals(book.history())
        assert one.compare().changed == 0


def test_a_type_that_nobody_knows_is_refused(book: Book):
    """With near ones: it would quietly meet nothing."""
    hint = refused(
        "no event is of type 'OrderCanceled'", lambda: book.branch().without(event_type="OrderCanceled")
    )
    assert "'OrderCancelled'" in hint


def test_an_edit_must_say_which_events(book: Book):
    """Leaving out all by leaving out the filter is no what-if."""
    refused("no event is named", lambda: book.branch().without())
    refused("no event is named", lambda: book.branch().edit(set={"total": 1}))
    refused("version is '2', no whole number", lambda: book.branch().without(version="2"))
    refused("edit(set=None) sets nothing", lambda: book.branch().edit(event_type="OrderCreated"))


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (pl.col("version") + 1, "where gives Int64, not true or false for each event"),
        (pl.col("version", "timestamp") == 1, "where"),
        (pl.col("version").filter(pl.col("version") > 2) > 2, "where"),
        (pl.col("version") > "x", "where cannot be worked out"),
        (pl.col("timestamp").str.contains("x"), "where cannot be worked out"),
        ("version > 3", "where is a str, no polars expression"),
        (lambda event: True, "where is a function, no polars expression"),
    ],
)
def test_a_where_that_is_no_boolean_is_refused(book: Book, where: object, says: str):
    """Whatever else it gives, or does."""
    refused(says, lambda: book.branch().without(where))


def test_a_where_without_a_column_answers_for_all(book: Book):
    """And null is no."""
    assert len(book.branch().without(pl.lit(True)).typed) == 0
    assert len(book.branch().without(pl.lit(None, pl.Boolean)).typed) == len(book.typed)
    assert len(book.branch().without(pl.col("metadata") == "{}").typed) == len(book.typed)


def test_a_where_sees_what_the_other_filters_let_through(book: Book):
    """The latest of the shipments, not of all events."""
    one = book.branch().without(pl.col("timestamp") == pl.col("timestamp").max(), event_type="OrderCreated")
    assert one.gone.tolist() == [6]


def test_columns_that_are_not_there_are_refused(book: Book):
    """In a condition, in a value, and as a field of the payload."""
    one = book.branch()
    hint = refused(
        "events have no column 'event_typ'", lambda: one.without(pl.col("event_typ") == "x"), NoSuchColumn
    )
    assert "'event_type'" in hint
    hint = refused("events have no column 'amount'", lambda: one.without(pl.col("amount") > 3), NoSuchColumn)
    assert "json_path_match('$.amount')" in hint
    refused(
        "no column 'stamp'", lambda: one.edit(version=1, set={"timestamp": pl.col("stamp")}), NoSuchColumn
    )
    hint = refused(
        "PaymentAuthorized has no field 'amuont'",
        lambda: one.edit(event_type="PaymentAuthorized", set={"amuont": 1}),
        NoSuchColumn,
    )
    assert "'amount'" in hint
    refused(
        "OrderCreated has no field 'amount'",
        lambda: one.edit(aggregate_id="a", set={"amount": 1}),
        NoSuchColumn,
    )
    assert "'total'" in refused("'totl' is no column", lambda: one.compare().of("totl"), NoSuchColumn)
    refused("'version' is no column", lambda: one.compare().of("version"), NoSuchColumn)
    refused(
        "'payments' is no column of both", lambda: one.refold(Patient).compare().of("payments"), NoSuchColumn
    )


@pytest.mark.parametrize("name", ["aggregate_id", "version"])
def test_a_place_is_not_edited(book: Book, name: str):
    """An event is moved by leaving it out and putting it in."""
    hint = refused(
        "is its place, which no edit changes", lambda: book.branch().edit(version=1, set={name: 2})
    )
    assert ".insert(" in hint


def test_a_moment_without_a_zone_is_refused(book: Book):
    """As a filter and as a value."""
    refused("no time zone", lambda: book.branch().without(since=datetime(2025, 1, 1)), InstantError)
    refused(
        "no time zone",
        lambda: book.branch().edit(version=1, set={"timestamp": "2025-01-01T00:00"}),
        InstantError,
    )


def test_what_is_no_frame_is_refused(book: Book):
    """And a frame without the columns of events says which."""
    refused("what is inserted is a int, no frame", lambda: book.branch().insert(5))
    with pytest.raises(tl.TitanError, match="events lack the column"):
        book.branch().insert(pl.DataFrame({"aggregate_id": ["a"]}))


def test_a_book_without_a_store_can_leave_out_and_insert_but_not_edit(book: Book):
    """For the payloads' text is in the store alone."""
    alone = Book(tl.Order, book.typed)
    one = alone.branch().without(event_type="OrderCancelled").insert(events(row("c", 2, "OrderShipped", 9)))

    assert one["c"].now.status == "SHIPPED"
    refused("does not know its store", lambda: one.edit(set={"user_id": "v"}, event_type="OrderCreated"))


# --- what it tells of itself --------------------------------------------------------------------------------


def test_a_branch_says_what_was_edited(book: Book):
    """In its repr, its basis and its table of edits."""
    one = (
        book.branch("calm")
        .without(event_type="OrderCancelled")
        .edit(set={"amount": 1}, event_type=tl.PaymentAuthorized)
    )

    assert repr(one) == (
        "<Branch 'calm' of Order: without(event_type='OrderCancelled');"
        " edit(event_type=PaymentAuthorized, set=amount); 2 events gone, 1 new, 2 aggregates touched>"
    )
    assert one.edits.rows() == [
        ("without(event_type='OrderCancelled')", 1, 1),
        ("edit(event_type=PaymentAuthorized, set=amount)", 1, 1),
    ]
    assert one.basis.events == 6
    assert "branch 'calm'" in one.basis.source
    assert one.basis.fingerprint == book.basis.fingerprint


def test_other_edits_are_another_basis(book: Book):
    """Also where they are told alike."""
    ones = [book.branch().edit(set={"amount": n}, event_type="PaymentAuthorized") for n in (1, 2, 1)]

    assert ones[0].basis == ones[2].basis
    assert ones[0].basis != ones[1].basis
    assert book.branch().basis != book.basis


def test_a_branch_and_a_comparison_draw_payloads_as_text(book: Book):
    """An application wrote them, and a branch is given a name by anybody."""
    nasty = "<script>alert('x')</script>"
    one = book.branch(nasty).insert(events(row("c", 2, "OrderCancelled", 9, {"reason": nasty})))

    for made in (one._repr_html_(), one.compare()._repr_html_()):
        assert "<script" not in made
    assert "became illegal 0 (see .illegal)" in text(one.compare()._repr_html_())
    assert repr(one.compare()) == (
        f"<Comparison of {nasty!r} with its base: 1 touched, 1 changed, 0 became illegal>"
    )


def test_values_are_told_as_text_with_all_their_digits(book: Book):
    """Instants as ISO with a Z, lists as JSON, amounts with their cents."""
    new = row("aa", 1, "OrderCreated", 0, CREATED, timestamp=START + timedelta(microseconds=500))
    told = dict(book.branch().insert(events(new)).compare().orders.select("field", "after").rows())

    assert told["created_at"] == "2025-01-01T10:00:00.000500Z"
    assert told["total"] == "5.00"
    assert json.loads(told["items"])[0]["product_id"] == "cup"
    assert "shipped_at" not in told
