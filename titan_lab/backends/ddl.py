"""The event store's tables as SQL, for each database that may hold them.

PostgreSQL and CockroachDB get the tables, columns, keys and indexes of the service itself. SQLite has no
UUID, JSONB or TIMESTAMPTZ: there they are text, a timestamp as ISO-8601 in UTC with microseconds, which sorts
as text in order of time. An event is never changed or removed: the tables refuse it, see `guards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from titan_lab.errors import SchemaError, nearest

Dialect = Literal["postgres", "cockroach", "sqlite"]
Survive = Literal["zone", "region"]

DATABASE = "titan"  # what `regions` makes
TABLE = "order_events"
SAVED = "order_snapshots"
REFUSED = f"events are never changed or removed: %s of {TABLE} is refused"
INSTEAD = "append an event that compensates, such as OrderCorrected"
MANY = 3  # regions that it takes to lose one: a majority must be left

SERVICE = [
    f"""\
CREATE TABLE {TABLE} (
    aggregate_id UUID NOT NULL,
    version INT NOT NULL,
    event_type VARCHAR(100) NOT NULL,
    payload JSONB NOT NULL,
    metadata JSONB,
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    PRIMARY KEY (aggregate_id, version)
)""",
    f"CREATE INDEX idx_timestamp ON {TABLE}(timestamp)",
    f"CREATE INDEX idx_event_type ON {TABLE}(event_type)",
    f"""\
CREATE TABLE {SAVED} (
    aggregate_id UUID PRIMARY KEY,
    version INT NOT NULL,
    state JSONB NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT NOW()
)""",
]
NOW = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"
FILE = [
    f"""\
CREATE TABLE {TABLE} (
    aggregate_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    payload TEXT NOT NULL,
    metadata TEXT,
    timestamp TEXT NOT NULL DEFAULT ({NOW}),
    PRIMARY KEY (aggregate_id, version)
) WITHOUT ROWID""",
    *SERVICE[1:3],
    f"""\
CREATE TABLE {SAVED} (
    aggregate_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    timestamp TEXT NOT NULL DEFAULT ({NOW})
)""",
]


def ddl(
    dialect: Dialect,
    *,
    regions: Sequence[str] = (),
    survive: Survive | None = None,
    analyst: str | None = None,
) -> list[str]:
    """Write the statements that make an empty event store, in order, none with a semicolon at its end.

    regions: of a CockroachDB cluster; a database of its own is made over them, its first is the primary one.
    survive: what that database outlives, the loss of a "zone" or of a "region". analyst: a role to make,
    which may read the tables and nothing else.

    Raises SchemaError for what the dialect does not have.

    >>> [statement.split("(")[0].strip() for statement in ddl("postgres")][:4]
    ['CREATE TABLE order_events', 'CREATE INDEX idx_timestamp ON order_events',
     'CREATE INDEX idx_event_type ON order_events', 'CREATE TABLE order_snapshots']
    """
    _check(dialect, regions, survive, analyst)
    statements = _database(regions, survive) if regions else []
    statements += FILE if dialect == "sqlite" else SERVICE
    if regions:
        # One home for a whole table. REGIONAL BY ROW would put a region of each row's own before the key, and
        # then an append would ask every region whether its (aggregate_id, version) is taken, the one check
        # that it must make, and one aggregate's events could lie in several regions.
        statements += [
            f"ALTER TABLE {name} SET LOCALITY REGIONAL BY TABLE IN PRIMARY REGION" for name in (TABLE, SAVED)
        ]
    statements += guards(dialect)
    if analyst is not None:
        statements += [
            f"CREATE ROLE {_name(analyst)}",
            f"GRANT SELECT ON {TABLE}, {SAVED} TO {_name(analyst)}",
        ]
    return statements


def script(statements: Sequence[str]) -> str:
    """Write statements as the text of one file.

    >>> print(script(["SELECT 1", "SELECT 2"]), end="")
    SELECT 1;
    <BLANKLINE>
    SELECT 2;
    """
    return "\n\n".join(f"{statement};" for statement in statements) + "\n"


def guards(dialect: Dialect) -> list[str]:
    """Write the triggers that refuse to change or remove an event, and name what to do instead.

    PostgreSQL refuses UPDATE, DELETE and TRUNCATE to everybody, whoever owns the table. CockroachDB has
    triggers since 24.3, for rows only, so that TRUNCATE is left: it takes the privilege DROP, which a role
    that was granted SELECT and INSERT has not. In SQLite INSERT OR REPLACE is left, which is no DELETE to it.

    >>> guards("sqlite")[0].splitlines()[0]
    'CREATE TRIGGER order_events_no_update BEFORE UPDATE ON order_events'
    """
    if dialect == "sqlite":
        return [
            f"""\
