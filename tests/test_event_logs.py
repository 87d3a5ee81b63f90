"""Logs for other tools: what is read back from OCEL, XES and CSV is what the log holds."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import titan_lab as tl
from titan_lab.errors import EventsError
from titan_lab.event import EVENTS, records
from titan_lab.log import EventLog
from titan_lab.mining import eventlog, flat, ocel
from titan_lab.testing.histories import histories

often = settings(derandomize=True, max_examples=15, suppress_health_check=list(HealthCheck), database=None)
hunting = settings(often, max_examples=100, phases=[Phase.generate])
XES = "{http://www.xes-standard.org/}"
EVIL = "\"><script>alert(1)</script>&amp;'\n,\t=1+1\x00\x0b\ud800".encode("utf-8", "replace").decode()


def log_of(*payloads: str, who: str = "a", kind: str = "Happened") -> EventLog:
    rows = [(who, n, kind, text, None, f"2025-01-01T10:{n:02}Z") for n, text in enumerate(payloads, start=1)]
    return tl.from_frame(pl.DataFrame(rows, schema=list(EVENTS), orient="row"))


@pytest.fixture
def log() -> EventLog:
    return tl.open("sqlite:///data/samples/orders.db")


def plain(value: Any) -> str:
    """Write a field of a payload the slow way: nested JSON as the library writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def expected(log: EventLog) -> list[tuple[str, str, datetime, int, dict[str, str]]]:
    """Give what each event should be read back as."""
    found = []
    for event in records(log.read()):
        assert event.timestamp is not None
        fields = json.loads(json.dumps(event.payload, default=float))
        told = {name: plain(value) for name, value in fields.items() if value is not None}
        found.append((event.aggregate_id, event.event_type, event.timestamp, event.version, told))
    return found


def same(told: dict[str, str], fields: dict[str, str]) -> bool:
    """Compare attributes, numbers as numbers: 1.50 is 1.5, also in nested JSON."""

    def number(text: str) -> Any:
        try:
            return json.loads(text, parse_float=Decimal, parse_int=Decimal)
        except ValueError:
            return text

    return {name: number(text) for name, text in told.items()} == {
        n: number(text) for n, text in fields.items()
    }


# --- reading back -----------------------------------------------------------------------------------------


def from_xes(path: Path) -> list[tuple[str, str, datetime, int, dict[str, str]]]:
    found = []
    for trace in ET.parse(path).getroot().iter(f"{XES}trace"):
        (case,) = (one.get("value") for one in trace if one.get("key") == "concept:name")
        for event in trace.iter(f"{XES}event"):
            fields = {str(one.get("key")): str(one.get("value")) for one in event}
            assert len(fields) == len(event)  # each key once
            assert fields.pop("lifecycle:transition") == "complete"
            when = datetime.fromisoformat(fields.pop("time:timestamp"))
            found.append((str(case), fields.pop("concept:name"), when, int(fields.pop("version")), fields))
    return found


def from_csv(path: Path) -> list[tuple[str, str, datetime, int, dict[str, str]]]:
    found = []
    for row in pl.read_csv(path, infer_schema=False).iter_rows(named=True):
        case, activity = row.pop("case:concept:name"), row.pop("concept:name")
        when, version = datetime.fromisoformat(row.pop("time:timestamp")), int(row.pop("version"))
        found.append(
            (case, activity, when, version, {n: value for n, value in row.items() if value is not None})
        )
    return found


def from_ocel(path: Path) -> list[tuple[str, str, datetime, int, dict[str, str]]]:
    document = json.loads(path.read_text())
    is_ocel(document)
    found = []
    for event in document["events"]:
        (case,) = (one["objectId"] for one in event["relationships"] if one["qualifier"] == "order")
        fields = {one["name"]: one["value"] for one in event["attributes"]}
        case = case.removeprefix("order:")
        version = int(event["id"].removeprefix(f"{case}:"))
        found.append((case, event["type"], datetime.fromisoformat(event["time"]), version, fields))
    return found


READ: dict[str, Any] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": {"true": True, "false": False}.__getitem__,
}


