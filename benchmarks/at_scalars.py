"""Promise: every scalar column of all orders at an instant in at most 150 ms at 10 M events.

Twelve columns: user_id, status, total, paid, refunded, tracking, reason and five moments, besides
aggregate_id and version. Included and excluded as in `at_status_total`.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import at, peers
from benchmarks.harness import Options, script


def measure(options: Options) -> Iterator[dict]:
    """Time every scalar column of all orders at an instant."""
    return at.measure("at_scalars", peers.SCALARS, options, promise=0.150)


if __name__ == "__main__":
    script(measure)
