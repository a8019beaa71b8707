"""The view of a page that a model gets: a header, and as many lines as fit 1,024 tokens.

The layout is the one the models were trained with. It does not know the stack of pages, nor what
tokens are: it is given the function that counts them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.page import Page, one_line

__all__ = ["MAX_LINES", "VIEW_TOKENS", "view"]

VIEW_TOKENS = 1_024
MAX_LINES = 200  # of one view, however many are asked for: some 17,000 characters
_MAX_URL = 1_024

Encode = Callable[[str], Sequence[int]]


def view(page: Page, cursor: int, loc: int, num_lines: int, encode: Encode) -> str:
    """The page from line `loc` on: `num_lines` lines, or where that is not positive, what fits.

    Raises:
        ToolError: the page ends before `loc`.
    """
    total = len(page.lines)
    if loc >= total:
        raise ToolError(f"loc {loc} is beyond the page, which ends at line {total - 1}")
    last = min(loc + MAX_LINES, total, loc + num_lines if num_lines > 0 else total)
    lines = [f"L{i}: {page.lines[i]}" for i in range(loc, last)]
    if num_lines <= 0:
        lines = lines[: _fitting(lines, encode)]
    url = one_line(unquote(page.url), _MAX_URL)
    header = f"[{cursor}] {page.title}{f' ({url})' if url else ''}"
    scrollbar = f"**viewing lines [{loc} - {loc + len(lines) - 1}] of {total - 1}**"
    return "\n".join((header, scrollbar, "", *lines))


def _fitting(lines: Sequence[str], encode: Encode) -> int:
    """How many lines hold the first VIEW_TOKENS tokens; the last one is shown whole."""
    counts = range(1, len(lines) + 1)
    return 1 + bisect_left(counts, VIEW_TOKENS, key=lambda n: len(encode("\n".join(lines[:n]))))
