"""What stands beside a notebook: NAME.toml, the job's own lines about schedule, limits and what it keeps.

    help = "What is open, what moved and what waits, every morning"
    writes = ["states.csv"]                 # files in the notebook's `out`, or the URL of a store

    [parameters.top]                        # a parameter of the notebook
    type = "int"                            # must be the type that the notebook declares
    value = 20                              # instead of the notebook's default

    [schedule]
    cron = "0 6 * * *"                      # the fields of cron, in the zone below
    zone = "Europe/Berlin"
    catch_up = "latest"                     # what was missed: "all", only the "latest", or "none"
    since = 2025-01-01                      # nothing before it is due

    [run]
    timeout = "30m"
    retries = 2                             # for what may pass by itself: a timeout, a lost connection
    backoff = "30s"                         # before the first retry; doubled before each further one
    concurrency = 1                         # runs of this job at once

    [keep]
    runs = 30                               # the newest ones, and
    age = "90d"                             # those younger than this

    [notify]
    webhook_env = "OPS_WEBHOOK"             # the variable that holds the URL
    on = ["failed", "timeout", "died"]

Everything is optional, and so is the file. A key that is not above is an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, TypeAlias

from titan_lab.clock import duration, instant
from titan_lab.errors import InstantError, JobError, nearest
from titan_lab.jobs.cron import Rule
from titan_lab.jobs.parameters import Parameter, kind_of, resolve
from titan_lab.redacted import redact

CatchUp: TypeAlias = Literal["all", "latest", "none"]
CATCH_UP: Final = ("all", "latest", "none")
TOLD: Final = ("ok", "nothing", "failed", "timeout", "died", "interrupted")  # what a webhook may be told of


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is due, and what becomes of what was missed."""

    rule: Rule
    catch_up: CatchUp = "latest"
    since: datetime | None = None  # aware UTC; instants before it are not due


@dataclass(frozen=True, slots=True)
class Running:
    """How long a run may take, and what is done when one fails by circumstance."""

    timeout: timedelta | None = None  # for the whole run; None waits for ever
    retries: int = 0  # after the first attempt, for transient errors only
    backoff: timedelta = timedelta(seconds=30)  # before the first retry; doubled before each further one
    concurrency: int = 1  # runs of this job at once


@dataclass(frozen=True, slots=True)
class Keep:
    """Which runs keep their files: the newest `runs`, and those younger than `age`; None does not limit."""

    runs: int | None = None
    age: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Notify:
    """Whom to tell how a run ended."""

    webhook_env: str  # the name of the environment variable that holds the URL: a URL is a secret
    on: tuple[str, ...] = ("failed", "timeout", "died")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a job's NAME.toml says; what it does not say is at its default."""

    help: str = ""
    parameters: tuple[Parameter, ...] = ()  # the notebook's, with help and value of the file in place
    values: Mapping[str, Any] = field(default_factory=dict)  # of parameters, checked, ready to be injected
    schedule: Schedule | None = None
    run: Running = Running()
    keep: Keep = Keep()
    writes: tuple[str, ...] = ()  # names of files in `out`, or store URLs; {name} is a parameter's value
    notify: Notify | None = None


def declaration_of(notebook: Path, parameters: Iterable[Parameter]) -> Declaration:
    """Read what stands beside a notebook, and hold it to the parameters that the notebook declares.

    Raises JobError, naming the file, for a key or a parameter it cannot have (with near ones), a value of the
    wrong type, and whatever cannot be read.
    """
    declared = {p.name: p for p in parameters}
    path = notebook.with_suffix(".toml")
    if not path.exists():
        return Declaration(parameters=tuple(declared.values()))
    try:
        found = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(
            f"{path.name} is no TOML: {error}", hint="https://toml.io tells how it is written"
        ) from None
    try:
        return _declaration(_Table(found), declared, notebook.name)
    except (JobError, InstantError) as error:
        raise JobError(
            f"{path.name}: {error.message}", hint=error.hint, **error.data | {"file": path}
        ) from error


def _declaration(top: _Table, declared: Mapping[str, Parameter], notebook: str) -> Declaration:
    top.only("help", "parameters", "schedule", "run", "keep", "writes", "notify")
    lines = top.table("parameters")
    lines.only(*declared, what=f"parameter of {notebook}")
    told: dict[str, Parameter] = dict(declared)
    values: dict[str, Any] = {}
    for name in lines.found:
        told[name], given = _parameter(lines.table(name), declared[name], notebook)
        values |= given
    schedule = top.table("schedule") if "schedule" in top.found else None
    notify = top.table("notify") if "notify" in top.found else None
    return Declaration(
        help=top.text("help"),
        parameters=tuple(told.values()),
        values=values,
        schedule=_schedule(schedule) if schedule else None,
        run=_running(top.table("run")),
        keep=_keep(top.table("keep")),
        writes=tuple(_written(w, declared) for w in top.texts("writes")),
        notify=_notify(notify) if notify else None,
    )


def _parameter(line: _Table, declared: Parameter, notebook: str) -> tuple[Parameter, dict[str, Any]]:
    line.only("type", "help", "value")
    said = line.text("type")
    if said and kind_of(said) != (declared.kind, declared.optional):
        raise JobError(
            f"{line.name}.type is {said!r}, and {notebook} declares {declared.annotation}",
            hint="a type may be left out: the notebook's own counts",
            parameter=declared.name,
        )
    told = replace(declared, help=line.text("help") or declared.help)
    if "value" not in line.found:
        return told, {}
    value = line.found["value"]
    if isinstance(value, Decimal) and declared.kind == "float":
        value = float(value)
    given = resolve([declared], {declared.name: value}, notebook)
    return replace(told, default=given[declared.name], required=False, computed=False), given


