"""What travels to the browser replays to every state; and what is shown where no browser draws it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

import nbformat
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import titan_lab as tl
from titan_lab.errors import InstantError, MissingExtra, NoSuchColumn
from titan_lab.notebook import deltas, widget
from titan_lab.notebook.export import report
from titan_lab.orders.upcasts import ORDER_UPCASTS
from titan_lab.reducers import key
from titan_lab.testing import slow
from titan_lab.testing.histories import START, histories
from titan_lab.testing.slow_scrubber import replayed

ORDER = "550e8400-e29b-41d4-a716-446655440000"
often = settings(
    derandomize=True, max_examples=40, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=400, phases=[Phase.generate])


class Basket(tl.Aggregate):
    """Lists that grow, of amounts and of records, and a column that a function folds."""

    upcasts = ORDER_UPCASTS
    id = key()
    items = tl.latest(tl.OrderCreated, tl.OrderModified)
    amounts = tl.collect(tl.PaymentAuthorized, tl.RefundIssued, "amount")
    all_items = tl.collect(tl.OrderCreated, "items")
    status = tl.machine({tl.OrderCreated: "CREATED", tl.OrderShipped: "SHIPPED"})
    least = tl.smallest(tl.PaymentAuthorized, "amount")
    payments = tl.count(tl.PaymentAuthorized)
    stamped = tl.latest(tl.OrderCreated, tl.PaymentAuthorized, "timestamp")
    swings = tl.step(lambda value, event: not value, False, tl.PaymentAuthorized, tl.RefundIssued)


def sample():
    return tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)


def travelled(scrubber: Any) -> dict[str, Any]:
    """What the browser reads: the JSON, and no Python."""
    return json.loads(json.dumps(scrubber.data, allow_nan=False))


def it_replays_to_every_state(events: pl.DataFrame) -> None:
    lives = slow.lives_of(events)
    for aggregate in (tl.Order, Basket):
        book = tl.from_frame(events).fold(aggregate)
        schema = aggregate.schema()
        for aggregate_id in book.ids:
            story = book[aggregate_id]
            data = travelled(story.scrub())
            folded = [aggregate.initial(aggregate_id), *aggregate.states(lives[aggregate_id])]
            for place in range(len(story) + 1):
                found = replayed(data, schema, place)
                expected = story.at(version=place).as_dict() if place else folded[0].as_dict()
                kept = {name: expected[name] for name in found}
                assert found == kept
                plainly = slow.plain(folded[place].as_dict())
                assert found == {name: plainly[name] for name in found}
                assert set(expected) - set(found) <= {"id"}


def test_the_deltas_replay_to_the_state_after_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``story.at(version=n)`` has it, and as the plain fold does, to the last digit."""
    monkeypatch.setattr(deltas, "AT_ONCE", 2)  # so that a short life is looked at in pieces, too
    often(given(events=histories())(it_replays_to_every_state))()


def test_the_law_notices_a_change_that_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a value that was there before is taken for no change."""
    right = deltas._field

    def forgetful(*given: Any) -> dict[str, Any]:
        field = right(*given)
        if "grows" in field:
            return field
        seen: list[Any] = []
        for at, value in zip(field["at"], field["to"], strict=True):
            if value not in [old for _, old in seen]:
                seen.append((at, value))
        return field | {"at": [at for at, _ in seen], "to": [value for _, value in seen]}

    monkeypatch.setattr(deltas, "_field", forgetful)
    with pytest.raises(AssertionError):
        hunting(given(events=histories())(it_replays_to_every_state))()


def test_the_law_notices_states_that_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: lists are looked at piece by piece, and the last piece is forgotten."""
    monkeypatch.setattr(deltas, "AT_ONCE", 2)
    right = deltas.spans
    monkeypatch.setattr(deltas, "spans", lambda size, length: right(size, length)[:-1] or right(size, length))
    with pytest.raises(AssertionError):
        hunting(given(events=histories())(it_replays_to_every_state))()


