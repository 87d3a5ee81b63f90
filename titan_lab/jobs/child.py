"""One run in a process of its own, for whoever runs several: a signal ends one, and a crash takes only one.

Whoever starts it saw a number of attempts for a job's instant, and asks for the next one. The number is
looked at again under the claim, so when two saw the same, one of them runs and the other one finds that it
came too late.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from titan_lab.clock import instant
from titan_lab.errors import Locked, TitanError
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.record import LOCKED, USAGE
from titan_lab.jobs.run import run_job
from titan_lab.paths import ROOT_VARIABLE, project_root


@dataclass(frozen=True, slots=True)
class Request:
    """What a child is asked to run."""

    job: str
    scheduled: str  # ISO-8601
    attempt: int  # which one this is to be, from 1
    parameters: Mapping[str, Any] = field(default_factory=dict)
    pipelines: str = "pipelines"
    out: str = "runs"
    ledger: str | None = None  # None: what TITAN_LEDGER names, else the one in `out`
    beyond_frontier: bool = False
    timeout: str | None = None


class Child:
    """A run in another process."""

    def __init__(self, request: Request) -> None:
        # The package may run from a checkout that was never installed, and the request's paths start here.
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"PYTHONPATH": os.pathsep.join(paths), ROOT_VARIABLE: str(project_root())}
        if request.ledger:
            # An address may have a password, and arguments are for all to see.
            variables["TITAN_LEDGER"] = request.ledger
        told = json.dumps(asdict(request) | {"ledger": None})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "titan_lab.jobs.child", told],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, and we pass it on once
        )

    def wait(self) -> tuple[int, str]:
        """Wait for its end; give its exit code and what it said."""
        said = self.process.communicate()[1]
        return self.process.returncode, said.strip()

    def stop(self) -> None:
        """Ask it to end: its kernel is killed, and its run recorded as interrupted. Again is fine."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


@contextmanager
def ended_by_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` when SIGTERM or SIGINT comes while the block runs; only the main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        # In a thread: the one that waits may be interrupted while it holds what `stop` needs.
        threading.Thread(target=stop).start()

    numbers = (signal.SIGTERM, signal.SIGINT)
    replaced = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def main() -> int:
    """Run the request in the first argument. Gives the run's exit code, and 75 when it comes too late."""
    asked = Request(**json.loads(sys.argv[1]))
    ledger = Ledger(asked.ledger, runs=asked.out)
    try:
        name = Path(asked.job).stem if asked.job.endswith(".ipynb") else asked.job
        with ledger.claim(name, instant(asked.scheduled)) as attempt:
            if attempt.number != asked.attempt:
                return LOCKED
            done = run_job(
                asked.job,
                asked.parameters,
                pipelines=asked.pipelines,
                out=asked.out,
                ledger=ledger,
                attempt=attempt,
                beyond_frontier=asked.beyond_frontier,
                timeout=asked.timeout,
            )
            return done.exit_code
    except Locked:
        return LOCKED
    except TitanError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
