"""SQL over a book: the tables are the book's, a parameter is a value and never text."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import titan_lab as tl
from titan_lab.errors import InstantError, QueryError
from titan_lab.notebook import sql as module
from titan_lab.notebook.sql import parameters_of, sql
from titan_lab.testing import slow, slow_sql
from titan_lab.testing.histories import histories, moments

often = settings(
    derandomize=True, max_examples=25, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
hunting = settings(often, max_examples=200, phases=[Phase.generate])
PHONE = "550e8400-e29b-41d4-a716-446655440000"
T = datetime(2025, 1, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def book():
    return tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)


# --- THE TABLES --------------------------------------------------------------------------------------------


def sql_counts_what_counts(events: pl.DataFrame, moment: datetime, least: Decimal) -> None:
    book = tl.from_frame(events).fold(tl.Order)
    lives = slow.lives_of(events)

    types = sql(book, "SELECT event_type, count(*) AS n FROM events GROUP BY event_type", at=moment)
    paid = sql(
        book,
        "SELECT aggregate_id, version, paid FROM states WHERE paid > :least",
        {"least": least},
        at=moment,
    )

    assert types.rows() == slow_sql.events_by_type(lives, moment)
    assert paid.rows() == slow_sql.paid_above(tl.Order, lives, moment, least)


some_amounts = st.integers(-1000, 1000).map(lambda n: Decimal(n) / 100)


def test_the_tables_at_an_instant_are_those_of_a_slow_loop() -> None:
    """`events` holds what the states are made of, also where clocks step back."""
    often(given(histories(), moments, some_amounts)(sql_counts_what_counts))()


def test_a_table_of_events_cut_by_the_clock_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what everybody would write first."""

    def by_clock(book, at):
        kept = book.read_events(None).filter(pl.col("timestamp") <= tl.instant(at))
        return {"events": lambda: kept, "states": lambda: book.at(at)}

    monkeypatch.setattr(module, "_tables", by_clock)
    with pytest.raises(AssertionError):
        hunting(given(histories(), moments, some_amounts)(sql_counts_what_counts))()


def test_states_without_an_instant_are_the_last_ones(book) -> None:
    """As the book has them after the last event."""
    last = book.at("2030-01-01", columns=["total"])

    found = sql(book, "SELECT aggregate_id, version, total FROM states")

    assert found.rows() == last.rows()
    assert found.schema["total"] == pl.Decimal(38, 2)


@pytest.mark.parametrize("at", [None, T])
def test_events_are_those_that_the_states_are_made_of(at) -> None:
    """Neither those of orders that were not folded, nor those that the fold rejected."""
    rows = [
        ("a", "PaymentAuthorized", '{"amount": 1}'),
        ("a", "PaymentAuthorized", '{"amount": "much"}'),
        ("a", "OrderShipped", "{}"),
        ("b", "OrderShipped", "{}"),
    ]
    frame = pl.DataFrame(rows, schema=["aggregate_id", "event_type", "payload"], orient="row")
    log = tl.from_frame(frame.with_columns(timestamp=pl.lit(T)))

    found = sql(log.fold(tl.Order, aggregates="a"), "SELECT aggregate_id, version FROM events", at=at)

    assert found.rows() == [("a", 1), ("a", 3)]


def test_a_branch_is_asked_as_any_book(book) -> None:
    """Its events are those that it still has."""
    kept = book.branch().without(event_type="OrderCancelled")
    query = "SELECT count(*) FROM events WHERE event_type = 'OrderCancelled'"

    assert sql(book, query).item() > 0
    assert sql(kept, query).item() == 0


def test_the_payload_is_json_to_look_into(book) -> None:
    """Amounts come out as exact as they are written."""
    query = """
        SELECT (payload ->> 'corrected_amount')::DECIMAL(38, 2) AS price
        FROM events WHERE aggregate_id = :order AND event_type = 'OrderCorrected'
    """
    assert sql(book, query, {"order": PHONE}).item() == Decimal("968.90")


def test_instants_are_utc_and_sums_of_money_exact(book) -> None:
    """Whatever the machine's zone is."""
    found = sql(book, "SELECT max(created_at) AS last, sum(total) AS total FROM states", at=T)
    states = book.at(T)

    assert found.schema["last"] == pl.Datetime("us", "UTC")
    assert found.row(0) == (states["created_at"].max(), states["total"].sum())


