"""Events in a CockroachDB cluster, which speaks PostgreSQL's wire and has not all of its ways."""

from __future__ import annotations

from titan_lab.backends.ddl import Dialect
from titan_lab.backends.postgres import PostgresStore


class CockroachStore(PostgresStore):
    """Read, and if opened for it write, `order_events` in a CockroachDB database."""

    scheme = "cockroachdb"
    dialect = "cockroachdb+psycopg"
    tables: Dialect = "cockroach"
