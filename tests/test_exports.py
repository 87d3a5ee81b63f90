"""Schedules for other schedulers: files that those read, texts escaped, nobody's paths."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta

import pytest
from click.testing import CliRunner

from titan_lab import cli
from titan_lab.clock import instant
from titan_lab.errors import JobError
from titan_lab.jobs.cron import Rule
from titan_lab.jobs.declaration import Declaration, Running, Schedule
from titan_lab.jobs.exports import FORMS, export

NASTY = 'Every "morning" %i $HOME `id`\n; {{ x }} \\'


def said(cron: str = "0 6 * * *", zone: str = "Europe/Berlin", told: str = "", **schedule) -> Declaration:
    running = Running(timeout=timedelta(minutes=30), retries=2, backoff=timedelta(minutes=1))
    return Declaration(help=told, schedule=Schedule(Rule(cron, zone), **schedule), run=running)


@pytest.mark.parametrize("form", FORMS)
def test_the_shipped_jobs_are_written_for_every_scheduler(form):
    """On standard output, by name or all; a job without a schedule is named in a comment, and no path is."""
    done = CliRunner().invoke(cli.titan, ["jobs", "export", f"--{form}"], catch_exceptions=False)
    one = CliRunner().invoke(
        cli.titan, ["jobs", "export", f"--{form}", "daily_orders"], catch_exceptions=False
    )

    assert (done.exit_code, one.exit_code) == (0, 0)
    assert done.stdout.startswith('# No schedule: "backfill_report"\n')
    assert all(job in done.stdout for job in ("daily_orders", "order_health", "state_cube"))
    assert "order_health" not in one.stdout
    assert not re.search(r"/(home|root|work|tmp|Users)/", done.stdout)


def test_a_crontab_names_its_zone_once_and_says_who_knows_it():
    """Five fields, a folder and a command; a comment never leaves its line, and a % is escaped."""
    text = export(
        "cron", [("a", said(told=NASTY)), ("b", said("0 7 * * 1")), ("c", said(zone="UTC"))], "/srv/50% of it"
    )

    assert text.count("CRON_TZ=Europe/Berlin") == 1
    assert "Debian" in text
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[2] == r"0 6 * * * cd '/srv/50\% of it' && titan schedule a --once"
    assert all(re.match(r"(\w+=\S+|(\S+ ){5}cd .* && titan schedule \w+ --once)$", line) for line in lines)


def test_kubernetes_gets_cronjobs_that_are_yaml_and_end_in_time():
    """One at a time, in the zone, for as long as all retries take, and no failed assertion twice."""
    text = export("k8s", [("daily_orders", said(told=NASTY)), ("b.c", said(catch_up="none"))], "/srv/orders")

    first, second = (json.loads(part) for part in text.split("---\n")[1:])
    spec, job = first["spec"], first["spec"]["jobTemplate"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 6 * * *", "Europe/Berlin")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert job["activeDeadlineSeconds"] == 3 * 31 * 60 + 60 + 120
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["command"] == ["titan", "schedule", "daily_orders", "--once"]
    assert first["metadata"]["annotations"]["description"] == NASTY
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", second["metadata"]["name"])
    assert second["spec"]["startingDeadlineSeconds"] == 60


def test_airflow_gets_a_file_of_dags_that_compiles():
    """With the due instant from Airflow, which knows it."""
    text = export(
        "airflow", [("a", said(told=NASTY, catch_up="all", since=instant("2025-01-01")))], "/srv/o'rders"
    )

    compile(text, "dags.py", "exec")
    found: dict = {}

    class Dag:
        def __init__(self, **given):
            found["dag"] = given

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    body = "with DAG(" + text.partition("with DAG(")[2]
    made = {
        "DAG": Dag,
        "BashOperator": lambda **given: found.update(task=given),
        "CronTriggerTimetable": lambda cron, timezone: (cron, timezone),
        "pendulum": type("pendulum", (), {"parse": staticmethod(instant)}),
        "timedelta": timedelta,
    }
    exec(body, made)
    assert found["dag"]["schedule"] == ("0 6 * * *", "Europe/Berlin")
    assert (found["dag"]["catchup"], found["dag"]["max_active_runs"]) == (True, 1)
    assert found["dag"]["description"] == NASTY
    assert found["task"]["cwd"] == "/srv/o'rders"
    assert found["task"]["bash_command"].startswith("titan run a --as-of {{ data_interval_end.isoformat() }}")
    assert found["task"]["execution_timeout"] == timedelta(minutes=31)


@pytest.mark.parametrize(
    ("cron", "calendars"),
    [
        ("0 6 * * *", ["*-*-* 06:00:00"]),
        (
            "*/15 8-18 * * MON-FRI",
            ["Mon,Tue,Wed,Thu,Fri *-*-* 08,09,10,11,12,13,14,15,16,17,18:00,15,30,45:00"],
        ),
        ("30 4 1,15 * *", ["*-*-01,15 04:30:00"]),
        ("0 0 1 * 7", ["*-*-01 00:00:00", "Sun *-*-* 00:00:00"]),
        ("5 0 * JUN *", ["*-06-* 00:05:00"]),
        ("5/20 * * * *", ["*-*-* *:05,25,45:00"]),
    ],
)
def test_systemd_gets_the_rule_in_its_own_words(cron, calendars):
    """Days by date or by weekday, which cron runs on either, become two events."""
    text = export("systemd", [("a", said(cron))])

    assert re.findall(r"^OnCalendar=(.*)$", text, re.MULTILINE) == [
        f"{one} Europe/Berlin" for one in calendars
    ]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here to read its files with")
def test_systemd_reads_the_units_and_agrees_on_the_next_instants(tmp_path):
    """Its own checker has nothing to say, and its next five instants are ours."""
    cron = "*/20 5,17 1-7 * MON"
    text = export("systemd", [("a", said(cron, told=NASTY))], str(tmp_path))
    # What it checks is looked for on this machine; the command is not there under that name.
    for name, unit in re.findall(r"^# --- (\S+)\n((?:(?!# --- ).*\n)*)", text, re.MULTILINE):
        (tmp_path / name).write_text(unit)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("titan-a.*"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not [line for line in checked.stderr.splitlines() if "titan-a" in line], checked.stderr

    ours = []
    for event in re.findall(r"^OnCalendar=(.*)$", text, re.MULTILINE):
        listed = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=5", "--base-time=2025-03-28 00:00:00 UTC", event],
            capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip
        ours += re.findall(r"(?:Next elapse|Iter(?:ation|\.) #\d+): \w+ (\S+ \S+) UTC", listed)
        ours += re.findall(r"\(in UTC\): \w+ (\S+ \S+) UTC", listed)
    nexts = sorted({instant(f"{text.replace(' ', 'T')}Z") for text in ours})[:5]
    due = Rule(cron, "Europe/Berlin").after("2025-03-28")
    assert nexts == [next(due) for _ in range(5)]


def test_what_a_form_cannot_say_is_refused():
    """A name with a space, the last day of a month in cron, a root of two lines, an unknown form."""
    for form, job, rule, root, message in [
        ("cron", "a b", "0 6 * * *", ".", "has a name that cron cannot have"),
        ("cron", "a", "0 6 L * *", ".", "cron knows no `L`"),
        ("systemd", "a", "0 6 * * MON#2", ".", "systemd knows no `L`"),
        ("k8s", "a", "0 6 * * *", "/x\n/y", "is no folder"),
        ("airflow", "a", "0 6 * * *", "/{{ x }}", "template"),
        ("windows", "a", "0 6 * * *", ".", "no export"),
    ]:
        with pytest.raises(JobError, match=message):
            export(form, [(job, said(rule))], root)
