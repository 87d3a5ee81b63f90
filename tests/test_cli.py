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

import nbformat
import polars as pl
import pytest
from click.testing import CliRunner, Result

from titan_lab import cli
from titan_lab.connect import open_log
from titan_lab.orders.sample import COFFEE, PHONE

SAMPLES = "sqlite:///data/samples/orders.db"


def titan(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-m", "titan_lab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **options)


def here(*arguments: str, columns: int = 80) -> Result:
    """Run the command in this process, where no error is expected: quicker than a new one."""
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(cli.titan, arguments, catch_exceptions=False)


def store_of(path: Path, *rows: tuple[str, int, str, str]) -> str:
    """Write events past every check, as another program would; give the store's URL."""
    frame = pl.DataFrame(rows, ["aggregate_id", "version", "event_type", "payload"], orient="row")
    frame.with_columns(timestamp=pl.lit("2025-01-01T10:00:00Z")).write_parquet(path)
    return f"parquet://{path}"


def order(user: str = "u1", price: str = "1.00") -> str:
    items = [{"product_id": "tea", "quantity": 1, "price": price}]
    return json.dumps({"user_id": user, "items": items})


@pytest.mark.parametrize(
    "command", [[], ["inspect"], ["audit"], ["at"], ["diff"], ["import", "olist"], ["run"]], ids=str
)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    """Which is why it answers at once."""
    code = f"""
import sys
sys.argv = ["titan", *{command}, "--help"]
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


@pytest.mark.parametrize(
    "name", ["demo", "inspect", "audit", "at", "diff", "blame", "explain", "import", "run"]
)
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


def test_demo_tells_what_each_cut_says() -> None:
    """Three answers to one question, by their names."""
    told = [line.split()[:4] for line in here("demo").stdout.splitlines()]
    assert ["prefix", "8", "1,018.90", "19.90"] in told
    assert ["filter", "10", "1,018.90", "69.90"] in told
    assert ["latest", "10", "968.90", "69.90"] in told


def test_demo_makes_its_own_samples_where_there_are_none(tmp_path: Path) -> None:
    """The same orders, from the generator."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "TITAN_ROOT": str(tmp_path)}
    command = [sys.executable, "-m", "titan_lab", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert "tl.from_frame(sample_events())" in done.stdout
    assert "500 orders, 12,123 events" in done.stdout


def test_diff_blame_and_explain_answer_for_a_program() -> None:
    """As JSON: what changed, who set it, and why the sum moved; amounts are text, instants have a Z."""
    morning = ("2025-01-14T11:00Z", "2025-01-14T11:06Z")
    changes = json.loads(
        here("diff", SAMPLES, *morning, "--order", PHONE, "--columns", "total", "--json").stdout
    )
    assert [(c["field"], c["before"], c["after"], c["event_type"]) for c in changes] == [
        ("total", "1018.90", "968.90", "OrderCorrected")
    ]
    (setter,) = json.loads(
        here("blame", SAMPLES, "total", "--order", PHONE, "--at", morning[0], "--json").stdout
    )
    assert (setter["value"], setter["version"]) == ("1018.90", 3)
    parts = json.loads(here("explain", SAMPLES, "total", *morning, "--json").stdout)
    assert {part["event_type"] for part in parts} <= {"OrderCreated", "OrderModified", "OrderCorrected"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["diff", SAMPLES, "2025-01-15", "2025-01-14"], "2025-01-14T00:00:00Z is before"),
        (["diff", SAMPLES, "2025-01-14", "soon"], "soon"),
        (["blame", SAMPLES, "totl"], "Did you mean 'total'?"),
        (["explain", SAMPLES, "status", "2025-01-14", "2025-01-15"], "status"),
        (["explain", SAMPLES, "total", "2025-01-14", "2025-01-15", "--by", "dya"], "Did you mean 'day'?"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else value[:10],
)
def test_a_question_that_cannot_be_meant_is_bad_input(arguments: list[str], told: str) -> None:
    """Exit code 2, with the fault and the way out."""
    done = titan(*arguments)
    assert done.returncode == 2
    assert told in done.stderr


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


def test_inspect_tells_what_was_rejected_and_where(tmp_path: Path) -> None:
    """Payloads are looked at as an order's, down to the path; a type nobody declared is no fault."""
    url = store_of(
        tmp_path / "events.parquet",
        ("good", 1, "OrderCreated", order()),
        ("good", 2, "OrderArchived", "{}"),
        ("bad", 1, "OrderCreated", order(price="cheap")),
        ("worse", 1, "OrderCreated", "{"),
    )
    told = json.loads(here("inspect", url, "--json").stdout)
    assert (told["events"], told["rejected"], told["undeclared"]) == (3, 2, {"OrderArchived": 1})
    assert {row["path"]: row["rows"] for row in told["reasons"]} == {"$": 1, "$.items[0].price": 1}

    rows = json.loads(here("inspect", url, "--rejected", "--json").stdout)
    found = {(row["aggregate_id"], row["path"]) for row in rows}
    assert found == {("bad", "$.items[0].price"), ("worse", "$")}
    assert all("OrderCreated" in row["raw"] for row in rows)
    assert "expected an amount" in here("inspect", url, columns=200).stdout

    assert here("inspect", url).exit_code == 0
    assert here("inspect", url, "--strict").exit_code == 1
    warned = here("at", url, "2025-01-02")
    assert (warned.exit_code, "2 rows were rejected" in warned.stderr) == (0, True)
    assert here("at", url, "2025-01-02", "--strict").exit_code == 1


def test_inspect_lists_event_types_and_oddities_as_csv() -> None:
    """One frame each."""
    types = list(csv.DictReader(io.StringIO(here("inspect", SAMPLES, "--csv").stdout)))
    assert {"event_type": "OrderCreated", "events": "500"} in types
    oddities = list(csv.DictReader(io.StringIO(here("inspect", SAMPLES, "--audit", "--csv").stdout)))
    assert len(oddities) == 588
    assert {row["kind"] for row in oddities} == {"clock inversion"}


def test_an_empty_log_is_an_answer() -> None:
    """No rows, in every form, and exit code 0."""
    assert json.loads(here("inspect", "memory://", "--json").stdout)["first"] is None
    assert json.loads(here("at", "memory://", "2025-01-01", "--json").stdout) == []
    assert here("at", "memory://", "2025-01-01", "--csv").stdout.count("\n") == 1
    assert here("at", "memory://", "2025-01-01").exit_code == 0


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


def test_a_limit_holds_for_machines_too() -> None:
    """Where it is given; without one a machine gets all, and a person 20."""
    assert len(json.loads(here("at", SAMPLES, "2025-01-15", "--json", "--limit", "3").stdout)) == 3
    assert "20 of 186 rows" in here("at", SAMPLES, "2025-01-15").stdout
    assert len(here("at", SAMPLES, "2025-01-15", "--limit", "0").stdout.splitlines()) == 186 + 2


def test_json_is_one_row_a_line() -> None:
    """So that head, grep and a diff are of use; nested values stay values, and null stays null."""
    lines = here("at", SAMPLES, "2025-01-15", "--json").stdout.splitlines()
    assert len(lines) == 186 + 2
    row = json.loads(lines[1].rstrip(","))
    assert isinstance(row["items"][0]["price"], str)
    assert (row["status"], row["tracking"]) == ("CREATED", None)
    assert row["created_at"].endswith("Z")


def test_the_key_is_never_cut_and_what_finds_no_room_is_named() -> None:
    """An id is there to be copied; half a number would be a wrong one."""
    done = here("at", SAMPLES, "2025-01-15", "--columns", "status,total,paid,refunded,user_id")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "002049c6-135c-4e01-87d6-a91df3117027" in done.stdout
    assert "no room for refunded, user_id" in done.stdout


def test_payload_text_cannot_drive_the_terminal(tmp_path: Path) -> None:
    """Escape sequences, line ends and right-to-left marks are shown as what they are."""
    text = "\x1b[2J\n\u202efine"
    url = store_of(
        tmp_path / "events.parquet",
        ("o-1", 1, "OrderCreated", order()),
        ("o-1", 2, "OrderCancelled", json.dumps({"reason": text})),
    )
    shown = here("at", url, "2025-01-02", "--columns", "reason").stdout
    assert r"\x1b[2J\n\u202efine" in shown
    assert len(shown.splitlines()) == 3
    assert r"\x1b[2J" in here("at", url, "2025-01-02", "--order", "o-1").stdout
    assert json.loads(here("at", url, "2025-01-02", "--json").stdout)[0]["reason"] == text


def test_wide_characters_keep_the_columns_straight(tmp_path: Path) -> None:
    """Each takes two places in a terminal."""
    url = store_of(
        tmp_path / "events.parquet",
        ("o-1", 1, "OrderCreated", order(user="张伟")),
        ("o-2", 1, "OrderCreated", order(user="mia5")),
    )
    lines = here("at", url, "2025-01-02", "--columns", "user_id,total").stdout.splitlines()
    assert lines[2].index("1.00") == lines[3].index("1.00") - 2


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
    ("cut", "version", "counted"),
    [
        ("prefix", "8", [*range(1, 9)]),
        ("filter", "10", [*range(1, 9), 10]),
        ("latest", "10", [*range(1, 11)]),
    ],
)
def test_at_marks_the_events_that_a_cut_counts(cut: str, version: str, counted: list[int]) -> None:
    """And says that the cuts differ."""
    told = here("at", SAMPLES, "2025-01-14T11:04Z", "--order", PHONE, "--cut", cut).stdout
    assert told.splitlines()[0].split() == ["version", version]
    marked = [int(line.split()[0]) for line in told.splitlines() if "●" in line]
    assert marked == counted
    assert "prefix 8, filter 10, latest 10" in told
    assert "the three cuts differ" not in here("at", SAMPLES, "2025-01-10", "--order", PHONE).stdout


