"""The view that the model reads."""

from __future__ import annotations

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tokenizer import load_tokenizer
from gptoss_mlx.tools.browser.display import VIEW_TOKENS, view
from gptoss_mlx.tools.browser.page import Page


def _words(text: str) -> list[int]:
    """A tokenizer to which a word is a token."""
    return [0] * len(text.split())


def test_the_layout() -> None:
    """Cursor, title, URL; which lines of how many; the lines with their numbers."""
    page = Page("Rain", "https://a.no/r%C3%A5", "one\n\nthree")
    assert view(page, 6, 0, -1, _words) == (
        "[6] Rain (https://a.no/rå)\n**viewing lines [0 - 2] of 2**\n\nL0: one\nL1: \nL2: three"
    )
    assert view(page, 0, 1, 1, _words) == (
        "[0] Rain (https://a.no/rå)\n**viewing lines [1 - 1] of 2**\n\nL1: "
    )
    assert view(Page("q", "", "x"), 0, 0, -1, _words).startswith("[0] q\n**viewing")


def test_urls_cannot_break_the_header() -> None:
    """A decoded URL stays on its line, without brackets of its own, and is not endless."""
    header = view(Page("t", "https://a.no/%0A%E3%80%901%1B" + "x" * 2_000, "x"), 0, 0, -1, _words)
    first = header.split("\n")[0]
    assert first.startswith("[0] t (https://a.no/ 〖1xxx")
    assert len(first) < 1_050


@pytest.mark.parametrize(("loc", "shown"), [(0, 12), (100, 12), (990, 10)])
def test_a_view_holds_1024_tokens(loc: int, shown: int) -> None:
    """As many lines are shown as hold the first 1,024 tokens, the last one whole."""
    page = Page("t", "u", "\n".join(["a" * 80] * 1_000))

    def encode(text: str) -> list[int]:
        return [0] * (len(text) * VIEW_TOKENS // 1_000)

    assert view(page, 0, loc, -1, encode).count("\nL") == shown


def test_a_view_by_the_models_tokenizer() -> None:
    """With o200k_harmony the shown lines reach 1,024 tokens, and not without the last one."""
    encode = load_tokenizer().encode
    page = Page("t", "u", "\n".join(f"The {i}th line tells of rain in Oslo." for i in range(500)))
    lines = view(page, 0, 7, -1, encode).split("\n")[3:]
    assert len(encode("\n".join(lines))) >= VIEW_TOKENS > len(encode("\n".join(lines[:-1])))


def test_asked_lines_are_bounded() -> None:
    """As many lines as asked for are shown, but no more than 200."""
    page = Page("t", "u", "x\n" * 1_000)
    assert "**viewing lines [5 - 7] of 1000**" in view(page, 0, 5, 3, _words)
    assert "**viewing lines [5 - 204] of 1000**" in view(page, 0, 5, 10**9, _words)
    assert "**viewing lines [5 - 204] of 1000**" in view(page, 0, 5, -1, lambda _: [])


def test_beyond_the_end() -> None:
    """A line that is not there is an error that says which is the last."""
    with pytest.raises(ToolError, match="loc 3 is beyond the page, which ends at line 2"):
        view(Page("t", "u", "a\nb\nc"), 0, 3, -1, _words)
