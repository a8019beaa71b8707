"""The arguments of a call, read with patience: models send numbers as strings, null, extra keys.

It does not know what they are for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gptoss_mlx.errors import ToolError

__all__ = ["flag", "integer", "text", "whole_number"]

_NUMBER = re.compile(r"[\[【]?\s*L?(-?[0-9]{1,9})(?:\.0+|†.*)?\s*[\]】]?", re.DOTALL)


def whole_number(value: object) -> int | None:
    """The number a value means (3, 3.0, "3", "L3", "[3]", "【3†words】"), or None."""
    if isinstance(value, bool) or value is None:
        return None
    match = _NUMBER.fullmatch(str(value).strip())
    return int(match[1]) if match else None


def integer(arguments: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number; the default for what is missing, null or empty.

    Raises:
        ToolError: it is something else.
    """
    value = arguments.get(key)
    if value is None or value == "":
        return default
    number = whole_number(value)
    if number is None:
        raise ToolError(f"{key} must be a whole number, not {str(value)[:60]!r}")
    return number


def text(arguments: Mapping[str, Any], key: str, example: str) -> str:
    """A text that is not blank; numbers count as text.

    Raises:
        ToolError: there is none.
    """
    value = arguments.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ToolError(f"{key} is missing: send {example}")
    return value


def flag(arguments: Mapping[str, Any], key: str) -> bool:
    """Whether a switch is on: true, 1, "true"."""
    return str(arguments.get(key)).strip().lower() in ("true", "1", "yes")
