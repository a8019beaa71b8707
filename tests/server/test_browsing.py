"""Tests of gptoss_mlx.server.browsing."""

from __future__ import annotations

import pytest

from gptoss_mlx.server.browsing import arguments_of, page_of
from gptoss_mlx.tools.browser.page import Page

PAGES = [Page("A", "https://a.b", "one"), Page("C", "https://a.c", "two")]


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "null"])
def test_what_is_no_object_has_no_arguments(text: str) -> None:
    """A model may write anything; a raw newline in a text is none of its faults."""
    assert arguments_of(text) == {}
    assert arguments_of('{"query": "a\nb"}') == {"query": "a\nb"}


@pytest.mark.parametrize(("cursor", "number"), [(0, 0), (1, 1), (2, 1), (-1, 1), ("0", 1)])
def test_the_page_of_a_cursor(cursor: object, number: int) -> None:
    """Where there is no such page, the latest is meant, as the browser has it."""

    def source(cursor: int) -> Page | None:
        return PAGES[cursor] if cursor < len(PAGES) else None

    assert page_of(cursor, source) is PAGES[number]
    assert page_of(cursor, lambda _: None) is None
