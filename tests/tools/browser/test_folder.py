"""A folder of pages."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.folder import FolderBackend

SITE = Path(__file__).parent / "pages" / "site"


def _fetch(folder: Path, url: str) -> str:
    return FolderBackend(folder).fetch(url, threading.Event()).text


def test_search_ranks_by_the_words() -> None:
    """The page with the rare word goes first; pages without any word are not found."""
    backend = FolderBackend(SITE)
    hits = backend.search("umbrellas notes", 10)
    assert [hit.url for hit in hits] == ["folder:///notes.txt"]
    assert hits[0].summary.startswith("Notes on umbrellas.")
    urls = [hit.url for hit in backend.search("Rain in Oslo: AUGUST", 10)]
    assert urls[0] == "folder:///weather/oslo.html"
    assert len(urls) == 3
    assert len(backend.search("rain", 1)) == 1
    assert backend.search("zebra", 10) == backend.search("?!", 10) == []


def test_bm25_prefers_rare_words_and_short_pages(tmp_path: Path) -> None:
    """A common word counts less than a rare one; the same word more in a short page."""
    (tmp_path / "long.txt").write_text("rain " + "filler " * 200, "utf-8")
    (tmp_path / "short.txt").write_text("rain filler", "utf-8")
    (tmp_path / "rare.txt").write_text("fjord filler filler filler", "utf-8")
    backend = FolderBackend(tmp_path)
    assert [hit.title for hit in backend.search("rain", 9)] == ["short.txt", "long.txt"]
    assert backend.search("fjord filler", 9)[0].title == "rare.txt"


def test_an_empty_folder(tmp_path: Path) -> None:
    """Nothing is found in it."""
    assert FolderBackend(tmp_path).search("rain", 5) == []


@pytest.mark.parametrize(
    "url",
    ["folder:///notes.txt", "notes.txt", "/notes.txt", "weather/../notes.txt", " notes.txt#x"],
)
def test_pages_by_url_and_by_path(url: str) -> None:
    """A URL of the folder, or a path in it."""
    document = FolderBackend(SITE).fetch(url, threading.Event())
    assert (document.url, document.media_type) == ("folder:///notes.txt", "text/plain")


def test_names_with_odd_characters(tmp_path: Path) -> None:
    """A found page can be opened, whatever its name."""
    names = ["a b.txt", "100%.txt", "ø#1?.md", "x\ny.html"]
    for name in names:
        (tmp_path / name).write_text("rain", "utf-8")
    backend = FolderBackend(tmp_path)
    hits = backend.search("rain", 10)
    assert len(hits) == len(names)
    assert {backend.fetch(hit.url, threading.Event()).text for hit in hits} == {"rain"}


@pytest.mark.parametrize(
    "url",
    [
        *("../secret.txt", "folder:///../secret.txt", "/../secret.txt", "%2e%2e/secret.txt"),
        *("link.txt", "out/secret.txt", "alias.txt", "secret.key", "loop.txt", "pipe.txt", "."),
        *("folder://host/ok.txt", "file:///etc/hostname", "https://example.com/ok.txt", ""),
        *("ok.txt\0", "%00", "x" * 5_000 + ".txt", "missing.txt", "http://[::1"),
    ],
)
def test_nothing_outside_is_read(tmp_path: Path, url: str) -> None:
    """Neither `..`, nor symlinks, nor other schemes, nor other kinds of files lead anywhere."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret", "utf-8")
    (root / "secret.key").write_text("secret", "utf-8")
    (root / "ok.txt").write_text("fine", "utf-8")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "alias.txt").symlink_to(root / "secret.key")
    (root / "out").symlink_to(tmp_path)
    (root / "loop.txt").symlink_to(root / "loop.txt")
    os.mkfifo(root / "pipe.txt")
    with pytest.raises(ToolError, match="there is no page"):
        _fetch(root, url)
    assert FolderBackend(root).search("secret", 10) == []
    assert _fetch(root, "ok.txt") == "fine"


def test_pages_that_are_too_large(tmp_path: Path) -> None:
    """A page of more than 5 MB is refused, and not found."""
    (tmp_path / "big.txt").write_text("rain " * 1_000_001, "utf-8")
    with pytest.raises(ToolError, match=r"big\.txt is larger than 5 MB"):
        _fetch(tmp_path, "big.txt")
    assert FolderBackend(tmp_path).search("rain", 5) == []
