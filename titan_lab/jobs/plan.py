"""What a run will be, settled before anything is started or written: what, with what, about when, and where.

Every mistake that can be known beforehand is told here: a job nobody has, a parameter that does not fit, an
instant that has not come yet or that the source does not reach, a kernel that is not installed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from titan_lab.clock import Instant, instant, iso
from titan_lab.errors import JobError, MissingExtra, TitanError, TooSoon, nearest
from titan_lab.jobs.declaration import Declaration, declaration_of
from titan_lab.jobs.parameters import Parameter, parameters_of, resolve
from titan_lab.paths import ROOT_VARIABLE, from_root, project_root
from titan_lab.redacted import redact

NATIVE: Final = "python3"  # the kernel that is always there: this very interpreter


@dataclass(frozen=True, slots=True)
class Plan:
    """One run to be: nothing of it exists yet."""

    job: str
    source: Path  # the notebook
    sha256: str  # of the notebook as it was read
    declaration: Declaration  # what stands beside it
    declared: list[Parameter]
    given: dict[str, Any]  # values for the notebook, checked and converted; `as_of` filled in, `out` not yet
    as_of: str  # the instant the run is about, as it was written
    scheduled: datetime  # the same as an instant; where a job declares no `as_of`, the one it was due for
    runs: Path  # the folder of all runs
    root: Path  # the project's
    kernel: str
    now: datetime
    basis: dict[str, Any] | None = field(default=None)  # what the source holds, where it was looked at

    @property
    def folder(self) -> Path:
        """Give the folder where the runs of this job for this instant lie."""
        slug = iso(self.scheduled).removesuffix("T00:00:00Z").replace(":", "-")  # Windows knows no colon
        return self.runs / self.job / slug

    def values(self, out: Path) -> dict[str, Any]:
        """Give what is injected into the notebook, whose own folder is `out`."""
        fills = any(p.name == "out" for p in self.declared) and not self.given.get("out")
        return self.given | ({"out": str(out.resolve())} if fills else {})


def jobs(pipelines: str | os.PathLike[str] = "pipelines") -> list[str]:
    """List the jobs by name, sorted: the notebooks of a folder."""
    return sorted(p.stem for p in under_root(pipelines).glob("*.ipynb"))


def parameters_of_job(job: str, *, pipelines: str | os.PathLike[str] = "pipelines") -> list[Parameter]:
    """Read which parameters a job declares: names, types, defaults and help, in the order of its source."""
    return list(declaration_of_job(job, pipelines=pipelines).parameters)


def declaration_of_job(job: str, *, pipelines: str | os.PathLike[str] = "pipelines") -> Declaration:
    """Read what stands beside a job's notebook, in NAME.toml, held to what the notebook declares."""
    source = find(job, pipelines)
    return declaration_of(source, parameters_of(_load(source.read_bytes(), source), source.name))


def plan_of(
    job: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    *,
    pipelines: str | os.PathLike[str] = "pipelines",
    out: str | os.PathLike[str] = "runs",
    scheduled: Instant | None = None,
    beyond_frontier: bool = False,
) -> Plan:
    """Settle what a run will be. Arguments as those of `run_job`; writes nothing, starts nothing.

    Raises JobError for a job nobody has, a notebook that cannot be read or whose kernel is not installed, and
    parameters that do not fit; TooSoon for an `as_of` in the future, or one that was asked for by name and
    lies beyond the frontier of the job's `source`.
    """
    now = datetime.now(UTC)
    source = find(job, pipelines)
    content = source.read_bytes()
    notebook = _load(content, source)
    declaration = declaration_of(source, parameters_of(notebook, source.name))
    declared = list(declaration.parameters)
    given = resolve(declared, {**declaration.values, **(parameters or {})}, source.name)
    has_as_of = any(p.name == "as_of" for p in declared)
    due = iso(instant(scheduled)) if scheduled is not None else None
    if has_as_of and due and not given.get("as_of"):
        given["as_of"] = due
    asked = bool(given.get("as_of"))
    default = next((p.default for p in declared if p.name == "as_of"), None)
    as_of = str(given.get("as_of") or default or due or iso(now.replace(microsecond=0)))
    if has_as_of:
        given["as_of"] = as_of
    root = Path(os.environ[ROOT_VARIABLE]) if os.environ.get(ROOT_VARIABLE) else project_root(source.parent)
    plan = Plan(
        job=source.stem,
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        declaration=declaration,
        declared=declared,
        given=given,
        as_of=as_of,
        scheduled=instant(due or as_of),
        runs=under_root(out),
        root=root,
        kernel=_kernel(notebook, source),
        now=now,
    )
    if instant(as_of) > now:
        raise TooSoon(
            f"{as_of} has not come yet: it is {iso(now.replace(microsecond=0))}",
            hint=f"--as-of {iso(now.replace(microsecond=0))}",
            as_of=as_of,
        )
    return replace(plan, basis=_source(plan, beyond_frontier)) if asked else plan


