"""Promise: every column of all orders at an instant, the nested items too, in at most 400 ms at 10 M events.

The scalar columns of `at_scalars` and each order's items, as a list of (product_id, quantity, price).
Included and excluded as in `at_status_total`.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import at, peers
from benchmarks.harness import Options, script


def measure(options: Options) -> Iterator[dict]:
    """Time every column of all orders at an instant."""
    return at.measure("at_all", peers.EVERYTHING, options, promise=0.400)


if __name__ == "__main__":
    script(measure)
