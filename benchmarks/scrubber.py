"""Promise: an order of 50 events is drawn 0.2 s after its cell ran, and a step takes at most 16 ms.

    python -m benchmarks.scrubber

Needs Chromium and playwright, and is therefore not among those that `python -m benchmarks` runs. It prints
one JSON line for each size: `made`, seconds from `story.scrub()` to the HTML of the cell's output;
`bytes` of the data in it, all states and events; `drawn`, from the call of the script's `render` until the
browser has laid the page out; and `step`, the same for one press of an arrow key, all over the life: the
median, and what 99 of 100 stay below.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import digits
from benchmarks.long_order import LONG, long_life, others, write_table
from benchmarks.machine import machine

SIZES = (50, 10_000)
STEPS = 400  # presses of a key, all over the life
RENDER = """async ([script, style, data]) => {
  const sheet = document.createElement("style");
  sheet.textContent = style;
  document.head.replaceChildren(sheet);
  const place = document.createElement("div");
  document.body.replaceChildren(place);
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const { render } = (await import(url)).default;
  const model = { get: () => data, set() {}, save_changes() {} };
  const start = performance.now();
  render({ model, el: place });
  place.getBoundingClientRect();
  return performance.now() - start;
}"""
STEP = """([count, presses]) => {
  const input = document.querySelector("input[type=range]");
  const taken = [];
  for (let n = 0; n < presses; n += 1) {
    input.value = 1 + Math.floor((n / presses) * (count - 1));
    const start = performance.now();
    input.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    document.body.getBoundingClientRect();
    taken.push(performance.now() - start);
  }
  return taken;
}"""


def measure(runs: int) -> Iterator[dict[str, Any]]:
    """Time making, drawing and stepping through a short order and a long one."""
    from playwright.sync_api import sync_playwright

    import titan_lab as tl
    from titan_lab.notebook import widget

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.goto("about:blank")
        for size in SIZES:
            file = Path(folder) / f"{size}.db"
            write_table(file, [*others(), *long_life(size)])
            story = tl.open(f"sqlite:///{file}").fold(tl.Order)[LONG]
            made, drawn, steps = [], [], []
            for _ in range(runs):
                start = time.perf_counter()
                scrubber = story.scrub()
                scrubber._repr_mimebundle_()
                made.append(time.perf_counter() - start)
                text = scrubber.widget.data
                drawn.append(page.evaluate(RENDER, [widget.module(), widget.style(), text]))
                steps += page.evaluate(STEP, [size, min(STEPS, size)])
            yield {
                "bench": "scrubber",
                "what": f"an order of {size:,} events",
                "made": digits(statistics.median(made)),
                "bytes": len(text.encode()),
                "gzipped": len(gzip.compress(text.encode())),
                "drawn": digits(statistics.median(drawn) / 1000),
                "step": digits(statistics.median(steps) / 1000),
                "step_99": digits(statistics.quantiles(steps, n=100)[98] / 1000),
                "nodes": page.evaluate("document.querySelectorAll('*').length"),
                "runs": runs,
                "browser": browser.version,
                "machine": machine(),
            }
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--runs", type=int, default=5)
    for line in measure(parser.parse_args().runs):
        print(json.dumps(line), flush=True)
