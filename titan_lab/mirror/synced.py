"""What a sync did."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from titan_lab.backends.contract import Frontier
from titan_lab.notebook import html

TOLD = {
    "added": "events added",
    "rejected": "rows rejected",
    "late": "of these found behind the last mark",
    "edited": "events edited in the store",
    "gone": "events gone from the store",
    "events": "events in all",
}


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did to a mirror.

    added: events that are new. rejected: rows that are new and no events. late: how many of both were not
    among what was read from the last mark on, but found by the check: a clock of its own, a transaction that
    the frontier could not see. edited, gone: events of the copy that the store now holds otherwise, or no
    more; the copy says what the store says. events: in all, now. whole: everything was read. parts: files
    written. before, after: the frontier of the copy.
    """

    added: int
    rejected: int
    late: int
    edited: int
    gone: int
    events: int
    whole: bool
    parts: int = field(repr=False)
    seconds: float = field(repr=False)
    before: Frontier = field(repr=False)
    after: Frontier = field(repr=False)

    @property
    def repaired(self) -> bool:
        """Tell whether what was copied before had to be put right."""
        return bool(self.late or self.edited or self.gone)

    def facts(self) -> dict[str, Any]:
        """Name what there is to tell, for people."""
        told: dict[str, Any] = {TOLD[name]: getattr(self, name) for name in ("added", "rejected")}
        told |= {
            text: getattr(self, name)
            for name, text in TOLD.items()
            if name in ("late", "edited", "gone") and getattr(self, name)
        }
        told[TOLD["events"]] = self.events
        told["read"] = "everything" if self.whole else "from the last mark on"
        told["complete before"] = str(self.after)
        told["took"] = f"{self.seconds:.1f} s, {self.parts} files written"
        return told

    def plain(self) -> dict[str, Any]:
        """Name all of it, for machines."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return told | {"before": self.before.instant, "after": self.after.instant, "how": self.after.how}

    def _repr_html_(self) -> str:
        note = "the copy was put right: it is what the store is" if self.repaired else ""
        return html.card("Synced", self.facts(), note=note)
