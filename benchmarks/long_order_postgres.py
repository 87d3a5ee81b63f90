"""Promise: one order of 10,000 events from PostgreSQL in 30 ms, no snapshot.

As `long_order`, from a PostgreSQL started for this run; the peer is `eventsourcing` with its PostgreSQL
recorder on the same server. Both stores also hold a thousand other orders, and are open already. Included:
from the call to the final state in hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import OURS, Engine, Options, compare, script
from benchmarks.long_order import LATER, LENGTH, LONG, OTHERS, Repository, as_frame, long_life, others, told
from benchmarks.postgres import environment, server

BENCH = "long_order_postgres"


def measure(options: Options) -> Iterator[dict]:
    """Time one long order from PostgreSQL to its final state."""
    import titan_lab as tl

    length = min(LENGTH, options.events)
    rows = [*others(), *long_life(length)]
    with server() as url, tl.open(url, writable=True) as log:
        log.append_many(as_frame(rows))
        repository = Repository(environment(url), rows)
        yield from compare(
            BENCH,
            f"one order of {length:,} events, from PostgreSQL, no snapshot",
            [
                Engine(OURS, lambda: log.fold(tl.Order, aggregates=[LONG])[LONG].at(LATER), told),
                Engine("eventsourcing", lambda: repository.get(LONG), told),
            ],
            options,
            events=len(rows),
            orders=1 + OTHERS,
            promise=0.030 if length == LENGTH else None,
        )
        repository.close()


if __name__ == "__main__":
    script(measure)
