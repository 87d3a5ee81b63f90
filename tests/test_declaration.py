"""What stands beside a notebook: read whole, or refused with the file's name, the place and what to write."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from titan_lab.clock import instant
from titan_lab.errors import JobError
from titan_lab.jobs.declaration import Declaration, declaration_of
from titan_lab.jobs.parameters import parameters_of

PIPELINES = sorted((Path(__file__).parents[1] / "pipelines").glob("*.ipynb"))
CELL = (
    'as_of: str = ""\ntop: int = 12  # how many\nshare: float = 0.5\nids: list = []\nzone: str | None = None'
)
DECLARED = parameters_of(
    {"cells": [{"cell_type": "code", "source": CELL, "metadata": {"tags": ["parameters"]}}]}
)


@pytest.fixture
def beside(tmp_path):
    """A reader of what is written beside a notebook."""

    def read(text: str) -> Declaration:
        tmp_path.joinpath("orders.toml").write_text(text, "utf-8")
        return declaration_of(tmp_path / "orders.ipynb", DECLARED)

    return read


def test_everything_that_can_be_said_is_read(beside):
    """Each key once."""
    said = beside("""
        help = "Every morning"
        writes = ["states.csv", "parquet://cubes/{zone}"]
        parameters.top = { type = "int", help = "the longest", value = 20 }
        parameters.share.value = 1
        schedule = { cron = "0 6 * * MON-FRI", zone = "Europe/Berlin", catch_up = "all", since = 2025-07-01 }
        run = { timeout = "30m", retries = 2, backoff = 1.5, concurrency = 3 }
        keep = { runs = 30, age = "90d" }
        notify = { webhook_env = "OPS_HOOK", on = ["ok", "died"] }
    """)

    assert said.help == "Every morning"
    assert said.writes == ("states.csv", "parquet://cubes/{zone}")
    assert said.values == {"top": 20, "share": 1.0}
    told = {p.name: p for p in said.parameters}
    assert (told["top"].default, told["top"].help, told["as_of"]) == (20, "the longest", DECLARED[0])
    assert said.schedule.rule.cron == "0 6 * * MON-FRI"
    assert (said.schedule.catch_up, said.schedule.since) == ("all", instant("2025-06-30T22:00Z"))
    assert (said.run.timeout, said.run.retries) == (timedelta(minutes=30), 2)
    assert (said.run.backoff, said.run.concurrency) == (timedelta(seconds=1.5), 3)
    assert (said.keep.runs, said.keep.age) == (30, timedelta(days=90))
    assert (said.notify.webhook_env, said.notify.on) == ("OPS_HOOK", ("ok", "died"))


def test_a_job_without_a_file_or_with_an_empty_one_has_the_defaults(beside, tmp_path):
    """No schedule, no limit, everything kept."""
    nothing = declaration_of(tmp_path / "alone.ipynb", DECLARED)

    assert nothing == beside("") == Declaration(parameters=tuple(DECLARED))
    assert (nothing.schedule, nothing.run.timeout, nothing.run.retries, nothing.notify) == (
        None,
        None,
        0,
        None,
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("halp = ''", "halp is no key", "'help'"),
        ("[run]\ntimeuot = '1m'", "[run] timeuot is no key", "'timeout'"),
        ("[parameters.tap]\nvalue = 1", "[parameters] tap is no parameter of orders.ipynb", "'top'"),
        ("[parameters.top]\ntype = 'str'", "parameters.top.type is 'str'", "own"),
        ("[parameters.zone]\ntype = 'str'", "declares str | None", "own"),
        ("[parameters.top]\nvalue = '12x'", "'top' is declared int, and '12x' (str) is none", "top=15"),
        ("[parameters.top]\nvalue = 1.5", "'top' is declared int", "top=15"),
        ("[parameters]\ntop = 3", "[parameters] top is 3, and must be a table", "{"),
        ("[schedule]\nzone = 'UTC'", "[schedule] has no cron", "cron ="),
        ("[schedule]\ncron = '0 25 * * *'", "'0 25 * * *' is no cron rule: its hour", "MON-FRI"),
        ("[schedule]\ncron = '@daily'", "is no cron rule of five fields", "MON-FRI"),
        ("[schedule]\ncron = '0 6 * * *'\nzone = 'Berlin'", "'Berlin' is no time zone", "IANA"),
        ("[schedule]\ncron = '0 6 * * *'\ncatch_up = 'last'", "[schedule] catch_up is 'last'", "latest"),
        ("[schedule]\ncron = '0 6 * * *'\nsince = 2025", "since is 2025, and must be a date", "2025-01-01"),
        ("[run]\ntimeout = 'soon'", "[run] timeout is 'soon', and must be a length of time", "30m"),
        ("[run]\ntimeout = 0", "[run] timeout is 0, and must be longer than nothing", "30m"),
        ("[run]\nretries = -1", "[run] retries is -1, and must be a whole number from 0 on", "retries = 2"),
        ("[run]\nconcurrency = true", "[run] concurrency is True", "concurrency = 2"),
        ("[keep]\nruns = 0", "[keep] runs is 0, and must be a whole number from 1 on", "runs = 2"),
        ("writes = 'states.csv'", "writes is 'states.csv', and must be a list of texts", "["),
        ("writes = ['../states.csv']", "which is no file in the notebook's `out`", "folder"),
        ("writes = ['{zon}/x.csv']", "there is no parameter 'zon'", "'zone'"),
        ("writes = ['postgresql://ann:pw@db/x']", "writes has a URL with a password", "environment"),
        ("[notify]\nwebhook_env = 'HOOK'\non = ['fail']", "no run ends like that", "'failed'"),
        ("help = ", "is no TOML", "toml.io"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_where_it_stands(beside, text, message, hint):
    """With the file's name first."""
    with pytest.raises(JobError) as error:
        beside(text)
    assert error.value.message.startswith("orders.toml")
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_url_in_place_of_the_variables_name_is_refused_and_not_repeated(beside):
    """It is a secret, and errors are kept."""
    with pytest.raises(JobError, match="is no name of an environment variable") as error:
        beside("[notify]\nwebhook_env = 'https://hooks.example/T0/s3cret'")
    assert "s3cret" not in str(error.value)


def test_a_secret_is_no_value_of_a_parameter(beside):
    """The file is read by all who read the code."""
    with pytest.raises(JobError, match="URL with a password"):
        beside("[parameters.zone]\nvalue = 'postgresql://ann:pw@db/x'")


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_a_shipped_job_says_what_it_is_for_when_it_runs_and_what_it_writes(path):
    """And nothing that its notebook does not declare."""
    said = declaration_of(path, parameters_of(json.loads(path.read_text("utf-8"))))

    assert said.help
    assert said.schedule is None or said.schedule.rule.zone
    assert said.run.timeout
    assert said.keep.runs