def is_ocel(document: dict[str, Any]) -> None:
    """Check by hand what the schema of OCEL 2.0 asks for, and that names lead somewhere."""
    assert set(document) == {"events", "objects", "eventTypes", "objectTypes"}
    types = {}
    for of in ("eventTypes", "objectTypes"):
        for one in document[of]:
            assert set(one) == {"name", "attributes"}
            for attribute in one["attributes"]:
                assert set(attribute) == {"name", "type"}
                assert attribute["type"] in {"string", "time", "integer", "float", "boolean"}
            types[of, one["name"]] = {a["name"]: a["type"] for a in one["attributes"]}
        assert len({one["name"] for one in document[of]}) == len(document[of])
    for of in ("objects", "events"):
        assert len({one["id"] for one in document[of]}) == len(document[of])
    ids = {one["id"] for one in document["objects"]}
    for one in document["objects"]:
        assert set(one) == {"id", "type", "attributes", "relationships"}
        assert ("objectTypes", one["type"]) in types
    for one in document["events"]:
        assert set(one) == {"id", "type", "time", "attributes", "relationships"}
        assert datetime.fromisoformat(one["time"]).tzinfo is not None
        for attribute in one["attributes"]:
            assert set(attribute) == {"name", "value"}
            kind = types["eventTypes", one["type"]][attribute["name"]]
            READ[kind](attribute["value"])
        for link in one["relationships"]:
            assert set(link) == {"objectId", "qualifier"}
            assert link["objectId"] in ids


def write_ocel(log: EventLog, path: Path) -> Path:
    return log.to_ocel(path, aggregate="order", objects=tl.Order.objects)


WAYS: list[Any] = [
    pytest.param(EventLog.to_xes, from_xes, id="XES"),
    pytest.param(EventLog.to_csv, from_csv, id="CSV"),
    pytest.param(write_ocel, from_ocel, id="OCEL"),
]


@pytest.mark.parametrize(("write", "read"), WAYS)
def test_what_is_written_is_read_back(write: Any, read: Any, log: EventLog, tmp_path: Path) -> None:
    """On the samples, event by event and field by field, in order."""
    for found, wanted in zip(read(write(log, tmp_path / "log")), expected(log), strict=True):
        assert found[:4] == wanted[:4]
        assert same(found[4], wanted[4])


@pytest.mark.parametrize(("write", "read"), WAYS)
def test_random_histories_are_read_back(write: Any, read: Any, tmp_path: Path) -> None:
    """With texts that look like numbers, like JSON and like markup, also written one event at a time."""

    def law(events: pl.DataFrame) -> None:
        log = tl.from_frame(events)
        found, wanted = read(write(log, tmp_path / "log")), expected(log)
        assert [one[:4] for one in found] == [one[:4] for one in wanted]
        assert all(same(one[4], other[4]) for one, other in zip(found, wanted, strict=True))

    often(given(events=histories())(law))()
    with pytest.MonkeyPatch.context() as patch:
        for module in (flat, eventlog):
            patch.setattr(module, "SLICE", 1)
        often(given(events=histories())(law))()
    with pytest.MonkeyPatch.context() as patch:  # the planted bug: nested values as Python shows them
        patch.setattr(flat, "_json", repr)
        with pytest.raises(AssertionError):
            hunting(given(events=histories())(law))()


# --- untrusted text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "read"), WAYS)
def test_hostile_text_stays_text(write: Any, read: Any, tmp_path: Path) -> None:
    """As an id, a type, a field's name and a value; what XML cannot hold is replaced."""
    log = log_of(json.dumps({EVIL: EVIL, "n": [EVIL]}), who=EVIL, kind=EVIL)
    assert log.rejected.is_empty()
    ((case, kind, _, _, fields),) = read(write(log, tmp_path / "log"))
    shown = eventlog.UNSPEAKABLE.sub("\ufffd", EVIL) if write is EventLog.to_xes else EVIL
    assert (case, kind) == (shown, shown)
    assert next(iter(fields.values())) == shown
    assert json.loads(fields["n"]) == [EVIL]  # what XML cannot hold, JSON says in other signs
    if write is EventLog.to_xes:
        assert re.fullmatch(r"[\w.:-]+", next(iter(fields)))


