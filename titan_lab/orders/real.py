"""Real orders where the user has them, and the samples in their place where not."""

from __future__ import annotations

from dataclasses import dataclass

from titan_lab.connect import from_frame, open_log
from titan_lab.log import EventLog
from titan_lab.notebook.html import card
from titan_lab.orders.olist import OlistReport, read_olist
from titan_lab.paths import from_root

SAMPLES = "sqlite:///data/samples/orders.db"
KNOWN = {"orders": 99_441, "events": 393_481, "unbalanced": 303, "ambiguous": 22}  # of the whole data set


@dataclass(frozen=True, slots=True, repr=False)
class RealOrders:
    """A log of orders, and what the import said of them; no report where the samples stand in."""

    log: EventLog
    report: OlistReport | None

    @property
    def told(self) -> str:
        """Say whose orders these are."""
        if self.report is None:
            return "the samples, since no folder of Olist files was given: these orders are made up"
        return f"{self.report.orders:,} real orders of the Olist marketplace"

    @property
    def as_published(self) -> bool:
        """Tell whether the report has the counts of the whole data set; also true of the samples."""
        return self.report is None or all(getattr(self.report, name) == n for name, n in KNOWN.items())

    def __repr__(self) -> str:
        return f"<Orders: {self.told}>"

    def _repr_html_(self) -> str:
        facts = {"from": self.told}
        if self.report is not None:
            facts |= {"local times": self.report.rule, "rejected": f"{self.report.rejected.height:,}"}
        return card("Orders", facts)._repr_html_()


def real_orders(folder: str = "") -> RealOrders:
    """Read the Olist files of a folder, plain or gzipped, into memory; without a folder, open the samples.

    Raises OpenError for a folder that lacks one of the files, or holds others.

    >>> real_orders()
    <Orders: the samples, since no folder of Olist files was given: these orders are made up>
    """
    if not folder:
        return RealOrders(open_log(from_root(SAMPLES)), None)
    events, report = read_olist(folder)
    return RealOrders(from_frame(events), report)
