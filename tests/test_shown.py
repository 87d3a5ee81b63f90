"""Whatever a public method returns can end a cell: small, escaped HTML, and one line of text that stays."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import titan_lab as tl
from titan_lab.book import Book, Branch
from titan_lab.fold import State
from titan_lab.jobs.record import JobRun, run_of
from titan_lab.log import EventLog
from titan_lab.mining.conform import Conformance
from titan_lab.mining.funnel import Funnel
from titan_lab.notebook.session import Session
from titan_lab.story import Story
from titan_lab.testing.histories import START
from titan_lab.whatif.compare import Comparison

NASTY = "<script>alert(1)</script>\n\x1b[31m\"'&"
LONG = NASTY * 2_000
LATER = "2026-01-01"
LIMIT = 50_000  # bytes of HTML
# Values of Python itself, of polars and of plotly show themselves; a frame stays a plain frame.
PLAIN = (
    str,
    int,
    float,
    bool,
    list,
    dict,
    tuple,
    type(None),
    datetime,
    timedelta,
    Path,
    pl.DataFrame,
    pl.LazyFrame,
    pl.Series,
)


def hostile() -> EventLog:
    """A log whose every text wants to be markup, to break a line, or to fill the page."""
    ids = [NASTY, "b"]
    life = [
        (
            "OrderCreated",
            {"user_id": NASTY, "items": [{"product_id": LONG, "quantity": 1, "price": "1"}] * 30},
        ),
        ("PaymentAuthorized", {"amount": "1.00", "card": "4111111111111111"}),
        ("OrderShipped", {"tracking": LONG}),
        (NASTY, {NASTY: NASTY}),
        ("OrderCancelled", {"reason": NASTY}),
        ("OrderShipped", {}),  # against the rules
    ]
    rows = [
        {
            "aggregate_id": owner,
            "event_type": kind,
            "payload": json.dumps(payload),
            "metadata": json.dumps({"correlation_id": NASTY, "user_agent": NASTY}),
            "timestamp": START + timedelta(hours=n),
        }
        for owner in ids
        for n, (kind, payload) in enumerate(life)
    ]
    return tl.from_frame(pl.DataFrame([*rows, {**rows[0], "timestamp": None, "payload": LONG}]))


def calls(folder: Path) -> dict[type, tuple[Any, dict[str, Callable[[Any], Any]]]]:
    """For each class that a method returns, one of it, and a call of each of its methods."""
    log, writable = hostile(), tl.open(f"sqlite:///{folder / 'new.db'}", writable=True)
    book = log.fold(tl.Order)
    branch = book.branch(NASTY).without(event_type=NASTY)
    story = book[NASTY]
    mined: dict[str, Callable[[Any], Any]] = {
        "variants": lambda it: it.variants(),
        "flow": lambda it: it.flow(),
        "funnel": lambda it: it.funnel(["OrderCreated", NASTY]),
    }
    looks: dict[str, Callable[[Any], Any]] = (
        mined
        | {
            "asof": lambda it: it.asof(pl.DataFrame({"aggregate_id": ["b"], "ts": [START]})),
            "at": lambda it: it.at(LATER),
            "backdated": lambda it: it.backdated(),
            "believed": lambda it: it.believed(LATER, LATER),
            "bisect": lambda it: it.bisect(lambda states: len(states) > 0),
            "blame": lambda it: it.blame("reason"),
            "branch": lambda it: it.branch(NASTY),
            "conform": lambda it: it.conform(),
            "cuts": lambda it: it.cuts(LATER),
            "diff": lambda it: it.diff("2024-01-01", LATER),
            "dwell": lambda it: it.dwell(),
            "every": lambda it: it.every("1h"),
            "explain": lambda it: it.explain("total", "2024-01-01", LATER),
            "history": lambda it: it.history(),
            "now": lambda it: it.now,
            "plot": lambda it: it.plot,
            "retention": lambda it: it.retention(),
            "scrub": lambda it: it.scrub(),
            "stays": lambda it: it.stays(),
            "trace": lambda it: it.trace(NASTY),
            "basis": lambda it: it.basis,
            "rejected": lambda it: it.rejected,
        }
        | {name: lambda it, name=name: getattr(it, name) for name in ("ids", "kept", "span", "undeclared")}
    )
    drawn: dict[str, Callable[[Any], Any]] = {"plot": lambda it: it.plot()}
    run = {
        "job": "daily", "run_id": "r", "status": "failed", "exit_code": 1, "as_of": "2025-01-01",
        "started": "2025-01-01T00:00:00Z", "finished": "2025-01-01T00:00:01Z", "parameters": {},
        "notebook": None, "report": None, "error": {"message": LONG}, "results": {"what": LONG},
    }  # fmt: skip
    return {
        EventLog: (log, mined | {
            "audit": lambda it: it.audit(),
            "batches": lambda it: next(it.batches()),
            "events": lambda it: it.events(NASTY),
            "fold": lambda it: it.fold(tl.Order),
            "frontier": lambda it: it.frontier,
            "read": lambda it: it.read(),
            "rejected": lambda it: it.rejected,
            "scan": lambda it: it.scan(),
            "append": lambda it: writable.append("new", {"event_type": NASTY, "payload": {"a": NASTY}}, 0),
            "append_many": lambda it: writable.append_many(it.read()),
            "mirror": lambda it: it.mirror(folder / "mirror"),
            "to_csv": lambda it: it.to_csv(folder / "a.csv"),
            "to_ocel": lambda it: it.to_ocel(folder / "a.json"),
            "to_xes": lambda it: it.to_xes(folder / "a.xes"),
            "url": lambda it: it.url,
        }),
        Book: (book, looks),
        Branch: (branch, looks | {
            "compare": lambda it: it.compare(),
            "edit": lambda it: it.edit(pl.col("event_type") == NASTY, {"metadata": {"a": NASTY}}),
            "edits": lambda it: it.edits,
            "funnel": lambda it: it.funnel(["OrderCreated", "OrderShipped"]),
            "insert": lambda it: it.insert(pl.DataFrame({"aggregate_id": ["c"], "version": [1],
                                                         "event_type": [NASTY], "payload": ["{}"],
                                                         "timestamp": [START]})),
            "of": lambda it: Branch.of(it, NASTY),
            "refold": lambda it: it.refold(tl.Order),
            "same_fold": lambda it: it.same_fold,
            "touched": lambda it: it.touched,
            "touched_ids": lambda it: it.touched_ids,
            "without": lambda it: it.without(aggregate_id="b"),
        }),
        Story: (story, {
            "at": lambda it: it.at(LATER),
            "bisect": lambda it: it.bisect(bool),
            "blame": lambda it: it.blame(),
            "diff": lambda it: it.diff(1, 3),
            "history": lambda it: it.history(),
            "log": lambda it: it.log(),
            "now": lambda it: it.now,
            "plot": lambda it: it.plot(),
            "scrub": lambda it: it.scrub(),
            "trace": lambda it: it.trace(),
        }),
        State: (story.now, {"as_dict": lambda it: it.as_dict()}),
        Funnel: (book.funnel([NASTY]), drawn | {
            name: lambda it, name=name: getattr(it, name) for name in ("counts", "steps", "witnesses")
        }),
        Conformance: (book.conform(), drawn),
        Session: (Session({"book": book, "told": NASTY}), {
            "book": lambda it: it.book("book"),
            "books": lambda it: it.books(),
            "open": lambda it: it.open("sqlite:///data/samples/orders.db"),
            "use": lambda it: it.use("book"),
        }),
        Comparison: (branch.compare(), drawn | {
            name: lambda it, name=name: getattr(it, name)
            for name in ("changed", "illegal", "orders", "states", "totals")
        } | {"of": lambda it: it.of("status")}),
        JobRun: (run_of(run, folder), {}),
    }  # fmt: skip


# Made for the package's own modules, or values of Python that need no showing.
INSIDE = {"close", "frame", "ids_of", "rows", "track", "tracks", "typed", "wanted", "version", "provisional",
          "aggregate_id", "valid_from", "valid_to", "record", "took",
          *JobRun.__dataclass_fields__}  # fmt: skip


def looks_well(made: Any, where: str) -> None:
    """Hold one value to the rules; what it is drawn from stays what it is."""
    if isinstance(made, PLAIN) or type(made).__module__.startswith("plotly."):
        return
    shown, said = made._repr_html_(), repr(made)
    assert isinstance(shown, str), where
    assert len(shown.encode()) < LIMIT, (where, len(shown))
    assert "<script" not in shown, where
    assert "4111111111111111" not in shown + said, where
    assert said.isprintable(), (where, said)
    assert len(said) < 1_000, (where, said)
    assert not re.search(r"0x[0-9a-f]{6,}", said), (where, said)
    assert (shown, said) == (made._repr_html_(), repr(made)), where


def test_whatever_a_public_method_returns_can_end_a_cell(tmp_path: Path) -> None:
    """Made of a history in which every text is hostile and some are very long."""
    for kind, (one, asked) in calls(tmp_path).items():
        looks_well(one, kind.__name__)
        for name, ask in asked.items():
            looks_well(ask(one), f"{kind.__name__}.{name}")


def test_no_public_method_is_left_out(tmp_path: Path) -> None:
    """A new one must be looked at, too."""
    for kind, (_, asked) in calls(tmp_path).items():
        public = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
        assert public - INSIDE - set(asked) == set(), kind.__name__


def test_a_value_that_shows_itself_badly_is_noticed() -> None:
    """A test of the test: each rule can be broken."""

    class Shown:
        def __init__(self, html: str, text: str) -> None:
            self.html, self.text = html, text

        def _repr_html_(self) -> str:
            return self.html

        def __repr__(self) -> str:
            return self.text

    looks_well(Shown("<b>fine</b>", "<fine>"), "")
    for html, text in [
        ("<script>", "a"), ("x" * LIMIT, "a"), ("a", "two\nlines"), ("a", "<X at 0x7f00deadbeef>"),
        ("4111111111111111", "a"), ("a", "x" * 1_000),
    ]:  # fmt: skip
        with pytest.raises(AssertionError):
            looks_well(Shown(html, text), "")
    with pytest.raises(AttributeError):
        looks_well(object(), "")
