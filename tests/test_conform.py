"""What breaks the rules that an aggregate declares: all of it, nothing else, each with its event."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.backends.contract import SNAPSHOTS
from titan_lab.backends.memory import MemoryStore
from titan_lab.book import Book
from titan_lab.errors import DeclarationError
from titan_lab.event import EVENTS
from titan_lab.log import EventLog
from titan_lab.mining import conform
from titan_lab.orders.events import OrderCancelled, OrderCreated, PaymentAuthorized, RefundIssued
from titan_lab.reducers import latest, machine, total_of
from titan_lab.testing import slow, slow_conform
from titan_lab.testing.histories import histories

often = settings(derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck), database=None)
hunting = settings(often, max_examples=300, phases=[Phase.generate])
TOTAL = "total differs from items"


def items(*prices: float) -> list[dict[str, Any]]:
    return [{"product_id": "p", "quantity": 2, "price": price} for price in prices]


def created(total: float, *prices: float) -> str:
    return json.dumps({"user_id": "u1", "items": items(*prices), "total": total})


PAYLOADS = {
    "OrderCreated": created(3, 1.5),
    "PaymentAuthorized": '{"amount": 1}',
    "RefundIssued": '{"amount": 2}',
}


def log_of(*events: tuple[str, int, str] | tuple[str, int, str, str]) -> EventLog:
    """Make a log of events given as id, version, type and, where it matters, payload."""
    rows = [
        (
            who,
            n,
            kind,
            *(payload or [PAYLOADS.get(kind, "{}")]),
            None,
            f"2025-01-01T10:{n:02}Z",
        )
        for who, n, kind, *payload in events
    ]
    return tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row"))


def details(found: conform.Conformance) -> list[tuple[Any, ...]]:
    return found.findings.select("kind", "aggregate_id", "version", "event_type", "detail").rows()


# --- rules of the events ----------------------------------------------------------------------------------


def what_breaks_the_rules_is_what_a_walk_finds(events: pl.DataFrame, lost: set[int]) -> None:
    events = events.filter(~pl.Series([n in lost for n in range(len(events))], dtype=pl.Boolean))
    lives = slow.lives_of(events)
    found = tl.from_frame(events).fold(tl.Order).conform()
    for kind, expected in (
        (conform.TRANSITION, slow_conform.illegal(tl.Order, lives)),
        (conform.GAP, slow_conform.gaps(lives)),
        (TOTAL, slow_conform.totals(tl.Order, lives)),
    ):
        here = found.findings.filter(kind=kind)
        assert here.select("aggregate_id", "version").rows() == expected
        assert found.counts[kind] == len(expected)
    stored = events.select("aggregate_id", "version", "event_type", "timestamp")
    assert len(found.findings.join(stored, on=stored.columns)) == len(found)


law = given(events=histories(), lost=st.sets(st.integers(0, 12), max_size=3))


def test_what_breaks_the_rules_is_what_a_walk_through_every_life_finds() -> None:
    """Transitions, versions and totals, on histories of which some events were lost."""
    often(law(what_breaks_the_rules_is_what_a_walk_finds))()


@pytest.mark.parametrize("bug", ["a life goes on from the one before", "events are taken for changes"])
def test_the_walk_notices(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bugs: no beginning of a life; and an event that leads to the same state is passed over."""
    honest = machine.nexts

    def nexts(self: machine, state: str | None) -> tuple[str, ...]:
        if bug == "events are taken for changes":
            return (*honest(self, state), *([state] if state else []))
        return tuple(self.names) if state is None else honest(self, state)

    monkeypatch.setattr(machine, "nexts", nexts)
    with pytest.raises(AssertionError):
        hunting(law(what_breaks_the_rules_is_what_a_walk_finds))()


def test_a_finding_says_what_was_found_and_what_was_expected() -> None:
    """In words, at its event."""
    found = (
        log_of(
            ("a", 1, "PaymentAuthorized"),
            ("a", 3, "OrderCreated", created(4, 1.5)),
            ("a", 4, "OrderShipped"),
            ("b", 2, "OrderCreated"),
            ("b", 3, "OrderCancelled"),
            ("b", 4, "OrderShipped"),
        )
        .fold(tl.Order)
        .conform()
    )
    illegal, gap = conform.TRANSITION, conform.GAP
    assert details(found) == [
        (illegal, "a", 1, "PaymentAuthorized", "status begins as PAID, expected CREATED"),
        (
            illegal,
            "a",
            3,
            "OrderCreated",
            "status goes from PAID to CREATED, expected PAID or SHIPPED or CANCELLED",
        ),
        (illegal, "a", 4, "OrderShipped", "status goes from CREATED to SHIPPED, expected PAID or CANCELLED"),
        (illegal, "b", 4, "OrderShipped", "status goes from CANCELLED to SHIPPED, expected nothing more"),
        (TOTAL, "a", 3, "OrderCreated", "total is 4.00, its items add up to 3.00"),
        (gap, "a", 3, "OrderCreated", "version 3 follows 1, expected 2"),
        (gap, "b", 2, "OrderCreated", "begins with version 2, expected 1"),
    ]
    assert found.findings.schema == conform.FINDINGS
    assert found.findings["timestamp"][0] == tl.instant("2025-01-01T10:01Z")
    assert found.counts == {illegal: 4, TOTAL: 1, gap: 2, conform.SNAPSHOT: 0}


