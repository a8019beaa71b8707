"""Pages: lines, links, and texts made fit to be shown."""

from __future__ import annotations

import time

import pytest

from gptoss_mlx.tools.browser.page import (
    MAX_TEXT,
    Link,
    LinkTable,
    Page,
    clean,
    one_line,
    shortened,
    without_marks,
)


def test_lines_are_wrapped_at_80_columns() -> None:
    """Spaces stay where they are, long words are cut, empty lines and none at all are lines."""
    page = Page("", "", "word " * 20 + "\n\n" + "x" * 170)
    assert page.lines == ("word " * 16, "word " * 4, "", "x" * 80, "x" * 80, "x" * 10)
    assert Page("", "", "").lines == ("",)


@pytest.mark.parametrize("unit", ["x", "\n", " ", "-", "x ", "\t"])
def test_wrapping_a_page_as_long_as_can_be(unit: str) -> None:
    """A million characters without a break take no longer than others."""
    page = Page("", "", unit * (MAX_TEXT // len(unit)))
    began = time.monotonic()
    assert all(len(line) <= 80 for line in page.lines)
    assert time.monotonic() - began < 10


def test_clean() -> None:
    """Brackets of marks, control characters and lone surrogates are replaced."""
    assert (
        clean("【1†a】\x1b[31m\r\nb\ud800\u200b\tc") == "〖1†a〗[31m\nb\N{REPLACEMENT CHARACTER}\tc"
    )


def test_one_line() -> None:
    """White space becomes single spaces; what is too long ends in dots."""
    assert one_line(" a\n b\tc ") == "a b c"
    assert one_line("abcdefgh", 6) == "abc..."


def test_shortened() -> None:
    """A text that is too long says what is missing."""
    assert shortened("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert shortened("x" * (MAX_TEXT + 5)).endswith("x\n[... 5 characters left out ...]")


@pytest.mark.parametrize(
    ("base", "target", "mark"),
    [
        ("https://a.no/x/", "y", "【0†words】"),
        ("https://a.no/x/", "https://b.no/", "【0†words†b.no】"),
        ("https://a.no/x/", "//user@c.no/", "【0†words†c.no】"),
        ("folder:///x/a.html", "../b.html", "【0†words】"),
        ("folder:///x/a.html", "https://b.no/", "【0†words†b.no】"),
        ("", "https://b.no/", "【0†words†b.no】"),
        ("", "folder:///x.html", "【0†words】"),
        ("https://a.no/x/", "mailto:a@b.no", None),
        ("https://a.no/x/", "javascript:void(0)", None),
        ("https://a.no/x/", "http://[::1", None),
        ("", "x.html", None),
    ],
)
def test_marks(base: str, target: str, mark: str | None) -> None:
    """A link within the site has no domain; what cannot be opened is no link."""
    assert LinkTable(base).mark(target, " words\n") == mark


def test_equal_links_have_one_number() -> None:
    """Numbers are given in order, to a URL once; daggers in words are doubled ones."""
    table = LinkTable("https://a.no/")
    assert table.mark("/x", "one") == "【0†one】"
    assert table.mark("/y", "t†wo") == "【1†t‡wo】"
    assert table.mark("https://a.no/x", "again") == "【0†again】"
    assert table.mark("/z", " ") is None
    assert table.links == (Link("https://a.no/x"), Link("https://a.no/y"))


def test_relative_links_of_a_folder() -> None:
    """They stay in the folder's own scheme."""
    table = LinkTable("folder:///x/a.html")
    assert table.mark("../b.html", "b") == "【0†b】"
    assert table.mark("/c.md", "c") == "【1†c】"
    assert table.links == (Link("folder:///b.html"), Link("folder:///c.md"))


def test_without_marks() -> None:
    """The words of links are left, and as many lines as there were."""
    text = "a 【0†the\nwords†b.\nno】 b 【1†c】\nd"
    assert without_marks(text) == "a the\nwords\n b c\nd"


def test_what_a_line_cites() -> None:
    """A page cites its URL; a line of search results the hit that it belongs to."""
    assert Page("", "https://a.no/", "", cites="https://b.no/").url_at(3) == "https://b.no/"
    results = Page("", "", "title\n【0†a】\nmore\n【1†b】", (Link("a:"), Link("b:")))
    assert [results.url_at(line) for line in range(5)] == ["", "a:", "a:", "b:", "b:"]
