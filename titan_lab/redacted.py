"""What is shown instead of a password."""

from __future__ import annotations

import re
from typing import Final

# A password may hold an @, a / or a space by mistake: what stands before the last @ of the word is taken for
# it, or before the first @ of the line. Better that too much is blanked than too little.
_IN_URL: Final = re.compile(r"(?P<head>://[^\s/@:]*:)(?:[^\s'\"<>]+(?=@)|[^\n@]+(?=@))")
_NAMED: Final = re.compile(r"(?P<head>\b(?:ssl)?password=)(?:'[^']*'|[^\s&'\"]+)", re.IGNORECASE)


def redact(text: str) -> str:
    """Blank the password of every URL in a text, also one that is given as a parameter.

    >>> redact("cannot reach postgresql://titan:s3cret@db/orders")
    'cannot reach postgresql://titan:***@db/orders'
    >>> redact("postgresql://db/orders?user=titan&password=s3cret")
    'postgresql://db/orders?user=titan&password=***'
    """
    return _NAMED.sub(r"\g<head>***", _IN_URL.sub(r"\g<head>***", text))
