"""What is not shown unless somebody asks for it; frames keep it all the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.notebook import html, masked

CARD = "4111 1111 1111 1111"
SECRETS = {
    "card_number": "4111111111111111",
    "billingAddress": {"street": "Elm Street 3", "city": "Springfield"},
    "contact": [{"email": "ada@example.com"}, {"phone": "+44 20 7946 0958"}],
    "note": f"said her card is {CARD} and hung up",
}
LEAKS = ("4111111111111111", CARD, "Elm Street", "ada@example.com", "7946", "192.168.1.1", "Mozilla")


class Moved(tl.EventType):
    address: str
    email: str | None = None
    note: str | None = None


class Person(tl.Aggregate):
    """An aggregate whose very state holds what must not be seen."""

    address = tl.latest(Moved)
    email = tl.latest(Moved)
    note = tl.latest(Moved)


def person(**payload: object):
    row = {
        "aggregate_id": "p-1",
        "event_type": "Moved",
        "payload": json.dumps(payload),
        "metadata": json.dumps(
            {"user_ip": "192.168.1.1", "user_agent": "Mozilla/5.0", "correlation_id": "r"}
        ),
        "timestamp": datetime(2025, 1, 1, tzinfo=UTC),
    }
    return tl.from_frame(pl.DataFrame([row])).fold(Person)


def told(*texts: str) -> list[str]:
    """Name what leaks."""
    return [leak for leak in LEAKS if any(leak in text for text in texts)]


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("card_number", True), ("cardNumber", True), ("CARD-NUMBER", True), ("pan", True), ("iban", True),
        ("billing_address", True), ("address_line_2", True), ("user_ip", True), ("userIP", True),
        ("User-Agent", True), ("email", True), ("e-mail", True), ("home phone", True), ("street", True),
        ("tip", False), ("zipped", False), ("company", False), ("addressee", False), ("total", False),
        ("card_id", False), ("status", False), ("", False), ("12", False),
    ],
)  # fmt: skip
def test_a_field_is_masked_by_the_end_of_its_name_however_that_is_written(name, yes):
    """Words count, not letters: a tip is no IP."""
    assert masked.is_masked(name) is yes


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("4111111111111111", "•••• 1111"),
        (CARD, "•••• 1111"),
        (5500005555555559, "•••• 5559"),
        ("**34", "•••• 34"),
        ("XXXX-1234", "•••• 1234"),
        ("4111111111111112", "(masked)"),  # no card's number, but whoever wrote it thought so
        ({"number": "1"}, "(masked)"),
        (None, None),
        ("", ""),
    ],
)
def test_of_a_card_the_last_four_digits_are_shown_and_of_all_else_nothing(value, shown):
    """The text is the same each time; nothing there is still nothing there."""
    assert masked.masked(value, "card") == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"paid by {CARD}.", "paid by •••• 1111."),
        ("4111-1111-1111-1111", "•••• 1111"),
        ("3782 822463 10005", "•••• 0005"),
        ("two: 4111111111111111, 5500005555555559", "two: •••• 1111, •••• 5559"),
        ("no Luhn: 4111111111111112", "no Luhn: 4111111111111112"),
        ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("12345678-4111-1111-1111-111111111111", "12345678-4111-1111-1111-111111111111"),
        ("at 1736121600000003", "at 1736121600000003"),  # microseconds; a bank's cards begin with 2 to 6
        ("4111111111111111.50", "4111111111111111.50"),
    ],
)
def test_a_card_number_is_found_in_any_text_and_an_id_is_none(text, shown):
    """13 to 19 digits that pass Luhn's check, in one piece or as they are embossed."""
    assert masked.masked(text) == shown


def test_ids_are_never_taken_for_cards():
    """One in ten numbers of sixteen digits passes the check."""
    assert masked.masked("4111111111111111", "order_id") == "4111111111111111"
    assert "4111111111111111" in html.table([["4111111111111111"]], ["aggregate_id"])


def test_json_within_text_is_looked_into_and_otherwise_left_as_it_is():
    """Also JSON within JSON, as a rejected row holds it; numbers keep their digits."""
    inside = json.dumps({"raw": json.dumps(SECRETS), "total": 1})
    assert told(masked.masked(json.dumps(SECRETS)), masked.masked(inside)) == []
    assert masked.masked('{"total":10.00,  "n":1e3}') == '{"total":10.00,  "n":1e3}'
    assert masked.masked('{"total":10.00,"pan":4111111111111111}') == '{"total": 10.00, "pan": "•••• 1111"}'


