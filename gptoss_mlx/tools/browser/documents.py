"""Documents, search results and hits of a find -> pages, in the layout the models know.

It does not know where documents come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from posixpath import basename
from urllib.parse import quote, urlsplit

from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.page import (
    Document,
    Link,
    LinkTable,
    Page,
    clean,
    one_line,
    shortened,
    without_marks,
)

__all__ = ["find_page", "page_of", "results_page", "source_of"]

_MARKDOWN_LINK = re.compile(r"(?<!!)\[([^\[\]]{1,300})\]\(\s*<?([^()<>\s]{1,2000})>?\s*\)")
_HEADING = re.compile(r"^#[ \t]+(.+)$", re.MULTILINE)
_MAX_HITS = 50
_HIT_LINES = 4
_MAX_TITLE = 200


def page_of(document: Document) -> Page:
    """The page that a document reads as; it begins with its URL, as the models know it."""
    title, text, table = document.title, "", LinkTable(document.url)
    if document.media_type in ("text/html", "application/xhtml+xml"):
        from gptoss_mlx.tools.browser.html import html_title, render_html

        title = title or html_title(document.text)
        text = render_html(document.text, table)
    elif document.media_type == "text/markdown":
        text = _marked_links(clean(document.text), table)
        heading = _HEADING.search(text)
        title = title or (without_marks(heading[1]) if heading else "")
    else:
        text = clean(document.text)
    url = one_line(document.url)
    return Page(_title(title, url), url, f"\nURL: {url}\n{shortened(text)}", table.links)


def source_of(document: Document) -> Page:
    """The page that shows a document as it was sent."""
    url = one_line(document.url)
    title = _title(document.title, url)
    return Page(title, f"view-source:{url}", shortened(clean(document.text)), cites=url)


def results_page(query: str, results: Sequence[Result]) -> Page:
    """The page of a search: a list of links, each with its summary."""
    table = LinkTable("")
    items = [
        f"  * {table.mark(result.url, result.title) or one_line(result.title)}"
        f" {one_line(result.summary)}".rstrip()
        for result in results
    ]
    text = "\n".join(items) or "No results: try other words."
    title = one_line(query, _MAX_TITLE)
    return Page(title, "", f"\nURL: \n# Search Results\n\n{text}", table.links)


def find_page(pattern: str, page: Page) -> Page:
    """The lines of a page that hold a pattern, whatever its case; links lead to the hits."""
    lines = without_marks("\n".join(page.lines)).split("\n")
    wanted = pattern.lower()
    hits: list[int] = []
    at = 0
    while at < len(lines) and len(hits) < _MAX_HITS:
        found = wanted in lines[at].lower()
        hits += [at] * found
        at += _HIT_LINES if found else 1
    chunks = [
        "\n".join((f"# 【{i}†match at L{hit}】", *lines[hit : hit + _HIT_LINES]))
        for i, hit in enumerate(hits)
    ]
    shown = one_line(pattern, _MAX_TITLE)
    return Page(
        title=f"Find results for text: `{shown}` in `{page.title}`",
        url=f"{page.url}/find?pattern={quote(shown)}",
        text="\n\n".join(chunks) or f"No `find` results for pattern: `{shown}`",
        links=tuple(Link(page.url, page, hit) for hit in hits),
        cites=page.source_url,
        is_find=True,
    )


def _marked_links(text: str, table: LinkTable) -> str:
    return _MARKDOWN_LINK.sub(lambda match: table.mark(match[2], match[1]) or match[0], text)


def _title(title: str, url: str) -> str:
    """A title in any case: its own, else the file's name, else the host's."""
    parts = urlsplit(url)
    return one_line(title, _MAX_TITLE) or basename(parts.path) or parts.netloc
