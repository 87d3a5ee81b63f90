"""What changed, when and why: what an analyst is told, and what bad input is answered with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.errors import (
    DeclarationError,
    InstantError,
    NoSuchAggregate,
    NoSuchColumn,
    NotMonotone,
    PredicateError,
)
from titan_lab.event import EVENTS
from titan_lab.why import bisect
from titan_lab.why.trace import TRACE

TOLD: list[tuple[str, int, str, dict, dict]] = [
    ("a", 1, "OrderCreated", {"user_id": "ann", "items": [{"product_id": 'tea "green"', "price": 10}]}, {}),
    ("a", 2, "PaymentAuthorized", {"amount": "10.00"}, {"correlation_id": "req-1"}),
    ("a", 3, "OrderShipped", {}, {"correlation_id": "req-1", "causation_id": "cmd-1", "event_id": "e-3"}),
    ("a", 4, "RefundIssued", {"amount": "10.00"}, {"causation_id": "e-3"}),
    (
        "b",
        1,
        "OrderCreated",
        {"user_id": "bob", "items": [], "total": 5},
        {"schema_version": 2, "causation_id": "a/4"},
    ),
]
NOON = "2025-01-01T12:00Z"


def frame(told: list[tuple[str, int, str, dict, dict]]) -> pl.DataFrame:
    rows = [
        (name, version, kind, json.dumps(payload), json.dumps(said), datetime(2025, 1, version, tzinfo=UTC))
        for name, version, kind, payload, said in told
    ]
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


def fold(told: list[tuple[str, int, str, dict, dict]]) -> Any:
    return tl.from_frame(frame(told)).fold(tl.Order)


@pytest.fixture
def book() -> Any:
    return fold(TOLD)


@pytest.fixture
def nothing() -> Any:
    return fold([])


# --- blame and diff ---------------------------------------------------------------------------------------


def test_a_computed_total_is_blamed_on_its_event_and_on_the_step_that_computed_it(book: Any) -> None:
    """The steps that wrote this field are named, not all that the payload went through."""
    total, items = (
        book.blame(name).select("value", "version", "upcast").rows() for name in ("total", "items")
    )
    assert total == [(Decimal("10.00"), 1, "total_of_items"), (Decimal("5.00"), 1, None)]
    assert [upcast for _, _, upcast in items] == ["one_of_each", None]


def test_a_value_nobody_set_is_nobodys(book: Any) -> None:
    """A sum that is still 0, and a column that is still empty, have no event."""
    assert book.blame("paid").drop("aggregate_id").row(1) == (Decimal("0.00"), *[None] * 5)
    assert book.blame("reason")["version"].null_count() == 2


def test_a_diff_of_several_dtypes_is_text(book: Any) -> None:
    """Amounts keep their decimals, instants are ISO-8601, lists are JSON that can be read back."""
    told = {row[0]: row[1:3] for row in book["a"].diff(0, 4).rows()}
    assert told["total"] == (None, "10.00")
    assert told["paid"] == ("0.00", "10.00")
    assert told["created_at"] == (None, "2025-01-01T00:00:00.000000Z")
    assert told["status"] == (None, "SHIPPED")
    assert json.loads(told["items"][1]) == [{"product_id": 'tea "green"', "quantity": 1, "price": 10.00}]


def test_a_diff_of_one_dtype_keeps_it(book: Any) -> None:
    """Amounts stay amounts, lists stay lists."""
    assert (
        book.diff(versions=(1, 4), columns=["paid", "refunded"])["after"].to_list() == [Decimal("10.00")] * 2
    )
    assert book.diff(versions=(0, 1), columns="items").schema["after"] == tl.Order.schema()["items"]


def test_a_story_blames_every_column(book: Any) -> None:
    """One row for each, in order of declaration; the id is nobody's change."""
    assert book["a"].blame()["field"].to_list() == [name for name in tl.Order.reducers if name != "id"]
    assert book["a"].blame("refunded", "2025-01-03")["version"].item() is None


