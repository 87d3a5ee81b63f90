"""The EVENTS frame: what becomes an event, what is rejected, and what is said about it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import titan_lab as tl
from titan_lab.errors import EventsError
from titan_lab.event import EVENTS, REJECTED, SAME_TWICE, TAKEN

TEN = "2025-01-01T10:00:00Z"


def row(**changes: object) -> dict[str, object]:
    good = {
        "aggregate_id": "order-1",
        "version": 1,
        "event_type": "OrderShipped",
        "payload": '{"tracking": "T1"}',
        "metadata": None,
        "timestamp": TEN,
    }
    return good | changes


def log_of(*rows: dict[str, object]) -> tl.EventLog:
    return tl.from_frame(pl.DataFrame(list(rows), infer_schema_length=None, strict=False))


def test_events_come_back_sorted_by_aggregate_and_version_with_the_declared_types() -> None:
    """Whatever order the rows stood in, and whatever types the store had for them."""
    log = log_of(row(version=2), row(aggregate_id="order-0"), row())
    events = log.read()
    assert events.schema == EVENTS
    assert events.select("aggregate_id", "version").rows() == [
        ("order-0", 1),
        ("order-1", 1),
        ("order-1", 2),
    ]
    assert events["timestamp"].to_list() == [datetime(2025, 1, 1, 10, tzinfo=UTC)] * 3


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"aggregate_id": None}, "aggregate_id", "aggregate_id is missing"),
        ({"aggregate_id": ""}, "aggregate_id", "aggregate_id is missing"),
        ({"version": None}, "version", "not a whole number from 1 on"),
        ({"version": 0}, "version", "not a whole number from 1 on"),
        ({"version": -1}, "version", "not a whole number from 1 on"),
        ({"event_type": None}, "event_type", "event_type is missing"),
        ({"timestamp": "soon"}, "timestamp", "no instant"),
        ({"timestamp": None}, "timestamp", "no instant"),
        ({"timestamp": "2025-01-01T10:00:00"}, "timestamp", "say of which zone"),
        ({"payload": None}, "payload", "payload is missing"),
        ({"payload": "{"}, "$", "not the text of one JSON object"),
        ({"payload": "[1]"}, "$", "not the text of one JSON object"),
        ({"payload": "null"}, "$", "not the text of one JSON object"),
        ({"payload": "{},{}"}, "$", "not the text of one JSON object"),
        ({"metadata": "{"}, "metadata", "not the text of one JSON object"),
    ],
)
def test_a_row_that_is_no_event_is_set_aside_with_its_reason_and_the_row_beside_it_stays(
    changes: dict[str, object], path: str, reason: str
) -> None:
    """The reject says where and why, and holds the whole row, so that nothing is lost."""
    log = log_of(row(aggregate_id="good"), row(**changes))
    assert log.read()["aggregate_id"].to_list() == ["good"]
    assert log.rejected.schema == REJECTED
    (told,) = log.rejected.to_dicts()
    assert told["path"] == path
    assert reason in told["reason"]
    assert told["place"] == "frame row 1"
    assert json.loads(told["raw"]) == row(**changes)


def test_a_row_with_several_faults_is_told_once() -> None:
    """Counting rejects counts rows."""
    log = log_of(row(aggregate_id=None, version=0, payload="{"))
    assert log.rejected["path"].to_list() == ["aggregate_id"]


def test_the_same_event_twice_is_kept_once() -> None:
    """A delivery that came twice is no second event."""
    log = log_of(row(), row())
    assert len(log) == 1
    assert log.rejected["reason"].to_list() == [SAME_TWICE]


def test_two_events_for_one_place_are_settled_by_the_timestamp_not_by_where_they_stood() -> None:
    """The one stamped first counts, in whichever order a file has them."""
    early, late = row(payload='{"tracking": "early"}'), row(payload='{"tracking": "late"}')
    late["timestamp"] = "2025-01-01T10:00:01Z"
    for rows in ((early, late), (late, early)):
        log = log_of(*rows)
        assert log.read()["payload"].to_list() == ['{"tracking": "early"}']
        assert log.rejected["reason"].to_list() == [TAKEN]


def test_an_audit_lists_gaps_duplicates_and_clocks_that_step_back() -> None:
    """Each where it shows: a gap at the version after it, an inversion at the later version."""
    log = log_of(
        row(version=1),
        row(version=1),
        row(version=3, timestamp="2025-01-01T09:59:58Z"),
        row(aggregate_id="order-2", version=2),
    )
    assert log.audit().select("kind", "aggregate_id", "version").rows() == [
        ("clock inversion", "order-1", 3),
        ("duplicate", "order-1", 1),
        ("version gap", "order-1", 3),
        ("version gap", "order-2", 2),
    ]
    assert "2s" in log.audit()["detail"][0]


def test_a_scope_narrows_by_id_type_and_window_and_both_ends_are_inclusive() -> None:
    """What is outside of it is neither read nor counted as rejected."""
    log = log_of(
        *(row(version=n, timestamp=f"2025-01-01T10:00:0{n}Z") for n in (1, 2, 3)), row(aggregate_id="b")
    )
    window = log.read(aggregates="order-1", since="2025-01-01T10:00:01Z", until="2025-01-01T10:00:02Z")
    assert window["version"].to_list() == [1, 2]
    assert len(log.read(types=tl.OrderShipped)) == 4
    assert len(log.read(types=["OrderCreated"])) == 0
    assert log.read(aggregates=["b", "nobody"])["aggregate_id"].to_list() == ["b"]


EXPORT = {
    "case": ["c2", "c1", "c1"],
    "activity": ["open", "open", "close"],
    "time": ["2025-01-02T00:00Z", "2025-01-01T00:00Z", "2025-01-01T00:00Z"],
    "clerk": ["ann", "ann", "bob"],
}


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, pa.table, lambda data: pl.LazyFrame(data)])
def test_any_frame_becomes_a_log_when_its_columns_are_named(make: object) -> None:
    """Without a version the order of rows counts, and what is not named otherwise is the payload."""
    log = tl.from_frame(make(EXPORT), aggregate_id="case", event_type="activity", timestamp="time")  # type: ignore[operator]
    assert log.read().select("aggregate_id", "version", "event_type", "payload").rows() == [
        ("c1", 1, "open", '{"clerk":"ann"}'),
        ("c1", 2, "close", '{"clerk":"bob"}'),
        ("c2", 1, "open", '{"clerk":"ann"}'),
    ]


def test_naive_times_in_a_frame_are_read_in_the_zone_that_was_named() -> None:
    """Noon in São Paulo; without a zone, such a row would be rejected and not guessed at."""
    frame = pl.DataFrame(
        {"aggregate_id": ["a"], "event_type": ["Seen"], "timestamp": [datetime(2025, 1, 1, 12)]}
    )
    assert tl.from_frame(frame, zone="America/Sao_Paulo").read()["timestamp"][0].hour == 15
    naive = tl.from_frame(frame)
    assert naive.read().is_empty()
    assert "zone=" in naive.rejected["reason"][0]


def test_a_frame_without_a_column_is_refused_with_the_nearest_name() -> None:
    """A misspelt column is found in the hint."""
    with pytest.raises(EventsError, match="has no column 'tmie'") as caught:
        tl.from_frame(pl.DataFrame(EXPORT), aggregate_id="case", event_type="activity", timestamp="tmie")
    assert "'time'" in str(caught.value.hint)


def test_a_log_of_memory_takes_events_once() -> None:
    """Appending is idempotent by (aggregate_id, version)."""
    log = tl.open("memory://")
    first = log.append_many(log_of(row()).read())
    again = log.append_many(log_of(row(), row(version=2)).read())
    assert (first.added, first.present) == (1, 0)
    assert (again.added, again.present) == (1, 1)
    assert len(log) == 2
