"""What every test shares, and what makes the examples in README.md and docs/ run as tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent

# A busy machine is no failure; how long something takes is measured in benchmarks/, never in a test.
settings.register_profile("titan", deadline=None)
settings.load_profile("titan")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test and example in the root, wherever and in whatever terminal pytest was started."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("COLUMNS", raising=False)  # polars would draw its tables as wide


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave planted bugs to `make proofs`: they prove the tests, and must hunt until they find something."""
    for item in items:
        if "notice" in item.name:
            item.add_marker(pytest.mark.slow)


# A block ```python runs, with >>> lines compared; <!-- skip: next "why" --> before it leaves one out.
pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["_at_the_root"],
).pytest()
