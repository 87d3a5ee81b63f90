"""The door through which papermill finds our engine: `papermill --engine titan in.ipynb out.ipynb`.

Papermill loads every engine while it is itself being imported. The engine imports papermill, so one of the
two would come upon the other half made; this module imports neither, and passes each question on when it is
asked.
"""

from __future__ import annotations

from typing import Any


class _Door:
    def __getattr__(self, name: str) -> Any:
        from titan_lab.jobs.engine import TitanEngine

        return getattr(TitanEngine, name)


engine = _Door()
