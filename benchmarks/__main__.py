"""Run the benchmarks, or write their table.

    python -m benchmarks                                         all of them, at 1,000,000 events
    python -m benchmarks at_all cold --events 10_000_000         some of them
    python -m benchmarks --out results.jsonl                     keep the lines in a file, too
    python -m benchmarks table results.jsonl                     print the table of these lines
    python -m benchmarks table results.jsonl --into benchmarks/README.md

Each benchmark runs in a process of its own, on two cores, so that none inherits another's memory or caches.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import BENCHES, table

CORES = 2


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["table"]:
        return table.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=Plain)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(BENCHES)}")
    parser.add_argument("--events", default="1_000_000", help="how many events (default: 1,000,000)")
    parser.add_argument("--runs", default="5", help="how often each engine is timed (default: 5)")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in BENCHES]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")

    failed = []
    for name in chosen.names or BENCHES:
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{BENCHES[name]}",
            "--events",
            chosen.events,
            "--runs",
            chosen.runs,
        ]
        print(f"{name} ...", file=sys.stderr, flush=True)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as child:
            for line in child.stdout or ():
                print(line, end="", flush=True)
                if chosen.out:
                    with chosen.out.open("a") as lines:
                        lines.write(line)
        if child.returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


class Plain(argparse.RawDescriptionHelpFormatter):
    """Keep the docstring's lines as they are."""


def environment() -> dict[str, str]:
    """Hold this process and its children to two cores, and polars to as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return {**os.environ, "POLARS_MAX_THREADS": str(CORES)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