@pytest.mark.parametrize(("write", "read"), WAYS)
@pytest.mark.parametrize(
    ("payload", "attributes"),
    [
        ('{"x": "\\ud800 half"}', {"x": "\ufffd half"}),
        ('{"x": 0.10, "y": 1.50, "z": true, "e": ""}', {"x": "0.10", "y": "1.50", "z": "true", "e": ""}),
        ('{"x": null}', {}),
        ("{}", {}),
        ('{"x": 1, "x": 2}', {"x": "1"}),
        ('{"x": {"b": 0.10, "a": [true, null]}}', {"x": '{"b": 0.10, "a": [true, null]}'}),
    ],
)
def test_a_payload_is_written_exactly(
    write: Any, read: Any, payload: str, attributes: dict[str, str], tmp_path: Path
) -> None:
    """Digits, depths and doubles that a careless writer would lose, or fall over."""
    log = log_of(payload)
    assert log.rejected.is_empty()
    ((*_, fields),) = read(write(log, tmp_path / "log"))
    assert fields == attributes


DEEP = '{"x": ' + "[" * 3000 + "]" * 3000 + "}"


@pytest.mark.parametrize(
    ("payload", "attributes"),
    [
        ('{"x": 1e999999}', {"x": Decimal("1E+999999")}),
        ('{"x": ' + "9" * 400 + "}", {"x": "9" * 400}),
        ('{"x": 1e99999999999999999999}', {"x": "Infinity"}),
        (DEEP, {"payload": DEEP}),
        ('{"x": ' + "9" * 5000 + "}", {"payload": '{"x": ' + "9" * 5000 + "}"}),
    ],
    ids=["exponent", "digits", "infinite", "deep", "more digits"],
)
def test_what_reading_would_have_refused_stops_nobody(payload: str, attributes: dict[str, Any]) -> None:
    """Such a payload is not in `read`; should one come, it is written as it is."""
    row = ("a", 1, "X", payload, None, tl.instant("2025-01-01"))
    events = pl.DataFrame([row], schema=EVENTS, orient="row")
    assert [event.attributes for event in flat.flat(events)] == [attributes]


@pytest.mark.parametrize(("write", "read"), [way.values for way in WAYS[:2]])
def test_a_field_named_as_the_logs_own_is_renamed(write: Any, read: Any, tmp_path: Path) -> None:
    """So that nothing is overwritten, and no key comes twice."""
    log = log_of('{"version": "9", "concept:name": "x", "time:timestamp": "y"}')
    ((*_, version, fields),) = read(write(log, tmp_path / "log"))
    assert version == 1
    assert fields == {
        "payload:version": "9",
        "payload:concept:name": "x",
        "payload:time:timestamp": "y",
    }


def test_names_that_xml_does_not_allow_are_changed_and_stay_different(tmp_path: Path) -> None:
    """Spaces, digits at the beginning, nothing at all."""
    ((*_, fields),) = from_xes(log_of('{"a b": 1, "a_b": 2, "1st": 3, "": 4, "ü": 5}').to_xes(tmp_path / "x"))
    assert fields == {"a_b": "1", "a_b_": "2", "_1st": "3", "_": "4", "ü": "5"}


# --- XES and OCEL in particular ---------------------------------------------------------------------------


def test_a_xes_file_has_the_elements_of_its_schema_in_their_order(log: EventLog, tmp_path: Path) -> None:
    """Extensions, globals, classifiers, traces; attributes of five kinds, each with key and value."""
    root = ET.parse(log.to_xes(tmp_path / "orders.xes")).getroot()
    assert (root.tag, root.get("xes.version")) == (f"{XES}log", "1.0")
    tags = [child.tag.removeprefix(XES) for child in root]
    assert tags == ["extension"] * 3 + ["global"] * 2 + ["classifier"] + ["trace"] * 500
    declared = {one.get("prefix") for one in root.iter(f"{XES}extension")}
    for trace in root.iter(f"{XES}trace"):
        assert [one.tag for one in trace] == [f"{XES}string"] + [f"{XES}event"] * (len(trace) - 1)
    for event in root.iter(f"{XES}event"):
        for one in event:
            assert one.tag.removeprefix(XES) in {"string", "date", "int", "float", "boolean"}
            assert set(one.attrib) == {"key", "value"}
            prefix, colon, _ = one.attrib["key"].partition(":")
            assert not colon or prefix in declared


