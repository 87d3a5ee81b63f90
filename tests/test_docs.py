"""What the pages say is what the code does; the Python blocks themselves run where they stand."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import titan_lab
from titan_lab import cli
from titan_lab.connect import BACKENDS, from_frame, open_log
from titan_lab.event import EVENTS
from titan_lab.orders.order import Order

README = Path("README.md").read_text()
PAGES = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
# Words that begin a sentence about what a thing is, not about what it does.
NO_VERBS = {"A", "An", "The", "This", "Returns", "Represents", "Helper", "Class", "Function"}


def public_functions() -> list[tuple[str, Any]]:
    found = []
    for info in pkgutil.walk_packages(titan_lab.__path__, "titan_lab."):
        if info.name.startswith("titan_lab.testing") or info.name.endswith("__main__"):
            continue
        if info.name == "titan_lab.orders.lives":  # each of these tells a life
            continue
        module = importlib.import_module(info.name)
        for name, member in inspect.getmembers(module):
            if name.startswith("_") or getattr(member, "__module__", None) != info.name:
                continue
            if inspect.isfunction(member):
                found.append((f"{info.name}.{name}", member))
            elif inspect.isclass(member):
                for method, function in vars(member).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        found.append((f"{info.name}.{name}.{method}", function))
    return found


def test_every_public_function_says_what_it_does_with_a_verb_first() -> None:
    """An overriding method may leave it to the method it overrides."""
    silent, wordy = [], []
    for name, function in public_functions():
        text = (function.__doc__ or "").strip()
        is_method = function.__qualname__ != function.__name__
        if not text and not is_method:
            silent.append(name)
        elif text and (text.split()[0] in NO_VERBS or not text.splitlines()[0].rstrip().endswith((".", ":"))):
            wordy.append((name, text.splitlines()[0]))
    assert silent == []
    assert wordy == []


def test_the_table_of_stores_is_the_table_of_backends() -> None:
    """README and connect.BACKENDS name the same schemes, in the same order."""
    table = README.split("## Stores")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(BACKENDS)


def test_the_addresses_in_the_table_of_stores_open() -> None:
    """Each by the backend that its row names."""
    table = README.split("## Stores")[1].split("\n## ")[0]
    addresses = re.findall(r"^\| `(\w+)` \|.*\| `(.*)` \|$", table, re.MULTILINE)
    assert len(addresses) == len(BACKENDS)
    for scheme, address in addresses:
        if scheme in ("cockroachdb", "mirror", "postgresql"):  # opened in the tests that have one
            continue
        with open_log(address) as log:
            assert type(log.reader).__name__ == BACKENDS[scheme][1]


def test_the_columns_in_the_readme_are_those_of_a_state() -> None:
    """All of them, with the dtype that they have."""
    table = README.split("## What comes back")[1].split("\n## ")[0]
    told = {}
    for names, dtype in re.findall(r"^\| (`.*?`) \| ([A-Z]\w+)", table, re.MULTILINE):
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), dtype)
    states = from_frame(EVENTS.to_frame()).fold(Order).at("2025-01-01")
    found = {name: str(dtype).split("(")[0] for name, dtype in states.schema.items()}
    assert told == found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_command_prints_is_what_the_page_shows(page: Path) -> None:
    """Blocks of a terminal, at 80 columns."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for command, output in re.findall(r"^\$ titan (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            done = CliRunner(env={"COLUMNS": "80"}).invoke(cli.titan, command.split(), catch_exceptions=False)
            assert done.stdout == output


def test_every_command_is_in_the_readme() -> None:
    """Each with a line of its own."""
    commands: Any = cli.titan
    shown = README.split("## The command line")[1].split("\n## ")[0]
    for name in commands.commands:
        assert f"\ntitan {name}" in shown


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that exist."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_folder_in_the_readme_exists() -> None:
    """The map of the project is the project."""
    shown = README.split("## Where things lie")[1]
    for folder in re.findall(r"^(\S+/) {2,}", shown, re.MULTILINE):
        assert Path(folder).is_dir(), folder


def test_the_changelog_tells_the_version_of_today() -> None:
    """The newest numbered entry is the package's version."""
    newest = re.findall(r"^## \[(\d[^\]]*)\]", Path("CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == titan_lab.__version__
