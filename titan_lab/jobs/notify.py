"""Tell somebody how a run ended: a webhook that gets one POST of JSON.

The URL is a secret and comes from the environment variable that the job names; it is in no file and no
message. A hook that fails never fails the run, and what became of it is kept in the run's record.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from titan_lab.jobs.declaration import Notify
from titan_lab.redacted import redact

TIMEOUT: Final = 10.0  # seconds
_TOLD: Final = (
    "job",
    "run_id",
    "status",
    "exit_code",
    "as_of",
    "scheduled",
    "attempt",
    "started",
    "finished",
)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent on becomes a GET without its body, and its URL may lead anywhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def notify(said: Notify | None, record: Mapping[str, Any], timeout: float = TIMEOUT) -> str | None:
    """Tell a webhook how a run ended, if the job wants that told.

    Returns what became of it, as a sentence without the URL; None where nobody is to be told.
    """
    if said is None or record["status"] not in said.on:
        return None
    url = os.environ.get(said.webhook_env)
    if not url:
        return f"not told: ${said.webhook_env} is not set"
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            return f"not told: ${said.webhook_env} is no http(s) URL"
        request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
            url,
            json.dumps(message(record)).encode(),
            {"Content-Type": "application/json", "User-Agent": "titan-lab"},
            method="POST",
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
            return f"told ${said.webhook_env}: {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            return f"not told: ${said.webhook_env} answers {error.code}"
    except Exception as error:  # what a URL, a name server, a proxy or a peer may come up with
        reason = getattr(error, "reason", None) or error
        # Its words may have the URL in them, whole or in part; its kind does not.
        return f"not told: ${said.webhook_env} cannot be reached ({type(reason).__name__})"


def message(record: Mapping[str, Any]) -> dict[str, Any]:
    """Make what a webhook gets: which run, how it ended, why, and a line of text that a chat shows.

    `text` is what Slack, Mattermost and Teams' workflows read; the other keys are for programs. Parameters
    are not in it, and passwords in URLs are blanked.
    """
    error = record.get("error") or {}
    why = redact(str(error.get("message") or ""))
    told = {name: record.get(name) for name in _TOLD}
    cell = "" if error.get("cell") is None else f" in cell {error['cell'] + 1}"
    text = f"{record['job']} as of {record['as_of']}: {record['status']}{cell}"
    return told | {
        "text": f"{text}: {why}" if why else text,
        "error": why or None,
        "failing_cell": error.get("cell"),
        "outputs": record.get("outputs") or [],
    }
