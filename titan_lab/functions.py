"""Write a function down, with all that it rests on, so that any change of it is noticed."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import polars as pl

UNTOLD = "cannot be told: "  # begins what stands for a value that could change without a trace
PLAIN = (int, float, str, bytes, type(None), type(...), Decimal, date, timedelta, re.Pattern, pl.DataType)
BY_NAME = (type, ModuleType, BuiltinFunctionType)


def told(value: Any, above: tuple[Any, ...] = (), seen: set[int] | None = None) -> str:
    """Write a value down, the same in every process: of a function its code, and what that code refers to.

    Modules and classes are told by their names alone. What is neither these nor plain is UNTOLD.
    """
    seen = set() if seen is None else seen
    if any(value is one for one in above) or id(value) in seen:
        return "again"
    inside = ((*above, value), seen)
    if isinstance(value, CodeType):
        consts = ", ".join(told(const, *inside) for const in value.co_consts)
        return f"{value.co_code!r}{value.co_names!r}({consts})"
    if isinstance(value, FunctionType):
        seen.add(id(value))  # functions that call each other are each told once
        held, around = inspect.getclosurevars(value).nonlocals, value.__globals__
        named = {name: around[name] for name in _names(value.__code__) if name in around}
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, held, named)
        return f"{value.__qualname__}({', '.join(told(part, *inside) for part in parts)})"
    if isinstance(value, functools.partial):
        return f"partial{told((value.func, value.args, value.keywords), *inside)}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{told(k, *inside)}: {told(v, *inside)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(told(one, *inside) for one in value)}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(told(one, *inside) for one in value))}}}"
    if isinstance(value, BY_NAME):
        return f"{getattr(value, '__module__', '')}.{value.__name__}"
    return repr(value) if isinstance(value, PLAIN) else f"{UNTOLD}{type(value).__qualname__}"


def digest(text: str) -> str:
    """Shorten what was told to twelve characters, and say beside them what could not be told."""
    untold = sorted(set(re.findall(rf"{UNTOLD}[\w.<>]+", text)))
    return ", ".join([hashlib.sha256(text.encode()).hexdigest()[:12], *untold])


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names(const)
