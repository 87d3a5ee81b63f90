"""Declare what a payload holds, and decode payloads by that declaration.

    class Item(Record):
        product_id: str
        quantity: int
        price: Decimal

    class OrderCreated(EventType):
        user_id: str
        items: list[Item]
        total: Decimal | None = None

The name of the class is the `event_type` in the store; set ``event_type: ClassVar[str] = "order.created"``
where it differs. ``X | None`` or a default makes a field optional, and a null counts as absent.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, dataclass_transform

from titan_lab.errors import DeclarationError
from titan_lab.kinds import Flag, Kind, Moment, Money, Number, Text, Whole
from titan_lab.shapes import Many, Nested, Slot

SCALARS: dict[type, Kind] = {
    str: Text(),
    int: Whole(),
    float: Number(),
    Decimal: Money(),
    bool: Flag(),
    datetime: Moment(),
}


def _slots(cls: type) -> typing.Iterator[Slot]:
    # A Record may be declared inside a function or a cell; its annotations name what is local there.
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_name in ("__init_subclass__", "_slots"):
        frame = frame.f_back
    try:
        hints = typing.get_type_hints(cls, localns=dict(frame.f_locals))
    except NameError as error:
        raise DeclarationError(
            f"{cls.__name__}: {error}", hint="declare or import the type above this class"
        ) from error
    for field in dataclasses.fields(cls):
        kind, optional = _kind(hints[field.name], f"{cls.__name__}.{field.name}")
        has_default = field.default is not dataclasses.MISSING
        default = field.default if has_default else None
        yield Slot(field.name, kind, required=not (optional or has_default), default=default)


def _kind(hint: Any, where: str) -> tuple[Kind, bool]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1 and len(arguments) == 2:
            return _kind(inner[0], where)[0], True
    elif origin is list and len(arguments) == 1:
        return Many(_kind(arguments[0], where)[0]), False
    elif isinstance(hint, type) and issubclass(hint, Record):
        return hint.shape, False
    elif hint in SCALARS:
        return SCALARS[hint], False
    raise DeclarationError(
        f"{where} is declared as {hint!r}, which no payload field can be",
        hint="use str, int, float, Decimal, bool, datetime, a Record, list[...] of these, or `... | None`",
    )


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Declare an object inside a payload, field by field, as a frozen dataclass."""

    shape: ClassVar[Nested]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        cls.shape = Nested(tuple(_slots(cls)), make=cls)


class EventType(Record):
    """Declare one type of event by the payload it carries."""

    event_type: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "event_type" not in vars(cls):
            cls.event_type = cls.__name__
        super().__init_subclass__(**kwargs)