def test_objects_are_what_the_declared_fields_name(log: EventLog, tmp_path: Path) -> None:
    """An order of two products is related to both, to its user, and to itself."""
    path = log.to_ocel(tmp_path / "o.json", aggregate="order", objects=tl.Order.objects, types="OrderCreated")
    document = json.loads(path.read_text())
    assert [one["name"] for one in document["objectTypes"]] == ["order", "user", "product"]
    first = document["events"][0]["relationships"]
    assert first == [
        {"objectId": "order:002049c6-135c-4e01-87d6-a91df3117027", "qualifier": "order"},
        {"objectId": "user:10060", "qualifier": "user_id"},
        {"objectId": "product:iphone-15", "qualifier": "items.product_id"},
        {"objectId": "product:office-chair", "qualifier": "items.product_id"},
    ]


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        ('{"who": "u"}', ["u"]),
        ('{"who": 7}', ["7"]),
        ('{"who": ["u", "v", "u"]}', ["u", "v"]),
        ('{"who": [["u"]]}', []),
        ('{"who": {"x": 1}}', []),
        ('{"who": true}', []),
        ('{"who": null}', []),
        ('{"whom": "u"}', []),
    ],
)
def test_what_is_no_id_names_no_object(payload: str, ids: list[str], tmp_path: Path) -> None:
    """Payloads are checked by nobody yet."""
    document = json.loads(log_of(payload).to_ocel(tmp_path / "o.json", objects={"user": "who"}).read_text())
    is_ocel(document)
    assert [one["id"] for one in document["objects"]] == ["aggregate:a", *(f"user:{id_}" for id_ in ids)]


def test_an_attribute_of_many_kinds_has_the_type_that_holds_all(tmp_path: Path) -> None:
    """Whole numbers and fractions are numbers; anything else together is text."""
    log = log_of('{"a": 1, "b": 1, "c": true}', '{"a": 0.5, "b": "x", "c": false}')
    document = json.loads(log.to_ocel(tmp_path / "o.json").read_text())
    is_ocel(document)
    assert [tuple(one.values()) for one in document["eventTypes"][0]["attributes"]] == [
        ("a", "float"),
        ("b", "string"),
        ("c", "boolean"),
    ]


def test_a_type_of_objects_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Or ids would be taken for each other's."""
    for name in ("a:b", ""):
        with pytest.raises(EventsError, match="cannot name a type of objects"):
            log_of("{}").to_ocel(tmp_path / "o.json", aggregate=name)
    with pytest.raises(EventsError, match="'user' names both the aggregate and what user_id holds"):
        log_of("{}").to_ocel(tmp_path / "o.json", aggregate="user", objects={"user": "user_id"})


# --- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "read"), WAYS)
def test_an_empty_log_is_a_file_that_can_be_read(write: Any, read: Any, tmp_path: Path) -> None:
    """In a folder that is made for it."""
    assert read(write(tl.open("memory://"), tmp_path / "new" / "log")) == []


@pytest.mark.parametrize(("write", "read"), WAYS)
def test_a_file_is_there_whole_or_not_at_all(
    write: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it meanwhile sees the one before; nothing else is left in the folder."""
    path = write(log_of("{}"), tmp_path / "log")
    before = path.read_bytes()
    honest = flat.flat

    def killed(events: pl.DataFrame) -> Any:
        yield from honest(events)
        assert len(list(tmp_path.iterdir())) == 2 or write is EventLog.to_csv
        raise KeyboardInterrupt

    for module in (eventlog, ocel):
        monkeypatch.setattr(module, "flat", killed)
    with pytest.raises(KeyboardInterrupt):
        write(log_of("{}", "{}"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("write", "read"), WAYS)
def test_the_same_events_give_the_same_bytes(write: Any, read: Any, log: EventLog, tmp_path: Path) -> None:
    """In whatever order the store had them."""
    shuffled = tl.from_frame(log.read(until="2025-01-05").sample(fraction=1.0, shuffle=True, seed=1))
    one, other = write(shuffled, tmp_path / "one"), write(tl.from_frame(shuffled.read()), tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
