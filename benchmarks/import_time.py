"""Promise: `import titan_lab` within 0.6 s and with no driver, pandas or plotly; `titan --help` within 0.3 s.

Each run is a fresh Python process, started and waited for; `python, doing nothing` is what that alone
costs. `import titan_lab` puts loading polars off until a name is used, so `ready to fold` is measured
beside it: everything loaded that opening a store and folding orders needs. Modules that must not be loaded
are looked for before any time is taken. Files are in the page cache, bytecode is compiled.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.harness import OURS, Disagreement, Engine, Options, compare, script

BENCH = "import"
# Each is loaded by what needs it, when that is used: no import's business.
UNWANTED = (
    "IPython",
    "clickhouse_connect",
    "confluent_kafka",
    "duckdb",
    "pandas",
    "papermill",
    "plotly",
    "psycopg",
    "sqlalchemy",
    "sqlite3",
)
IMPORT = "import titan_lab"
READY = "import titan_lab as tl; tl.open, tl.from_frame, tl.Order"
HELP = "import sys; sys.argv = ['titan', '--help']; from titan_lab.cli import main; main()"


def measure(options: Options) -> Iterator[dict]:
    """Time importing the package and the command's help, in fresh processes."""
    for code in (IMPORT, READY, HELP):
        if loaded := loads(code):
            raise Disagreement(f"{code!r} loads {', '.join(loaded)}")
    pandas = Engine("import pandas", fresh("import pandas"))
    nothing = Engine("python, doing nothing", fresh("pass"))
    polars = Engine("import polars", fresh("import polars"))
    for what, code, peers, promise in (
        ("import titan_lab", IMPORT, [pandas, polars, nothing], 0.6),
        ("ready to fold", READY, [pandas, polars, nothing], 0.6),
        ("titan --help", HELP, [nothing], 0.3),
    ):
        engines = [Engine(OURS, fresh(code)), *peers]
        # There is no answer to compare; `loads` above is the check.
        yield from compare(
            BENCH, what, engines, options, events=0, orders=0, promise=promise, same=lambda ours, theirs: None
        )


def fresh(code: str) -> Callable[[], Any]:
    """Return a call that runs code in a new process."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def loads(code: str) -> list[str]:
    """Run code in a new process and name the unwanted modules it loads."""
    told = f"import atexit, sys; atexit.register(lambda: print('', *sys.modules, sep=chr(10)))\n{code}"
    done = subprocess.run([sys.executable, "-c", told], check=False, capture_output=True, text=True)
    if done.returncode:
        raise Disagreement(f"{code!r} fails: {done.stderr}")
    return sorted(set(done.stdout.splitlines()) & set(UNWANTED))


if __name__ == "__main__":
    script(measure)