def test_nothing_changed_and_nothing_there_give_empty_frames(book: Any, nothing: Any) -> None:
    """With all columns in place."""
    schema = book.diff("2025-01-01", "2025-01-09").schema
    for empty in (
        book.diff(NOON, NOON),
        book.diff("2024-01-01", "2024-02-01"),
        nothing.diff("2025-01-01", "2025-01-09"),
        nothing.diff(versions=(0, 3)),
        nothing.diff(nothing),
        book["a"].diff(4, 4).insert_column(0, pl.Series("aggregate_id", [], pl.String)),
    ):
        assert empty.is_empty()
        assert empty.schema == schema
    assert nothing.blame("total").schema == book.blame("total").schema
    assert book.blame("total", "2024-01-01").is_empty()
    assert book["a"].blame(when="2024-01-01").is_empty()


def test_what_only_one_timeline_has_is_compared_with_the_beginning(book: Any, nothing: Any) -> None:
    """What the other side lacks has no event there."""
    gone = book.diff(nothing, columns="total")
    assert gone.select("aggregate_id", "before", "after", "version").rows() == [
        ("a", Decimal("10.00"), None, None),
        ("b", Decimal("5.00"), None, None),
    ]
    come = nothing.diff(book, columns="total")
    assert come.select("before", "after", "version").rows() == [
        (None, Decimal("10.00"), 1),
        (None, Decimal("5.00"), 1),
    ]


class Wallet(tl.Aggregate):
    """A list that grows."""

    amounts = tl.collect(tl.PaymentAuthorized, "amount")


def test_lists_of_those_that_were_there_and_of_those_that_were_not_are_told_apart() -> None:
    """A life that begins between the two instants starts with an empty list, whatever lies before it."""
    paid = [("a", n, "PaymentAuthorized", {"amount": n}, {}) for n in (1, 2, 3, 4)]
    late = [
        ("b", 4, "PaymentAuthorized", {"amount": 9}, {}),
        ("c", 1, "PaymentAuthorized", {"amount": 7}, {}),
    ]
    wallets = tl.from_frame(frame([*paid, *late])).fold(Wallet)
    found = wallets.diff("2025-01-03", "2025-01-04").select("aggregate_id", "before", "after").rows()
    assert found == [("a", [1, 2, 3], [1, 2, 3, 4]), ("b", [], [9])]
    fewer = tl.from_frame(frame(paid)).fold(Wallet)
    assert fewer.diff(wallets)["before"].to_list() == [[], []]


def test_instants_in_the_wrong_order_are_told_the_right_call(book: Any) -> None:
    """For every verb that takes two."""
    early, late = "2025-01-01T00:00:00Z", "2025-01-09T00:00:00Z"
    with pytest.raises(InstantError, match="is before") as diffed:
        book.diff("2025-01-09", "2025-01-01")
    assert diffed.value.hint == f"book.diff({early!r}, {late!r})"
    with pytest.raises(InstantError, match="is before") as explained:
        book.explain("total", "2025-01-09", "2025-01-01")
    assert explained.value.hint == f"book.explain('total', {early!r}, {late!r})"
    with pytest.raises(InstantError, match="is before") as searched:
        book.bisect(lambda states: True, "2025-01-09", "2025-01-01")
    assert searched.value.hint == f"book.bisect(predicate, {early!r}, {late!r})"
    with pytest.raises(InstantError, match="version 1 comes before version 3") as versions:
        book.diff(versions=(3, 1))
    assert versions.value.hint == "book.diff(versions=(1, 3))"


def test_moments_that_are_none_are_refused(book: Any) -> None:
    """A naive one, one alone, versions that are no two, a version where an instant belongs."""
    for ask in (
        lambda: book.diff(datetime(2025, 1, 1), "2025-01-02"),
        lambda: book.diff("2025-01-02"),
        lambda: book.diff(1, 2),
        lambda: book["a"].diff(1, "2025-01-02"),
        lambda: book.diff(versions=(1, 2, 3)),
        lambda: book.diff(versions=(-1, 2)),
        lambda: book.diff("2025-01-01", "2025-01-02", cut="exact"),
        lambda: book.blame("total", datetime(2025, 1, 1)),
        lambda: book.bisect(lambda states: True, until=datetime(2025, 1, 1)),
    ):
        with pytest.raises(InstantError):
            ask()