def test_only_what_changed_travels() -> None:
    """A status that changed three times has four values, whatever else happened."""
    data = travelled(sample()[ORDER].scrub())
    fields = {field["name"]: field for field in data["fields"]}

    assert fields["status"]["at"] == [0, 1, 2, 5, 6]
    assert fields["status"]["to"] == [None, "CREATED", "PAID", "SHIPPED", "DELIVERED"]
    assert fields["total"]["to"] == [None, "999.00", "1018.90", "968.90"]
    assert "id" not in fields  # it stands in the title


def test_the_event_is_beside_it_with_numbers_as_they_were_written() -> None:
    """A browser's own numbers would make 999 of 999.00, and another number of a long one."""
    data = travelled(sample()[ORDER].scrub())

    assert data["types"][data["type"][0]] == "OrderCreated"
    assert data["payload"][0]["total"] == "999.00"
    assert data["payload"][0]["items"] == [{"product_id": "iphone-15", "quantity": 1, "price": "999.00"}]
    assert data["metadata"][0]["schema_version"] == 2
    assert data["metadata"][5] is None
    assert deltas._read('{"n": 12345678901234567890, "m": 7}') == {"n": "12345678901234567890", "m": 7}


def test_causes_are_places_within_the_life_and_names_outside_of_it() -> None:
    """Event 4 was caused by event 3, event 1 by a command."""
    data = travelled(sample()[ORDER].scrub())

    assert data["causes"]["0"] == ["cmd-xyz789", [2]]
    assert data["causes"]["1"] == [1, []]
    assert data["causes"]["3"] == [3, []]


def test_causes_can_be_left_out() -> None:
    """What the event's own metadata names stays beside it."""
    data = travelled(sample()[ORDER].scrub(causes=False))

    assert data["causes"] == {}
    assert data["metadata"][0]["causation_id"] == "cmd-xyz789"


def test_a_cause_in_another_life_is_named() -> None:
    """With its type, its aggregate and its version."""
    rows = [
        {"aggregate_id": owner, "event_type": kind, "payload": "{}", "metadata": metadata, "timestamp": START}
        for owner, kind, metadata in [
            ("a", "OrderShipped", None),
            ("b", "OrderShipped", '{"causation_id": "a/1"}'),
        ]
    ]
    book = tl.from_frame(pl.DataFrame(rows)).fold(tl.Order)

    assert travelled(book["b"].scrub())["causes"] == {"0": ["OrderShipped of a (1)", []]}
    assert travelled(book["a"].scrub())["causes"] == {"0": [None, ["OrderShipped of b (1)"]]}


def test_a_late_event_tells_from_when_it_counts() -> None:
    """Only where that is not when it was recorded."""
    data = travelled(sample()[ORDER].scrub())

    assert data["counted"][9] == data["counted"][8] > data["recorded"][9]
    calm = next(one for one in sample().ids if not any(travelled(sample()[one].scrub())["counted"] or []))
    assert travelled(sample()[calm].scrub())["counted"] is None


def test_the_book_is_a_grid_of_exact_counts_and_sums() -> None:
    """The same numbers as ``every``; sums are text."""
    book = sample()
    data = travelled(book.scrub(step="1d", since="2025-01-14", until="2025-01-16"))
    grid = book.every("1d", "2025-01-14", "2025-01-16", measure="total")

    assert len(data["instants"]) == 3
    for g, name in enumerate(data["groups"]):
        part = grid.filter(pl.col("status") == name)
        assert data["counts"][g] == part["count"].to_list()
        assert [Decimal(one) for one in data["sums"][g]] == part["total"].to_list()


