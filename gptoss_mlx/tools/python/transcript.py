"""What code has shown, as the model is to read it. It does not know where messages come from.

Messages may be forged by the code: whatever they say is only text.
"""

from __future__ import annotations

import re

__all__ = ["Transcript"]

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and cursor moves of terminals


class Transcript:
    """Outputs, results and tracebacks in their order; `limit` characters are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether there was more than is kept."""
        return self._size > self._limit

    @property
    def text(self) -> str:
        """What is kept."""
        return "".join(self._parts)[: self._limit]

    def add(self, kind: str, text: str) -> None:
        """Take in what was shown: a stream's text as it is, anything else on lines of its own."""
        if kind == "stream":
            self._add(text)
        else:
            self._add_line(text)

    def _add_line(self, text: str) -> None:
        if text:
            is_in_line = self._parts and not self._parts[-1].endswith("\n")
            self._add(("\n" if is_in_line else "") + text.rstrip("\n") + "\n")

    def _add(self, text: str) -> None:
        text = ESCAPES.sub("", text)
        if text and not self.is_full:
            self._parts.append(text)
            self._size += len(text)
