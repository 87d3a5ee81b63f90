"""Where things lie: the project's root, store URLs that mean the same from any folder, files written whole.

A notebook runs in its own folder under JupyterLab and nbval, and in the caller's folder under other tools. A
path relative to "here" breaks in one of them, so jobs and notebooks resolve theirs against the project's
root.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

from titan_lab.errors import WriteError

ROOT_VARIABLE: Final = (
    "TITAN_ROOT"  # set for the kernel of a job; may be set by hand for a layout of one's own
)
_MARKS: Final = ("pyproject.toml", "pipelines", ".git")


def project_root(start: str | os.PathLike[str] | None = None) -> Path:
    """Find the project's folder: `$TITAN_ROOT`, else the nearest one upwards that looks like a project.

    start: where to look from; the working directory without one. A folder looks like a project when it holds
    `pyproject.toml`, `pipelines/` or `.git`. When none does, `start` itself is the answer.
    """
    if start is None and os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE]).resolve()
    here = Path(start or ".").resolve()
    return next(
        (folder for folder in (here, *here.parents) if any((folder / m).exists() for m in _MARKS)), here
    )


def from_root(url: str, root: str | os.PathLike[str] | None = None) -> str:
    """Make the path in a store's URL start at the project's root, wherever inside the project this runs.

    From within the project the answer is relative to the working directory, so that what a notebook shows and
    what an answer rests on read the same on every machine; from elsewhere it is absolute. Absolute paths,
    servers and `memory://` come back unchanged.

    >>> from_root("sqlite:///data/samples/orders.db", root="/project")
    'sqlite:////project/data/samples/orders.db'
    >>> from_root("parquet://data/samples", root="/project")
    'parquet:///project/data/samples'
    >>> from_root("parquet:///mirror", root="/project")
    'parquet:///mirror'
    >>> from_root("postgresql://db/orders", root="/project")
    'postgresql://db/orders'
    """
    # Following each scheme's own custom: three slashes are relative for sqlite (SQLAlchemy), absolute for
    # parquet.
    prefix = next((p for p in ("sqlite:///", "parquet://") if url.startswith(p)), None)
    if prefix is None:
        return url
    path = url.removeprefix(prefix)
    if not path or path.startswith("/"):
        return url
    base = Path(root).resolve() if root is not None else project_root()
    here = Path.cwd()
    target = base / path
    return (
        f"{prefix}{Path(os.path.relpath(target, here) if here.is_relative_to(base) else target).as_posix()}"
    )


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Write a text file so that it is there whole or not at all, even if the process is killed in between.

    What is written goes to a file beside it, which takes its name at the end; the folder is made if need be.
    Raises WriteError for what the file system refuses.
    """
    target = Path(path).absolute()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written: {error.strerror or error}; what was there is unchanged",
            hint="check that it is a file's path, the folder's permissions and the room on its disk",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
