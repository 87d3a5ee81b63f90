"""Everything that can go wrong, as one tree.

    TitanError
    ├── InstantError          not a moment: no zone, or no instant at all
    ├── OpenError             a store cannot be opened
    │   ├── UnknownScheme     no backend answers to this URL
    │   ├── MirrorError       a folder holds no mirror, or that of another store, or cannot be written
    │   └── MissingExtra      an optional package is not installed
    ├── SchemaError           tables that a database does not have were asked for
    ├── EventsError           a frame or table lacks what events need
    ├── DeclarationError      an aggregate, event type or upcast is declared wrongly
    ├── SchemaTooNew          a payload was written by newer code than this
    ├── NoSuchAggregate       nobody has this id
    ├── NoSuchColumn          the aggregate has no such column
    ├── PredicateError        a predicate raises, or says neither true nor false
    │   └── NotMonotone       it does not turn true once and for all
    ├── BranchError           a what-if edit that cannot be made
    ├── StepError             the function of a `step` raises
    ├── SpineError            the frame handed to `asof` cannot be joined
    ├── FunnelError          the steps handed to `funnel` are none, or nobody takes one of them
    ├── ReadOnly              writing to a log that was opened for reading
    ├── VersionConflict       another event already has this place
    ├── CommandError          a command holds what its declaration does not allow
    ├── Refused               a command that is not allowed in this state
    ├── SnapshotError         a state cannot be saved, or is not to be had from the store
    ├── KeepError             a folded history cannot be kept in a folder
    ├── WriteError            a file cannot be written
    ├── RaceError             nothing can be raced here
    ├── QueryError            a question in SQL that cannot be asked, or fails
    ├── MagicError            a notebook's %magic was called with what it does not understand
    ├── NotebookError         a notebook cannot be checked or refreshed
    └── JobError              a scheduled notebook cannot start, or failed
        ├── TooSoon           a run is about an instant that has not come, or lies beyond the source
        ├── Locked            somebody else runs this job for this instant
        ├── Unhealthy         a check that a job makes found more than it allows
        └── LedgerError       the ledger of runs cannot be used, or has no such run

    Provisional               a warning: beyond the frontier an answer may still change
    LargePayload              a warning: an event is larger than events should be

Every message says what was found and what was expected; `hint` says what to do; what the message was
built from stays on the error as `data`, for programs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class TitanError(Exception):
    """Carry a message, a hint and the data both were made from."""

    def __init__(self, message: str, *, hint: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InstantError(TitanError, ValueError):
    """Something handed over as a moment is none, or has no zone."""


class OpenError(TitanError):
    """A store cannot be opened."""


class UnknownScheme(OpenError, ValueError):
    """No backend answers to the URL's scheme."""


class MirrorError(OpenError, OSError):
    """A folder holds no mirror, one that is damaged, or that of another store, or cannot be written."""

    __str__ = TitanError.__str__


class MissingExtra(OpenError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            hint=f"pip install 'titan-lab[{extra}]'",
            package=package,
            extra=extra,
        )


class SchemaError(TitanError, ValueError):
    """Tables were asked for that the database does not have."""


class EventsError(TitanError, ValueError):
    """A frame, file or table lacks what events need."""


class DeclarationError(TitanError, TypeError):
    """An aggregate, event type or upcast is declared wrongly; raised at import."""


class SchemaTooNew(TitanError):
    """A stored payload has a schema_version that this code does not know yet."""


class NoSuchAggregate(TitanError, KeyError):
    """The log holds no event of this aggregate."""

    # KeyError would show the repr of its argument, quotes and all.
    __str__ = TitanError.__str__


class NoSuchColumn(TitanError, KeyError):
    """The aggregate declares no such column."""

    __str__ = TitanError.__str__


class PredicateError(TitanError, ValueError):
    """A predicate raises, or gives no boolean."""


class NotMonotone(PredicateError):
    """A predicate that is searched by halving holds at one moment, and at a later one no more."""


class StepError(TitanError, ValueError):
    """A `step` of an aggregate raises."""


class SpineError(TitanError, ValueError):
    """The frame handed to `asof` cannot be joined."""


class FunnelError(TitanError, ValueError):
    """The steps handed to `funnel` are none, or nobody takes one of them."""


class BranchError(TitanError, ValueError):
    """A what-if edit cannot be made: it names no event, or what it makes would be no history."""


class ReadOnly(TitanError, PermissionError):
    """A write was asked of a log that is open for reading only."""


class VersionConflict(TitanError):
    """Another event already holds this (aggregate_id, version)."""


class CommandError(TitanError, ValueError):
    """A command holds what its declaration does not allow, or nobody decides such commands."""


class Refused(TitanError, ValueError):
    """A command is not allowed in the state that its aggregate is in; nothing was written."""


class SnapshotError(TitanError, ValueError):
    """A state cannot be saved: the store keeps none, or no JSON holds it."""


class KeepError(TitanError, OSError):
    """A folded history cannot be kept in a folder."""

    __str__ = TitanError.__str__


class WriteError(TitanError, OSError):
    """A file cannot be written."""

    __str__ = TitanError.__str__


class RaceError(TitanError, ValueError):
    """Writers and readers cannot be raced on this store."""


class QueryError(TitanError, ValueError):
    """A question in SQL cannot be asked, or fails."""


class MagicError(TitanError, ValueError):
    """A magic was called with arguments that it does not understand, or on a book that is not there."""


class NotebookError(TitanError):
    """A notebook cannot be checked or refreshed."""


class JobError(TitanError):
    """A scheduled notebook cannot start, or failed."""


class TooSoon(JobError):
    """A run is about an instant that has not come yet, or that its source does not reach."""


class Locked(JobError):
    """Somebody else runs this job for this instant right now."""


class Unhealthy(JobError):
    """A check that a job makes found more than it allows."""


class LedgerError(JobError):
    """The ledger of runs cannot be reached or written, or has no such run."""


class Provisional(UserWarning):
    """An answer about an instant beyond the frontier of a store that is being written to may still change."""


class LargePayload(UserWarning):
    """An event that is being appended is larger than events should be."""


def nearest(wanted: str, known: Iterable[str], label: str = "Did you mean") -> str | None:
    """Suggest up to three known names close to the one that was wanted, as a hint, or None."""
    close = difflib.get_close_matches(wanted, list(known), n=3, cutoff=0.6)
    return f"{label} {' or '.join(repr(name) for name in close)}?" if close else None
