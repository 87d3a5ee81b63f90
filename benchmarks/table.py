"""Write the table of measured values from the JSON lines, so that it cannot say what was not measured.

    python -m benchmarks table results.jsonl                                  print it
    python -m benchmarks table results.jsonl --into benchmarks/README.md      put it between a file's marks
    python -m benchmarks table results.jsonl --short --into README.md         one line for each question
    python -m benchmarks table small.jsonl large.jsonl --growth --into benchmarks/README.md

Of a measurement that was repeated, the last counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

BEGIN, END = "<!-- table: written by `python -m benchmarks table` -->", "<!-- /table -->"
GROWTH, GROWN = "<!-- growth: written by `python -m benchmarks table --growth` -->", "<!-- /growth -->"
HEAD = ("engine", "median", "range", "beside ours", "promised")


def main(arguments: list[str]) -> int:
    """Print the table, or put it into a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table")
    parser.add_argument("results", type=Path, nargs="+", help="files of JSON lines")
    parser.add_argument("--into", type=Path, help="the file that holds the marks")
    parser.add_argument("--short", action="store_true", help="one line for each question")
    parser.add_argument("--growth", action="store_true", help="ours by the number of events")
    chosen = parser.parse_args(arguments)
    lines = [line for results in chosen.results for line in read(results)]
    write = grow if chosen.growth else shorten if chosen.short else render
    if chosen.into is None:
        print(write(lines))
    else:
        marks = (GROWTH, GROWN) if chosen.growth else (BEGIN, END)
        chosen.into.write_text(put(write(lines), chosen.into.read_text(), *marks))
    return 0


def read(results: Path) -> list[dict]:
    """Read JSON lines, and keep the last of each measurement in the order of the first."""
    lines: dict[tuple, dict] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        lines[line["bench"], line["what"], line["events"], line["engine"]] = line
    return list(lines.values())


def put(text: str, document: str, begin: str = BEGIN, end: str = END) -> str:
    """Replace what stands between the marks of a document."""
    before, _, rest = document.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        raise SystemExit(f"no marks: expected a line {begin!r} and further down {end!r}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def render(lines: Iterable[dict]) -> str:
    """Write lines as Markdown: for each machine its name, for each question a table."""
    told: list[str] = []
    named = question = None
    for line in lines:
        if line["machine"] != named:
            named = line["machine"]
            told += ["", describe(named)]
        if (asked := (line["bench"], line["what"], line["events"])) != question:
            question = asked
            size = f", {line['events']:,} events of {line['orders']:,} orders" if line["events"] else ""
            told += ["", f"**{line['bench']}**: {line['what']}{size}", ""]
            told += [row(HEAD), row(["---", "---:", "---:", "---:", "---:"])]
        promise = f"≤ {seconds(line['promise'])}" if line.get("promise") else ""
        extent = f"{seconds(line['min'])} to {seconds(line['max'])}"
        ratio = "" if line["ratio_to_ours"] == 1 else f"{line['ratio_to_ours']:.3g} ×"
        told.append(row([line["engine"], seconds(line["seconds"]), extent, ratio, promise]))
    return "\n".join(told).strip()


def shorten(lines: Iterable[dict]) -> str:
    """Write one line for each question: ours, what was promised, and the peers."""
    lines = list(lines)
    if not lines:
        return ""
    told = [describe(lines[-1]["machine"]), "", row(["question", "titan_lab", "promised", "peers"])]
    told.append(row(["---", "---:", "---:", "---"]))
    questions = dict.fromkeys((line["bench"], line["what"], line["events"]) for line in lines)
    for question in questions:
        asked = [line for line in lines if (line["bench"], line["what"], line["events"]) == question]
        ours = [line for line in asked if line["ratio_to_ours"] == 1]
        peers = [
            f"{line['engine']} {seconds(line['seconds'])}" for line in asked if line["ratio_to_ours"] != 1
        ]
        for line in ours:
            promise = f"≤ {seconds(line['promise'])}" if line.get("promise") else ""
            told.append(
                row([f"`{question[0]}` {question[1]}", seconds(line["seconds"]), promise, ", ".join(peers)])
            )
    return "\n".join(told)


def grow(lines: Iterable[dict]) -> str:
    """Write one line for each question that was asked of histories of several sizes: ours at each of them."""
    ours: dict[tuple[str, str], dict[int, float]] = {}
    for line in lines:
        if line["ratio_to_ours"] == 1:
            ours.setdefault((line["bench"], line["what"]), {})[line["events"]] = line["seconds"]
    grown = {question: sizes for question, sizes in ours.items() if len(sizes) > 1}
    events = sorted({size for sizes in grown.values() for size in sizes})
    told = [
        row(["question", *(f"{size:,} events" for size in events)]),
        row(["---", *["---:"] * len(events)]),
    ]
    for (bench, what), sizes in grown.items():
        told.append(row([f"`{bench}` {what}", *(seconds(sizes[n]) if n in sizes else "" for n in events)]))
    return "\n".join(told)


def describe(machine: dict) -> str:
    """Name a machine and what ran on it in one line."""
    told = {name: value for name, value in machine.items() if isinstance(value, str)}
    packages = ", ".join(f"{name} {value}" for name, value in told.items() if name not in ("cpu", "system"))
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['ram_gb']} GB, {machine['system']}"
    return f"Measured on {where}: {packages}."


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def seconds(number: float) -> str:
    """Write a duration as a person reads it."""
    return f"{number:.3g} s" if number >= 1 else f"{number * 1000:.3g} ms"