def test_a_long_life_is_shown_around_the_instant() -> None:
    """Not 10,000 lines of it, and what is hidden is counted."""
    told = here("at", SAMPLES, "2025-01-14T11:04Z", "--order", COFFEE).stdout
    hidden = [int(line.split()[0].replace(",", "")) for line in told.splitlines() if "not shown" in line]
    assert sum(hidden) + 15 + 3 == 10_000
    assert len(told.splitlines()) < 50


def test_one_order_is_one_row_to_machines() -> None:
    """In the shape that all orders have; none before its first event, with exit code 1."""
    alone = json.loads(here("at", SAMPLES, "2025-01-15", "--order", PHONE, "--json").stdout)
    everyone = json.loads(here("at", SAMPLES, "2025-01-15", "--json").stdout)
    assert alone == [row for row in everyone if row["aggregate_id"] == PHONE]
    early = here("at", SAMPLES, "2024-01-01", "--order", PHONE, "--json")
    assert (early.exit_code, json.loads(early.stdout)) == (1, [])


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
        (["run", "daily_orders", "--as-of", "--top", "3"], "needs a value"),
        (["run", "--top", "3", "daily_orders"], "titan run JOB"),
        (["run", "daily_orders", "--top", "many"], "top"),
        (["at", SAMPLES, "2025-01-15", "--by", "status", "--cut", "filter"], "--cut"),
        (["at", SAMPLES, "2025-01-15", "--by", "status", "--measure", "user_id"], "cannot be added up"),
        (["at", SAMPLES, "2025-01-15", "--limit", "-1"], "--limit"),
        (["at", SAMPLES, "2025-01-15", "--zone", "Mars/Olympus"], "is no time zone"),
        (["inspect", "data/samples/orders.db"], "write sqlite:///data/samples/orders.db"),
        (["inspect", "sqlite:///README.md"], "is no SQLite database"),
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


