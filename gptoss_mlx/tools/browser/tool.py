"""The `browser` tool: search, open and find, over a stack of pages.

Each call pushes the page it shows; a page's cursor is its place in the stack. A tool has a stack of
its own: one for each conversation. It does not know where pages come from, that is the backend's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.base import Preview, Tool, json_arguments
from gptoss_mlx.tools.browser.arguments import flag, integer, text, whole_number
from gptoss_mlx.tools.browser.backends import Backend
from gptoss_mlx.tools.browser.display import view
from gptoss_mlx.tools.browser.documents import find_page, page_of, results_page, source_of
from gptoss_mlx.tools.browser.page import Page, one_line
from gptoss_mlx.tools.browser.worker import within

__all__ = ["BrowserTool"]

_MAX_RESULTS = 20
_MAX_QUERY = 1_000  # characters of a query or a pattern
_MAX_TITLE = 200
_CONTEXT = 4  # lines shown above a hit of a find


@dataclass(frozen=True)
class _Call:
    """A call, understood: how its page is had, and from which line it is shown.

    `asks` is for the backend, and may take long; what is at hand already does not ask.
    """

    title: str
    page: Callable[[threading.Event], Page]
    asks: bool = False
    body: str = ""
    loc: int = 0
    num_lines: int = -1


class BrowserTool(Tool):
    """Browses by a backend.

    Args:
        backend: where pages come from; see `make_backend`.
        encode: text -> tokens, which a view is measured in; o200k_harmony by default.
        seconds: what one call may take, whatever the backend does.
    """

    name = "browser"
    builtin = "browser"

    def __init__(
        self,
        backend: Backend,
        *,
        encode: Callable[[str], Sequence[int]] | None = None,
        seconds: float = 30.0,
    ) -> None:
        self._backend = backend
        self._given_encode = encode
        self._seconds = seconds
        self._pages: list[Page] = []
        self._closed = threading.Event()

    @property
    def recipients(self) -> Sequence[str]:
        """The three that harmony describes to the model."""
        return ("browser.search", "browser.open", "browser.find")

    def preview(self, recipient: str, content: str) -> Preview:
        """What a call would do; it is harmless where it reaches nothing beyond this machine."""
        call = self._understood(recipient, content)
        is_harmless = self._backend.is_local or not call.asks
        return Preview(call.title, call.body, is_harmless=is_harmless)

    def run(self, recipient: str, content: str) -> str:
        """The view of the page that a call leads to."""
        call = self._understood(recipient, content)
        if self._closed.is_set():
            raise ToolError("the browser was closed")
        if call.asks:
            page = within(self._seconds, self._closed, call.page)
        else:
            page = call.page(self._closed)
        shown = view(page, len(self._pages), call.loc, call.num_lines, self._encode)
        self._pages.append(page)
        return shown

    def reset(self) -> None:
        """Another conversation begins, with no page yet."""
        self._pages = []

    def close(self) -> None:
        """End a running call, and refuse further ones."""
        self._closed.set()

    def source(self, cursor: int) -> Page | None:
        """The page that a citation's cursor means, or None."""
        return self._pages[cursor] if 0 <= cursor < len(self._pages) else None

    @cached_property
    def _encode(self) -> Callable[[str], Sequence[int]]:
        if self._given_encode is not None:
            return self._given_encode
        from gptoss_mlx.tokenizer import load_tokenizer

        return load_tokenizer().encode

    def _understood(self, recipient: str, content: str) -> _Call:
        readers = dict(zip(self.recipients, (self._search, self._open, self._find), strict=True))
        if recipient not in readers:
            raise ToolError(f"there is no {recipient!r}: call {', '.join(self.recipients)}")
        return readers[recipient](json_arguments(content))

    def _search(self, arguments: dict[str, Any]) -> _Call:
        query = text(arguments, "query", '{"query": "..."}')[:_MAX_QUERY]
        topn = min(max(integer(arguments, "topn", 10), 1), _MAX_RESULTS)

        def page(_: threading.Event) -> Page:
            return results_page(query, self._backend.search(query, topn))

        title = f'search "{one_line(query, _MAX_TITLE)}"'
        return _Call(title, page, True, _rest(query))

    def _find(self, arguments: dict[str, Any]) -> _Call:
        pattern = text(arguments, "pattern", '{"pattern": "..."}')[:_MAX_QUERY]
        page = self._at(arguments)
        if page.is_find:
            raise ToolError("these are results of a find: give the cursor of the page itself")
        title = f'find "{one_line(pattern, _MAX_TITLE)}" in "{page.title}"'
        return _Call(title, lambda _: find_page(pattern, page))

    def _open(self, arguments: dict[str, Any]) -> _Call:
        loc = max(integer(arguments, "loc", -1), -1)
        num_lines = integer(arguments, "num_lines", -1)
        url, page, line = self._target(arguments)
        if flag(arguments, "view_source"):
            url, page = url or (page.source_url if page else ""), None
            if not url:
                raise ToolError("search results have no source: open a page with its id")
        at = loc if loc >= 0 else line - _CONTEXT if line > _CONTEXT else line
        if page is not None:
            held = page
            return _Call(f'read "{page.title}"', lambda _: held, loc=at, num_lines=num_lines)
        make = source_of if flag(arguments, "view_source") else page_of
        return _Call(
            title=f"open {one_line(url, _MAX_TITLE)}",
            page=lambda stop: make(self._backend.fetch(url, stop)),
            asks=True,
            body=_rest(url),
            loc=at,
            num_lines=num_lines,
        )

    def _target(self, arguments: dict[str, Any]) -> tuple[str, Page | None, int]:
        """What `open` is to show: a URL to fetch, or a page that is at hand and a line of it."""
        given = (arguments.get("id"), arguments.get("url"))  # `url`: as other browsers call it
        wanted = next((value for value in given if value is not None and value != ""), -1)
        number = whole_number(wanted)
        if number is None and isinstance(wanted, str) and wanted.strip():
            return wanted.strip(), None, 0  # a URL is fetched anew, even one that is at hand
        if number is None:
            raise ToolError("id must be the number of a link, or a URL")
        page = self._at(arguments)
        if number < 0:
            return "", page, 0
        if number >= len(page.links):
            raise ToolError(f"there is no link {number} on {_named(page)}: {_range(page)}")
        link = page.links[number]
        return link.url, link.page or self._held(link.url), link.line

    def _held(self, url: str) -> Page | None:
        return next((page for page in reversed(self._pages) if page.url == url), None)

    def _at(self, arguments: dict[str, Any]) -> Page:
        """The page of the cursor; the last one for -1."""
        cursor = integer(arguments, "cursor", -1)
        if not self._pages:
            raise ToolError("no page is open yet: call browser.search, or browser.open with a URL")
        if cursor >= len(self._pages):
            raise ToolError(
                f"there is no page with cursor {cursor}: the last one is {len(self._pages) - 1}"
            )
        return self._pages[cursor] if cursor >= 0 else self._pages[-1]


def _rest(asked: str) -> str:
    """What is asked for in full, where it is longer than a title."""
    line = one_line(asked)
    return line if len(line) > _MAX_TITLE else ""


def _named(page: Page) -> str:
    return f'"{page.title}"' if page.title else "this page"


def _range(page: Page) -> str:
    return f"its links are 0 to {len(page.links) - 1}" if page.links else "it has none"
