"""Events in a CockroachDB cluster, which speaks PostgreSQL's wire and has not all of its ways.

Its transactions are serializable, so any statement may be asked to begin again (40001). It has no binary COPY
for Arrow to come by, and neither LISTEN nor advisory locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta
from itertools import islice
from typing import Any, Final

import polars as pl

from titan_lab.backends.contract import Frontier
from titan_lab.backends.ddl import Dialect
from titan_lab.backends.oldest import OURS_ALONE
from titan_lab.backends.postgres import PostgresStore
from titan_lab.clock import iso
from titan_lab.scope import Scope

TEXTS: Final = ("payload", "metadata", "place")  # which may be null in all of the rows
PAGE: Final = 1_000  # rows that the driver takes from the wire at a time
LONGEST: Final = timedelta(hours=1)
# No write is let in before the closed timestamp, but a transaction that began before it may still commit
# behind it, with rows that are stamped with its start.
LOOK: Final = """
SELECT closed, filled, seen, oldest.start::TIMESTAMPTZ, oldest.application_name, oldest.node_id
FROM (
    SELECT follower_read_timestamp()::TIMESTAMPTZ AS closed, EXISTS (SELECT 1 FROM {table}) AS filled,
           crdb_internal.is_admin() OR crdb_internal.has_role_option('VIEWACTIVITY') AS seen
) AS looked LEFT JOIN (
    SELECT start, application_name, node_id FROM crdb_internal.cluster_transactions
    WHERE session_id <> current_setting('session_id') ORDER BY start LIMIT 1
) AS oldest ON true
"""


class CockroachStore(PostgresStore):
    """Read, and if opened for it write, `order_events` in a CockroachDB database."""

    scheme = "cockroachdb"
    dialect = "cockroachdb+psycopg"
    tables: Dialect = "cockroach"
    hashed = "fnv64({text}) >> 32"

    def frames(self, scope: Scope, size: int) -> Iterator[pl.DataFrame]:
        """Read as of the cluster's present, which no writer can make begin again."""
        with self.server.session() as db:
            where = self.events.within(scope, self.literal(db))
            now = self.one(db, "SELECT cluster_logical_timestamp()")
        if where is not None:
            yield from self._rows(f"{self.events.selected()} AS OF SYSTEM TIME '{now}'{where}", size)

    def frontier(self) -> Frontier:
        """Tell the closed timestamp, or the start of the oldest open transaction, if that is earlier."""
        with self.server.session() as db:
            (row,) = db.execute(LOOK.format(table=self.events.name)).fetchall()
        closed, filled, seen, since, application, node = row
        if not filled:
            return Frontier(None, "order_events is empty", live=True)
        if not seen:
            return Frontier(
                (closed - LONGEST).astimezone(UTC),
                "this role may not see open transactions: GRANT SYSTEM VIEWACTIVITY lets it; assuming that"
                f" {OURS_ALONE} and that no transaction takes more than an hour",
                live=True,
            )
        bounds = [(closed, "the closed timestamp, before which no transaction is open")]
        if since is not None:
            told = f"{application!r} at node {node} has a transaction open since {iso(since)}"
            bounds.append((since, told))
        instant, why = min(bounds)
        return Frontier(instant.astimezone(UTC), f"{why}; assuming that {OURS_ALONE}", live=True)

    def _rows(self, sql: str, size: int) -> Iterator[pl.DataFrame]:
        """Read in a session of its own, row by row from the wire."""
        with self.server.told(), self.server.connect() as db, db.cursor() as cursor:
            rows: Iterator[Any] = cursor.stream(sql, size=PAGE)
            while part := list(islice(rows, max(size, 1))):
                assert cursor.description is not None, "a SELECT has columns"
                names = [column.name for column in cursor.description]
                texts = {name: pl.String for name in names if name in TEXTS}
                yield pl.DataFrame(
                    part, names, orient="row", schema_overrides=texts, infer_schema_length=None
                )