def _schedule(table: _Table) -> Schedule:
    table.only("cron", "zone", "catch_up", "since")
    if not (cron := table.text("cron")):
        raise JobError("[schedule] has no cron", hint='cron = "0 6 * * *"')
    rule = Rule(cron, table.text("zone") or "UTC")
    catch_up = table.one_of("catch_up", CATCH_UP, "latest")
    since = table.found.get("since")
    if since is not None and not isinstance(since, date | str):
        raise table.mistyped("since", "a date or an instant", "2025-01-01")
    return Schedule(rule, catch_up, None if since is None else instant(since, rule.zone))  # type: ignore[arg-type]


def _running(table: _Table) -> Running:
    table.only("timeout", "retries", "backoff", "concurrency")
    backoff = table.span("backoff")
    return Running(
        timeout=table.span("timeout"),
        retries=table.count("retries", 0, least=0) or 0,
        backoff=Running().backoff if backoff is None else backoff,
        concurrency=table.count("concurrency", 1) or 1,
    )


def _keep(table: _Table) -> Keep:
    table.only("runs", "age")
    return Keep(table.count("runs", None), table.span("age"))


def _notify(table: _Table) -> Notify:
    table.only("webhook_env", "on")
    name = table.text("webhook_env")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        # The value is not repeated: somebody may have put the URL itself here.
        raise JobError(
            "[notify] webhook_env is no name of an environment variable",
            hint='a URL is a secret: export OPS_WEBHOOK=https://..., and write webhook_env = "OPS_WEBHOOK"',
        )
    on = table.texts("on")
    for status in on:
        if status not in TOLD:
            raise JobError(
                f"[notify] on has {status!r}, and no run ends like that",
                hint=nearest(status, TOLD) or f"there are {', '.join(TOLD)}",
            )
    return Notify(name, tuple(on)) if "on" in table.found else Notify(name)


def _written(text: str, declared: Mapping[str, Parameter]) -> str:
    if redact(text) != text:
        raise JobError("writes has a URL with a password", hint="leave the password to the environment")
    for name in re.findall(r"\{([^{}]*)\}", text):
        if name not in declared:
            raise JobError(
                f"writes has {text!r}, and there is no parameter {name!r}",
                hint=nearest(name, declared) or f"there are {', '.join(declared) or 'none'}",
            )
    if "://" not in text and not text.startswith("{"):
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts:
            raise JobError(
                f"writes has {text!r}, which is no file in the notebook's `out`",
                hint="name a file of the folder `out`, or a store by its URL",
            )
    return text


class _Table:
    """A table of the file, its values looked at one by one."""

    def __init__(self, found: Mapping[str, Any], name: str = "") -> None:
        self.found, self.name = found, name

    def only(self, *known: str, what: str = "key") -> None:
        """Refuse a key that is none of these."""
        for key in self.found:
            if key not in known:
                raise JobError(
                    f"{self.said(key)} is no {what}",
                    hint=nearest(key, known) or f"there are: {', '.join(known) or 'none'}",
                    key=key,
                    known=list(known),
                )

    def said(self, key: str) -> str:
        """Name a key as people find it in the file."""
        return f"[{self.name}] {key}" if self.name else key

    def mistyped(self, key: str, what: str, example: str) -> JobError:
        """Make the error of a value that is of another kind."""
        return JobError(
            f"{self.said(key)} is {self.found[key]!r}, and must be {what}", hint=f"{key} = {example}"
        )

    def table(self, key: str) -> _Table:
        """Give a table within this one, empty where there is none."""
        value = self.found.get(key, {})
        if not isinstance(value, Mapping):
            raise self.mistyped(key, "a table", "{ ... }")
        return _Table(value, f"{self.name}.{key}" if self.name else key)

    def text(self, key: str) -> str:
        """Give a text, empty where there is none."""
        value = self.found.get(key, "")
        if not isinstance(value, str):
            raise self.mistyped(key, "a text", '"..."')
        return value

    def texts(self, key: str) -> list[str]:
        """Give a list of texts, empty where there is none."""
        value = self.found.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.mistyped(key, "a list of texts", '["..."]')
        return value

    def one_of(self, key: str, known: tuple[str, ...], default: str) -> str:
        """Give one of a few words."""
        value = self.found.get(key, default)
        if value not in known:
            hint = nearest(str(value), known) or f"there are {', '.join(map(repr, known))}"
            raise JobError(f"{self.said(key)} is {value!r}", hint=hint)
        return str(value)

    def count(self, key: str, default: int | None, least: int = 1) -> int | None:
        """Give a whole number that is not below the least."""
        value = self.found.get(key, default)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise self.mistyped(key, f"a whole number from {least} on", str(max(least, 2)))
        return value

    def span(self, key: str) -> timedelta | None:
        """Give a length of time: text such as "30m", or seconds."""
        if key not in self.found:
            return None
        value = self.found[key]
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            value = timedelta(seconds=float(value))
        if not isinstance(value, str | timedelta):
            raise self.mistyped(key, "a length of time", '"30m"')
        try:
            length = duration(value)
        except InstantError:
            raise self.mistyped(key, "a length of time", '"30m"') from None
        if length <= timedelta(0):
            raise self.mistyped(key, "longer than nothing", '"30m"')
        return length
