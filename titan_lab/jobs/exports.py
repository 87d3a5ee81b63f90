"""A job's schedule for those who have a scheduler: cron, systemd, Kubernetes, Airflow.

Airflow knows which instant a run is due for, and calls `titan run JOB --as-of` with it. The others know only
what time it is; they call `titan schedule JOB --once`, which finds the instant in the job's own rule and in
the ledger, catches up as the job says, and tries again what may pass. Names and texts are escaped for where
they go; what a name must not hold there is refused.
"""

from __future__ import annotations

import calendar
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from titan_lab.errors import JobError
from titan_lab.jobs.declaration import Declaration, Schedule

FORMS: Final = ("cron", "systemd", "airflow", "k8s")
IMAGE: Final = "titan-lab:latest"
_PLAIN: Final = re.compile(r"[\w.-]+", re.ASCII)
_WEEKDAYS: Final = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NAMES: Final = {name.upper(): place for place, name in enumerate(_WEEKDAYS[:7])}
_MONTHS: Final = {name.upper(): place for place, name in enumerate(calendar.month_abbr) if name}


@dataclass(frozen=True, slots=True)
class Job:
    """A job that has a schedule."""

    name: str
    declaration: Declaration

    @property
    def schedule(self) -> Schedule:
        """Give its schedule."""
        assert self.declaration.schedule
        return self.declaration.schedule

    @property
    def limit(self) -> int | None:
        """Give how many seconds a run may take with all its retries; None without a timeout."""
        run = self.declaration.run
        if run.timeout is None:
            return None
        start = timedelta(minutes=1)  # of the process and its kernel, and what is written at the end
        waits = run.backoff * (2**run.retries - 1)
        return int(((run.timeout + start) * (run.retries + 1) + waits).total_seconds())


def export(form: str, jobs: Sequence[tuple[str, Declaration]], root: str = ".") -> str:
    """Write the schedules of jobs for another scheduler.

    form: "cron", "systemd", "airflow" or "k8s". root: the project's folder where they will run; it is written
    as it is given. Jobs without a schedule are named in a comment.

    Raises JobError for a form there is not, and for a job, rule or root that the form cannot say.
    """
    if form not in FORMS:
        raise JobError(f"there is no export for {form!r}", hint=f"there are {', '.join(FORMS)}")
    if not root or not root.isprintable():
        raise JobError(f"{root!r} is no folder that a file of {form} can name", hint="--root /srv/orders")
    if form == "airflow" and "{" in root:
        raise JobError(f"{root!r} would be read as a template by Airflow", hint="--root /srv/orders")
    found = [Job(name, said) for name, said in jobs if said.schedule]
    for job in found:
        if not _PLAIN.fullmatch(job.name):
            raise JobError(
                f"the job {job.name!r} has a name that {form} cannot have",
                hint="rename the notebook: letters, digits, dots, dashes and underscores",
            )
    without = [json.dumps(name) for name, said in jobs if not said.schedule]
    head = f"# No schedule: {', '.join(without)}\n" if without else ""
    write = {"cron": _cron, "systemd": _systemd, "airflow": _airflow, "k8s": _k8s}[form]
    return head + write(found, root)


# --- CRON --------------------------------------------------------------------------------------------------


def _cron(jobs: list[Job], root: str) -> str:
    lines = [
        "# titan_lab: a crontab(5).",
        "# CRON_TZ is the zone of the rules below it. cronie (Fedora, RHEL, Arch) knows it; the crons of",
        "# Debian, Ubuntu and busybox do NOT: they read the rules in the machine's own zone, and start a job",
        "# early or late. It is about the right instant all the same: the last that was due by then.",
        "SHELL=/bin/sh",
    ]
    zone = None
    for job in sorted(jobs, key=lambda one: (one.schedule.rule.zone, one.name)):
        rule = job.schedule.rule
        if re.search(r"[L#]", rule.cron.upper().replace("JUL", "")):
            raise JobError(
                f"cron knows no `L` and no `#`, as {job.name} has in {rule.cron!r}", hint="--k8s, --airflow"
            )
        if rule.zone != zone:
            zone = rule.zone
            lines += ["", f"CRON_TZ={zone}"]
        lines.append(f"# {_remark(job.declaration.help or job.name)}")
        command = f"cd {shlex.quote(root)} && {_command(job)}"
        lines.append(f"{rule.cron} " + command.replace("%", "\\%"))  # a bare % is a new line to cron
    return "\n".join(lines) + "\n"


