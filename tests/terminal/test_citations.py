"""Citations: links on the screen, in the file and in what is exported, and of the right pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gptoss_mlx.conversations import ConversationStore, export_json, export_markdown
from gptoss_mlx.terminal.view import Filter
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools.browser import BrowserTool, CitationFilter, make_backend

from .sessions import Opened, answer, open_session

LINK = "Oaks live long. (oak.html)"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Two pages."""
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "oak.html").write_text("<title>Oaks</title><p>Oaks live long.")
    (folder / "elm.html").write_text("<title>Elms</title><p>Elms do not.")
    return folder


def opened(page: str) -> str:
    """A completion that opens a page."""
    call = json.dumps({"id": f"folder:///{page}"})
    return f"<|channel|>analysis to=browser.open<|message|>{call}<|call|>"


def browsing(tokenizer: Tokenizer, pages: Path, store: ConversationStore, *scripts: str) -> Opened:
    """A session with a browser on these pages."""
    browser = BrowserTool(make_backend(f"folder:{pages}"))
    session = open_session(tokenizer, *scripts, store=store, tools=[browser])
    make: Callable[[], Filter] = lambda: CitationFilter(browser.source)  # noqa: E731
    session.view.make_filter = make
    return session


def test_a_citation_outlives_its_page(tokenizer: Tokenizer, pages: Path, tmp_path: Path) -> None:
    """It leads to the page that was cited, also when others are open, or none."""
    store = ConversationStore(tmp_path / "kept")
    scripts = [opened("oak.html"), answer("Oaks live long.【0†L1】")]
    session = browsing(
        tokenizer, pages, store, *scripts, opened("elm.html"), answer("So do elms.【0†L1】")
    )
    session.handle("Oaks?")
    assert LINK in session.out
    first = session.conversation
    session.handle("/clear")
    session.handle("Elms?")
    assert "So do elms. (elm.html)" in session.out
    session.handle(f"/load {first.id}")
    assert LINK in session.out
    again = store.load(first.id)
    assert again.messages[-1].content == "Oaks live long.【0†L1】"
    assert again.messages[-1].ids == first.messages[-1].ids
    assert LINK in export_markdown(again)
    assert LINK in export_json(again)


def test_what_is_taken_back_takes_its_links_along(
    tokenizer: Tokenizer, pages: Path, tmp_path: Path
) -> None:
    """The next message at that place has its own."""
    store = ConversationStore(tmp_path / "kept")
    scripts = [opened("oak.html"), answer("Oaks live long.【0†L1】"), answer("No idea.")]
    session = browsing(tokenizer, pages, store, *scripts)
    session.handle("Oaks?")
    assert session.conversation.shown
    session.handle("/retry")
    assert session.conversation.shown == {}
    assert "No idea." in export_markdown(store.load(session.conversation.id))
