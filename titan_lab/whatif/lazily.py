"""Columns that are folded when somebody asks for them: for histories of which few are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from titan_lab.fold import Aggregate
from titan_lab.rows import Rows
from titan_lab.timeline import Timeline
from titan_lab.tracks import Shared, Track
from titan_lab.typed import Typed


class Folded(Timeline):
    """A Timeline whose columns are folded when they are first asked for."""

    def __init__(self, aggregate: type[Aggregate], history: Typed, zone: str | None) -> None:
        self.aggregate = aggregate
        self.typed = history
        self.zone = zone
        self.rows = Rows(history)
        self.tracks = Tracks(aggregate, history)


class Tracks(Mapping[str, Track]):
    """The columns of a history by name, each folded when it is first asked for, and once."""

    def __init__(self, aggregate: type[Aggregate], history: Typed) -> None:
        self.aggregate = aggregate
        self.history = history
        self.shared = Shared(history)
        self.folded: dict[str, Track] = {}

    def __getitem__(self, name: str) -> Track:
        if name not in self.folded:
            self.folded[name] = self.aggregate.reducers[name].track(self.history, self.shared)
        return self.folded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.aggregate.reducers)

    def __len__(self) -> int:
        return len(self.aggregate.reducers)
