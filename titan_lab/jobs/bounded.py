"""What a cell prints, within bounds: the first and the last of it, and between them how much is left out.

A loop that prints a line for every event fills the executed notebook, the report and the disk, and nobody
reads it.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 50_000  # characters kept from the beginning of what is printed in one go
LAST: Final = 50_000  # and up to its end
_BATCH: Final = (
    20_000  # what is copied together: a million lines, each sent by itself, are copied 1,000 times
)


class Printed:
    """Gather one stream's text; hold no more of it than is kept."""

    def __init__(self) -> None:
        self._head: str | None = None  # once there is too much: what is kept of the beginning
        self._body = ""
        self._pending: list[str] = []
        self._size = 0
        self._characters = self._lines = 0  # left out

    def add(self, text: str) -> bool:
        """Take more text; tell whether `text` should be asked for now."""
        self._pending.append(text)
        self._size += len(text)
        return self._size > _BATCH

    def text(self) -> str:
        """Give what is kept, lines whole where there are lines."""
        self._body += "".join(self._pending)
        self._pending, self._size = [], 0
        if self._head is None and len(self._body) > FIRST + LAST:
            at = self._body.rfind("\n", 0, FIRST) + 1 or FIRST
            self._head, self._body = self._body[:at], self._body[at:]
        if self._head is None:
            return self._body
        if len(self._body) > LAST:
            least = len(self._body) - LAST
            at = self._body.find("\n", least, -1) + 1 or least
            self._characters += at
            self._lines += self._body.count("\n", 0, at)
            self._body = self._body[at:]
        if not self._characters:
            return self._head + self._body
        gap = "" if self._head.endswith("\n") else "\n"
        told = f"[… {self._lines:,} lines, {self._characters:,} characters, are left out here …]"
        return f"{self._head}{gap}{told}\n{self._body}"