def test_a_gap_says_whether_what_is_missing_was_rejected() -> None:
    """One of the two was read, and refused."""
    log = log_of(("a", 1, "OrderCreated"), ("a", 2, "PaymentAuthorized", "{}"), ("a", 4, "OrderShipped"))
    (gap,) = log.fold(tl.Order).conform().findings.filter(kind=conform.GAP)["detail"]
    assert gap == "version 4 follows 1, expected 2 (1 of those between are in .rejected)"


def test_a_correction_may_say_another_total() -> None:
    """It is there to do so; the next event that tells the items is held to them again."""
    correction, modified = '{"corrected_amount": 1}', json.dumps({"items": items(1), "total": 1})
    found = (
        log_of(
            ("a", 1, "OrderCreated"),
            ("a", 2, "OrderCorrected", correction),
            ("a", 3, "OrderModified", modified),
        )
        .fold(tl.Order)
        .conform()
    )
    assert details(found) == [(TOTAL, "a", 3, "OrderModified", "total is 1.00, its items add up to 2.00")]


def test_an_order_of_no_items_should_cost_nothing() -> None:
    """The sum of no lines is 0."""
    found = log_of(("a", 1, "OrderCreated", created(5)), ("b", 1, "OrderCreated", created(0))).fold(tl.Order)
    assert details(found.conform()) == [
        (TOTAL, "a", 1, "OrderCreated", "total is 5.00, its items add up to 0.00")
    ]


def test_a_machine_without_rules_has_no_illegal_transitions() -> None:
    """It is not counted among what was looked at."""

    class Free(tl.Aggregate):
        status = machine({OrderCreated: "NEW", OrderCancelled: "GONE"})

    found = log_of(("a", 1, "OrderCancelled"), ("a", 2, "OrderCreated")).fold(Free).conform()
    assert found.counts == {conform.GAP: 0, conform.SNAPSHOT: 0}


def test_what_the_rules_leave_out_is_an_end_and_any_may_begin() -> None:
    """`allowed` need not name the last states, nor the first."""

    class Brief(tl.Aggregate):
        status = machine({OrderCreated: "NEW", OrderCancelled: "GONE"}, allowed={"NEW": ["GONE"]})

    found = log_of(("a", 1, "OrderCancelled"), ("a", 2, "OrderCreated")).fold(Brief).conform()
    assert [row[-1] for row in details(found)] == ["status goes from GONE to NEW, expected nothing more"]


def test_every_machine_of_an_aggregate_is_held_to_its_rules() -> None:
    """Each finding names its column."""

    class Two(tl.Aggregate):
        status = machine({OrderCreated: "NEW", OrderCancelled: "GONE"}, allowed={None: ["NEW"]})
        money = machine({PaymentAuthorized: "IN", RefundIssued: "OUT"}, allowed={None: ["IN"], "IN": ["OUT"]})

    found = log_of(("a", 1, "RefundIssued"), ("a", 2, "OrderCancelled")).fold(Two).conform()
    assert [row[-1] for row in details(found)] == [
        "money begins as OUT, expected IN",
        "status begins as GONE, expected NEW",
    ]


def test_an_aggregate_declares_checks_of_its_own() -> None:
    """A finding is where the rule was broken, not wherever it is broken still; its fold stays the same."""

    class Plain(tl.Aggregate):
        paid = total_of(PaymentAuthorized, "amount")
        refunded = total_of(RefundIssued, "amount")
        reason = latest(OrderCancelled)

    class Careful(Plain):
        checks = {
            "more refunded than paid": tl.Check(
                pl.col("refunded") > pl.col("paid"), pl.format("{} of {}", "refunded", "paid")
            )
        }

    log = log_of(
        ("a", 1, "PaymentAuthorized"),
        ("a", 2, "RefundIssued"),
        ("a", 3, "OrderCancelled"),
        ("a", 4, "RefundIssued"),
    )
    found = log.fold(Careful).conform()
    assert details(found) == [
        ("more refunded than paid", "a", 2, "RefundIssued", "2.00 of 1.00"),
        ("more refunded than paid", "a", 4, "RefundIssued", "4.00 of 1.00"),
    ]
    assert Plain.checks == {}


