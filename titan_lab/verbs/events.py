"""Asking a log without an aggregate: ways, waits and funnels; and handing its events to other tools."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import polars as pl

from titan_lab.mining.eventlog import write_csv, write_xes
from titan_lab.mining.funnel import Funnel, event_column, funnel
from titan_lab.mining.ocel import write_ocel
from titan_lab.mining.trails import trails
from titan_lab.mining.variants import flow, variants


class Events:
    """Whatever can ``read`` a frame of EVENTS."""

    def read(self, **wanted: Any) -> pl.DataFrame:
        """Read events into a frame of EVENTS, sorted by (aggregate_id, version)."""
        raise NotImplementedError

    def variants(self, **wanted: Any) -> pl.DataFrame:
        """Group the aggregates by the way they took, as ``Book.variants`` does, over the events of a scope.

        wanted: as of ``read``; types="..." leaves the other events out of the ways.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.variants(types=["OrderCreated", "OrderCancelled"])["count"].to_list()
        [430, 70]
        """
        return variants(trails(self.read(**wanted)))

    def flow(self, **wanted: Any) -> pl.DataFrame:
        """Count which event type directly follows which, as ``Book.flow`` does, over the events of a scope.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.flow(types=["OrderCreated", "OrderCancelled"]).select("from_type", "to_type", "count").row(3)
        ('OrderCreated', 'OrderCancelled', 70)
        """
        return flow(trails(self.read(**wanted)))

    def funnel(
        self,
        steps: Any,
        within: str | timedelta | None = None,
        by: str | None = None,
        *,
        order: Literal["given", "any"] = "given",
        strict: bool = False,
        reentry: bool = False,
        **wanted: Any,
    ) -> Funnel:
        """Count how many aggregates take the steps, as ``Book.funnel`` does, over the events of a scope.

        by: a column of EVENTS, or a field as text ("payload.country", "metadata.channel"), of the event that
        takes the first step. wanted: as of ``read``.

        >>> from titan_lab.connect import open_log
        >>> log = open_log("sqlite:///data/samples/orders.db")
        >>> log.funnel(["OrderCreated", "OrderCancelled"], within="1d").steps["count"].to_list()
        [500, 32]
        """
        events = self.read(**wanted)
        grouped = None if by is None else (by, event_column(events, by))
        return funnel(trails(events), steps, within, grouped, order=order, strict=strict, reentry=reentry)

    def to_ocel(
        self,
        path: str | Path,
        *,
        aggregate: str = "aggregate",
        objects: Mapping[str, str] | None = None,
        **wanted: Any,
    ) -> Path:
        """Write the events ``read`` gives, and what they speak of, as an OCEL 2.0 JSON file; give its path.

        aggregate: what the aggregates are called. objects: other types of objects, each with the payload's
        field that holds their ids, "items.product_id" for one in each of a list; ``Order.objects`` has those
        of orders.
        An event is related to each object once, with the field (for the aggregate: its type) as qualifier.
        Ids are unique over all types, since they begin with theirs: "user:u-17". Fields of the payload that
        are not null are attributes, lists and objects as JSON text.

        The file is written piece by piece, and is there whole or not at all. The format: OCEL 2.0
        specification, https://www.ocel-standard.org. Raises EventsError for a type that is no name.

        >>> import tempfile, titan_lab as tl
        >>> log = tl.open("sqlite:///data/samples/orders.db")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log.to_ocel(f"{folder}/orders.json", aggregate="order", objects=tl.Order.objects).name
        'orders.json'
        """
        return write_ocel(self.read(**wanted), path, aggregate, objects or {})

    def to_xes(self, path: str | Path, **wanted: Any) -> Path:
        """Write the events ``read`` gives as a XES 1.0 file, one trace per aggregate; give its path.

        Events come in order of version, which each has as an attribute, with concept:name (its type),
        time:timestamp, lifecycle:transition "complete", and the payload's fields that are not null: lists and
        objects as JSON text, a name that is the log's own or none in XML changed ("payload:version"),
        characters that XML cannot hold as U+FFFD. Written as ``to_ocel`` writes. The format: IEEE 1849,
        https://www.xes-standard.org.

        >>> import tempfile
        >>> from titan_lab.connect import open_log
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = open_log("sqlite:///data/samples/orders.db").to_xes(f"{folder}/orders.xes")
        ...     path.read_text().count("<trace>")
        500
        """
        return write_xes(self.read(**wanted), path)

    def to_csv(self, path: str | Path, **wanted: Any) -> Path:
        """Write the events ``read`` gives as CSV, sorted by aggregate and version; give its path.

        Columns: case:concept:name, concept:name, time:timestamp, version, then the payload's fields, sorted,
        those that are named alike as "payload:version". Null is an empty cell, an empty text "", lists and
        objects are JSON text. Values are as they are stored: a spreadsheet may take one that begins with "="
        for a formula. Written as ``to_ocel`` writes.

        >>> import tempfile
        >>> from titan_lab.connect import open_log
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = open_log("sqlite:///data/samples/orders.db").to_csv(f"{folder}/orders.csv")
        ...     pl.read_csv(path, infer_schema=False).select("concept:name", "version", "total").row(1)
        ('OrderCreated', '1', '52.47')
        """
        return write_csv(self.read(**wanted), path)