def test_json_that_is_broken_is_cut_where_a_masked_field_begins():
    """Where its value ends is not known."""
    assert masked.masked('{"total": 1, "address": {"street": "Elm Str') == '{"total": 1, "address… (masked)'
    assert masked.masked('{"total": 1, "reason": "lo') == '{"total": 1, "reason": "lo'


def test_nothing_that_is_shown_of_an_event_or_a_state_says_it():
    """Story, state, log, tables of events, the scrubber with its fallbacks, cards and reports."""
    book = person(address="Elm Street 3", email="ada@example.com", note=SECRETS["note"])
    story = book["p-1"]
    scrubber = story.scrub()
    bundle = scrubber._repr_mimebundle_()
    texts = [repr(story), story._repr_html_(), repr(story.now), story.now._repr_html_(), book._repr_html_()]
    texts += [html.table(story.log()), html.table(book.at("2026-01-01")), html.card("p", SECRETS)]
    texts += [scrubber._repr_html_(), json.dumps(bundle, ensure_ascii=False), scrubber.widget.data]

    assert told(*texts) == []
    assert "•••• 1111" in scrubber.widget.data


def test_frames_keep_the_data():
    """Masking is about what is seen; an analysis goes on with what is there."""
    book = person(address="Elm Street 3")

    assert book.at("2026-01-01")["address"].item() == "Elm Street 3"
    assert book["p-1"].now.address == "Elm Street 3"
    assert "192.168.1.1" in book["p-1"].log()["metadata"].item()


def test_it_can_be_seen_by_asking_for_it_and_only_then():
    """Within the block; a scrubber made there says that it shows everything."""
    book = person(address="Elm Street 3")
    with tl.unmasked():
        scrubber = book["p-1"].scrub()
        assert "Elm Street 3" in book["p-1"].now._repr_html_()

    assert "Elm Street 3" in scrubber.widget.data
    assert scrubber.data["unmasked"] is True
    assert "Elm Street 3" not in book["p-1"].now._repr_html_()


def test_a_block_that_fails_masks_again():
    """An exception is no way to go on seeing."""
    with pytest.raises(KeyError), tl.unmasked():
        raise KeyError
    assert masked.masked("Elm Street 3", "street") == "(masked)"


def test_fields_can_be_added(monkeypatch):
    """Every house has its own; a name counts however it is written."""
    monkeypatch.setattr(masked, "_ADDED", set())
    assert masked.masked("L-77", "loyaltyNumber") == "L-77"

    tl.mask("loyalty number")

    assert masked.masked({"user_loyalty_number": "L-77"}) == {"user_loyalty_number": "(masked)"}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, max_examples=200, database=None)
@given(values, st.text())
def test_whatever_is_there_can_be_masked_and_twice_is_once(value, name):
    """No payload makes it fail, and what is masked stays as it is."""
    once = masked.masked(value, name)
    text = masked.masked(json.dumps(value))

    assert masked.masked(once, name) == once
    assert masked.masked(text) == text


@pytest.mark.parametrize(
    "text",
    [
        '{"email": "a@b.c", "email": ""}',
        '{"note": "4111111111111111", "note": "x"}',
        ' \n{"email": "a@b.c"}',
        '\ufeff[{"email": "a@b.c"}]',
        json.dumps(json.dumps({"email": "a@b.c"})),
        '{"a":' * 400 + '{"email":"a@b.c"}' + "}" * 400,
        '{"4111111111111111": 1}',
    ],
    ids=["a field twice", "a card twice", "space before", "a mark before", "JSON in JSON", "deep", "a key"],
)
def test_json_hides_nothing_from_the_mask(text: str) -> None:
    """Whatever a parser would pass over, or choke on, is still on the screen."""
    shown = masked.masked(text)
    assert "a@b.c" not in shown
    assert "4111111111111111" not in shown


def test_what_is_only_quoted_stays_as_it_is() -> None:
    """A sentence that begins with a quotation mark is no JSON, and no address is in it."""
    assert (
        masked.masked('"My address" is a good name for a field') == '"My address" is a good name for a field'
    )
