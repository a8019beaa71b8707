"""Documents, search results and hits of a find as pages."""

from __future__ import annotations

import pytest

from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.documents import find_page, page_of, results_page, source_of
from gptoss_mlx.tools.browser.page import Document, Link, Page

URL = "https://a.no/x/rain.html"


def test_an_html_page() -> None:
    """A page begins with an empty line and its URL, as the models know it."""
    page = page_of(Document(URL, "<title>Rain</title><p>See <a href=y>y</a>."))
    assert page == Page("Rain", URL, f"\nURL: {URL}\nSee 【0†y】.", (Link("https://a.no/x/y"),))


def test_a_markdown_page() -> None:
    """Markdown stays as it is but for its links; its first heading is its title."""
    text = "# Rain in [Oslo](o.md)\n![pic](p.png) [b](<https://b.no/>) [c](mailto:c@d) 【e】"
    page = page_of(Document("folder:///x/rain.md", text, "text/markdown"))
    assert page.title == "Rain in Oslo"
    assert page.lines[2:] == (
        "# Rain in 【0†Oslo】",
        "![pic](p.png) 【1†b†b.no】 [c](mailto:c@d) 〖e〗",
    )
    assert page.links == (Link("folder:///x/o.md"), Link("https://b.no/"))


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_text_page(kind: str) -> None:
    """Other text is shown as it is; the title is the file's name."""
    page = page_of(Document(URL, "<p>&amp;【1†x】", kind))
    assert (page.title, page.lines[2:]) == ("rain.html", ("<p>&amp;〖1†x〗",))


@pytest.mark.parametrize(
    ("document", "title"),
    [
        (Document(URL, "<title>Rain</title>", title="Given\n【1】"), "Given 〖1〗"),
        (Document("https://a.no/", ""), "a.no"),
        (Document(URL, "", title="x" * 300), "x" * 197 + "..."),
    ],
)
def test_titles(document: Document, title: str) -> None:
    """The backend's title goes first; without any it is the file's or the host's name."""
    assert page_of(document).title == title


def test_the_source_of_a_page() -> None:
    """It is shown as it was sent, and cited by the page's URL."""
    page = source_of(Document(URL, "<p>【1†x】<a href=y>"))
    assert (page.url, page.source_url) == (f"view-source:{URL}", URL)
    assert (page.text, page.links) == ("<p>〖1†x〗<a href=y>", ())


def test_results() -> None:
    """Hits are a list of links with summaries; the page has no URL and is called like the query."""
    hits = [Result("https://a.no/", "Rain\n【x】", "It\nrains"), Result("mailto:x", "No link")]
    page = results_page("rain\nin Oslo", hits)
    assert (page.title, page.url, page.links) == ("rain in Oslo", "", (Link("https://a.no/"),))
    assert page.lines == (
        *("", "URL: ", "# Search Results", ""),
        "  * 【0†Rain 〖x〗†a.no】 It rains",
        "  * No link",
    )
    assert results_page("x", []).lines[-1] == "No results: try other words."


def test_hits_of_a_find() -> None:
    """Hits show four lines, whatever the case; those that overlap are one; links lead to them."""
    text = "\n".join(f"line {i}" for i in range(12)) + "\nThe 【0†RAIN†b.no】"
    page = Page("P", "https://a.no/", text.replace("line 2\n", "Rain 2\n"), (Link("https://b.no"),))
    found = find_page("rAiN", page)
    assert found.text == (
        "# 【0†match at L2】\nRain 2\nline 3\nline 4\nline 5\n\n# 【1†match at L12】\nThe RAIN"
    )
    assert found.title == "Find results for text: `rAiN` in `P`"
    assert (found.url, found.source_url) == ("https://a.no//find?pattern=rAiN", "https://a.no/")
    assert found.links == (Link(page.url, page, 2), Link(page.url, page, 12))
    assert found.is_find


def test_no_hits_and_too_many() -> None:
    """None is said; of many the first fifty are shown."""
    page = Page("P", "https://a.no/", "rain\n" * 1_000)
    assert find_page("snow【", page).text == "No `find` results for pattern: `snow〖`"
    assert len(find_page("rain", page).links) == 50
