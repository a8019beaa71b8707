"""Text as a terminal may get it.

What a terminal would obey instead of showing is dropped: the C0 and C1 control characters but
newline and tab, and the characters that override or isolate the direction of writing (U+202A to
U+202E, U+2066 to U+2069), with which code can look different from what it is.
"""

from __future__ import annotations

__all__ = ["printable"]

_DROPPED = {
    **dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A}),
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A))),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),  # halves of pairs, which nothing can write
}


def printable(text: str) -> str:
    """The text without what a terminal would obey instead of showing."""
    return text.translate(_DROPPED)
