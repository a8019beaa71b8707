"""HTML -> text, however broken."""

from __future__ import annotations

import random
import time

import pytest

from gptoss_mlx.tools.browser.html import html_title, render_html
from gptoss_mlx.tools.browser.page import Link, LinkTable


def _text(html: str, url: str = "https://a.no/x/") -> str:
    return render_html(html, LinkTable(url))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>A</h1><p>b <b>c</b>d</p>", "# A\n\nb cd"),
        ("<script>x</script><style>y</style><p>z<!-- w -->", "z"),
        ("<head><title>t</title></head><body>b</body>", "b"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", "* a\n  * b\n    * c"),
        ("<ol start=3><li>a<li>b</ol>", "3. a\n  4. b"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2 3</table>", "a | b  \n1 | 2 3"),
        ("<p>x</p><pre><code>if a:\n    b < c</code></pre>", "x\n\n    if a:\n        b < c"),
        ("<p>1. a - b + c \\* _d_</p>", "1. a - b + c \\* _d_"),
        ("<p>&lt;b&gt; &amp;amp; &copy;&nbsp;x", "<b> &amp; © x"),
        ("<p>x<sup>2</sup> y<sub>i</sub>", "x^{2} y_{i}"),
        ("<p><img alt='a cat'> <img>", "[Image 0: a cat] [Image 1]"),
        ("<p><math alttext='x^2'><mi>x</mi></math>.", "x^2."),
        ("<p>【1†a】 &#12304;2†b&#x3011;", "〖1†a〗 〖2†b〗"),
        ("<p>a\x00\x1b[31mb &#27;c", "a[31mb c"),
        ("<xmp><b>raw</b></xmp>", "<b>raw</b>"),
        ("<p>🌧 \ue000", "🌧"),
        ("", ""),
        ("<!-- only -->", ""),
        ("just text", "just text"),
    ],
)
def test_layout(html: str, text: str) -> None:
    """Headings, lists, tables and code are readable; scripts are not shown; nothing is escaped."""
    assert _text(html).replace("\xa0", " ") == text


def test_links() -> None:
    """Links become marks; anchors, mail and pictures do not."""
    table = LinkTable("https://a.no/x/")
    html = (
        "<p><a href='y.html'>y &lt;<b>z</b></a>, <a href=//b.no/?a=1&amp;b=2>b</a>."
        " <a href='#top'>top</a> <a href=mailto:x@y.z>mail</a> <a href=/p><img alt=p></a> <a>n</a>"
    )
    assert render_html(html, table) == ("【0†y <z】, 【1†b†b.no】. top mail [Image 0: p] n")
    assert table.links == (Link("https://a.no/x/y.html"), Link("https://b.no/?a=1&b=2"))


def test_titles() -> None:
    """The first title, its entities read, on one line."""
    assert html_title("<TITLE lang=no>\n Regn &amp; sn\xf8 </TITLE>") == "Regn & snø"
    assert html_title("<p>none</p>") == ""


@pytest.mark.parametrize(
    "unit",
    ["<div>", "<b>x</b>", "<ul><li>x", "<blockquote>x", "<td>x", "<a href=x>a</a>", "<", "&amp;"],
)
def test_huge_pages(unit: str) -> None:
    """Five megabytes of anything become a text of bounded length in bounded time."""
    began = time.monotonic()
    assert len(_text(unit * (5_000_000 // len(unit)))) < 12_000_000
    assert time.monotonic() - began < 20  # some 4 s where nothing else runs


def test_deep_pages_keep_their_words() -> None:
    """Nesting that the parser gives up on costs the layout, not the text."""
    text = _text("<p>before</p>" + "<div>" * 100_000 + "deep" + "</div>" * 100_000 + "after")
    assert text.split() == ["before", "deep", "after"]
    assert "deep" in _text("<div>" * 1_000 + "deep")


def test_nested_lists_do_not_indent_for_ever() -> None:
    """Beyond eight levels a list is indented no further."""
    text = _text("<ul><li>x" * 500)
    assert max(len(line) for line in text.split("\n")) < 60
    assert text.count("x") == 500


def test_what_is_beyond_the_limit_is_said() -> None:
    """A page with too many elements ends in a note; its beginning is there."""
    text = _text("<h1>Top</h1>" + "<p>x</p>" * 101_000)
    assert text.startswith("# Top\n\nx")
    assert text.endswith("[... the rest of the page is left out ...]")


def test_any_markup() -> None:
    """A thousand random soups of tags: always a text, its marks those of the table."""
    tags = ["a", "p", "div", "ul", "ol", "li", "table", "tr", "td", "pre", "code", "h1", "sup"]
    tags += ["blockquote", "svg", "math", "script", "title", "img", "br", "xmp", "select", "base"]
    bits = ["<", ">", "&", "&#x110000;", "&#0;", "&bogus;", "<!--", "-->", "<![CDATA[", "<?x", "'"]
    bits += ['"', "\ud800", "\0", "【0†x】", "word ", "\n", "href='http://[x'", "]]>", "</"]
    bits += [f"<{tag}>" for tag in tags] + [f"</{tag}>" for tag in tags]
    bits += ["<a href='/x?y'>", "<a href=https://b.no>", "<ol start=99999999999>", "<p nested=1>"]
    random.seed(5)
    for _ in range(1_000):
        html = "".join(random.choices(bits, k=random.randrange(1, 60)))
        table = LinkTable("https://a.no/")
        text = render_html(html, table)
        text.encode()
        assert text.count("【") == text.count("】")
