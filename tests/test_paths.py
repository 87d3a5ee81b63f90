"""A store's URL means the same from every folder of the project."""

from __future__ import annotations

import pytest

from titan_lab.paths import from_root, project_root


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
