"""Where searches and pages come from: what a backend is, and the one that a name means.

    ddgs          keyless search, pages straight from the web
    exa           search and pages from exa.ai (EXA_API_KEY)
    you           search and pages from you.com (YDC_API_KEY)
    folder:PATH   the pages of a local folder, nothing else

It does not know what the model sees.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gptoss_mlx.errors import UsageError
from gptoss_mlx.paths import expand
from gptoss_mlx.tools.browser.page import Document

__all__ = ["BACKENDS", "Backend", "Result", "make_backend"]

BACKENDS = ("ddgs", "exa", "you", "folder:PATH")


@dataclass(frozen=True)
class Result:
    """One hit of a search."""

    url: str
    title: str
    summary: str = ""


class Backend(Protocol):
    """What searches and fetches. `is_local`: it reaches nothing beyond this machine."""

    @property
    def is_local(self) -> bool:
        """Whether its calls need no approval."""
        ...

    def search(self, query: str, topn: int) -> Sequence[Result]:
        """At most `topn` hits, the best first.

        Raises:
            ToolError: it failed; its text is for the model.
        """
        ...

    def fetch(self, url: str, stop: threading.Event) -> Document:
        """The page at a URL; it ends soon once `stop` is set.

        Raises:
            ToolError: it cannot be had; its text is for the model.
        """
        ...


def make_backend(name: str, *, allow_private: bool = False) -> Backend:
    """The backend that the command line calls `name`.

    Args:
        name: one of BACKENDS.
        allow_private: let pages come from private and local addresses, too (ddgs alone can).

    Raises:
        UsageError: there is none, its key is missing, or its folder.
    """
    kind, _, path = name.partition(":")
    if kind == "folder":
        return _folder(path)
    if name == "ddgs":
        from gptoss_mlx.tools.browser.fetch import Fetcher
        from gptoss_mlx.tools.browser.services import DdgsBackend

        fetcher = Fetcher(is_allowed=lambda _: True) if allow_private else Fetcher()
        return DdgsBackend(fetcher)
    if name == "exa":
        from gptoss_mlx.tools.browser.services import ExaBackend

        return ExaBackend(_key("EXA_API_KEY", name))
    if name == "you":
        from gptoss_mlx.tools.browser.services import YouBackend

        return YouBackend(_key("YDC_API_KEY", name))
    raise UsageError(f"there is no search backend {name!r}: choose one of {', '.join(BACKENDS)}")


def _key(variable: str, name: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"{name} needs a key: set {variable}, or use ddgs, which needs none")
    return key


def _folder(path: str) -> Backend:
    from gptoss_mlx.tools.browser.folder import FolderBackend

    folder = expand(path)
    if not path or not folder.is_dir():
        raise UsageError(f"there is no folder {path!r}: name one of pages, as folder:~/pages")
    return FolderBackend(folder)
