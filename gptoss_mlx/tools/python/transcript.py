"""What code has shown, as the model is to read it. It does not know where messages come from.

Messages may be forged by the code: whatever they hold is taken as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

__all__ = ["Transcript"]

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and cursor moves of terminals
OMITTED = ("image/", "video/", "audio/")


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

    def add(self, kind: str, content: Mapping[str, object]) -> None:
        """Take in a message of Jupyter's iopub channel."""
        if kind == "stream":
            self._add(str(content.get("text", "")))
        elif kind in ("execute_result", "display_data"):
            self._add_line(_shown(content.get("data")))
        elif kind == "error":
            lines = content.get("traceback")
            if isinstance(lines, list):
                self._add_line("\n".join(map(str, cast("list[object]", lines))))

    def _add_line(self, text: str) -> None:
        if text:
            is_in_line = self._parts and not self._parts[-1].endswith("\n")
            self._add(("\n" if is_in_line else "") + text.rstrip("\n") + "\n")

    def _add(self, text: str) -> None:
        text = ESCAPES.sub("", text)
        if text and not self.is_full:
            self._parts.append(text)
            self._size += len(text)


def _shown(data: object) -> str:
    """The text of a result; of a picture, that there was one."""
    if not isinstance(data, dict):
        return ""
    kinds = cast("dict[str, object]", data)
    lines = [str(kinds["text/plain"])] if "text/plain" in kinds else []
    lines += [
        f"[{kind} omitted; save it to the working folder]"
        for kind in kinds
        if kind.startswith(OMITTED)
    ]
    return "\n".join(lines)
