"""EventLog: the events of one store, checked, in order, and ready to be folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from titan_lab.backends.contract import Appended, Frontier, Reader
from titan_lab.backends.mirror import MirrorStore
from titan_lab.book import Book, no_such
from titan_lab.clock import check_version
from titan_lab.draft import LARGE, Metadata, draft
from titan_lab.errors import EventsError, KeepError, ReadOnly
from titan_lab.event import EVENTS, REJECTED, SAME_TWICE, TAKEN, check, in_order, part_duplicates
from titan_lab.fold import Aggregate, declared
from titan_lab.kept.pieces import fold_kept
from titan_lab.mirror.copied import Copied
from titan_lab.notebook import html
from titan_lab.scope import EVERYTHING, Scope, scope
from titan_lab.typed import Typed, WhenNewer, typed
from titan_lab.verbs.events import Events

BATCH = 100_000  # events that `batches` gives at a time
CHECKED = 1_000_000  # rows that are checked at a time


class EventLog(Events):
    """The events of one store. Every row the store holds is either in its frames or in `rejected`.

    Made by ``tl.open(url)`` or ``tl.from_frame(frame, ...)``. `zone` is how moments without a zone are read.
    """

    def __init__(self, reader: Reader, *, zone: str | None = None, writable: bool = False) -> None:
        self.reader = reader
        self.zone = zone
        self.writable = writable
        self.large = LARGE
        self._folded: dict[str, pl.DataFrame] = {}

    @property
    def url(self) -> str:
        """Give the store's address, without secrets."""
        return self.reader.url

    # ------------------------------------------------------------------ reading

    def read(self, **wanted: Any) -> pl.DataFrame:
        """Read events into a frame of EVENTS, sorted by (aggregate_id, version).

        aggregates: an id or several; types: names or event classes; since, until: instants, both inclusive
        and compared with `timestamp`; from_version: this version of an aggregate and later ones. What cannot
        be an event is left out, and is in `rejected`.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.read(types="OrderCancelled", until="2025-01-15").height
        25
        """
        return self._checked(scope(**wanted, zone=self.zone))[0]

    def scan(self, **wanted: Any) -> pl.LazyFrame:
        """Read like ``read``, when the LazyFrame is collected.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.scan(since="2025-02-10").select(pl.len()).collect().item()
        385
        """
        request = scope(**wanted, zone=self.zone)
        return pl.defer(lambda: self._checked(request)[0], schema=EVENTS)

    def batches(self, size: int = BATCH, **wanted: Any) -> Iterator[pl.DataFrame]:
        """Read like ``read``, in frames of at most `size` events.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> [len(batch) for batch in log.batches(5_000)]
        [5000, 5000, 2123]
        """
        if size < 1:
            raise EventsError(f"a batch of {size} events is none", hint="use a size from 1 on")
        yield from self.read(**wanted).iter_slices(size)

    def events(self, aggregate_id: str) -> pl.DataFrame:
        """Read one aggregate's events. Raises NoSuchAggregate, which suggests near ids.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.events("550e8400-e29b-41d4-a716-446655440000")["event_type"].head(2).to_list()
        ['OrderCreated', 'PaymentAuthorized']
        """
        found = self.read(aggregates=aggregate_id)
        if found.is_empty():
            ids = self.read()["aggregate_id"].unique().sort()
            raise no_such(aggregate_id, ids, self.url)
        return found

    @property
    def rejected(self) -> pl.DataFrame:
        """List what could not be read, one row each, as REJECTED.

        Returns place, aggregate_id, version, event_type, path, reason and raw (the whole row as JSON). path
        is the column, or the JSON path in the payload. Payloads are checked against an aggregate's declared
        event types when the log is folded, so what a fold refused is listed from then on.

        >>> from titan_lab.connect import from_frame
        >>> row = {"aggregate_id": "a", "event_type": "Opened", "timestamp": "yesterday", "payload": "{}"}
        >>> from_frame(pl.DataFrame([row])).rejected["path"].item()
        'timestamp'
        """
        told = self._rejected
        for misfits in self._folded.values():
            # A text that is no JSON is noticed by reading and by folding; it is told once.
            same = ["aggregate_id", "version", "path", "reason"]
            told = pl.concat([told, misfits.join(told, on=same, how="anti", nulls_equal=True)])
        return told

    @property
    def frontier(self) -> Frontier:
        """Tell the instant before which this log is provably complete, and how that is known."""
        return self.reader.frontier()

    def audit(self) -> pl.DataFrame:
        """List what is odd about the log: one row per oddity, sorted by kind, aggregate_id and version.

        Returns kind String ("version gap", "duplicate", "clock inversion"), aggregate_id String, version
        Int64 and detail String. A gap is told at the version after it, an inversion at the later version.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.audit()["kind"].unique().to_list()
        ['clock inversion']
        """
        good, rejected = self._checked(EVERYTHING)
        before = good.with_columns(
            pl.col("version").shift(1, fill_value=0).over("aggregate_id").alias("previous_version"),
            pl.col("timestamp").shift(1).over("aggregate_id").alias("previous_timestamp"),
        )
        gap = pl.col("version") != pl.col("previous_version") + 1
        back = pl.col("timestamp") < pl.col("previous_timestamp")
        early = (pl.col("previous_timestamp") - pl.col("timestamp")).dt.to_string("polars")
        told = [
            _oddities(before.filter(gap), "version gap", pl.format("follows version {}", "previous_version")),
            _oddities(
                before.filter(back), "clock inversion", pl.format("stamped {} before its predecessor", early)
            ),
            _oddities(
                rejected.filter(pl.col("reason").is_in([SAME_TWICE, TAKEN])), "duplicate", pl.col("reason")
            ),
        ]
        return pl.concat(told).sort("kind", "aggregate_id", "version")

    # ------------------------------------------------------------------ folding and writing

    def fold(
        self,
        aggregate: type[Aggregate],
        *,
        aggregates: Any = None,
        newer: WhenNewer = "raise",
        keep: str | Path | None = None,
        pieces: int | None = None,
        memory: int | str | None = None,
    ) -> Book:
        """Fold every aggregate at once into its Timeline.

        aggregates: only these ids. newer: what to do with payloads of a schema_version newer than the code,
        "raise" SchemaTooNew or "reject" them.

        keep: a folder in which the folded history is kept, and opened from the next time. It is folded again
        if the declaration or the source is another; of a source that grew, only the aggregates with new
        events are. ``book.kept`` says which it was. pieces: fold so many parts one after the other, or as
        many as fit into `memory`, in bytes or as "4GiB"; the Book is read from the folder and is one.

        Raises KeepError where nothing can be kept.

        >>> import titan_lab as tl
        >>> len(tl.open("sqlite:///data/samples/orders.db").fold(tl.Order))
        500
        """
        declared(aggregate)
        if newer not in ("raise", "reject"):
            raise EventsError(f"newer={newer!r} says nothing", hint="newer='raise' or newer='reject'")
        request = scope(aggregates=aggregates)
        known: dict[str, Any] = {
            "read_events": lambda ids: self.read(aggregates=ids),
            "read_snapshots": self._snapshots(request),
        }
        if keep is not None:
            book, misfits = fold_kept(self, aggregate, Path(keep), request, newer, pieces, memory, **known)
        elif pieces is not None or memory is not None:
            raise KeepError(
                "a history folded in pieces is read from disk", hint="say where: log.fold(..., keep='folder')"
            )
        else:
            frontier = self.frontier  # first: what arrives while the events are read lies beyond it
            columns, unread, misfits = self.typed(aggregate, request, newer)
            book = Book(
                aggregate,
                columns,
                source=self.url,
                frontier=frontier,
                zone=self.zone,
                rejected=pl.concat([unread, misfits]),
                **known,
            )
        self._folded[f"{aggregate.fingerprint()} {request}"] = misfits
        return book

    def typed(
        self, aggregate: type[Aggregate], request: Scope, newer: WhenNewer = "raise"
    ) -> tuple[Typed, pl.DataFrame, pl.DataFrame]:
        """Read a scope and decode it by an aggregate: its columns, what is no event, and what did not fit."""
        events, unread = self._checked(request, parse_json=False)
        columns, misfits = typed(events, aggregate.events, aggregate.chain, newer)
        return columns, unread, misfits

    def append(
        self, aggregate_id: str, events: Any, expected_version: int, *, metadata: Metadata | None = None
    ) -> Appended:
        """Add events to one aggregate, behind the version it is expected to have, all or none.

        events: one or several of an EventType object such as ``tl.OrderShipped(...)``, a dict with
        event_type, payload and perhaps metadata and timestamp, or an Event; or a frame of these columns. Each
        gets an event_id; one without a timestamp gets the store's. expected_version: 0 for an aggregate that
        is to begin. metadata: ``tl.Metadata(correlation_id=..., ...)`` of all; an event's own goes first.

        Returns Appended(added, present, version). The same event_ids behind the same version again add
        nothing, also after more events came. A payload of more than `log.large` bytes warns: LargePayload.

        Raises ReadOnly, EventsError for what is no event, InstantError for a naive instant, VersionConflict,
        which names the version found and the one expected: read again, and decide again.

        >>> import titan_lab as tl
        >>> log = tl.open("memory://")
        >>> log.append("order-1", tl.OrderCreated(user_id="7", items=[], total="9.90"), expected_version=0)
        Appended(added=1, present=0, version=1)
        """
        self._refuse_unless_writable()
        version = check_version(expected_version)
        drafts = draft(aggregate_id, events, version, metadata, self.zone, self.large)
        added = self.reader.extend(aggregate_id, drafts, version)  # type: ignore[attr-defined]
        self.__dict__.pop("_rejected", None)
        return added

    def append_many(self, events: Any) -> Appended:
        """Add a frame of events, all or none; those that are there already, unchanged, are left alone.

        Returns Appended(added, present). Raises ReadOnly unless the log was opened with writable=True,
        EventsError when a row is no event, VersionConflict when another event holds the place of one.
        """
        self._refuse_unless_writable()
        good, rejected = check(pl.DataFrame(events), self.zone)
        found, doubled = part_duplicates(in_order(good))
        clashing = doubled.filter(pl.col("reason") != SAME_TWICE)
        bad = pl.concat([rejected, clashing])
        if len(bad):
            first = bad.row(0, named=True)
            raise EventsError(
                f"{len(bad)} of the rows to append are no events; nothing was written."
                f" First: {first['reason']} at {first['path']} in {first['raw']}",
                rejected=bad,
            )
        added = self.reader.append(found.events)  # type: ignore[attr-defined]
        self.__dict__.pop("_rejected", None)
        return added

    def mirror(self, path: str | Path) -> Mirror:
        """Give the columnar copy of this log in a folder, which ``.sync()`` makes, and brings up to date.

        Raises MirrorError where the folder holds the mirror of another store, or something else.

        >>> from tempfile import mkdtemp
        >>> from titan_lab.connect import open_log
        >>> mirror = open_log("sqlite:///data/samples/orders.db").mirror(mkdtemp())
        >>> mirror.sync().added == len(mirror) == 12_123
        True
        """
        return Mirror(MirrorStore(Path(path)), zone=self.zone, source=self.reader)

    def close(self) -> None:
        """Let go of the store."""
        self.reader.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Count the good events; reads the store."""
        return len(self.read())

    def __bool__(self) -> bool:
        return True  # an empty log is a log; without this, `if log` would read the whole store

    def __repr__(self) -> str:
        return f"<EventLog {self.url}{' (writable)' if self.writable else ''}>"

    def _repr_html_(self) -> str:
        events = self.read()
        facts: dict[str, object] = {
            "events": len(events),
            "aggregates": events["aggregate_id"].n_unique(),
            "complete": str(self.frontier),
            "opened for": "reading and writing" if self.writable else "reading",
        }
        if len(self.rejected):
            facts["rejected"] = f"{len(self.rejected):,} (see .rejected)"
        types = (
            events.group_by("event_type").len("events").sort("events", "event_type", descending=[True, False])
        )
        return html.card(f"EventLog {self.url}", facts, body=html.table(types))

    # ------------------------------------------------------------------ checking

    def _refuse_unless_writable(self) -> None:
        if not self.writable:
            raise ReadOnly(f"{self.url} is open for reading only", hint="tl.open(url, writable=True)")

    def _snapshots(self, request: Scope) -> Callable[[], pl.DataFrame] | None:
        """Give what reads the stored states of a scope's aggregates; None where the store keeps none."""
        read = getattr(self.reader, "snapshots", None)
        if read is None or request.aggregates is None:
            return read
        return lambda: read().filter(pl.col("aggregate_id").is_in(list(request.aggregates or ())))

    def _checked(self, request: Scope, parse_json: bool = True) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Read a scope and part good events, in order, from rejected rows."""
        good, rejected = [EVENTS.to_frame()], [REJECTED.to_frame()]
        for fine, bad in self._parted(request, parse_json):
            good.append(fine)
            rejected.append(bad)
        events = pl.concat(good)
        if parse_json:  # a fold puts them in order and looks for duplicates itself
            found, doubled = part_duplicates(in_order(events))
            events = found.events
            rejected.append(doubled)
        if request:
            events = events.filter(request.predicate())
        refused = pl.concat(rejected)
        if request.ids != EVERYTHING.ids:
            refused = refused.filter(request.within())
        if request == EVERYTHING and parse_json:
            self._rejected = refused
        return events, refused

    def _parted(self, request: Scope, parse_json: bool) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Read a scope, row by row an event or rejected; a store may have done so when it was written."""
        if hasattr(self.reader, "checked"):
            yield self.reader.checked(request)
            return
        for raw in self.reader.frames(request, CHECKED):
            yield check(raw, self.zone, parse_json)

    @cached_property
    def _rejected(self) -> pl.DataFrame:
        return self._checked(EVERYTHING)[1]


class Mirror(Copied, EventLog):
    """A columnar copy of a store in a folder: a log like any other, which needs its store only to sync.

    Made by ``log.mirror(path)``; ``tl.open("mirror://path")`` opens one that was synced before. It holds what
    the store held at the last sync, and its frontier is the store's of then. What is folded of it is kept in
    its folder: opened at once the next time, and after a sync only the aggregates with news are folded again.
    """


def _oddities(rows: pl.DataFrame, kind: str, detail: pl.Expr) -> pl.DataFrame:
    return rows.select(pl.lit(kind).alias("kind"), "aggregate_id", "version", detail.alias("detail"))