def test_checks_do_not_change_the_fingerprint() -> None:
    """What was folded need not be folded again because a rule was added."""

    def declare(rules: dict[str, tl.Check], things: dict[str, str]) -> str:
        class Same(tl.Aggregate):
            checks = rules
            objects = things
            paid = total_of(PaymentAuthorized, "amount")

        return Same.fingerprint()

    rule = tl.Check(pl.col("paid") < 0, pl.lit("paid less than nothing"))
    assert declare({}, {}) == declare({"negative": rule}, {"card": "card"})


def test_a_check_that_reads_what_no_state_has_is_refused_when_it_is_declared() -> None:
    """With a near name."""
    with pytest.raises(DeclarationError, match="the check 'odd' reads piad, which no state has") as caught:

        class Odd(tl.Aggregate):
            checks = {"odd": tl.Check(pl.col("piad") > 1, pl.lit("odd"))}
            paid = total_of(PaymentAuthorized, "amount")

    assert "'paid'" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pl.col("paid"), "gives 2 values of Decimal"),
        (pl.col("paid").max() > 1, "gives 1 values of Boolean for 2 states"),
        (pl.col("paid").str.to_lowercase() == "x", "the check 'odd' failed: "),
    ],
)
def test_a_check_that_is_none_is_named(wrong: pl.Expr, message: str) -> None:
    """No Boolean, not one for each state, or an expression that raises."""

    class Odd(tl.Aggregate):
        checks = {"odd": tl.Check(wrong, pl.lit("odd"))}
        paid = total_of(PaymentAuthorized, "amount")

    with pytest.raises(DeclarationError, match=message):
        log_of(("a", 1, "PaymentAuthorized"), ("b", 1, "PaymentAuthorized")).fold(Odd).conform()


def test_an_empty_log_breaks_no_rule() -> None:
    """And has the columns of every report."""
    found = tl.open("memory://").fold(tl.Order).conform()
    assert (len(found), found.findings.schema) == (0, conform.FINDINGS)
    assert set(found.counts.values()) == {0}


# --- snapshots --------------------------------------------------------------------------------------------


class Saving(MemoryStore):
    """A store in memory with snapshots."""

    saved: list[tuple[str | None, int | None, str | None]] = []

    def snapshots(self) -> pl.DataFrame:
        return pl.DataFrame(self.saved, schema=SNAPSHOTS, orient="row")


def saving(events: pl.DataFrame, *saved: tuple[Any, ...]) -> EventLog:
    store = Saving(events)
    store.saved = list(saved)
    return EventLog(store)


def as_json(value: Any) -> Any:
    """Write a value as a program that saves snapshots might."""
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else value


def snapshots_of(events: pl.DataFrame, rename: Any = str) -> list[tuple[str, int, str]]:
    found = []
    for aggregate_id, life in slow.lives_of(events).items():
        for state in tl.Order.states(life):
            fields = slow.plain(state.as_dict() | {"version": state.version})
            told = {rename(name): value for name, value in fields.items()}
            found.append((aggregate_id, state.version, json.dumps(told, default=as_json)))
    return found


def a_snapshot_is_what_the_replay_gives(events: pl.DataFrame) -> None:
    for rename in (str, lambda name: name.title().replace("_", "")):
        found = saving(events, *snapshots_of(events, rename)).fold(tl.Order).conform()
        assert found.findings.filter(kind=conform.SNAPSHOT).is_empty()


def test_a_snapshot_of_any_state_is_what_the_replay_gives() -> None:
    """Also with its fields named as another language names them."""
    often(given(events=histories())(a_snapshot_is_what_the_replay_gives))()