CREATE TRIGGER {TABLE}_no_{what.lower()} BEFORE {what} ON {TABLE}
BEGIN
    SELECT RAISE(ABORT, '{REFUSED % what}; {INSTEAD}');
END"""
            for what in ("UPDATE", "DELETE")
        ]
    when = {"postgres": "UPDATE OR DELETE OR TRUNCATE", "cockroach": "UPDATE OR DELETE"}[dialect]
    each = {"postgres": "STATEMENT", "cockroach": "ROW"}[dialect]
    return [
        f"""\
CREATE FUNCTION {TABLE}_refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '{REFUSED.replace("%s", "%")}', TG_OP
        USING ERRCODE = 'restrict_violation', HINT = '{INSTEAD}';
END
$$""",
        f"""\
CREATE TRIGGER {TABLE}_keep BEFORE {when} ON {TABLE}
    FOR EACH {each} EXECUTE FUNCTION {TABLE}_refuse()""",
    ]


def _check(dialect: str, regions: Sequence[str], survive: str | None, analyst: str | None) -> None:
    known = get_args(Dialect)
    if dialect not in known:
        raise SchemaError(
            f"no tables are written for {dialect!r}; the dialects are {', '.join(known)}",
            hint=nearest(str(dialect), known),
        )
    if isinstance(regions, str):
        raise SchemaError(f"{regions!r} is one text, not several regions", hint='regions=["us-east-1", ...]')
    if (regions or survive) and dialect != "cockroach":
        raise SchemaError(f"{dialect} has no regions", hint="regions are CockroachDB's: dialect cockroach")
    if survive and not regions:
        raise SchemaError(
            f"to survive the loss of a {survive} a database needs regions, and none is named",
            hint="--regions us-east-1,eu-west-1,ap-southeast-1",
        )
    if survive is not None and survive not in get_args(Survive):
        raise SchemaError(
            f"a database survives the loss of a zone or of a region, not of {survive!r}",
            hint=nearest(str(survive), get_args(Survive)),
        )
    if len(set(regions)) < len(regions):
        raise SchemaError(f"a region is named twice in {', '.join(regions)}", hint="name each once")
    if survive == "region" and len(regions) < MANY:
        raise SchemaError(
            f"to survive the loss of a region takes {MANY} regions, and {len(regions)} are named",
            hint="name more, or --survive zone",
        )
    if analyst is not None and dialect == "sqlite":
        raise SchemaError(
            "sqlite has no roles: who may read the file may read it all",
            hint="use the file's permissions; tl.open opens it for reading only",
        )


def _database(regions: Sequence[str], survive: str | None) -> list[str]:
    names = [_name(region) for region in regions]
    made = f"CREATE DATABASE {DATABASE} PRIMARY REGION {names[0]} REGIONS {', '.join(names)}"
    return [f"{made} SURVIVE {survive.upper()} FAILURE" if survive else made, f"USE {DATABASE}"]


def _name(identifier: str) -> str:
    """Quote an identifier; a region's has a dash."""
    if not identifier or "\0" in identifier:
        raise SchemaError(f"{identifier!r} is no name", hint="names are not empty")
    doubled = identifier.replace('"', '""')
    return f'"{doubled}"'
