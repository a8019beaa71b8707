"""Citations, whole and in pieces."""

from __future__ import annotations

import random

import pytest

from gptoss_mlx.tools.browser.citations import Citation, CitationFilter, cite
from gptoss_mlx.tools.browser.page import Link, Page

PAGES = {
    0: Page(
        "rain",
        "",
        "【0†Oslo†yr.no】 rain\nmore\n【1†Bergen†yr.no】",
        (Link("https://yr.no/o"), Link("https://yr.no/b")),
    ),
    1: Page("Oslo", "https://www.yr.no/oslo", "It rains."),
    2: Page("Found", "https://yr.no/find?pattern=x", "hit", cites="https://yr.no/a (b)"),
    3: Page("Local", "folder:///weather/oslo%20fjord.html", "It rains."),
    4: Page("Odd", "https://[::1]:8000/x", "It rains."),
}


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("It rains【1†L9-L11】.", "It rains ([yr.no](https://www.yr.no/oslo))."),
        ("It rains 【1†L9】", "It rains ([yr.no](https://www.yr.no/oslo))"),
        ("【1†L9】 x", "([yr.no](https://www.yr.no/oslo)) x"),
        ("a【1†source†yr.no】", "a ([yr.no](https://www.yr.no/oslo))"),
        ("a【2†L1】", "a ([yr.no](https://yr.no/a%20%28b%29))"),
        ("a【3†L1】", "a (weather/oslo fjord.html)"),
        ("a【4†L1】", "a ([::1:8000](https://[::1]:8000/x))"),
        ("a【0†L1】【0†L2-L3】", "a ([yr.no](https://yr.no/o)) ([yr.no](https://yr.no/b))"),
        ("a【9†L1】b", "ab"),  # no such page
        ("a【999999999†L1】b", "a【999999999†L1】b"),
    ],
)
def test_citations_become_links(text: str, cited: str) -> None:
    """A link with the site's name; what cites nothing is left out."""
    assert cite(text, PAGES.get)[0] == cited


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "【",
            "】",
            "【】",
            "【1",
            "【1†",
            "【1†】",
            "【†L1】",
            "【a†L1】",
            "【1†L1",
            "a【1 †L1】",
        ),
        *("†", "【1†L\n1】", "【 1†L1】", "【注意】", "【1†" + "x" * 81 + "】", "【1†a†b†c】"),
    ],
)
def test_other_text_passes(text: str) -> None:
    """What is no citation comes out as it went in."""
    assert cite(text, PAGES.get) == (text, [])
    assert cite(f"x{text}y", PAGES.get) == (f"x{text}y", [])


def test_annotations() -> None:
    """Where each link stands in the text that comes out."""
    text, citations = cite("Rain【1†L9】. Sun【9†L1】【2†L1】.", PAGES.get)
    assert citations == [
        Citation(5, 38, "https://www.yr.no/oslo", "Oslo"),
        Citation(44, 80, "https://yr.no/a (b)", "Found"),
    ]
    assert [text[c.start_index : c.end_index] for c in citations] == [
        "([yr.no](https://www.yr.no/oslo))",
        "([yr.no](https://yr.no/a%20%28b%29))",
    ]


def test_text_comes_out_as_soon_as_it_can() -> None:
    """Only what may yet be a citation is held back."""
    stream = CitationFilter(PAGES.get)
    pieces = ["It rains", "【", "1†L", "9】", "【x", " 【1", "2", "3", "4567", "【1†L1"]
    assert [stream.push(piece) for piece in pieces] == [
        *(
            "It rains",
            "",
            "",
            " ([yr.no](https://www.yr.no/oslo))",
            "【x",
            " ",
            "",
            "",
            "【1234567",
        ),
        "",
    ]
    assert (stream.close(), stream.close()) == ("【1†L1", "")


def test_pieces_make_no_difference() -> None:
    """Any text cut anywhere gives the same text and the same annotations."""
    bits = [
        "【",
        "】",
        "†",
        "1",
        "9",
        "L9",
        "-L11",
        " ",
        "rain",
        "\n",
        "【1†L9】",
        "【0†L2】",
        "【9†L1】",
        "x" * 50,
    ]
    random.seed(6)
    for _ in range(2_000):
        text = "".join(random.choices(bits, k=random.randrange(1, 30)))
        whole = cite(text, PAGES.get)
        stream, out, at = CitationFilter(PAGES.get), "", 0
        while at < len(text):
            size = random.choice((1, 1, 2, 3, 7))
            out, at = out + stream.push(text[at : at + size]), at + size
        assert (out + stream.close(), stream.citations) == whole
        for citation in stream.citations:
            assert whole[0][citation.start_index] == "("
            assert whole[0][citation.end_index - 1] == ")"
