"""log.append: what may be handed over, what is written of it, and what is refused before."""

from __future__ import annotations

import json
import uuid
import warnings
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings

import titan_lab as tl
from titan_lab.errors import EventsError, InstantError, LargePayload
from titan_lab.event import Event, parse_object, records
from titan_lab.testing.histories import histories

CREATED = tl.OrderCreated(
    user_id="7", items=[{"product_id": "tea", "quantity": 2, "price": Decimal("4.50")}], total=Decimal("9.00")
)


@pytest.fixture
def log() -> tl.EventLog:
    return tl.open("memory://")


def only(log: tl.EventLog) -> Event:
    (event,) = records(log.read())
    return event


# --- what may be handed over ------------------------------------------------------------------------------


def test_a_declared_event_is_written_field_by_field(log: tl.EventLog) -> None:
    """Amounts with their digits; what is None is left out."""
    log.append("order-1", CREATED, 0)
    stored = log.read()["payload"][0]
    assert stored == (
        '{"user_id": "7", "items": [{"product_id": "tea", "quantity": 2, "price": 4.50}], "total": 9.00}'
    )
    assert log.fold(tl.Order).now["total"].to_list() == [Decimal("9.00")]


@pytest.mark.parametrize(
    "one",
    [
        {"event_type": "OrderShipped", "payload": {"tracking": "T1"}},
        {"event_type": "OrderShipped", "payload": '{"tracking": "T1"}'},
        {"event_type": "OrderShipped", "payload": tl.OrderShipped(tracking="T1")},
        {"payload": tl.OrderShipped(tracking="T1")},
        Event("order-1", 1, "OrderShipped", {"tracking": "T1"}),
        tl.OrderShipped(tracking="T1"),
        pl.DataFrame({"event_type": ["OrderShipped"], "payload": ['{"tracking": "T1"}']}),
        pl.DataFrame({"event_type": ["OrderShipped"], "payload": [{"tracking": "T1"}]}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_way_to_write_an_event_stores_the_same(log: tl.EventLog, one: Any) -> None:
    """One alone, or in a list."""
    log.append("order-1", one, 0)
    event = only(log)
    assert (event.version, event.event_type, event.payload) == (1, "OrderShipped", {"tracking": "T1"})
    if not isinstance(one, pl.DataFrame):
        other = tl.open("memory://")
        other.append("order-1", [one], 0)
        assert only(other).payload == event.payload


@settings(derandomize=True, max_examples=40, database=None, deadline=None)
@given(events=histories(max_aggregates=1))
def test_a_life_appended_event_by_event_is_the_life_that_was_imported(events: pl.DataFrame) -> None:
    """As records, and as a frame: with their own timestamps and metadata, to which the event_id is added."""
    for handed_over in (records(events), events):
        log = tl.open("memory://")
        if len(events):
            log.append(events["aggregate_id"][0], handed_over, 0)
        for before, after in zip(records(events), records(log.read()), strict=True):
            assert after.metadata.pop("event_id")
            assert after == before


def test_an_event_of_another_aggregate_or_version_is_refused(log: tl.EventLog) -> None:
    """What was read elsewhere is not appended here by mistake."""
    event = Event("order-2", 1, "OrderShipped", {})
    with pytest.raises(EventsError, match="says aggregate_id 'order-2', and would be appended as 'order-1'"):
        log.append("order-1", event, 0)
    with pytest.raises(EventsError, match="says version 1, and would be appended as 4"):
        log.append("order-2", event, 3)
    frame = pl.DataFrame([{"aggregate_id": "order-1", "version": 1, "event_type": "E", "payload": "{}"}] * 2)
    with pytest.raises(EventsError, match="says version 1, and would be appended as 2"):
        log.append("order-1", frame, 0)
    with pytest.raises(EventsError, match="says aggregate_id 'order-1', and would be appended as 'order-2'"):
        log.append("order-2", frame, 0)
    assert len(log) == 0


# --- metadata ---------------------------------------------------------------------------------------------


def test_metadata_says_who_asked_and_why_and_since_when(log: tl.EventLog) -> None:
    """The correlation_id stands first; an instant is written in UTC; nothing is written that says nothing."""
    said = tl.Metadata(
        user_id="desk-1",
        correlation_id="req-1",
        causation_id="cmd-1",
        schema_version=2,
        effective_at="2025-01-01T12:00:00+02:00",
        event_id="cmd-1",
        more={"user_agent": "curl"},
    )
    log.append("order-1", [CREATED, tl.OrderShipped()], 0, metadata=said)
    first, second = log.read()["metadata"]
    assert first == (
        '{"correlation_id": "req-1", "causation_id": "cmd-1", "user_id": "desk-1", "schema_version": 2,'
        ' "effective_at": "2025-01-01T10:00:00Z", "user_agent": "curl", "event_id": "cmd-1:1"}'
    )
    assert json.loads(second)["event_id"] == "cmd-1:2"


def test_an_events_own_metadata_goes_before_that_of_all(log: tl.EventLog) -> None:
    """And is kept beside it."""
    own = {"event_type": "E", "payload": {}, "metadata": {"user_id": "me", "event_id": "mine", "x": 1}}
    log.append("order-1", own, 0, metadata=tl.Metadata(user_id="all", correlation_id="req-1"))
    assert only(log).metadata == {"correlation_id": "req-1", "user_id": "me", "event_id": "mine", "x": 1}


def test_every_event_gets_an_id_of_its_own(log: tl.EventLog) -> None:
    """Also those of one batch; two that were given the same are refused."""
    log.append("order-1", [tl.OrderDelivered()] * 3, 0)
    log.append("order-1", tl.OrderDelivered(), 3)
    assert len({event.metadata["event_id"] for event in records(log.read())}) == 4
    same = {"event_type": "E", "payload": {}, "metadata": {"event_id": uuid.UUID(int=1)}}
    with pytest.raises(EventsError, match="two of the events have the same event_id"):
        log.append("order-1", [same, same], 4)


def test_a_naive_instant_is_refused_unless_the_log_has_a_zone() -> None:
    """Of effective_at as of the timestamp."""
    noon = datetime(2025, 1, 1, 12)
    for how in ({"metadata": tl.Metadata(effective_at=noon)}, {}):
        event = {"event_type": "E", "payload": {}} | ({} if how else {"timestamp": noon})
        with pytest.raises(InstantError, match="has no time zone"):
            tl.open("memory://").append("order-1", event, 0, **how)
    log = tl.open("memory://", zone="Europe/Berlin")
    log.append("order-1", {"event_type": "E", "payload": {}, "timestamp": noon}, 0)
    assert only(log).timestamp == datetime(2025, 1, 1, 11, tzinfo=UTC)


# --- what is no event -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ({"event_type": "E", "payload": "{"}, "its payload is '{', which is no JSON object"),
        ({"event_type": "E", "payload": [1]}, r"its payload is \[1\], which is no JSON object"),
        ({"event_type": "E"}, "its payload is None, which is no JSON object"),
        ({"event_type": "E", "payload": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"event_type": "E", "payload": {"x": {1, 2}}}, r"\{1, 2\} cannot be written as JSON"),
        ({"event_type": "E", "payload": {"x": Decimal("NaN")}}, "cannot be written as JSON"),
        ({"event_type": "", "payload": {}}, "'' is no event_type"),
        ({"payload": {}}, "None is no event_type"),
        ({"event_type": "E", "payload": {}, "metadata": "x"}, "its metadata is 'x', which is no JSON object"),
        ({"event_type": "E", "payload": {}, "metadata": {"schema_version": "2"}}, "'2' is no schema_version"),
        ({"event_type": "E", "payload": {}, "amount": 5}, "it has 'amount', and an event has"),
        (tl.PaymentAuthorized(amount="ten"), "PaymentAuthorized: found 'ten'"),
        (tl.PaymentAuthorized(amount=Decimal("0.001")), "at most two decimals"),
        (tl.OrderCreated(user_id="7", items=[{"quantity": 1}], total=1), r"\$\.items\[0\]\.product_id"),
        (5, "it is of type int"),
    ],
)
def test_what_is_no_event_is_refused_and_nothing_is_written(log: tl.EventLog, one: Any, message: str) -> None:
    """Also where the others in the batch are good."""
    with pytest.raises(EventsError, match=message):
        log.append("order-1", [tl.OrderDelivered(), one], 0)
    assert len(log) == 0


def test_the_error_says_which_event_it_was(log: tl.EventLog) -> None:
    """Counted as people do."""
    with pytest.raises(EventsError, match=r"event 2 is none .*; nothing was written"):
        log.append("order-1", [tl.OrderDelivered(), {"event_type": "E", "payload": "{"}], 0)


@pytest.mark.parametrize(
    "rows", [{"payload": "{"}, {"event_type": ""}, {"metadata": "{"}, {"timestamp": "soon"}]
)
def test_a_row_of_a_frame_that_is_no_event_stops_the_append(log: tl.EventLog, rows: dict[str, str]) -> None:
    """The error carries the row."""
    good = {"event_type": "E", "payload": "{}", "metadata": None, "timestamp": None}
    frame = pl.DataFrame([good, good | rows], schema=dict.fromkeys(good, pl.String))
    with pytest.raises(
        EventsError, match="1 of the rows to append are no events; nothing was written"
    ) as caught:
        log.append("order-1", frame, 0)
    assert caught.value.data["rejected"]["version"].to_list() == [2]
    assert len(log) == 0


@pytest.mark.parametrize("events", ["OrderShipped", 5, None])
def test_what_is_neither_events_nor_a_frame_is_refused(log: tl.EventLog, events: Any) -> None:
    """It names what it got."""
    with pytest.raises(EventsError):
        log.append("order-1", events, 0)


@pytest.mark.parametrize("aggregate_id", ["", None, 5])
def test_an_aggregate_id_is_text(log: tl.EventLog, aggregate_id: Any) -> None:
    """A number is none: whoever means one writes it as text."""
    with pytest.raises(EventsError, match="is no aggregate_id"):
        log.append(aggregate_id, tl.OrderDelivered(), 0)


@pytest.mark.parametrize("version", [-1, 1.0, None, "1", True])
def test_an_expected_version_is_a_whole_number(log: tl.EventLog, version: Any) -> None:
    """There is no way to append without saying what was seen."""
    with pytest.raises(InstantError, match="version"):
        log.append("order-1", tl.OrderDelivered(), version)


def test_a_large_payload_warns_where_it_was_appended(log: tl.EventLog) -> None:
    """It is stored all the same; how much is large can be said."""
    large = {"event_type": "Scanned", "payload": {"page": "x" * 70_000}}
    with pytest.warns(LargePayload, match="Scanned of order-1 holds 70,012 bytes") as caught:
        log.append("order-1", [large, tl.OrderDelivered()], 0)
    assert [one.filename for one in caught] == [__file__]
    log.large = 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.append("order-1", large, 2)
    log.large = 1
    with pytest.warns(LargePayload, match="the largest of 2 such payloads"):
        log.append("order-1", [large, large], 3)
    assert len(log) == 5


def test_amounts_of_many_digits_are_stored_exactly(log: tl.EventLog) -> None:
    """More than a double holds."""
    amount = Decimal("123456789012345.67")
    log.append("order-1", tl.RefundIssued(amount=amount), 0)
    assert parse_object(log.read()["payload"][0])["amount"] == amount
    assert log.fold(tl.Order).now["refunded"].to_list() == [amount]