def _command(job: Job) -> str:
    return f"titan schedule {shlex.quote(job.name)} --once"


# --- SYSTEMD -----------------------------------------------------------------------------------------------


def _systemd(jobs: list[Job], root: str) -> str:
    units = [_units(job, root) for job in jobs]
    head = (
        "# titan_lab: systemd units, each below its file name, for /etc/systemd/system or\n"
        "# ~/.config/systemd/user.\n"
        "# WorkingDirectory must be absolute there: give it as --root. Then\n"
        "#   systemctl daemon-reload && systemctl enable --now NAME.timer\n"
    )
    return head + "".join(units)


def _units(job: Job, root: str) -> str:
    name, rule = f"titan-{job.name}", job.schedule.rule
    text = _unit_text(job.declaration.help or job.name)
    limit = f"{job.limit}" if job.limit else "infinity"
    missed = "false" if job.schedule.catch_up == "none" else "true"
    calendars = "".join(f"OnCalendar={one} {rule.zone}\n" for one in _calendars(job))
    return (
        f"\n# --- {name}.service\n"
        f"[Unit]\nDescription={text}\nWants=network-online.target\nAfter=network-online.target\n\n"
        f"[Service]\nType=oneshot\nWorkingDirectory={_unit_text(root)}\n"
        f"ExecStart=/usr/bin/env {_command(job)}\n"
        f"TimeoutStartSec={limit}\n"
        f"\n# --- {name}.timer\n"
        f"[Unit]\nDescription={text}\n\n"
        f"[Timer]\n{calendars}"
        f"# Once at the next start, when some were missed.\nPersistent={missed}\nAccuracySec=1s\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _calendars(job: Job) -> list[str]:
    """Write a cron rule as systemd's calendar events; days by date or by weekday make two."""
    minute, hour, day, month, weekday = job.schedule.rule.cron.upper().split()
    if re.search(r"[L#]", f"{day} {weekday}"):
        raise JobError(
            f"systemd knows no `L` and no `#`, as {job.name} has in {job.schedule.rule.cron!r}",
            hint="--k8s, --airflow",
        )
    time = f"{_field(hour, 23, {})}:{_field(minute, 59, {})}:00"
    months = _field(month, 12, _MONTHS, 1)
    by_date = f"*-{months}-{_field(day, 31, {}, 1)} {time}"
    days = [_WEEKDAYS[n] for n in sorted({n % 7 for n in _numbers(weekday, 7, _NAMES)})]
    named = "" if weekday == "*" else ",".join(days) + " "
    if day.startswith("*") or weekday.startswith("*"):  # both must agree
        return [named + by_date]
    return [by_date, f"{named}*-{months}-* {time}"]


def _field(text: str, most: int, names: dict[str, int], least: int = 0) -> str:
    return "*" if text == "*" else ",".join(f"{n:02}" for n in _numbers(text, most, names, least))


def _numbers(text: str, most: int, names: dict[str, int], least: int = 0) -> list[int]:
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            low, high = least, most
        else:
            low = names.get(first, -1) if first in names else int(first)
            high = (names[last] if last in names else int(last)) if last else most if step else low
        found |= set(range(low, high + 1, int(step or 1)))
    return sorted(found)


def _unit_text(text: str) -> str:
    return _remark(text).replace("%", "%%").rstrip("\\")  # a last backslash would join the next line


# --- KUBERNETES --------------------------------------------------------------------------------------------


def _k8s(jobs: list[Job], root: str) -> str:
    head = (
        f"# titan_lab: CronJobs. The image {IMAGE} is to hold the project, in the working directory, and\n"
        "# titan-lab[run]; TITAN_LEDGER, a PostgreSQL, comes from the secret titan-lab.\n"
    )
    return head + "".join(
        "---\n" + json.dumps(_cron_job(job, root), indent=2, ensure_ascii=False) + "\n" for job in jobs
    )


def _cron_job(job: Job, root: str) -> dict[str, object]:
    # JSON is YAML, and its quoting is beyond doubt.
    run = job.declaration.run
    name = re.sub(r"[^a-z0-9-]+", "-", f"titan-{job.name}".lower()).strip("-")[:52].rstrip("-")
    container = {
        "name": "titan",
        "image": IMAGE,
        **({} if root == "." else {"workingDir": root}),
        "command": ["titan", "schedule", job.name, "--once"],
        "envFrom": [{"secretRef": {"name": "titan-lab", "optional": True}}],
    }
    spec: dict[str, object] = {"backoffLimit": run.retries}
    if job.limit:
        spec["activeDeadlineSeconds"] = job.limit
    # A pod that is lost goes on in another one; a run that failed has had its retries.
    settled = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "titan", "operator": "In", "values": [1, 2]},
    }
    spec["podFailurePolicy"] = {"rules": [settled]}
    spec["template"] = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "annotations": {"description": job.declaration.help or job.name}},
        "spec": {
            "schedule": job.schedule.rule.cron,
            "timeZone": job.schedule.rule.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 60 if job.schedule.catch_up == "none" else 86_400,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": spec},
        },
    }


