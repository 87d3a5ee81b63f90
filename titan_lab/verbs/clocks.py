"""Asking by two clocks: what was effective, as it was known."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import polars as pl

from titan_lab.clock import Cut, Instant, check_cut, micros
from titan_lab.errors import InstantError
from titan_lab.timeline import Timeline
from titan_lab.why.known import Effective, at_known, believed


class TwoClocks(Timeline):
    """A Timeline that knows when events were recorded, and from when on they are effective."""

    def at(
        self,
        when: Instant | None = None,
        *,
        version: int | None = None,
        cut: Cut = "prefix",
        columns: str | Iterable[str] | None = None,
        known_at: Instant | None = None,
    ) -> pl.DataFrame:
        """Give the state of every aggregate at an instant, as ``Timeline.at`` does, or as it was known then.

        known_at: use only events recorded by this instant (inclusive, under `cut`), each from the instant on
        at which it is effective: `metadata.effective_at`, else its timestamp. Where the two clocks disagree,
        an aggregate's events are folded in order of (effective_at, version); `version` is then that of the
        last of them, valid_from and valid_to are effective instants. An effective_at that is no instant is
        passed over; ``backdated`` lists it.

        Raises InstantError for an unreadable instant, or a known_at without an instant; NoSuchColumn.

        >>> import titan_lab as tl
        >>> order = "550e8400-e29b-41d4-a716-446655440000"
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order, aggregates=order)
        >>> then, now = (book.at("2025-01-01T10:30Z", known_at=k) for k in ("2025-01-02", "2025-02-01"))
        >>> then["total"].item(), now["total"].item()
        (Decimal('999.00'), Decimal('968.90'))
        """
        if known_at is None:
            return super().at(when, version=version, cut=cut, columns=columns)
        if when is None or version is not None:
            raise InstantError(
                "known_at needs an instant", hint="book.at('2025-01-15', known_at='2025-01-20')"
            )
        moment, known = micros(when, self.zone), micros(known_at, self.zone)
        return at_known(self, self._effective, moment, known, check_cut(cut), self.wanted(columns))

    def believed(
        self,
        when: Instant,
        known_at: Instant,
        columns: str | Iterable[str] | None = None,
    ) -> pl.DataFrame:
        """Lay the state at an instant as it was believed at another beside the one that the log says.

        Returns aggregate_id, then version and each column twice: under its own name as ``at(when)`` gives it
        (by the instant of recording), and with ``_believed`` as ``at(when, known_at=known_at)`` does; and
        differs Boolean, over the asked columns. Null where it did not exist. Sorted by aggregate_id.

        Raises InstantError, NoSuchColumn.

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.believed("2025-01-10", "2025-03-01", columns="total")["differs"].sum()
        8
        """
        now = self.at(when, columns=columns)
        then = self.at(when, known_at=known_at, columns=columns)
        return believed(now, then, self.wanted(columns))

    def backdated(self) -> pl.DataFrame:
        """List the events that are effective at another instant than the one they were recorded at.

        Returns aggregate_id, version, event_type, timestamp, effective_at, by Duration(us) (how much earlier;
        negative: later), correlation_id, and written: effective_at as the metadata has it. effective_at is
        null where that is no instant with a zone; such an event counts from its timestamp. Sorted by
        (aggregate_id, version).

        >>> import titan_lab as tl
        >>> book = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)
        >>> book.backdated()["event_type"].unique().to_list()
        ['OrderCorrected']
        """
        return self._effective.report()

    @cached_property
    def _effective(self) -> Effective:
        return Effective(self.typed, self.zone)
