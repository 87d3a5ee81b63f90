"""A webhook is told how runs end, and Prometheus how jobs stand; neither fails a run or tells a secret."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nbformat
import pytest

from titan_lab.jobs.declaration import Notify
from titan_lab.jobs.ledger import Ledger
from titan_lab.jobs.metrics import metrics
from titan_lab.jobs.notify import message, notify
from titan_lab.jobs.run import run_job

PACKAGE = str(Path(__file__).parents[1])
RECORD = {
    "job": "bad", "run_id": "r1", "status": "failed", "exit_code": 1, "as_of": "2025-01-15", "attempt": 1,
    "scheduled": "2025-01-15T00:00:00Z", "started": "2025-01-15T06:00:00Z",
    "finished": "2025-01-15T06:00:01Z", "parameters": {"top": 5}, "outputs": ["bad/2025-01-15/r1.html"],
    "error": {"cell": 3, "message": "ValueError: no answer from postgresql://ann:s3cret@db/x"},
}  # fmt: skip


class Hook(HTTPServer):
    """A real server that remembers what it got, and answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, dict, dict]] = []
        self.answer = 204
        self.silent = threading.Event()
        self.silent.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/T0/s3cret-path"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        self.server.silent.wait(5)
        self.send_response(self.server.answer)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook(monkeypatch):
    """A webhook at the address in $OPS_HOOK."""
    server = Hook()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OPS_HOOK", server.url)
    yield server
    server.silent.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_gets_one_post_with_what_happened_and_without_secrets(hook):
    """Which run, how it ended, where it failed; no parameters, and no password of a driver's message."""
    assert notify(Notify("OPS_HOOK"), RECORD) == "told $OPS_HOOK: 204"

    ((path, headers, told),) = hook.got
    assert path == "/T0/s3cret-path"
    assert headers["Content-Type"] == "application/json"
    assert told["text"] == (
        "bad as of 2025-01-15: failed in cell 4: ValueError: no answer from postgresql://ann:***@db/x"
    )
    assert (told["job"], told["status"], told["exit_code"], told["failing_cell"]) == ("bad", "failed", 1, 3)
    assert "parameters" not in told
    assert "s3cret" not in json.dumps(told)


@pytest.mark.parametrize(
    ("answer", "said"), [(500, "answers 500"), (302, "answers 302"), (404, "answers 404")]
)
def test_a_webhook_that_refuses_is_told_without_its_url(hook, answer, said):
    """A redirect is not followed: it would lose the body, and may lead anywhere."""
    hook.answer = answer

    became = notify(Notify("OPS_HOOK"), RECORD)

    assert said in became
    assert "s3cret" not in became
    assert len(hook.got) == 1


def test_a_webhook_that_is_slow_gone_or_not_named_is_told(hook, monkeypatch):
    """After a while, at once, and where the variable is not set or holds no http."""
    hook.silent.clear()
    assert (
        notify(Notify("OPS_HOOK"), RECORD, timeout=0.2)
        == "not told: $OPS_HOOK cannot be reached (TimeoutError)"
    )
    for url, said in [
        ("http://127.0.0.1:9/s3cret", "cannot be reached (ConnectionRefusedError)"),
        ("file:///etc/passwd", "is no http(s) URL"),
        ("http://[s3cret", "cannot be reached (ValueError)"),
        ("", "is not set"),
    ]:
        monkeypatch.setenv("OPS_HOOK", url)
        became = notify(Notify("OPS_HOOK"), RECORD)
        assert said in became
        assert "s3cret" not in became


def test_only_those_ends_are_told_that_the_job_names(hook):
    """By default what went wrong; nothing at all without a [notify]."""
    fine = RECORD | {"status": "ok", "error": None}

    assert notify(Notify("OPS_HOOK"), fine) is None
    assert notify(None, RECORD) is None
    assert notify(Notify("OPS_HOOK", ("ok",)), fine) == "told $OPS_HOOK: 204"
    assert hook.got[0][2]["text"] == "bad as of 2025-01-15: ok"
    assert message(fine)["error"] is None


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """A project whose job fails, and tells so."""
    (tmp_path / "pipelines").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TITAN_ROOT", raising=False)
    monkeypatch.delenv("TITAN_LEDGER", raising=False)
    monkeypatch.setenv("PYTHONPATH", PACKAGE)
    v4 = nbformat.v4
    made = v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    made.cells.append(v4.new_code_cell("fine: bool = False", metadata={"tags": ["parameters"]}))
    made.cells.append(v4.new_code_cell("from titan_lab.notebook.glue import glue\nglue(rows=7)\nassert fine"))
    nbformat.write(made, tmp_path / "pipelines" / "bad.ipynb")
    (tmp_path / "pipelines" / "bad.toml").write_text('[notify]\nwebhook_env = "OPS_HOOK"')
    return tmp_path


def test_a_run_tells_its_hook_and_prometheus_and_keeps_what_became_of_it(bad, hook):
    """The hook's end is in the run's record; the job's in the text file, by Prometheus' own reading."""
    failed = run_job("bad", scheduled="2025-01-15")

    assert json.loads(failed.record.read_text())["notified"] == "told $OPS_HOOK: 204"
    assert hook.got[0][2]["run_id"] == failed.run_id
    hook.answer = 500
    again = run_job("bad", scheduled="2025-01-15")
    assert (again.status, again.exit_code) == ("failed", 1)
    assert json.loads(again.record.read_text())["notified"] == "not told: $OPS_HOOK answers 500"
    assert "s3cret" not in "".join(p.read_text() for p in bad.rglob("*.json"))
    assert len(hook.got) == 2

    fine = run_job("bad", {"fine": True}, scheduled="2025-01-16")
    assert len(hook.got) == 2
    read = samples((bad / "runs" / "metrics.prom").read_text())
    assert read["titan_job_rows", "bad", None] == 7
    assert read["titan_job_status", "bad", "ok"] == 1
    assert read["titan_job_status", "bad", "failed"] == 0
    assert read["titan_job_last_run_duration_seconds", "bad", None] == fine.took.total_seconds()
    assert read["titan_job_last_success_timestamp_seconds", "bad", None] == fine.finished.timestamp()
    assert read["titan_job_last_success_scheduled_timestamp_seconds", "bad", None] == 1736985600


def samples(text: str) -> dict:
    parser = pytest.importorskip("prometheus_client.parser")
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation
        assert family.type == "gauge"
        for one in family.samples:
            found[one.name, one.labels["job"], one.labels.get("status")] = one.value
    return found


def test_a_failure_keeps_the_last_success_and_a_job_that_never_ran_is_not_there(tmp_path):
    """So that an alert can say for how long it has not succeeded; names are escaped."""
    ledger = Ledger(runs=tmp_path)
    name = 'a "quoted"\\name'
    for number, (status, code) in enumerate([("ok", 0), ("failed", 1)], 1):
        record = RECORD | {
            "job": name, "run_id": f"r{number}", "status": status, "exit_code": code,
            "results": {"rows": number},
            "started": f"2025-01-1{number}T06:00:00Z", "finished": f"2025-01-1{number}T06:00:10Z",
            "scheduled": f"2025-01-1{number}T00:00:00Z", "revision": None, "pid": 1, "host": "h",
        }  # fmt: skip
        ledger.begin(record)
        ledger.finish(record)

    read = samples(metrics(ledger, [name, "never"]))

    assert read["titan_job_last_success_timestamp_seconds", name, None] == 1736575210
    assert read["titan_job_rows", name, None] == 1
    assert read["titan_job_status", name, "failed"] == 1
    assert not [key for key in read if key[1] == "never"]
