"""Promise: one order of 10,000 events from PostgreSQL in 30 ms, in 5 ms with a snapshot 50 events back.

As `long_order`, from a PostgreSQL started for this run: ours reads `order_events` and folds the one order,
and beside it takes up the state that was saved after version 9,950 and folds the rest onto it; the peer is
`eventsourcing` with its PostgreSQL recorder. Both stores also hold a thousand other orders, and are open
already. Included: from the call to the final state in hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import OURS, Engine, Options, compare, script
from benchmarks.long_order import LATER, LENGTH, LONG, OTHERS, Repository, as_frame, long_life, others, told
from benchmarks.postgres import environment, server

BENCH = "long_order_postgres"
BACK = 50  # events since the snapshot


def measure(options: Options) -> Iterator[dict]:
    """Time one long order from PostgreSQL to its final state, with a snapshot and without."""
    import titan_lab as tl

    length = min(LENGTH, options.events)
    rows = [*others(), *long_life(length)]
    with server() as url:
        log = tl.open(url, writable=True)
        log.append_many(as_frame(rows))
        snapshots = tl.Snapshots(log, tl.Order)
        snapshots.take(every=length - BACK)
        repository = Repository(environment(url), rows)
        size = {"events": len(rows), "orders": 1 + OTHERS}
        without = Engine(OURS, lambda: log.fold(tl.Order, aggregates=[LONG])[LONG].at(LATER), told)
        peer = Engine("eventsourcing", lambda: repository.get(LONG), told)
        yield from compare(
            BENCH,
            f"one order of {length:,} events, from PostgreSQL, no snapshot",
            [without, peer],
            options,
            promise=0.030 if length == LENGTH else None,
            **size,
        )
        yield from compare(
            BENCH,
            f"the same with a snapshot {BACK} events back",
            [Engine(OURS, lambda: snapshots.state(LONG), told), without],
            options,
            promise=0.005 if length == LENGTH else None,
            **size,
        )
        repository.close()
        log.close()


if __name__ == "__main__":
    script(measure)
