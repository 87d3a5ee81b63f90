"""Promise: one append of 10,000 events at three times the rate of a library, single ones no slower than its.

Both write to the same PostgreSQL, started for this run, each into tables of its own. `batch`: one aggregate's
10,000 events in one transaction. `single`: so many appends of one event each, one after the other, to one
aggregate. Ours is ``log.append`` with an expected version: of a frame, and of dicts, which it writes as JSON
first. The peer is the recorder of `eventsourcing`, whose events are transcoded before, in its favour.
Excluded: opening. The server runs without fsync, so that what is compared is not the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from benchmarks.harness import OURS, Engine, Options, compare, script
from benchmarks.long_order import LENGTH, Row, as_frame, long_life
from benchmarks.postgres import Recorder, server

BENCH = "append"
SINGLE = 500


def measure(options: Options) -> Iterator[dict]:
    """Time one large append, and many small ones."""
    import titan_lab as tl

    length = min(LENGTH, options.events)
    rows = list(long_life(length))
    frame = as_frame(rows).select("event_type", "payload", "metadata")
    events = [as_event(row) for row in rows]
    with server() as url:
        log = tl.open(url, writable=True)
        recorder = Recorder(url, events)

        def batch(of: Any) -> int:
            return log.append(str(uuid4()), of, expected_version=0).added

        def one_by_one() -> int:
            name = str(uuid4())
            return sum(
                log.append(name, [event], expected_version=version).added
                for version, event in enumerate(events[:SINGLE])
            )

        yield from compare(
            BENCH,
            f"one append of {length:,} events to PostgreSQL",
            [
                Engine(OURS, lambda: batch(frame)),
                Engine(f"{OURS} from dicts", lambda: batch(events)),
                Engine("eventsourcing", lambda: recorder.insert(length)),
            ],
            options,
            events=length,
            orders=1,
        )
        yield from compare(
            BENCH,
            f"{SINGLE} appends of one event each to PostgreSQL",
            [Engine(OURS, one_by_one), Engine("eventsourcing", lambda: recorder.insert_one_by_one(SINGLE))],
            options,
            events=SINGLE,
            orders=1,
        )
        recorder.close()
        log.close()


def as_event(row: Row) -> dict[str, Any]:
    return {
        "event_type": row.event_type,
        "payload": json.loads(row.payload, parse_float=str),
        "metadata": json.loads(row.metadata or "{}"),
    }


if __name__ == "__main__":
    script(measure)
