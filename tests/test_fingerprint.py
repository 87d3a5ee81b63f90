"""A fingerprint is kept with snapshots and caches, so it must outlive the process that made it."""

from __future__ import annotations

import subprocess
import sys

import titan_lab as tl


def test_every_process_makes_the_same_fingerprint():
    """Neither an object's address nor the order of a hash gets into it."""
    code = "import titan_lab as tl; print(tl.Order.fingerprint())"
    made = {
        subprocess.run([sys.executable, *seed, "-c", code], capture_output=True, text=True, check=True).stdout
        for seed in ([], ["-R"])
    }

    assert made == {f"{tl.Order.fingerprint()}\n"}
