"""A PostgreSQL of our own for the benchmarks, and what its peers keep there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

PAGE = 5_000  # notifications that are read at a time


@contextmanager
def server() -> Iterator[str]:
    """Start a server on 127.0.0.1, give the URL of its empty database, and remove it at the end."""
    from tests.servers import own_postgres

    with own_postgres() as started:
        yield started.url


def environment(url: str) -> dict[str, str]:
    """Tell `eventsourcing` where the same database is."""
    place = urlsplit(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": place.path.strip("/"),
        "POSTGRES_HOST": str(place.hostname),
        "POSTGRES_PORT": str(place.port),
        "POSTGRES_USER": str(place.username),
        "POSTGRES_PASSWORD": str(place.password),
    }


class Recorder:
    """The library's own way to write: transcoded events, one transaction for each call."""

    def __init__(self, url: str, events: Sequence[dict[str, Any]]) -> None:
        from eventsourcing.persistence import InfrastructureFactory
        from eventsourcing.utils import Environment

        factory = InfrastructureFactory.construct(Environment("bench", env=environment(url)))
        self.factory: Any = factory
        self.recorder: Any = factory.application_recorder()
        self.states = [json.dumps(event).encode() for event in events]
        self.topics = [event["event_type"] for event in events]

    def _stored(self, name: UUID, first: int, last: int) -> list[Any]:
        from eventsourcing.persistence import StoredEvent

        return [
            StoredEvent(name, version + 1, self.topics[version], self.states[version])
            for version in range(first, last)
        ]

    def insert(self, count: int) -> int:
        """Insert so many events of one aggregate at once."""
        return len(self.recorder.insert_events(self._stored(uuid4(), 0, count)))

    def insert_one_by_one(self, count: int) -> int:
        """Insert so many events of one aggregate, each in a transaction of its own."""
        name = uuid4()
        return sum(len(self.recorder.insert_events(self._stored(name, n, n + 1))) for n in range(count))

    def read(self) -> int:
        """Read all that was recorded, a page after the other, as objects that are not decoded."""
        seen = 0
        while page := self.recorder.select_notifications(start=seen + 1, limit=PAGE):
            seen = page[-1].id
        return seen

    def close(self) -> None:
        """Let go of the library's connections."""
        self.factory.close()