# --- THE ORDER OF AN ANSWER --------------------------------------------------------------------------------


def test_an_answer_without_an_order_is_sorted_from_the_left(book) -> None:
    """The same question gives the same rows in the same places, whatever the threads did."""
    query = (
        "SELECT status, count(*) AS n, row_number() OVER (ORDER BY status) AS r FROM states GROUP BY status"
    )

    statuses = sql(book, query)["status"].to_list()

    assert statuses == sorted(statuses)


def test_an_order_that_was_asked_for_is_kept(book) -> None:
    """And one inside of a subquery is not taken for it."""
    down = sql(book, "SELECT DISTINCT status FROM states ORDER BY status DESC")["status"].to_list()
    inner = sql(
        book, "SELECT status FROM (SELECT DISTINCT status FROM states ORDER BY status DESC) -- order by x"
    )

    assert down == sorted(down, reverse=True)
    assert inner["status"].to_list() == sorted(down)


# --- PARAMETERS --------------------------------------------------------------------------------------------

texts = st.text(st.sampled_from("ab:x'\"{}[]()$-*/\\ \n;é=%")) | st.sampled_from(
    ['{"a": :x, "b": {"c": ":y"}}', "'; DROP TABLE states; --", "$$ :x $$", "::int", "/* :x", "-- :x"]
)
values = (
    texts
    | st.booleans()
    | st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**12), max_value=10**12)
    | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
)


def a_value_comes_back(text: str, value: object) -> None:
    quoted, name = text.replace("'", "''"), text.replace('"', '""') or "n"
    query = f"""SELECT '{quoted}' AS "t", :x AS "v", /* :nor ':this */ [1, 2, 3][2:3] AS s, {{'k':7}}, 5::TEXT
                AS c, 1 AS "c {name}" -- :nor 'this"""

    row = _ask(query, {"x": value}).row(0)

    assert row[0] == text
    assert row[1] == value
    assert row[2:] == ([2, 3], {"k": 7}, "5", 1)


def _ask(query: str, parameters: dict) -> pl.DataFrame:
    book = tl.from_frame(pl.DataFrame({"aggregate_id": ["a"], "event_type": ["E"], "timestamp": [T]}))
    try:
        return sql(book.fold(tl.Order), query, parameters)
    except QueryError as error:
        raise AssertionError(str(error)) from error


def test_any_value_and_any_text_come_through_unharmed() -> None:
    """Colons, quotes, braces, casts and slices stay what they are; a value stays what it is."""
    often(given(texts, values)(a_value_comes_back))()


