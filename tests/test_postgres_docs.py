"""What docs/postgres.md shows, run against a server."""

from __future__ import annotations

import doctest
import re
from pathlib import Path


def test_the_pages_examples_hold(database: str) -> None:
    """With the addresses of a server of ours; the blocks are one session."""
    page = Path("docs/postgres.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    code = re.sub(r"postgresql://\w+@db/titan", database, "\n".join(blocks))
    test = doctest.DocTestParser().get_doctest(code, {}, "postgres.md", "docs/postgres.md", 0)
    failed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=failed.append, clear_globs=False)
    assert failed == []
    test.globs["log"].close()


def test_the_pages_types_are_those_that_are_read() -> None:
    """The table of columns says what `columns.TYPES` allows."""
    from titan_lab.backends.columns import TYPES

    page = Path("docs/postgres.md").read_text()
    short = {"character varying": "varchar", "timestamp with time zone": "timestamptz"}
    for name, kinds in TYPES.items():
        (told,) = re.findall(rf"^\| (?:\w+, )?{name}(?:, \w+)? \| (.*) \|$", page, re.MULTILINE)
        for kind in kinds:
            assert short.get(kind, kind) in told