@pytest.mark.parametrize(
    "ask",
    [
        lambda book: book.blame("totl"),
        lambda book: book["a"].blame("totl"),
        lambda book: book.diff(NOON, NOON, columns=["totl"]),
        lambda book: book.diff(book, columns=["totl"]),
        lambda book: book["a"].diff(1, 2, "totl"),
        lambda book: book.explain("totl", NOON, NOON),
        lambda book: book.explain("total", NOON, NOON, by="totl"),
        lambda book: book.bisect(lambda states: True, columns="totl"),
    ],
)
def test_a_column_that_is_not_there_is_answered_with_the_one_that_was_meant(book: Any, ask: Any) -> None:
    """Whichever verb was asked."""
    with pytest.raises(NoSuchColumn) as error:
        ask(book)
    assert error.value.hint is not None
    assert "'total'" in error.value.hint


def test_what_is_no_column_of_the_state_cannot_be_blamed(book: Any) -> None:
    """A state's version is set by every event."""
    with pytest.raises(NoSuchColumn, match="version is no column of the state"):
        book.blame("version")


# --- explain ----------------------------------------------------------------------------------------------


def test_what_is_no_exact_number_cannot_be_explained(book: Any) -> None:
    """Nor is anything explained by lists."""
    for name in ("status", "items", "id", "created_at"):
        with pytest.raises(DeclarationError, match="not exact"):
            book.explain(name, NOON, NOON)
    with pytest.raises(DeclarationError, match="lists"):
        book.explain("total", NOON, NOON, by="items")
    with pytest.raises(InstantError, match="no time zone"):
        book.explain("total", NOON, NOON, by="day", zone="Mars/Olympus")


def test_a_group_whose_moves_cancel_out_is_told(book: Any) -> None:
    """It moved, and its events are counted; what never moved is left out."""
    told = fold([*TOLD[:1], ("a", 2, "OrderCorrected", {"corrected_amount": 12}, {}),
                 ("a", 3, "OrderCorrected", {"corrected_amount": 10}, {})])  # fmt: skip
    explained = told.explain("total", "2024-12-31", "2025-01-09")
    assert explained.rows() == [("OrderCreated", Decimal("10.00"), 1), ("OrderCorrected", Decimal("0.00"), 2)]
    empty = book.explain("total", NOON, NOON)
    assert empty.schema == explained.schema
    assert empty.is_empty()


# --- bisect -----------------------------------------------------------------------------------------------


def test_since_is_looked_at_itself(book: Any) -> None:
    """What holds there already began no later; before it, nobody looks."""

    def paid(states: pl.DataFrame) -> bool:
        return states["paid"].sum() > 0

    assert book.bisect(paid) == datetime(2025, 1, 2, tzinfo=UTC)
    assert book.bisect(paid, since="2025-01-02T09:00Z") == datetime(2025, 1, 2, 9, tzinfo=UTC)
    assert book.bisect(paid, since="2025-01-01T09:00Z") == datetime(2025, 1, 2, tzinfo=UTC)
    assert book.bisect(paid, until="2025-01-01T23:59Z") is None


def test_halving_takes_few_looks() -> None:
    """One for each halving, beside the handful that is spread over the range."""
    sample = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
    looks = []

    def many(states: pl.DataFrame) -> bool:
        looks.append(len(states))
        return len(states) >= 100

    found = sample.bisect(many, columns=[])
    assert len(sample.at(found, columns=[])) == 100
    assert len(looks) <= bisect.PROBES + 14


def test_a_predicate_that_raises_is_told_where(book: Any) -> None:
    """With what it raised as the cause; a frame without rows is a moment, too."""
    with pytest.raises(
        PredicateError, match="ZeroDivisionError at 2025-01-01T00:00:00Z, of 2 states"
    ) as error:
        book.bisect(lambda states: 1 / 0)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    with pytest.raises(PredicateError, match="of 0 states"):
        book.bisect(lambda states: states["total"].max() > 1, since="2024-01-01")
    with pytest.raises(PredicateError, match="after version 1 of a"):
        book["a"].bisect(lambda state: state.nothing)


