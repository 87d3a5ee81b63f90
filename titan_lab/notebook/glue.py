"""Hand results out of a running notebook: into the run's record and the foot of its report.

    glue(open_orders=1412, basis=book.basis)

The values travel as one output of a media type of their own, so they are kept in the executed notebook
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from typing import Any, Final

from titan_lab.clock import iso
from titan_lab.errors import MissingExtra

MEDIA_TYPE: Final = "application/vnd.titan-lab.results+json"


def glue(**values: object) -> None:
    """Record named results of this notebook; a later value of the same name replaces an earlier one.

    Numbers, text, booleans and None stay what they are; instants become ISO-8601 in UTC; dataclasses their
    fields; amounts and every other object their exact text.
    """
    try:
        from IPython.display import display
    except ImportError as error:
        raise MissingExtra("ipython", "run", "recording results of a notebook") from error
    plain = {name: _plain(value) for name, value in values.items()}
    display({MEDIA_TYPE: plain, "text/plain": f"recorded: {', '.join(plain)}"}, raw=True)


def glued(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what an executed notebook recorded, in the order of its cells."""
    found: dict[str, Any] = {}
    for cell in notebook.get("cells", []):
        for output in cell.get("outputs", []):
            found.update(output.get("data", {}).get(MEDIA_TYPE, {}))
    return found


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Iterable):
        return [_plain(v) for v in value]
    return str(value)