def test_without_a_step_the_finest_is_taken_that_stays_small() -> None:
    """Whole hours or days, from before the first event until after the last."""
    book = sample()
    data = travelled(book.scrub())
    start, end = book.span or (0, 0)

    assert len(data["instants"]) <= 402
    assert all(one % 3_600_000_000 == 0 for one in data["instants"])
    assert data["instants"][0] <= start < end <= data["instants"][-1]
    assert sum(one[0] for one in data["counts"]) <= 1
    assert sum(one[-1] for one in data["counts"]) == len(book)
    assert len(travelled(book.scrub(since="2025-01-14", until="2025-01-15"))["instants"]) == 289


def test_a_book_without_events_can_be_looked_at() -> None:
    """It says that there is nothing."""
    book = tl.from_frame(pl.DataFrame(schema=tl.open("memory://").read().schema)).fold(tl.Order)

    assert travelled(book.scrub())["instants"] == []
    assert "no rows" in book.scrub()._repr_html_()


def test_what_cannot_be_scrubbed_is_refused() -> None:
    """By the errors of ``every``."""
    with pytest.raises(NoSuchColumn):
        sample().scrub("totla")
    with pytest.raises(InstantError):
        sample().scrub(since="2025-01-14T10:00")


def test_without_anywidget_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the widget itself is asked for: everything else needs nothing but a browser."""
    monkeypatch.setitem(sys.modules, "anywidget", None)
    widget._model.cache_clear()
    try:
        with pytest.raises(MissingExtra, match=r"pip install 'titan-lab\[lab\]'"):
            sample()[ORDER].scrub().widget  # noqa: B018
    finally:
        widget._model.cache_clear()


def test_a_cell_that_ends_with_it_is_alive_without_a_kernel_and_has_a_table_and_a_line() -> None:
    """The same bytes each time, which nbval compares; no widget, which is an error once reopened."""
    one, other = (sample()[ORDER].scrub()._repr_mimebundle_() for _ in range(2))

    assert one == other
    assert set(one) == {"text/plain", "text/html"}
    assert one["text/plain"] == f"<Scrubber of Order {ORDER}: 11 events>"
    assert one["text/html"].startswith(widget.PLACE)
    assert sample()[ORDER].scrub()._repr_html_() in one["text/html"]
    assert "OrderCorrected" in sample()[ORDER].scrub()._repr_html_()
    assert "<script" not in sample()[ORDER].scrub()._repr_html_()


def test_its_script_can_stand_in_a_page_and_be_a_module() -> None:
    """No text of it ends a script; both forms are one source."""
    for text in (widget.inline(), widget.module(), widget.style()):
        assert "</" not in text
        assert "innerHTML" not in text
    assert widget.module().endswith("export default { render };")


def test_a_widget_holds_texts_only_and_its_script_was_read_once() -> None:
    """No frame in its traits, and no file that is watched: it can be collected."""
    made = sample()[ORDER].scrub().widget

    assert all(isinstance(value, str) for value in (made.data, made._esm, made._css))
    assert json.loads(made.data) == sample()[ORDER].scrub().data
    assert repr(made) == "<Scrubber widget>"
    made.close()


def test_a_report_has_it_alive_with_its_script_named_by_hash_and_its_data_as_data() -> None:
    """`</script>` in a payload ends nothing."""
    events = pl.DataFrame(
        [
            {
                "aggregate_id": "a",
                "event_type": "OrderShipped",
                "payload": json.dumps({"tracking": "</script><script>alert(1)</script>"}),
                "timestamp": START + timedelta(hours=n),
            }
            for n in range(2)
        ]
    )
    data = tl.from_frame(events).fold(tl.Order)["a"].scrub()._repr_mimebundle_()
    outputs = [nbformat.v4.new_output("display_data", data=data)] * 2
    page = report(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)]))

    assert "alert(1)</script>" not in page
    digest = base64.b64encode(hashlib.sha256(widget.inline().encode()).digest()).decode()
    assert re.findall(r"'sha256-([^']+)'", page) == [digest]
    assert page.count(f"<script>{widget.inline()}</script>") == 2
    assert page.count('<script type="application/json">') == 2
    assert "src=" not in page
    assert "script-src 'none'" in report(nbformat.v4.new_notebook())
