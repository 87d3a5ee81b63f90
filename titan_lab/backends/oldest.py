"""Up to when a PostgreSQL store is complete: what began before its oldest open transaction has ended.

A row is stamped with the start of the transaction that wrote it, and is seen when that has committed. So
nothing that is stamped before the oldest transaction still open can be added any more. One statement looks,
so that no commit slips in between; whoever reads after it sees all that it vouches for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from titan_lab.backends.contract import Frontier
from titan_lab.clock import iso

if TYPE_CHECKING:
    from psycopg import Connection

# A transaction has its start a moment before it is listed, as long as its process is given no turn.
LISTED_WITHIN: Final = timedelta(seconds=1)
# Neither a prepared transaction nor one on a standby's primary tells when it began.
LONGEST: Final = timedelta(hours=1)
OURS_ALONE: Final = "writers leave `timestamp` to the database"
LOOK: Final = """
WITH looked AS MATERIALIZED (
    SELECT now() AS at, pg_is_in_recovery() AS standby, pg_postmaster_start_time() AS started,
           pg_last_xact_replay_timestamp() AS replayed, EXISTS (SELECT FROM {table}) AS filled
), sessions AS MATERIALIZED (
    SELECT pid, application_name, usename, state, xact_start,
           backend_start IS NULL OR state = 'disabled' AS hidden
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND backend_type IS DISTINCT FROM 'autovacuum worker'
), unseen AS MATERIALIZED (
    SELECT pid FROM pg_locks WHERE locktype = 'virtualxid' AND mode = 'ExclusiveLock' AND granted
), open AS (
    SELECT CASE WHEN hidden THEN started ELSE xact_start END AS since,
           CASE WHEN hidden THEN 'hidden' ELSE 'session' END AS kind,
           pid::text AS who, coalesce(application_name, '') AS application, coalesce(usename, '') AS role,
           coalesce(state, '') AS state
    FROM sessions, looked
    WHERE CASE WHEN hidden THEN pid IN (SELECT pid FROM unseen) ELSE xact_start IS NOT NULL END
    UNION ALL
    SELECT prepared, 'prepared', gid, '', owner, '' FROM pg_prepared_xacts WHERE database = current_database()
)
SELECT at, standby, coalesce(replayed, started), filled, since, kind, who, application, role, state
FROM looked LEFT JOIN (
    SELECT DISTINCT ON (kind) * FROM open ORDER BY kind, since, who
) AS oldest ON true
"""


def frontier(db: Connection, table: str, told: bool) -> Frontier:
    """Look who may still write; told: whether the table has a default for an event's timestamp."""
    rows = db.execute(LOOK.format(table=table)).fetchall()
    at, standby, replayed, filled = rows[0][:4]
    if not filled:
        return Frontier(None, f"{table.strip(chr(34))} is empty", live=True)
    bounds = [(at - LISTED_WITHIN, "no transaction that began before it is open")]
    assumed = [OURS_ALONE if told else "writers tell no `timestamp` before the start of their transaction"]
    if standby:
        bounds.append((replayed - LONGEST, "a standby does not see the transactions of its primary"))
        assumed.append("none of them takes more than an hour")
    for since, kind, who, application, role, state in (row[4:] for row in rows if row[5]):
        bounds.append(_held_back(since, kind, who, application, role, state))
        if kind == "prepared":
            assumed.append("it was prepared within an hour of its start")
    instant, why = min(bounds)
    return Frontier(instant.astimezone(UTC), f"{why}; assuming that {' and that '.join(assumed)}", live=True)


def _held_back(
    since: datetime, kind: str, who: str, application: str, role: str, state: str
) -> tuple[datetime, str]:
    if kind == "prepared":
        return (
            since - LONGEST,
            f"the transaction {who!r} of {role} is prepared since {iso(since)}, and not ended",
        )
    if kind == "hidden":
        return since, (
            f"pid {who} has a transaction open whose start this role may not see, and began after the server:"
            " GRANT pg_read_all_stats lets it"
        )
    told = ", ".join(part for part in (repr(application) if application else "", role, state) if part)
    return since, f"pid {who} ({told}) has a transaction open since {iso(since)}"
