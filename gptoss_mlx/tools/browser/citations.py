"""Citations as the models write them, `【6†L9-L11】`, -> Markdown links with the site's name.

`It rains.【6†L9】` becomes `It rains. ([yr.no](https://www.yr.no/oslo))`: readable in a terminal, a
link in Markdown. What cites a page that was never shown is left out; all other text passes as it
is. It does not know who streams the text, nor where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gptoss_mlx.tools.browser.page import Page, one_line

__all__ = ["Citation", "CitationFilter", "cite"]

_CITATION = re.compile(r"【([0-9]{1,6})†([^【】†\n]{1,80})(?:†[^【】†\n]{0,80})?】")
_BEGUN = re.compile(
    r"【(?:[0-9]{0,6}|[0-9]{1,6}†(?:[^【】†\n]{0,80}|[^【】†\n]{1,80}†[^【】†\n]{0,80}))"
)
_LINE = re.compile(r"L([0-9]{1,6})")
_URL_SAFE = {ord(character): f"%{ord(character):02X}" for character in " ()<>\"'\\`|"}

Source = Callable[[int], Page | None]


@dataclass(frozen=True)
class Citation:
    """Where in the text a link stands, from `start_index` up to `end_index`, and its target."""

    start_index: int
    end_index: int
    url: str
    title: str


class CitationFilter:
    """Streams text, its citations replaced; the pieces it comes in make no difference.

    Args:
        source: the page of a cursor, or None. `BrowserTool.source`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._held = ""  # what may yet become a citation
        self._length = 0  # of what was given out
        self._last = "\n"
        self.citations: list[Citation] = []

    def push(self, text: str) -> str:
        """More text in; out comes what is certain by now."""
        self._held += text
        out: list[str] = []
        while self._held:
            plain, bracket, rest = self._held.partition("【")
            out.append(self._out(plain))
            self._held = bracket + rest
            if match := _CITATION.match(self._held):
                out.append(self._linked(match))
                self._held = self._held[match.end() :]
            elif bracket and _BEGUN.fullmatch(self._held):
                break
            elif bracket:
                out.append(self._out(bracket))
                self._held = rest
        return "".join(out)

    def close(self) -> str:
        """The end of the text: what was held back was no citation after all."""
        held, self._held = self._held, ""
        return self._out(held)

    def _out(self, text: str) -> str:
        self._length += len(text)
        self._last = text[-1:] or self._last
        return text

    def _linked(self, match: re.Match[str]) -> str:
        page = self._source(int(match[1]))
        line = _LINE.match(match[2])
        url = page.url_at(int(line[1]) if line else 0) if page else ""
        if page is None or not url:
            return ""
        space = self._out("" if self._last.isspace() else " ")
        start = self._length
        link = self._out(f"({_link(url)})")
        self.citations.append(Citation(start, self._length, url, page.title))
        return space + link


def cite(text: str, source: Source) -> tuple[str, list[Citation]]:
    """A whole text with its citations replaced, and where they stand now."""
    stream = CitationFilter(source)
    return stream.push(text) + stream.close(), stream.citations


def _link(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].removeprefix("www.")
    label = host or unquote(parts.path).lstrip("/")
    label = re.sub(r"[][()<>`*]", "", one_line(label, 80))
    return f"[{label}]({url.translate(_URL_SAFE)})" if host else label
