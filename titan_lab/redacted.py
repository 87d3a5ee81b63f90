"""What is shown instead of a password."""

from __future__ import annotations

import re
from typing import Final

# Digits before a / are a port. A password may hold an @, a / or a space by mistake: what stands before the
# last @ of the word is taken for it, or before the first @ of the line.
_IN_URL: Final = re.compile(r"(?P<head>://[^\s/@:]*:)(?!\d+/)(?:[^\s'\"<>]+(?=@)|[^\n@]+(?=@))")
_NAMED: Final = re.compile(r"(?P<head>\b(?:ssl)?pass(?:word|wd)?=)(?:'[^']*'|[^\s&'\"]+)", re.IGNORECASE)
# What is no URL, and was meant to be one.
_MEANT: Final = re.compile(r"(?P<head>^[^\s:@]*:/?[^\s:@]*:|^[^\s:@]*:|[\w.]+//[^\s/@:]*:)[^@]+(?=@)")


def redact_meant(text: str) -> str:
    """Blank what may be a password in a text that was given as a URL, and is none.

    >>> redact_meant("postgresql:/titan:s3cret@db/orders"), redact_meant("titan:s3cret@db/orders")
    ('postgresql:/titan:***@db/orders', 'titan:***@db/orders')
    """
    return _MEANT.sub(r"\g<head>***", redact(text))


def redact(text: str) -> str:
    """Blank the password of every URL in a text, also one that is given as a parameter.

    >>> redact("cannot reach postgresql://titan:s3cret@db/orders")
    'cannot reach postgresql://titan:***@db/orders'
    >>> redact("postgresql://db/orders?user=titan&password=s3cret")
    'postgresql://db/orders?user=titan&password=***'
    """
    return _NAMED.sub(r"\g<head>***", _IN_URL.sub(r"\g<head>***", text))