def test_a_search_for_parameters_that_knows_no_quotes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: JSON in a text is taken for parameters."""
    blind = re.sub(r"\(\?P<quoted>.*?\n", "(?P<quoted>(?!)) ", module._TOKENS.pattern, count=1)
    monkeypatch.setattr(module, "_TOKENS", re.compile(blind, module._TOKENS.flags))
    with pytest.raises(AssertionError):
        hunting(given(texts, values)(a_value_comes_back))()


def test_a_value_that_is_written_into_the_text_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: what other tools do."""
    prepared = module._prepared

    def paste(query: str) -> tuple[str, bool]:
        text, ordered = prepared(query)
        return text.replace("$x", "'it'"), ordered

    monkeypatch.setattr(module, "_prepared", paste)
    with pytest.raises(AssertionError):
        hunting(given(texts, values)(a_value_comes_back))()


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (["PAID", "SHIPPED"], 59),
        (("PAID", "SHIPPED"), 59),
        ({"PAID", "SHIPPED"}, 59),
        (pl.Series(["PAID", "SHIPPED"]), 59),
        ([], 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_list_is_bound_whole(book, value, count) -> None:
    """IN :names needs no brackets and no generated text."""
    assert sql(book, "SELECT count(*) FROM states WHERE status IN :s", {"s": value}, at=T).item() == count


@pytest.mark.parametrize(
    "value", [T, date(2025, 1, 15), "2025-01-15T00:00Z", timedelta(days=14)], ids=lambda v: type(v).__name__
)
def test_moments_and_lengths_of_time_are_bound_by_their_type(book, value) -> None:
    """All of these ask for the same instant."""
    start = "TIMESTAMPTZ '2025-01-01 00:00+00' + " if isinstance(value, timedelta) else ""
    cast = "::TIMESTAMPTZ" if isinstance(value, str) else ""
    query = f"SELECT count(*) FROM events WHERE timestamp <= {start}:t{cast}"

    assert (
        sql(book, query, {"t": value}).item()
        == book.read_events(None).filter(pl.col("timestamp") <= T).height
    )


def test_a_uuid_finds_the_aggregate_it_names(book) -> None:
    """Ids are text here, and often UUIDs elsewhere."""
    found = sql(book, "SELECT version FROM states WHERE aggregate_id = :id", {"id": uuid.UUID(PHONE)})

    assert found.height == 1


def test_a_limit_can_be_a_parameter(book) -> None:
    """A number that numpy or polars counted is a number."""
    assert sql(book, "SELECT * FROM states LIMIT :n", {"n": pl.Series([3]).to_numpy()[0]}).height == 3


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT :a, :b + :a", ["a", "b"]),
        ("SELECT ':a', \":b\", E'it\\':c', $$:d$$, $q$ :e $q$", []),
        ("SELECT /* :a /* :b */ :c */ :d -- :e", ["d"]),
        ("SELECT x::int, l[1:n], {'k':v}, f(a := 1)", []),
        ("SELECT (:a), [:b], x=:c", ["a", "b", "c"]),
        ("SELECT '12:30', 'http://x:y'", []),
    ],
)
def test_a_parameter_is_known_by_where_it_stands(query, names) -> None:
    """A colon that is glued to what comes before it is no parameter."""
    assert parameters_of(query) == names


# --- BAD INPUT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT :statsu", r"asks for :statsu(.|\n)*hint: Did you mean 'status'"),
        ("SELECT :nothing_like_it", "hint: set nothing_like_it"),
        ("SELECT ?", "write :name instead"),
        ("SELECT 1; SELECT 2", "expected one SELECT, found SELECT, SELECT"),
        ("DROP TABLE states", "expected one SELECT, found DROP"),
        ("", "found no statement"),
        ("SELEC 1", "the query fails: Parser Error"),
        ("SELECT * FROM state", r"state does not exist(.|\n)*hint: Did you mean 'states'"),
        ("SELECT totl FROM states", r"hint: Did you mean 'total'"),
        ("SELECT * FROM '/etc/passwd'", "hint: the tables are events and states"),
        ("SELECT * FROM read_csv('/etc/passwd')", "hint: only events and states"),
        ("COPY (SELECT 1) TO 'x.csv'", "expected one SELECT, found COPY"),
        ("SET TimeZone = 'Asia/Tokyo'", "expected one SELECT, found"),
        ("SELECT INTERVAL 1 DAY", "does not fit into a frame"),
        ("SELECT 'a'::INT", "Conversion Error"),
        ("SELECT * FROM status", "does not exist"),  # a frame of Python's of that name is not looked at
    ],
)
def test_what_is_no_question_is_a_query_error(book, query, told) -> None:
    """Each says what was found, and nothing reaches a file."""
    status = pl.DataFrame({"a": [1]})
    with pytest.raises(QueryError, match=told):
        sql(book, query, {"status": "PAID", "frame": status})


@pytest.mark.parametrize("value", [object(), pl.DataFrame({"a": [1]}), {"a": 1}])
def test_a_value_without_a_type_in_sql_is_told_by_name(book, value) -> None:
    """Better than its repr as a text."""
    with pytest.raises(QueryError, match=f":x is a {type(value).__name__}"):
        sql(book, "SELECT :x", {"x": value})


def test_a_naive_moment_is_no_instant(book) -> None:
    """As a parameter and as the instant of the tables."""
    with pytest.raises(InstantError, match="no time zone"):
        sql(book, "SELECT :t", {"t": datetime(2025, 1, 15)})
    with pytest.raises(InstantError, match="no time zone"):
        sql(book, "SELECT 1 FROM states", at="2025-01-15T10:00")
