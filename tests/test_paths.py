"""A store's URL means the same from every folder of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from titan_lab.paths import from_root, project_root, written


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("TITAN_ROOT", raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(("folder", "seen"), [(".", "data/a.db"), ("notebooks", "../data/a.db")])
def test_a_relative_path_starts_at_the_root_and_names_no_machine(project, monkeypatch, folder, seen):
    """From the root and from a notebook's folder it is the same file, written without anybody's home."""
    monkeypatch.chdir(project / folder)

    assert from_root("sqlite:///data/a.db") == f"sqlite:///{seen}"
    assert from_root("parquet://data/a.db") == f"parquet://{seen}"


def test_from_outside_the_path_is_absolute(project, monkeypatch):
    """Relative to a folder that has nothing to do with the project would be a riddle."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("TITAN_ROOT", str(project))

    assert from_root("sqlite:///data/a.db") == f"sqlite:///{project}/data/a.db"


def test_what_is_absolute_or_no_file_stays_as_it_is(project, monkeypatch):
    """Servers, memory, absolute files."""
    monkeypatch.chdir(project)
    for url in (
        "sqlite:////a/b.db",
        "parquet:///a",
        "memory://",
        "postgresql://u@h/db",
        "kafka://h:1/t",
        "sqlite:///",
    ):
        assert from_root(url) == url


def test_the_root_is_the_nearest_folder_that_looks_like_a_project(project, monkeypatch):
    """Or what TITAN_ROOT says; or here, when nothing looks like one."""
    monkeypatch.chdir(project / "notebooks" / "deep")
    assert project_root() == project
    monkeypatch.setenv("TITAN_ROOT", str(project / "notebooks"))
    assert project_root() == project / "notebooks"


def test_two_threads_that_write_one_file_leave_one_of_theirs_whole(tmp_path: Path) -> None:
    """The later one's; what they write is never mixed."""
    target = tmp_path / "both"
    with written(target) as one:
        one.write("one and more")
        with written(target) as other:
            other.write("other")
        assert target.read_text() == "other"
    assert target.read_text() == "one and more"
    assert [file.name for file in tmp_path.iterdir()] == ["both"]
