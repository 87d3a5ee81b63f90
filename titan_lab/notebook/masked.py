"""What is not shown unless somebody asks for it: card numbers, addresses, whatever says who somebody is.

Frames keep the data; this is about what is drawn, printed or written into a report, where it is seen by
people it was never meant for. A value is masked by the name of its field, from the list below, and a card
number also where it stands in the middle of any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

# A field is masked if its name ends in one of these: `address` is `billing_address` and `ipAddress`, too.
FIELDS: Final = (
    "access key", "address", "address line", "addresses", "api key", "bank account", "birth date",
    "birthday", "card", "card holder", "card no", "card number", "cardnumber", "cards", "cvc", "cvv",
    "date of birth", "dob", "e mail", "email", "emails", "fax", "iban", "ip", "ip addr", "ipaddress", "ips",
    "mobile", "pan", "passport", "password", "phone", "phone number", "phonenumber", "phones",
    "postal code", "postcode", "remote addr", "secret", "ssn", "street", "tax id", "telephone", "token",
    "user agent", "useragent", "zip", "zip code", "zipcode",
)  # fmt: skip
HIDDEN: Final = "(masked)"
LEAST, MOST = 13, 19  # digits of a card number, ISO/IEC 7812-1
_ADDED: set[tuple[str, ...]] = set()
_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)

# In one piece, or in groups as printed on the card. Not as the end or the middle of a longer word: an id in
# hexadecimal is full of digits.
_CARD: Final = re.compile(
    r"(?<![\w-])(?<!\d[.,])"
    r"(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{5})"
    r"(?![\w-])(?![.,]\d)"
)
_AROUND: Final = " \t\r\n\ufeff"  # what may stand around JSON, and before it the mark of some editors
_STARS: Final = re.compile(r"[*•xX#.\s-]+(\d{2,4})")  # a card that the application has masked already
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@contextmanager
def unmasked() -> Iterator[None]:
    """Show within this block what is masked otherwise; a scrubber made in it keeps showing it.

    >>> import titan_lab as tl
    >>> order = tl.open("sqlite:///data/samples/orders.db").fold(tl.Order)["550e8400-e29b-41d4-a716-446655440000"]
    >>> "192.168.1.1" in str(order.scrub().data)
    False
    >>> with tl.unmasked():
    ...     "192.168.1.1" in str(order.scrub().data)
    True
    """
    before = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(before)


def unmasked_now() -> bool:
    """Tell whether this is inside of ``unmasked``."""
    return _SHOWN.get()


def mask(*names: str) -> None:
    """Mask the fields of these names, too, wherever payloads, metadata and states are shown.

    A name counts as those of the list do: `loyalty number` is `loyaltyNumber` and `user_loyalty_number`. It
    holds until the process ends.

    >>> mask("loyalty number")
    >>> masked("L-1234", "user_loyalty_number")
    '(masked)'
    """
    _ADDED.update(_words(name) for name in names if _words(name))


def is_masked(name: str) -> bool:
    """Tell whether a field of this name is masked.

    >>> is_masked("userAgent"), is_masked("ip_address"), is_masked("tip")
    (True, True, False)
    """
    words = _words(name)
    ends = [words[start:] for start in range(len(words))]
    return not (_DECLARED.isdisjoint(ends) and _ADDED.isdisjoint(ends))


def masked(value: Any, name: str = "") -> Any:
    """Give a value as it may be shown: itself, or with what must not be seen left out.

    name: of the field it is in. Within mappings and lists, and in texts that are JSON, fields are looked at
    by their own names. Ids are never taken for card numbers.

    >>> masked({"card_number": "4111 1111 1111 1111", "note": "call", "home": {"street": "Elm 3"}})
    {'card_number': '•••• 1111', 'note': 'call', 'home': {'street': '(masked)'}}
    >>> masked("paid with 4111-1111-1111-1111, thanks")
    'paid with •••• 1111, thanks'
    """
    if _SHOWN.get() or value is None or isinstance(value, bool):
        return value
    if name and is_masked(name):
        return hidden(value)
    if isinstance(value, Mapping):
        return {_key(key): masked(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked(one, name) for one in value]
    if _words(name)[-1:] == ("id",):
        return value
    if isinstance(value, int | _Exactly):
        return hidden(value) if is_card(str(value)) else value
    if not isinstance(value, str):
        return value
    bare = value.strip(_AROUND)
    return _json(value, bare) if bare[:1] in ("{", "[", '"') else _without_cards(value)


def hidden(value: Any) -> Any:
    """Give what stands in place of a value: a card's last digits, or that it is masked.

    >>> hidden(4111111111111111), hidden("**34"), hidden("Elm Street 3"), hidden(None), hidden("")
    ('•••• 1111', '•••• 34', '(masked)', None, '')
    """
    if value is None or value == "" or value == [] or value == {}:
        return value
    if isinstance(value, str | int) and not isinstance(value, bool):
        text = str(value)
        if already := _STARS.fullmatch(text.strip()):
            return f"•••• {already[1]}"
        digits = re.sub(r"[ -]", "", text)
        if is_card(digits):
            return f"•••• {digits[-4:]}"
    return HIDDEN


def is_card(digits: str) -> bool:
    """Tell whether digits could be a card's number: 13 to 19, begun by 2 to 6, the last as Luhn has it.

    >>> is_card("4111111111111111"), is_card("4111111111111112"), is_card("1736121600000003")
    (True, False, False)
    """
    # Payment cards begin with 2 to 6; a moment counted in microseconds begins with 1.
    if not (LEAST <= len(digits) <= MOST and digits.isascii() and digits.isdigit() and digits[0] in "23456"):
        return False
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _without_cards(text: str) -> str:
    def last_four(found: re.Match[str]) -> str:
        digits = re.sub(r"\D", "", found[0])
        return f"•••• {digits[-4:]}" if is_card(digits) else found[0]

    return _CARD.sub(last_four, text)


def _key(name: Any) -> Any:
    return _without_cards(name) if isinstance(name, str) else name


def _json(text: str, bare: str) -> str:
    """Mask inside a text of JSON, and leave it alone, byte for byte, if there is nothing to mask."""
    try:
        value = json.loads(
            bare,
            parse_float=_Exactly,
            parse_int=_Exactly,
            parse_constant=_Exactly,
            object_pairs_hook=_once_each,
        )
        safe = masked(value)
        return text if safe == value else _written(safe)
    except (ValueError, RecursionError):
        # A text that only begins with a quotation mark is no JSON that broke.
        return _without_cards(text) if bare.startswith('"') else _broken(text)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field stands twice, and one of its values would be seen by nobody but the reader")
    return fields


class _Exactly(str):
    """A number as it is written: 1.10 stays 1.10."""

    __slots__ = ()


def _written(value: Any) -> str:
    if isinstance(value, _Exactly):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(str(k))}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _broken(text: str) -> str:
    """Cut a text that was to be JSON at the first masked field: where its value ends is not known."""
    for found in re.finditer(r"[\w -]+", text):
        if is_masked(found[0]):
            return f"{_without_cards(text[: found.end()])}… {HIDDEN}"
    return _without_cards(text)


@lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    """Part a name into its words, however it is written; a number at its end is none."""
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    return tuple(words)


_DECLARED: Final = frozenset(map(_words, FIELDS))