@pytest.mark.parametrize(
    ("predicate", "told"),
    [
        (lambda states: states["total"] > 1, r"returned Series .*\n.*\.any\(\) or \.all\(\)"),
        (lambda states: pl.col("total") > 1, r"returned Expr .*\n.*\.any\(\)"),
        (lambda states: states["total"].sum(), r"returned Decimal .*Decimal\('15.00'\)\n.*> 0"),
        (lambda states: None, "returned NoneType"),
        (lambda states: 1, "returned int"),
    ],
)
def test_a_predicate_that_says_neither_true_nor_false_is_refused(
    book: Any, predicate: Any, told: str
) -> None:
    """It is told what it returned, and how to end it."""
    with pytest.raises(PredicateError, match=told):
        book.bisect(predicate)


def test_a_predicate_that_turns_false_again_is_shown_and_offered_the_scan(book: Any) -> None:
    """The instants that were looked at are in the message and, for programs, on the error."""

    def paid_only(states: pl.DataFrame) -> bool:
        return "PAID" in states["status"]

    with pytest.raises(NotMonotone, match="2025-01-02T00:00:00Z yes, 2025-01-03T00:00:00Z no") as error:
        book.bisect(paid_only)
    assert "scan=True) looks at all 4 instants" in str(error.value)
    assert error.value.data["answers"][datetime(2025, 1, 2, tzinfo=UTC)] is True
    assert book.bisect(paid_only, scan=True) == datetime(2025, 1, 2, tzinfo=UTC)


def test_a_scan_of_too_many_instants_says_how_many(book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is taken once the range is narrow enough."""
    monkeypatch.setattr(bisect, "MOST_LOOKS", 3)
    with pytest.raises(InstantError, match="would look at 4 instants, more than 3") as error:
        book.bisect(lambda states: True, scan=True)
    assert "since=" in str(error.value)
    assert book.bisect(lambda states: len(states) == 9, since="2025-01-03", scan=True) is None


def test_a_book_without_events_never_holds(nothing: Any) -> None:
    """Nothing is looked at, unless `since` names a moment."""
    assert nothing.bisect(lambda states: True) is None
    assert nothing.bisect(lambda states: True, since=NOON) == tl.instant(NOON)


# --- trace ------------------------------------------------------------------------------------------------


def test_a_tree_leads_from_the_command_across_orders(book: Any) -> None:
    """By event_id, by "aggregate_id/version", and by the request that events share."""
    told = book.trace("b").select("depth", "cause", "aggregate_id", "version").rows()
    assert told == [(0, "cmd-1", None, None), (1, "e-3", "a", 3), (2, "a/4", "a", 4), (3, "b/1", "b", 1)]
    assert book["a"].trace(2)["cause"].to_list() == ["a/2", "cmd-1", "e-3", "a/4", "b/1"]
    assert book.trace("b").schema == TRACE
    assert not book.trace("b")["cycle"].any()


def test_a_circle_of_causes_is_cut_at_its_first_event_and_said_to_be_one() -> None:
    """What hangs from it is below it."""
    told = [("a", n, "OrderShipped", {}, {"causation_id": cause})
            for n, cause in enumerate(["a/3", "a/1", "a/2", "a/4", "a/3"], start=1)]  # fmt: skip
    tree = fold(told)["a"].trace()
    assert tree.select("depth", "cause", "cycle").rows() == [
        (0, "a/1", True),
        (1, "a/2", False),
        (2, "a/3", False),
        (3, "a/5", False),
        (0, "a/4", True),
    ]


def test_a_trace_of_nobody_is_an_error(book: Any) -> None:
    """Nor has anybody all versions."""
    with pytest.raises(NoSuchAggregate):
        book.trace("c")
    with pytest.raises(InstantError, match="a has no version 9") as error:
        book.trace("a", 9)
    assert error.value.hint == "its versions run from 1 to 4"


def test_an_aggregate_without_columns_has_nothing_to_blame() -> None:
    """Its frame is one of any other aggregate, without a row."""

    class Bare(tl.Aggregate):
        """Nothing that changes."""

    log = tl.from_frame(frame(TOLD))
    blamed = log.fold(Bare)["a"].blame()
    assert blamed.schema == log.fold(tl.Order)["a"].blame().schema
    assert blamed.is_empty()