@pytest.mark.parametrize("rest", ["--csv", "--json", "--by status", "--limit 0"])
@pytest.mark.parametrize("reader", ["head -n 1", "true"])
def test_a_reader_that_has_seen_enough_is_no_error(rest: str, reader: str) -> None:
    """`titan ... | head` ends quietly, and with 0: 1 would say that there was no good answer."""
    line = f"{sys.executable} -m titan_lab at {SAMPLES} 2025-02-01 {rest} | {reader}; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_a_full_disk_is_a_message() -> None:
    """In the words of the system."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "titan_lab", "at", SAMPLES, "2025-02-01", "--csv"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


OLIST = {
    "orders": "order_id,customer_id,order_status,order_purchase_timestamp,order_approved_at,"
    "order_delivered_carrier_date,order_delivered_customer_date,order_estimated_delivery_date\n"
    "o1,c1,delivered,2017-10-02 10:56:33,2017-10-02 11:07:15,2017-10-04 19:55:00,2017-10-10 21:25:13,\n"
    "o2,c2,created,yesterday,,,,\n",
    "order_items": "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value\n"
    "o1,1,cup,s1,2017-10-06 11:07:15,29.99,8.72\n",
    "order_payments": "order_id,payment_sequential,payment_type,payment_installments,payment_value\n"
    "o1,1,voucher,1,38.71\n",
    "customers": "customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,customer_state\n"
    "c1,p1,01000,rio,RJ\nc2,p2,01000,rio,RJ\n",
}


def test_import_olist_adds_once_and_names_what_it_left_out(tmp_path: Path) -> None:
    """File, line and reason, to people and to machines; --strict makes it exit code 1."""
    for name, text in OLIST.items():
        (tmp_path / f"olist_{name}_dataset.csv").write_text(text)
    url = f"sqlite:///{tmp_path}/olist.db"
    first = here("import", "olist", str(tmp_path), "--into", url, columns=120)
    assert first.exit_code == 0
    assert "olist_orders_dataset.csv:3" in first.stdout
    again = here("import", "olist", str(tmp_path), "--into", url, "--json", "--strict")
    told = json.loads(again.stdout)
    assert (again.exit_code, told["added"], told["present"]) == (1, 0, 4)
    assert told["payments"] == "38.71"
    assert [row["place"] for row in told["rejected"]] == ["olist_orders_dataset.csv:3"]
    assert len(open_log(url)) == 4


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small notebook in a project of its own: it divides."""
    cells = [
        nbformat.v4.new_code_cell("by: int = 2  # what to divide by", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("84 / by"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    (tmp_path / "pipelines").mkdir()
    nbformat.write(notebook, tmp_path / "pipelines" / "divide.ipynb")
    monkeypatch.setenv("TITAN_ROOT", str(tmp_path))
    return "divide"


def test_run_prints_where_the_report_is_and_passes_the_exit_code_on(job: str) -> None:
    """Alone on standard output, for a script; everything else on standard error."""
    done = titan("run", job, "--by", "3")
    assert done.returncode == 0, done.stderr
    assert "28.0" in Path(done.stdout.strip()).read_text()
    assert f"{job} as of" in done.stderr

    failed = titan("run", job, "-p", "by=0")
    assert failed.returncode == 1
    assert "cell 3: ZeroDivisionError" in failed.stderr
    assert Path(failed.stdout.strip()).is_file()


def test_run_without_a_job_lists_the_jobs_and_what_they_take(job: str) -> None:
    """By the names that the command line takes."""
    assert here("run").stdout.splitlines()[2].split() == [job, "--by", "2", "what", "to", "divide", "by"]


def test_the_version_is_told() -> None:
    """By the package's own number."""
    import titan_lab

    assert titan("--version").stdout.split()[-1] == titan_lab.__version__


def test_audit_tells_by_its_exit_code_that_something_is_odd(tmp_path: Path) -> None:
    """Counted for people, listed for programs; a row that is no event is odd, too."""
    done = here("audit", SAMPLES)
    assert done.exit_code == 1
    assert ["clock", "inversion", "588"] in [line.split() for line in done.stdout.splitlines()]
    assert len(json.loads(here("audit", SAMPLES, "--json").stdout)) == 588
    assert len(list(csv.DictReader(io.StringIO(here("audit", SAMPLES, "--csv").stdout)))) == 588

    sound = store_of(tmp_path / "sound.parquet", ("a", 1, "OrderCreated", order()))
    assert here("audit", sound).exit_code == 0
    assert json.loads(here("audit", sound, "--json").stdout) == []
    unread = here("audit", store_of(tmp_path / "unread.parquet", ("a", 1, "OrderCreated", "{")))
    assert (unread.exit_code, "1 rows are no events" in unread.stderr) == (1, True)
