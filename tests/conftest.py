"""What several files of tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from titan_lab import decoding

sys.path.insert(0, str(Path(__file__).parent))
from servers import postgres_url, scratch_database


@pytest.fixture(autouse=True)
def _few_payloads_are_columns_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode histories of a few events as columns, as long ones are, or no law would ever look at that."""
    monkeypatch.setattr(decoding, "FEW", 0)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Give the URL of a PostgreSQL server, one for the whole run."""
    with postgres_url() as url:
        yield url


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """Give the URL of an empty database, which is dropped after the test."""
    with scratch_database(postgres) as url:
        yield url
