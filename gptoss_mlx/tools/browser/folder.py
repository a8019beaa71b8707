"""Pages of a local folder, for offline use and for tests: HTML, Markdown and text files.

Their URLs are `folder:///name.html`, and relative links between them work. A search ranks by BM25
over words. Nothing outside the folder is read, whatever links or symlinks say. It does not reach
the network.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.decoding import decode
from gptoss_mlx.tools.browser.documents import page_of
from gptoss_mlx.tools.browser.page import Document, Page, one_line, without_marks

__all__ = ["FolderBackend"]

_MEDIA_TYPES = {
    ".htm": "text/html",
    ".html": "text/html",
    ".md": "text/markdown",
    ".txt": "text/plain",
}
_MAX_FILES = 5_000
_MAX_SIZE = 5_000_000  # bytes of one page
_SUMMARY = 200  # characters
_K1, _B = 1.2, 0.75  # BM25's usual constants
_WORD = re.compile(r"\w+")


class FolderBackend:
    """Searches and fetches the pages below a folder. They are read once, at the first search."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()

    def search(self, query: str, topn: int) -> Sequence[Result]:
        """The pages that hold words of the query, the best by BM25 first."""
        words = _words(query)
        return [
            Result(page.url, page.title, _summary(page, words))
            for page in self._index.best(words, topn)
        ]

    def fetch(self, url: str, stop: threading.Event) -> Document:  # noqa: ARG002
        """The page at a URL or at a path in the folder."""
        path = self._path(url)
        if path is None:
            raise ToolError(
                f"there is no page {one_line(url, 200)!r}: only pages that browser.search finds,"
                " and those they link to, can be opened"
            )
        return self._read(path)

    @cached_property
    def _index(self) -> _Index:
        inside = islice(filter(self._is_page, self._root.rglob("*")), _MAX_FILES)
        pages: list[Page] = []
        for path in sorted(inside):
            try:
                pages.append(page_of(self._read(path)))
            except ToolError:  # too large, or unreadable: not found, then
                continue
        return _Index(pages)

    def _path(self, url: str) -> Path | None:
        try:
            parts = urlsplit(url.strip())
            if parts.scheme not in ("", "folder") or parts.netloc:
                return None
            path = self._root / unquote(parts.path).lstrip("/")
            return path if self._is_page(path) else None
        except ValueError:
            return None

    def _is_page(self, path: Path) -> bool:
        """Whether a path is a page of this folder, symlinks and `..` resolved."""
        try:
            real = path.resolve()
            inside = real.is_relative_to(self._root) and real.is_file()
        except (OSError, RuntimeError, ValueError):  # a loop, a name too long, a null byte
            return False
        return (
            inside and path.suffix.lower() in _MEDIA_TYPES and real.suffix.lower() in _MEDIA_TYPES
        )

    def _read(self, path: Path) -> Document:
        try:
            real = path.resolve()
            with real.open("rb") as file:
                body = file.read(_MAX_SIZE + 1)
        except OSError as error:
            raise ToolError(f"{path.name} cannot be read: {error.strerror}") from None
        if len(body) > _MAX_SIZE:
            raise ToolError(f"{path.name} is larger than {_MAX_SIZE / 1e6:g} MB")
        name = real.relative_to(self._root).as_posix()
        return Document(
            f"folder:///{quote(name, errors='surrogateescape')}",
            decode(body),
            _MEDIA_TYPES[real.suffix.lower()],
        )


class _Index:
    """The words of pages, counted."""

    def __init__(self, pages: Sequence[Page]) -> None:
        self._pages = pages
        self._counts = [Counter(_words(f"{page.title} {page.text}")) for page in pages]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean = max(sum(self._lengths) / max(len(pages), 1), 1.0)

    def best(self, words: Sequence[str], topn: int) -> list[Page]:
        """At most `topn` pages that hold a word, the highest score first."""
        rarity = {word: self._rarity(word) for word in set(words)}
        scores = [self._score(i, rarity) for i in range(len(self._pages))]
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [self._pages[i] for i in order[:topn] if scores[i] > 0]

    def _rarity(self, word: str) -> float:
        holding = sum(word in counts for counts in self._counts)
        return math.log(1 + (len(self._counts) - holding + 0.5) / (holding + 0.5))

    def _score(self, i: int, rarity: dict[str, float]) -> float:
        counts = self._counts[i]
        norm = _K1 * (1 - _B + _B * self._lengths[i] / self._mean)
        return sum(
            r * counts[word] * (_K1 + 1) / (counts[word] + norm) for word, r in rarity.items()
        )


def _words(text: str) -> list[str]:
    return _WORD.findall(without_marks(text).lower())


def _summary(page: Page, words: Sequence[str]) -> str:
    """The line of a page with the most of the words, and what comes after it."""
    wanted = set(words)
    lines = page.lines[2:] or page.lines  # the first two give the URL
    best = max(range(len(lines)), key=lambda i: len(wanted.intersection(_words(lines[i]))))
    return one_line(without_marks(" ".join(lines[best : best + 4])), _SUMMARY)
