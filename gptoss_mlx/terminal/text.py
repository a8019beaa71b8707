"""Text as a terminal may get it."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """The text without control characters, with which a model could steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160))
