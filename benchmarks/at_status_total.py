"""Promise: status and total of all orders at an instant, timeline in memory, in at most 40 ms at 10 M events.

Included: from the call to a frame of aggregate_id, version and the two columns, one row per order that
existed. Excluded: reading, decoding, folding (ours), loading and typing (peers); see `fold` and `cold`. The
peers need not sort, and do not tell valid_from and valid_to. `polars, every state written out` is our idea
done by hand: each state a row with the instant at which the next begins, then a filter.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import at
from benchmarks.harness import Options, script

COLUMNS = ["status", "total"]


def measure(options: Options) -> Iterator[dict]:
    """Time status and total of all orders at an instant."""
    return at.measure("at_status_total", COLUMNS, options, promise=0.040)


if __name__ == "__main__":
    script(measure)
