"""A page as the model reads it: text in numbered lines of 80 columns, links by number.

Links stand in the text as `【id†words】`, or `【id†words†domain】` where they leave the site. It
does not know where a page came from, nor which of its lines are shown.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urljoin, urlsplit

__all__ = [
    "MAX_TEXT",
    "Document",
    "Link",
    "LinkTable",
    "Page",
    "clean",
    "one_line",
    "shortened",
    "without_marks",
]

MAX_TEXT = 1_000_000  # characters of a page; what is beyond is left out, with a note
_WIDTH = 80
_LONG = 4_000  # textwrap is quadratic in the length of a word: longer lines are cut up first
_LOOKALIKES = str.maketrans(
    {"【": "〖", "】": "〗", "◼": "◾", "\u200b": None, "\r": "\n", "\x0b": "\n", "\x0c": "\n"}
    | dict.fromkeys((*range(9), *range(0x0E, 0x20), *range(0x7F, 0xA0)))  # control characters
    | dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")  # lone surrogates
)
_MARK_START = re.compile(r"【(\d{1,6})†")
_MARK = re.compile(r"【\d+†([^†】]+)(?:†[^†】]+)?】")


@dataclass(frozen=True)
class Document:
    """What a backend fetched: text, its media type, where it came from in the end."""

    url: str
    text: str
    media_type: str = "text/html"
    title: str = ""


@dataclass(frozen=True)
class Link:
    """Where a link leads: a URL, or a line of a page that is at hand already."""

    url: str
    page: Page | None = None
    line: int = 0


@dataclass(frozen=True)
class Page:
    """One page; `links[i]` is what `【i†...】` in its text stands for.

    `url` is the one displayed, empty for search results. `cites` is the URL of what is quoted where
    that is another: hits of a find, a page's source. `is_find` marks the hits of a find.
    """

    title: str
    url: str
    text: str
    links: tuple[Link, ...] = ()
    cites: str = ""
    is_find: bool = False

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The text in lines of at most 80 columns; at least one."""
        return tuple(part for line in self.text.split("\n") for part in _wrapped(line))

    @property
    def source_url(self) -> str:
        """What a citation of this page links to; empty for search results."""
        return self.cites or self.url

    def url_at(self, line: int) -> str:
        """What a citation of one line links to: of search results, the hit that the line is of."""
        if self.source_url:
            return self.source_url
        above = "\n".join(self.lines[: max(line, 0) + 1])
        numbers = [int(match[1]) for match in _MARK_START.finditer(above)]
        return self.links[numbers[-1]].url if numbers and numbers[-1] < len(self.links) else ""


class LinkTable:
    """The links of a page while it is being made: numbered as they come, equal ones once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._host = urlsplit(url).netloc
        self._numbers: dict[str, int] = {}

    def mark(self, target: str, words: str) -> str | None:
        """What stands in the text for a link, or None for what cannot be opened."""
        words = one_line(words).replace("†", "‡")
        url = _joined(self._url, target.strip())
        if url is None or not words:
            return None
        number = self._numbers.setdefault(url, len(self._numbers))
        host = one_line(urlsplit(url).netloc.rpartition("@")[2]).replace("†", "‡")
        away = f"†{host}" if host != self._host and host else ""
        return f"【{number}†{words}{away}】"

    @property
    def links(self) -> tuple[Link, ...]:
        """What the numbers stand for."""
        return tuple(Link(url) for url in self._numbers)


def shortened(text: str) -> str:
    """The text, cut where it is longer than MAX_TEXT."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}\n[... {len(text) - MAX_TEXT:,} characters left out ...]"


def clean(text: str) -> str:
    """The text without control characters and lone surrogates, its own `【】` turned to `〖〗`."""
    return text.replace("\r\n", "\n").translate(_LOOKALIKES)


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """Clean text on one line, cut to `limit` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def without_marks(text: str) -> str:
    """The text with the words of its links only; no line is lost."""
    return _MARK.sub(_words_of_mark, text)


def _words_of_mark(match: re.Match[str]) -> str:
    lost = match[0].count("\n") - match[1].count("\n")  # a mark may be broken over lines
    return match[1] + "\n" * lost


def _joined(base: str, target: str) -> str | None:
    """The absolute URL of a link; `folder:` has relative links like `http:`."""
    is_folder = base.startswith("folder:")
    try:
        url = urljoin(base.replace("folder:", "http:", 1) if is_folder else base, target)
        parts = urlsplit(url)
    except ValueError:  # a URL that urllib cannot take apart
        return None
    if is_folder and parts.scheme == "http" and not parts.netloc:
        return url.replace("http:", "folder:", 1)
    is_web = parts.scheme in ("http", "https") and parts.netloc
    return url if is_web or parts.scheme == "folder" else None


def _wrapped(line: str) -> list[str]:
    if len(line) <= _WIDTH and "\t" not in line:
        return [line]
    pieces = (line[start : start + _LONG] for start in range(0, len(line), _LONG))
    return [part for piece in pieces for part in _WRAPPER.wrap(piece)]


_WRAPPER = textwrap.TextWrapper(_WIDTH, replace_whitespace=False, drop_whitespace=False)
