"""Story: one aggregate's life."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from titan_lab.clock import Cut, Instant, check_cut, check_version, from_micros, micros
from titan_lab.errors import InstantError
from titan_lab.fold import ROW, State
from titan_lab.notebook import deltas, figures, html
from titan_lab.notebook.masked import masked
from titan_lab.notebook.widget import Scrubber
from titan_lab.states import as_instants
from titan_lab.timeline import Timeline
from titan_lab.why import change
from titan_lab.why.bisect import verdict
from titan_lab.why.blame import blame_all
from titan_lab.why.known import Effective, at_known
from titan_lab.why.trace import TRACE, trace

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN = 25  # events in a notebook's table


class Story:
    """One aggregate's life: its events, and the state after each of them. Made by ``book["id"]``."""

    def __init__(self, book: Timeline, number: int) -> None:
        self.book = book
        self.aggregate = book.aggregate
        self.aggregate_id: str = book.typed.ids[number]
        self._rows = np.arange(book.typed.starts[number], book.typed.ends[number])
        self._owners = np.full(len(self._rows), number)

    def at(
        self,
        when: Instant | None = None,
        *,
        version: int | None = None,
        cut: Cut = "prefix",
        known_at: Instant | None = None,
    ) -> State:
        """Give the state at an instant (inclusive) or after its version n.

        Before the first event the state is falsy, with version 0 and every column as it starts. A version
        beyond the last gives the last. known_at: as it was known at this instant, see ``Book.at``.

        Raises InstantError for a naive or unreadable instant.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> story = book["550e8400-e29b-41d4-a716-446655440000"]
        >>> story.at("2025-01-01T11:00Z").status, story.at(version=1).status
        ('PAID', 'CREATED')
        """
        check_cut(cut)
        if isinstance(when, int) or (when is None) == (version is None):
            raise InstantError(
                f"{when!r} is no instant",
                hint="a story is looked at by .at('2025-01-15T14:00Z') or .at(version=3)",
            )
        if known_at is not None:
            return self._known(when, known_at, cut)
        counted = self.book.rows.counted(cut)
        if version is not None:
            upto = int(np.searchsorted(self.book.typed.version[self._rows], check_version(version), "right"))
            return self._state(self._frame(slice(max(upto - 1, 0), upto), counted=counted))
        moment = micros(when, self.book.zone)  # type: ignore[arg-type]
        if cut == "filter":
            state = self._state(self._alone.at(when, cut=cut))
        else:
            upto = int(np.searchsorted(counted[self._rows], moment, side="right"))
            state = self._state(self._frame(slice(max(upto - 1, 0), upto), counted=counted))
        state.provisional = self.book.basis.provisional(from_micros(moment))
        return state

    @property
    def now(self) -> State:
        """Give the state after the last event."""
        return self._state(self._frame(slice(-1, None)))

    def log(self) -> pl.DataFrame:
        """List the events, one row each in order of version.

        Returns version Int64, event_type String, timestamp and counted_from Datetime(us, UTC), changed
        List(String), payload String (JSON as stored) and metadata String. counted_from is the instant from
        which the default cut counts the event: later than its timestamp where an earlier version is stamped
        later. changed names the columns of the state that the event changed.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> story = book["550e8400-e29b-41d4-a716-446655440000"]
        >>> story.log().select("version", "event_type").row(8)
        (9, 'OrderCorrected')
        """
        return self._events().insert_column(4, self._changed().alias("changed"))

    def diff(
        self,
        a: Instant | int,
        b: Instant | int,
        columns: str | Iterable[str] | None = None,
        cut: Cut = "prefix",
    ) -> pl.DataFrame:
        """Compare two instants, or two versions: one row for each field that changed, and its event.

        Returns field, before, after, version, event_type, timestamp and correlation_id as ``Book.diff`` does.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> story = book["550e8400-e29b-41d4-a716-446655440000"]
        >>> story.diff(8, 10).select("field", "before", "after", "event_type").rows()
        [('total', '1018.90', '968.90', 'OrderCorrected'), ('refunded', '19.90', '69.90', 'RefundIssued')]
        """
        book, lives = self._seen_by(cut)
        if isinstance(a, int) and isinstance(b, int):
            found = change.diff(book, None, None, columns, cut, (a, b), lives)
        else:
            found = change.diff(book, a, b, columns, cut, None, lives)
        return found.drop("aggregate_id")

    def blame(
        self, column: str | None = None, when: Instant | None = None, cut: Cut = "prefix"
    ) -> pl.DataFrame:
        """Find the event that set each column (or one) to the value that it has now, or had at an instant.

        Returns field String, value (text, as ``Book.diff`` writes it, where dtypes differ), version,
        event_type, timestamp, correlation_id and upcast as ``Book.blame`` does, in order of declaration.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> story = book["550e8400-e29b-41d4-a716-446655440000"]
        >>> story.blame("total").select("value", "version", "event_type").row(0)
        (Decimal('968.90'), 9, 'OrderCorrected')
        """
        book, lives = self._seen_by(cut)
        return blame_all(book, column, when, cut, lives).drop("aggregate_id")

    def bisect(self, predicate: Callable[[State], bool]) -> int | None:
        """Find the first version after which a predicate over the state holds; None when it never does.

        Looks at one state after the other, so that the predicate need not stay true. Raises PredicateError
        when it raises, or says neither true nor false.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book["550e8400-e29b-41d4-a716-446655440000"].bisect(lambda state: state.refunded > 0)
        8
        """
        for row in self.history().iter_rows(named=True):
            state = self._as_state(row)
            if verdict(predicate, state, f"after version {state.version} of {self.aggregate_id}"):
                return state.version
        return None

    def trace(self, version: int | None = None) -> pl.DataFrame:
        """Lay out the tree of causes around an event, or around all events of this life, across aggregates.

        It holds every event that shares a correlation_id with those asked about, and what caused them or was
        caused by them, all the way. A causation_id names another event, by the event_id in its metadata or as
        "aggregate_id/version", or something outside such as a command, which gets a row without an event.

        Returns depth Int64 (0: a root), cause String (how others call it as their cause), aggregate_id,
        version, event_type, timestamp, correlation_id, causation_id, and cycle Boolean: true for an event
        that is its own cause in the end, and is shown as a root. Parents come before their children, those
        by timestamp, aggregate_id and version.

        Raises InstantError for a version that is not there.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> tree = book["550e8400-e29b-41d4-a716-446655440000"].trace(version=1)
        >>> tree.select("depth", "cause", "event_type").row(0), tree["event_type"].to_list()
        ((0, 'cmd-xyz789', None), [None, 'OrderCreated', 'PaymentAuthorized'])
        """
        return trace(self.book.typed, int(self._owners[0]), version)

    def plot(self, title: str | None = None) -> go.Figure:
        """Draw this life: its status as a band, its events as marks, its amounts as steps.

        Raises MissingExtra where plotly is not installed.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book["550e8400-e29b-41d4-a716-446655440000"].plot().layout.xaxis.title.text
        'instant (UTC)'
        """
        return figures.story(self, title=title)

    def history(self, columns: str | Iterable[str] | None = None) -> pl.DataFrame:
        """Give the state after each event, in order of version, with valid_from and valid_to."""
        return self._frame(slice(None), columns)

    def scrub(self, causes: bool = True) -> Scrubber:
        """Drag through this life: the state after each event, what changed, and the event with its causes.

        It is a slider in a notebook, and in a report; arrow keys go from event to event, and the axis above
        it to the instants between them. Card numbers, addresses and the like are masked, see
        ``titan_lab.unmasked``. causes=False leaves them out: in a history of millions of events, it takes
        seconds to look for them.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book["550e8400-e29b-41d4-a716-446655440000"].scrub()
        <Scrubber of Order 550e8400-e29b-41d4-a716-446655440000: 11 events>
        """
        name = f"{self.aggregate.__name__} {self.aggregate_id}"
        tree = self.trace() if causes else TRACE.to_frame()
        data = deltas.life(self.aggregate, self.aggregate_id, self._events(), self._frame, tree)
        return Scrubber(data, html.Html(self._repr_html_(), name), f"{name}: {len(self):,} events")

    def __len__(self) -> int:
        """Count the events."""
        return len(self._rows)

    def __repr__(self) -> str:
        name = f"{self.aggregate.__name__} {self.aggregate_id}"
        return f"<Story of {html.line(name, 'id')}: {len(self):,} events, now {self.now}>"

    def _repr_html_(self) -> str:
        typed, rows = self.book.typed, self._rows[-SHOWN:]
        kinds = pl.Series(typed.kinds, dtype=pl.String)
        recorded = as_instants(typed.timestamp[rows])
        told = pl.DataFrame(
            {
                "version": typed.version[rows],
                "event_type": kinds.gather(typed.kind[rows].astype(np.uint32)),
                "recorded": recorded,
                "what it changed": self._told(recorded),
            }
        )
        skipped = len(self) - len(rows)
        note = f"{skipped:,} earlier events are not shown; .log() has them all" if skipped else ""
        title = f"{self.aggregate.__name__} {self.aggregate_id}"
        return html.table(told, caption=title, note=note, limit=SHOWN)

    def _told(self, recorded: pl.Series) -> list[str]:
        """Write down what each of the last events changed, and to what."""
        names = list(self.aggregate.reducers)
        states = self._frame(slice(-len(recorded) - 1, None), names).to_dicts()
        if len(states) == len(recorded):
            states.insert(0, self.aggregate.initial(self.aggregate_id).as_dict())
        counted = as_instants(self.book.rows.counted("prefix")[self._rows[-len(recorded) :]])
        told = []
        for (before, after), stamp, since in zip(pairwise(states), recorded, counted, strict=True):
            changes = [
                _change(name, after[name], stamp)
                for name in names
                if after[name] not in (before[name], self.aggregate_id)
            ]
            later = f" (counts from {html.shown(since)} on)" if since != stamp else ""
            told.append((", ".join(changes) or "nothing") + later)
        return told

    def _known(self, when: Instant | None, known_at: Instant, cut: Cut) -> State:
        if when is None:
            raise InstantError(
                "known_at needs an instant", hint="story.at('2025-01-15', known_at='2025-01-20')"
            )
        moment, known = micros(when, self.book.zone), micros(known_at, self.book.zone)
        alone, columns = self._alone, self.book.wanted(None)
        return self._state(at_known(alone, Effective(alone.typed, alone.zone), moment, known, cut, columns))

    def _seen_by(self, cut: Cut) -> tuple[Timeline, np.ndarray | None]:
        """Give a timeline, and which of its lives this is; a cut that is no prefix is folded for it alone."""
        return (self._alone, None) if cut == "filter" else (self.book, self._owners[:1])

    @cached_property
    def _alone(self) -> Timeline:
        return Timeline(self.aggregate, self.book.typed.take(self._rows), zone=self.book.zone)

    def _frame(
        self, some: slice, columns: str | Iterable[str] | None = None, counted: np.ndarray | None = None
    ) -> pl.DataFrame:
        counted = self.book.rows.counted("prefix") if counted is None else counted
        return self.book.frame(self._rows[some], self._owners[some], self.book.wanted(columns), counted)

    def _state(self, found: pl.DataFrame) -> State:
        if found.is_empty():
            return self.aggregate.initial(self.aggregate_id)
        return self._as_state(found.row(0, named=True))

    def _as_state(self, row: dict[str, Any]) -> State:
        fields = {name: value for name, value in row.items() if name not in ROW}
        return State(row["aggregate_id"], row["version"], fields, row["valid_from"], row["valid_to"])

    def _events(self) -> pl.DataFrame:
        typed, rows = self.book.typed, self._rows
        return pl.DataFrame(
            {
                "version": typed.version[rows],
                "event_type": pl.Series(typed.kinds, dtype=pl.String).gather(
                    typed.kind[rows].astype(np.uint32)
                ),
                "timestamp": as_instants(typed.timestamp[rows]),
                "counted_from": as_instants(self.book.rows.counted("prefix")[rows]),
                "payload": self._payloads(),
                "metadata": typed.metadata.gather(rows),
            }
        )

    def _payloads(self) -> pl.Series:
        """Read the payloads as they are stored; null where the store cannot be asked."""
        versions = pl.DataFrame({"version": self.book.typed.version[self._rows]})
        if self.book.read_events is None:
            return pl.Series([None], dtype=pl.String).new_from_index(0, len(self))
        stored = self.book.read_events([self.aggregate_id]).select("version", "payload")
        return versions.join(stored, on="version", how="left", maintain_order="left")["payload"]

    def _changed(self) -> pl.Series:
        """List, for each event, the columns whose value is another after it."""
        start = self.aggregate.initial(self.aggregate_id).as_dict()
        history = self.history(columns=list(self.aggregate.reducers))
        changes = []
        for name in self.aggregate.reducers:
            values: list[Any] = [start[name], *history[name].to_list()]
            changes.append([name if after != before else None for before, after in pairwise(values)])
        return pl.Series(
            [[name for name in one if name] for one in zip(*changes, strict=True)], dtype=pl.List(pl.String)
        )


def _change(name: str, value: Any, stamp: datetime) -> str:
    # A moment that is the event's own stands in the row already, and a list is too long for one.
    if value == stamp:
        return name
    told = f"({len(value):,})" if isinstance(value, list) else html.shown(masked(value, name))
    return f"{name} {told}"