def test_a_snapshot_compared_with_another_version_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: the replay as it is now."""
    frame = Book.frame

    def latest(self: Book, rows: Any, owners: Any, *rest: Any) -> pl.DataFrame:
        return frame(self, self.rows.last[owners].astype(np.intp), owners, *rest)

    monkeypatch.setattr(Book, "frame", latest)
    with pytest.raises(AssertionError):
        hunting(given(events=histories())(a_snapshot_is_what_the_replay_gives))()


def test_a_field_that_differs_is_told_with_its_event() -> None:
    """One finding for each, at the version of the snapshot, however late that is compared."""
    events = log_of(("a", 1, "OrderCreated"), ("a", 2, "PaymentAuthorized"), ("b", 1, "OrderCreated")).read()
    state = {
        "status": "PAID",
        "paid": 1.5,
        "items": items(1.5) * 2,
        "user_id": "u1",
        "created_at": "2025-01-01T11:01:00+01:00",
        "nobody_declared": 5,
        "Version": 2,
    }
    early = {"status": "CREATED", "paid": 0, "created_at": None}
    found = saving(events, ("b", 1, json.dumps(early)), ("a", 2, json.dumps(state))).fold(tl.Order).conform()
    one, same = (f'{{"price": "{price}", "product_id": "p", "quantity": 2}}' for price in ("1.5", "1.50"))
    assert details(found) == [
        (
            *(conform.SNAPSHOT, "a", 2, "PaymentAuthorized"),
            f"items is [{one}, {one}], the replay gives [{same}]",
        ),
        (conform.SNAPSHOT, "a", 2, "PaymentAuthorized", "paid is 1.5, the replay gives 1.00"),
        (
            *(conform.SNAPSHOT, "b", 1, "OrderCreated"),
            "created_at is –, the replay gives 2025-01-01 10:01:00Z",
        ),
    ]


@pytest.mark.parametrize(
    ("saved", "detail"),
    [
        (("a", 7, "{}"), "is of version 7, the log has up to 1"),
        (("a", 0, "{}"), "is of version 0, the log has up to 1"),
        (("a", None, "{}"), "is of version None, the log has up to 1"),
        (("z", 1, "{}"), "is of version 1, the log has none at all"),
        ((None, 1, "{}"), "is of version 1, the log has none at all"),
        (("a", 1, "{"), "its state is no JSON object"),
        (("a", 1, "[]"), "its state is no JSON object"),
        (("a", 1, "NaN"), "its state is no JSON object"),
        (("a", 1, "[" * 100_000), "its state is no JSON object"),
        (("a", 1, None), "its state is no JSON object"),
        (("a", 1, '{"colour": 1}'), "its state has none of the columns aggregate_id, version, id"),
        (("a", 1, '{"paid": 1e999999}'), "paid is 1E+999999, the replay gives 0.00"),
        (("a", 1, '{"paid": "much"}'), "paid is much, the replay gives 0.00"),
        (("a", 1, '{"paid": true}'), "paid is yes, the replay gives 0.00"),
        (("a", 1, '{"paid": []}'), "paid is [], the replay gives 0.00"),
        (("a", 1, '{"created_at": "2025-01-01T10:01:00"}'), "created_at is 2025-01-01T10:01:00, the replay"),
        (("a", 1, '{"items": 5}'), 'items is 5, the replay gives [{"price": "1.50"'),
        (("a", 1, '{"user_id": "' + "u" * 999 + '"}'), "user_id is " + "u" * 120 + "…, the replay gives u1"),
    ],
)
def test_a_snapshot_that_cannot_be_right_is_a_finding(saved: tuple[Any, ...], detail: str) -> None:
    """Never an error, whatever somebody saved."""
    found = saving(log_of(("a", 1, "OrderCreated")).read(), saved).fold(tl.Order).conform()
    assert [row[0] for row in details(found)] == [conform.SNAPSHOT]
    assert details(found)[0][-1].startswith(detail)


def test_snapshots_in_a_sqlite_file_are_compared(tmp_path: Path) -> None:
    """Among them values that no column of its type should hold."""
    path = tmp_path / "orders.db"
    with tl.open(f"sqlite:///{path}", writable=True) as log:
        log.append_many(log_of(("a", 1, "OrderCreated"), ("b", 1, "OrderCreated")).read())
    assert tl.open(f"sqlite:///{path}").fold(tl.Order).conform().counts[conform.SNAPSHOT] == 0
    saved = [("a", 1, '{"status": "PAID"}'), ("b", "one", b"\xff"), ("c", 1, "{}")]
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO order_snapshots (aggregate_id, version, state) VALUES (?, ?, ?)", saved)
    log = tl.open(f"sqlite:///{path}")
    assert [row[1:] for row in details(log.fold(tl.Order).conform())] == [
        ("a", 1, "OrderCreated", "status is PAID, the replay gives CREATED"),
        ("b", None, None, "is of version None, the log has up to 1"),
        ("c", 1, None, "is of version 1, the log has none at all"),
    ]
    assert len(log.fold(tl.Order, aggregates="a").conform()) == 1
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE order_snapshots")
    assert len(log.fold(tl.Order).conform()) == 0


# --- how it shows itself ----------------------------------------------------------------------------------


def test_a_report_shows_its_counts_and_escapes_what_it_found() -> None:
    """A payload is untrusted text, and so is an id."""
    evil = "<script>alert(1)</script>"
    found = saving(log_of((evil, 1, "OrderCreated")).read(), (evil, 1, json.dumps({"user_id": evil}))).fold(
        tl.Order
    )
    report = found.conform()
    assert repr(report) == (
        "<Conformance of 1 Order lives, 1 events: 1 findings (illegal transition: 0,"
        " snapshot differs from replay: 1, total differs from items: 0, version gap: 0)>"
    )
    assert "<script>" not in report._repr_html_()
    assert "snapshot differs from replay" in report._repr_html_()