def under_root(path: str | os.PathLike[str]) -> Path:
    """Give a path as it is when it is absolute, and from the project's root on when it is not."""
    return Path(path) if Path(path).is_absolute() else project_root() / path


def find(job: str | os.PathLike[str], pipelines: str | os.PathLike[str]) -> Path:
    """Find the notebook of a job: its name in a folder, or its path. Raises JobError without one."""
    text = os.fspath(job)
    if text.endswith(".ipynb") or os.sep in text:
        path = Path(text).resolve()
        if path.is_file():
            return path
        raise JobError(f"there is no notebook {text}", hint=f"looked for {path}")
    folder = under_root(pipelines)
    path = folder / f"{text}.ipynb"
    if path.is_file():
        return path.resolve()
    known = jobs(folder)
    raise JobError(
        f"there is no job {text!r} in {folder}",
        hint=nearest(text, known)
        or (f"the jobs are: {', '.join(known)}" if known else "the folder has no notebooks"),
        job=text,
        known=known,
    )


def _load(content: bytes, source: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(content)
        if not isinstance(notebook, dict) or not isinstance(notebook["cells"], list):
            raise TypeError("it has no list of cells")
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"{source} is no notebook: {error}", hint="open it in JupyterLab and save it in format 4"
        ) from error
    return notebook


def _kernel(notebook: Mapping[str, Any], source: Path) -> str:
    name = str(notebook.get("metadata", {}).get("kernelspec", {}).get("name") or NATIVE)
    if name == NATIVE:
        return name
    try:
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise MissingExtra("jupyter_client", "run", "running a notebook") from error
    installed = sorted({NATIVE, *KernelSpecManager().find_kernel_specs()})
    if name not in installed:
        raise JobError(
            f"{source.name} wants the kernel {name!r}, which is not installed here",
            hint=f"installed are: {', '.join(installed)}; choose one in JupyterLab and save the notebook",
            kernel=name,
            installed=installed,
        )
    return name


def _source(plan: Plan, beyond_frontier: bool) -> dict[str, Any] | None:
    """Look at the job's `source`, where it declares one and it opens here; the kernel may reach others."""
    default = next((p.default for p in plan.declared if p.name == "source"), None)
    url = plan.given.get("source") or default
    if not isinstance(url, str) or "://" not in url:
        return None
    from titan_lab.connect import open_log  # loads polars, which the trivial job does not need

    try:
        with open_log(from_root(url, plan.root)) as log:
            frontier = log.frontier
    except (TitanError, OSError):
        return None  # the notebook will say what is wrong with it, with all it knows
    if frontier.instant and instant(plan.as_of) > frontier.instant and not beyond_frontier:
        raise TooSoon(
            f"{plan.as_of} lies beyond {redact(url)}, which is complete up to {frontier}",
            hint=f"--as-of {iso(frontier.instant)}, or --beyond-frontier if nothing is missing",
            as_of=plan.as_of,
            frontier=frontier.instant,
        )
    return {"source": redact(url), "frontier": str(frontier)}
