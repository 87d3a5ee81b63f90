"""What a notebook asks for, and what it is given: typed parameters, read from the notebook's own source.

The cell tagged `parameters` is parsed with `ast`, not run and not matched with regular expressions:

    source: str = "sqlite:///data/samples/orders.db"  # where the events are
    as_of: str = "2025-01-15"                         # the instant the report is about
    top: int = 15                                     # how many of the oldest open orders to list
    dry_run: bool                                     # no default: must be given

A value that arrives as text is read by the declared type and by nothing else, so the id "00123" keeps its
zeros, "1.10" keeps its cent, and "false" is False exactly where a bool was declared.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from titan_lab.clock import instant, iso
from titan_lab.errors import JobError, nearest
from titan_lab.redacted import redact

TAG: Final = "parameters"
KINDS: Final = ("str", "int", "float", "bool", "list", "dict")

_SECRET_WORDS: Final = frozenset({"password", "passwd", "pwd", "passphrase", "secret", "token", "credential"})
_SECRET_PAIRS: Final = frozenset({("api", "key"), ("access", "key"), ("private", "key"), ("auth", "key")})
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a notebook, as its source declares it."""

    name: str
    kind: str  # one of KINDS
    annotation: str  # as written, or inferred from the default; for people
    default: Any = None  # meaningless when `required`, None when `computed`
    help: str = ""  # the comment on its line
    optional: bool = False  # None is allowed
    required: bool = False  # declared without a value
    computed: bool = False  # the default is an expression, known only to the kernel


def parameters_of(notebook: Mapping[str, Any], where: str = "the notebook") -> list[Parameter]:
    """Read what a notebook declares in its `parameters` cell, in the order written.

    Raises JobError when a code cell with the tag is no Python, or a parameter has a type that cannot travel.
    """
    cells = [c for c in notebook.get("cells", []) if c.get("cell_type") == "code"]
    tagged = [c for c in cells if TAG in c.get("metadata", {}).get("tags", [])]
    if not tagged:
        return []
    if len(tagged) > 1:
        raise JobError(
            f"{where} has {len(tagged)} cells tagged {TAG!r}", hint="keep one, before the cells that use them"
        )
    text = tagged[0]["source"]
    source = text if isinstance(text, str) else "".join(text)
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise JobError(
            f"the {TAG!r} cell of {where} is no plain Python: line {error.lineno}: {error.msg}",
            hint="keep only assignments such as `top: int = 15  # help` in it",
        ) from error
    comments = _comments(source)
    found = [_declared(s, comments.get(s.end_lineno or 0, ""), where) for s in statements]
    return [p for p in found if p is not None]


def resolve(
    parameters: list[Parameter], given: Mapping[str, Any], where: str = "the notebook"
) -> dict[str, Any]:
    """Check and convert given values; return only those, in the declared order, ready to be injected.

    Text is converted by the declared type; other values must already have it. Datetimes become ISO-8601 text
    in UTC, Decimals and UUIDs their exact text. `as_of` must be an instant and is passed on as written, or in
    UTC when it came as a datetime.

    Raises JobError for an unknown name (with near ones), a wrong type, a missing required value, or a secret.
    """
    known = {p.name: p for p in parameters}
    values: dict[str, Any] = {}
    for raw, value in given.items():
        name = raw.replace("-", "_")
        refuse_secret(name, value)
        if name not in known:
            declared = ", ".join(known) or "none"
            raise JobError(
                f"{where} has no parameter {name!r}",
                hint=nearest(name, known) or f"it declares: {declared}",
                parameter=name,
                declared=list(known),
            )
        values[name] = _convert(known[name], value)
    missing = [p.name for p in parameters if p.required and p.name not in values]
    if missing:
        raise JobError(
            f"{where} needs a value for {', '.join(map(repr, missing))}",
            hint=" ".join(f"-p {name}=..." for name in missing),
            missing=missing,
        )
    return {p.name: values[p.name] for p in parameters if p.name in values}