# --- AIRFLOW -----------------------------------------------------------------------------------------------


def _airflow(jobs: list[Job], root: str) -> str:
    head = (
        "# titan_lab: DAGs for Airflow 2.4 or newer; put this file into the folder of DAGs.\n"
        "# A run is about the end of its data interval, which is the instant at which it is due.\n"
        "from datetime import timedelta\n\n"
        "import pendulum\n"
        "from airflow import DAG\n"
        "from airflow.timetables.trigger import CronTriggerTimetable\n\n"
        "try:\n"
        "    from airflow.providers.standard.operators.bash import BashOperator\n"
        "except ImportError:  # Airflow 2\n"
        "    from airflow.operators.bash import BashOperator\n"
    )
    return head + "".join(_dag(job, root) for job in jobs)


def _dag(job: Job, root: str) -> str:
    run, schedule = job.declaration.run, job.schedule
    text = job.declaration.help or job.name
    since = schedule.since.isoformat() if schedule.since else "2025-01-01T00:00:00+00:00"
    # The job's own timeout ends a run first, and the record then says so.
    timeout = f"timedelta(seconds={int(run.timeout.total_seconds()) + 60})" if run.timeout else "None"
    command = (
        f"titan run {shlex.quote(job.name)} --as-of {{{{ data_interval_end.isoformat() }}}} --beyond-frontier"
    )
    return (
        f"\nwith DAG(\n"
        f"    dag_id={_py(f'titan_{job.name}')},\n"
        f"    description={_py(text)},\n"
        f"    schedule=CronTriggerTimetable({_py(schedule.rule.cron)}, timezone={_py(schedule.rule.zone)}),\n"
        f"    start_date=pendulum.parse({_py(since)}),\n"
        f"    catchup={schedule.catch_up == 'all'},\n"
        f"    max_active_runs={run.concurrency},\n"
        f"):\n"
        f"    BashOperator(\n"
        f"        task_id={_py(job.name)},\n"
        f"        bash_command={_py(command)},\n"
        f"        cwd={_py(root)},\n"
        f"        skip_on_exit_code=[6, 75],  # nothing to do, or another run for the same instant\n"
        f"        retries={run.retries},  # of whatever failed, transient or not\n"
        f"        retry_delay=timedelta(seconds={max(1, int(run.backoff.total_seconds()))}),\n"
        f"        retry_exponential_backoff=True,\n"
        f"        execution_timeout={timeout},\n"
        f"    )\n"
    )


def _py(text: str) -> str:
    return repr(text)


def _remark(text: str) -> str:
    return " ".join(text.split())
