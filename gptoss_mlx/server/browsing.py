"""What the APIs show of calls that the server runs: their arguments, and the pages meant."""

from __future__ import annotations

import json
from itertools import count, takewhile
from typing import Any, cast

from gptoss_mlx.tools.browser.citations import Source
from gptoss_mlx.tools.browser.page import Page

__all__ = ["arguments_of", "page_of"]


def arguments_of(text: str) -> dict[str, Any]:
    """The arguments of a call; empty, where they are no object."""
    try:
        value: object = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def page_of(cursor: object, source: Source) -> Page | None:
    """The page of a cursor, or the latest."""
    pages = list(takewhile(bool, map(source, count())))
    if isinstance(cursor, int) and 0 <= cursor < len(pages):
        return pages[cursor]
    return pages[-1] if pages else None
