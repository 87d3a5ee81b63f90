"""The `titan` command, as a person and as a program meet it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from titan_lab import cli
from titan_lab.orders.sample import PHONE

SAMPLES = "sqlite:///data/samples/orders.db"


def titan(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "titan_lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)


def test_help_loads_nothing_heavy() -> None:
    """Which is why it answers at once."""
    code = """
import sys
sys.argv = ["titan", "--help"]
from titan_lab.cli import main
try:
    main()
finally:
    print(sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.replace("'", "").strip("[]\n").split(", "))
    assert not loaded & {"polars", "numpy", "pyarrow", "pandas", "plotly", "papermill", "rich", "sqlite3"}
    assert "click" in loaded


@pytest.mark.parametrize("name", ["demo", "inspect", "at", "import", "run"])
def test_every_command_explains_itself(name: str) -> None:
    """`--help` of each has a sentence."""
    done = titan(name, "--help")
    assert done.returncode == 0
    command: Any = cli.titan
    assert command.commands[name].get_short_help_str(200) != ""
    assert command.commands[name].help.split("\n")[0][:40] in done.stdout


def test_demo_fits_eighty_columns_and_shows_a_life() -> None:
    """The first thing a new user runs."""
    done = titan("demo")
    assert done.returncode == 0, done.stderr
    assert "OrderCorrected" in done.stdout
    tables = [line for line in done.stdout.splitlines() if not line.startswith((">>>", "<"))]
    assert max(map(len, tables)) <= 80


def test_inspect_counts_what_is_there() -> None:
    """As JSON, for a program."""
    done = titan("inspect", SAMPLES, "--json")
    told = json.loads(done.stdout)
    assert (told["events"], told["aggregates"], told["rejected"]) == (12_123, 500, 0)
    assert {row["event_type"]: row["events"] for row in told["types"]}["OrderCreated"] == 500
    assert told["last"].endswith("Z")


def test_inspect_strict_tells_by_its_exit_code_that_something_is_odd() -> None:
    """The samples have clock inversions, so strict is 1 and plain is 0."""
    assert titan("inspect", SAMPLES).returncode == 0
    assert titan("inspect", SAMPLES, "--strict").returncode == 1


def test_at_gives_all_rows_to_machines_and_exact_money_as_text() -> None:
    """JSON and CSV say the same."""
    rows = json.loads(titan("at", SAMPLES, "2025-01-15T12:00Z", "--json").stdout)
    table = list(csv.DictReader(io.StringIO(titan("at", SAMPLES, "2025-01-15T12:00Z", "--csv").stdout)))
    assert len(rows) == len(table) == 189
    assert {row["total"] for row in rows} == {row["total"] for row in table}
    assert all(isinstance(row["total"], str) and row["total"][-3] == "." for row in rows)


def test_at_by_status_is_a_small_table() -> None:
    """Numbers stand to the right and are never cut."""
    done = titan("at", SAMPLES, "2025-01-15", "--by", "status")
    assert done.stdout.splitlines()[0].split() == ["status", "count", "total"]
    assert "159,544.29" in done.stdout


def test_at_shows_one_order_column_by_column() -> None:
    """And says so, with exit code 1, when it did not exist yet or nobody has the id."""
    assert "DELIVERED" in titan("at", SAMPLES, "2025-01-15", "--order", PHONE).stdout
    early = titan("at", SAMPLES, "2024-01-01", "--order", PHONE)
    assert (early.returncode, early.stdout) == (1, "")
    assert "had no event yet" in early.stderr
    unknown = titan("at", SAMPLES, "2025-01-15", "--order", PHONE[:8])
    assert unknown.returncode == 1
    assert PHONE in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["at", SAMPLES, "2025-01-15T12:00"], "has no time zone"),
        (["at", SAMPLES, "yesterday"], "is no instant"),
        (["at", "mysql://x/y", "2025-01-15"], "sqlite://"),
        (["at", "sqlite:///nope.db", "2025-01-15"], "no file nope.db"),
        (["at", SAMPLES, "2025-01-15", "--columns", "statsu"], "'status'"),
        (["at", SAMPLES], "Missing argument"),
        (["import", "olist", "data", "--into", "sqlite:///never.db"], "olist"),
        (["run", "dayly_orders"], "daily_orders"),
        (["run", "daily_orders", "--as-off", "2025-01-15"], "as_of"),
        (["run", "daily_orders", "--as-of"], "needs a value"),
    ],
)
def test_bad_input_is_a_message_on_stderr_and_exit_code_2(arguments: list[str], message: str) -> None:
    """Never a traceback, and nothing on standard output."""
    done = titan(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not Path("never.db").exists()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`titan ... | head` ends quietly."""
    line = f"{sys.executable} -m titan_lab at {SAMPLES} 2025-02-01 --csv | head -n 2"
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


def test_the_version_is_told() -> None:
    """By the package's own number."""
    import titan_lab

    assert titan("--version").stdout.split()[-1] == titan_lab.__version__