def refuse_secret(name: str, value: object) -> None:
    """Raise JobError for what looks like a secret: parameters are stored in clear."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    singular = [w.removesuffix("s") if w.removesuffix("s") in _SECRET_WORDS else w for w in words]
    if _SECRET_WORDS & set(singular) or _SECRET_PAIRS & set(pairwise(words)) or "apikey" in words:
        what = f"the parameter {name!r} looks like a secret"
    elif redact(str(value)) != str(value):  # as text, since it may be inside a list
        what = f"the parameter {name!r} holds a URL with a password"
    else:
        return
    raise JobError(
        f"{what}; parameters are written in clear into the executed notebook and the report",
        hint="put it into the environment, and read os.environ in the notebook",
        parameter=name,
    )


# --- READING THE CELL --------------------------------------------------------------------------------------


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _declared(statement: ast.stmt, comment: str, where: str) -> Parameter | None:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        name, value = statement.target.id, statement.value
        annotation: str | None = ast.unparse(statement.annotation)
        if isinstance(statement.annotation, ast.Constant):  # "str | None" in quotes
            annotation = str(statement.annotation.value)
    elif (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
    ):
        name, value, annotation = statement.targets[0].id, statement.value, None
    else:
        return None
    default, computed = _literal(value)
    if annotation is None:
        kind = "str" if default is None else type(default).__name__
        annotation, optional = kind, default is None
    else:
        kind, optional = kind_of(annotation)
    if kind not in KINDS:
        raise JobError(
            f"the parameter {name!r} of {where} is declared {annotation}, which cannot travel as a parameter",
            hint=f"declare one of {', '.join(KINDS)} (or `| None`); an instant, an id or an amount is a str, "
            "converted in the next cell",
            parameter=name,
        )
    refuse_secret(name, default)
    return Parameter(name, kind, annotation, default, comment, optional, value is None, computed)


def _literal(value: ast.expr | None) -> tuple[Any, bool]:
    if value is None:
        return None, False
    try:
        return ast.literal_eval(value), False
    except ValueError:
        return None, True


def kind_of(annotation: str) -> tuple[str, bool]:
    """Give the kind of an annotation (itself where it has none), and whether None is allowed."""
    text = annotation.replace(" ", "").replace("typing.", "")
    inner = re.fullmatch(r"Optional\[(.+)\]", text)
    parts = [inner[1], "None"] if inner else text.split("|")
    optional = "None" in parts
    kinds = [
        p.split("[")[0].lower() if p.startswith(("List", "Dict")) else p.split("[")[0]
        for p in parts
        if p != "None"
    ]
    return (kinds[0] if len(kinds) == 1 else annotation), optional


# --- CONVERTING VALUES -------------------------------------------------------------------------------------


def _convert(parameter: Parameter, value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "None" and parameter.optional):
        if parameter.optional or (
            parameter.default is None and not parameter.required and not parameter.computed
        ):
            return None
        raise _mistyped(parameter, value)
    if parameter.name == "as_of":
        return iso(instant(value)) if isinstance(value, date) else _checked_instant(value)
    read = {"str": _text, "int": _int, "float": _float, "bool": _bool, "list": _list, "dict": _dict}[
        parameter.kind
    ]
    converted = read(value)
    if converted is _NO:
        raise _mistyped(parameter, value)
    return converted


class _No:
    """No value of the wanted type (None is a value)."""


_NO = _No()


def _mistyped(parameter: Parameter, value: object) -> JobError:
    examples = {
        "int": "15",
        "float": "0.5",
        "bool": "true",
        "list": '["a", "b"]',
        "dict": '{"a": 1}',
        "str": "text",
    }
    return JobError(
        f"the parameter {parameter.name!r} is declared {parameter.annotation}, and {value!r} "
        f"({type(value).__name__}) is none",
        hint=f"write it as {parameter.name}={examples[parameter.kind]}"
        + (f"  ({parameter.help})" if parameter.help else ""),
        parameter=parameter.name,
        found=value,
    )


def _checked_instant(value: Any) -> str:
    instant(value)
    return str(value)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return iso(instant(value))
    if isinstance(value, date):
        return value.isoformat()
    # A number given for a text is refused: by then its leading zeros or trailing digits are already gone.
    return str(value) if isinstance(value, Decimal | UUID | PurePath) else _NO


def _int(value: Any) -> Any:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[+-]?\d+", value.strip(), re.ASCII) else _NO
    return value if isinstance(value, int) and not isinstance(value, bool) else _NO


def _float(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return _NO if "_" in value else float(value)
        except ValueError:
            return _NO
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _NO


def _bool(value: Any) -> Any:
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else _NO
    return value if isinstance(value, bool) else _NO


def _list(value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        read = (
            _json(text)
            if text.startswith("[")
            else [part.strip() for part in text.split(",") if part.strip()]
        )
        return read if isinstance(read, list) else _NO
    return _plain(list(value)) if isinstance(value, list | tuple) else _NO


def _dict(value: Any) -> Any:
    read = _json(value) if isinstance(value, str) else value
    return _plain(dict(read)) if isinstance(read, Mapping) else _NO


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_float=str)  # 1.10 inside a structure stays "1.10"
    except ValueError:
        return _NO


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    text = _text(value)
    return value if text is _NO else text
