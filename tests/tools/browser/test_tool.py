"""The browser as a model uses it: calls, the stack of pages, citations, whatever the arguments."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Sequence

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools import Preview, Toolbox
from gptoss_mlx.tools.browser import BrowserTool, cite, make_backend
from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.page import Document
from tools.browser.session import RECORDED, SESSION, SITE, transcript


class _Web:
    """A web of pages in memory, which counts what it is asked."""

    is_local = False

    def __init__(self, pages: dict[str, str]) -> None:
        self.pages = pages
        self.asked: list[str] = []

    def search(self, query: str, topn: int) -> Sequence[Result]:
        self.asked.append(f"search {query} {topn}")
        return [Result(url, f"Page {url}", "It rains") for url in self.pages][:topn]

    def fetch(self, url: str, stop: threading.Event) -> Document:
        self.asked.append(url)
        if url == "slow:":
            stop.wait(10)
            self.asked.append("stopped")
        if url not in self.pages:
            raise ToolError(f"{url}: HTTP 404 Not Found")
        return Document(url, self.pages[url])


def _words(text: str) -> list[int]:
    return [0] * len(text.split())


def _web(seconds: float = 30.0) -> tuple[_Web, BrowserTool]:
    pages = {
        "https://a.no/": "<title>A</title><p>See <a href=/b>b</a> on rain.",
        "https://a.no/b": "<title>B</title><p>Back to <a href=/>a</a>.",
    }
    web = _Web(pages)
    return web, BrowserTool(web, encode=_words, seconds=seconds)


def _folder() -> BrowserTool:
    return BrowserTool(make_backend(f"folder:{SITE}"))


def _run(tool: BrowserTool, name: str, **arguments: object) -> str:
    return tool.run(f"browser.{name}", json.dumps(arguments))


def _preview(tool: BrowserTool, name: str, **arguments: object) -> Preview:
    return tool.preview(f"browser.{name}", json.dumps(arguments))


def test_a_session() -> None:
    """Search, open, find, a hit, scrolling, a link, a path, a source: the displays as recorded."""
    assert transcript() == RECORDED.read_text("utf-8")


def test_an_answer_with_citations() -> None:
    """What a model cites after search -> open -> find -> scroll becomes links to the pages."""
    tool = _folder()
    for name, arguments in SESSION[:5]:
        _run(tool, name, **arguments)
    answer = "August brings 103 mm【4†L15-L16】, as was found【2†L7】; see【0†L4】【77†L1】."
    text, citations = cite(answer, tool.source)
    assert text == (
        "August brings 103 mm (weather/oslo.html), as was found (weather/oslo.html);"
        " see (weather/oslo.html)."
    )
    assert {citation.url for citation in citations} == {"folder:///weather/oslo.html"}
    assert tool.source(5) is None
    assert tool.source(-1) is None


def test_pages_at_hand_are_not_fetched_again() -> None:
    """A link to a page of the stack shows that page; its URL fetches it anew."""
    web, tool = _web()
    assert "[0] A (https://a.no/)" in _run(tool, "open", id="https://a.no/")
    assert "[1] B (https://a.no/b)" in _run(tool, "open", id=0)
    assert "[2] A (https://a.no/)" in _run(tool, "open", id=0)
    assert "[3] A (https://a.no/)" in _run(tool, "open", cursor=0, loc=1)
    assert web.asked == ["https://a.no/", "https://a.no/b"]
    _run(tool, "open", url="https://a.no/b")
    assert web.asked[2:] == ["https://a.no/b"]


def test_two_searches_are_two_pages() -> None:
    """An earlier search is still there under its cursor."""
    _, tool = _web()
    _run(tool, "search", query="one")
    _run(tool, "search", query="two")
    assert "[2] one\n" in _run(tool, "open", cursor=0)


def test_a_failed_call_pushes_no_page() -> None:
    """The cursor after an error is the one before it."""
    _, tool = _web()
    for arguments in ({"id": "https://a.no/404"}, {"id": 3}, {}):
        with pytest.raises(ToolError):
            _run(tool, "open", **arguments)
    _run(tool, "open", id="https://a.no/")
    with pytest.raises(ToolError, match="beyond the page"):
        _run(tool, "open", loc=99)
    assert _run(tool, "find", pattern="rain").startswith("[1] Find results")


def test_lenient_arguments() -> None:
    """Numbers as text, null and unknown keys are understood; topn is bounded."""
    web, tool = _web()
    _run(tool, "search", query="rain", topn="500", recency_days=3, source=None)
    assert web.asked == ["search rain 20"]
    _run(
        tool, "open", id="【0†Page†a.no】", cursor="0", loc=None, num_lines="2", view_source="false"
    )
    assert tool.source(1) is not None
    assert "[2] " in _run(tool, "find", pattern=3, cursor="1")
    assert "[3] " in _run(tool, "open", id=None, url="", cursor=-5, loc=-7, num_lines=0)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("search", {}, "query is missing"),
        ("search", {"query": "x", "topn": "many"}, "topn must be a whole number"),
        ("find", {}, "pattern is missing"),
        ("find", {"pattern": "x", "cursor": 9}, "no page with cursor 9: the last one is 1"),
        ("find", {"pattern": "x", "cursor": 1}, "results of a find"),
        ("open", {"id": 7, "cursor": 0}, 'no link 7 on "A": its links are 0 to 0'),
        ("open", {"id": [], "cursor": 0}, "id must be the number of a link, or a URL"),
        ("open", {"id": "https://x.no/"}, "HTTP 404"),
        ("open", {"loc": "end"}, "loc must be a whole number"),
    ],
)
def test_calls_that_cannot_be_run(name: str, arguments: dict[str, object], message: str) -> None:
    """Each is a sentence that the model can act on."""
    _, tool = _web()
    _run(tool, "open", id="https://a.no/")
    _run(tool, "find", pattern="rain")
    with pytest.raises(ToolError, match=message):
        _run(tool, name, **arguments)


def test_before_anything_is_open() -> None:
    """There is no page to scroll or to search in, and no source of search results."""
    _, tool = _web()
    for name, arguments in (("open", {}), ("find", {"pattern": "x"})):
        with pytest.raises(ToolError, match="no page is open yet"):
            _run(tool, name, **arguments)
    _run(tool, "search", query="rain")
    with pytest.raises(ToolError, match="no source"):
        _run(tool, "open", view_source=True)


def test_a_call_of_another_name() -> None:
    """Names, and content that is no JSON object, are told as such."""
    tool = _folder()
    assert (tool.name, tool.builtin) == ("browser", "browser")
    with pytest.raises(ToolError, match=r"call browser\.search, browser\.open, browser\.find"):
        tool.run("browser.click", "{}")
    for content in ("rain", "[]", "{", "null"):
        with pytest.raises(ToolError, match="JSON"):
            tool.preview("browser.search", content)


def test_previews() -> None:
    """Asking the web needs approval, reading on does not; nothing is done by a preview."""
    web, tool = _web()
    assert _preview(tool, "search", query="rain\n\x1b[1m") == Preview('search "rain [1m"')
    assert _preview(tool, "open", id="https://a.no/") == Preview("open https://a.no/")
    assert web.asked == []
    _run(tool, "open", id="https://a.no/")
    assert _preview(tool, "open", id=0) == Preview("open https://a.no/b")
    assert _preview(tool, "open", loc=1) == Preview('read "A"', is_harmless=True)
    found = Preview('find "rain" in "A"', is_harmless=True)
    assert _preview(tool, "find", pattern="rain") == found
    assert _preview(tool, "open", view_source=True) == Preview("open https://a.no/")
    url = "https://a.no/?secret=" + "x" * 500
    long = _preview(tool, "open", id=url)
    assert (long.title.endswith("..."), long.body) == (True, url)
    assert _preview(_folder(), "search", query="rain").is_harmless


def test_a_backend_that_hangs() -> None:
    """A call is bounded in time, and the backend told that nobody waits."""
    web, tool = _web(seconds=0.2)
    began = time.monotonic()
    with pytest.raises(ToolError, match="no answer in"):
        _run(tool, "open", id="slow:")
    assert time.monotonic() - began < 2
    while web.asked[-1] != "stopped":
        assert time.monotonic() - began < 5
        time.sleep(0.01)


def test_closing() -> None:
    """A running call ends soon, further ones are refused."""
    _, tool = _web()
    threading.Timer(0.1, tool.close).start()
    for _ in range(2):
        with pytest.raises(ToolError, match="was closed"):
            _run(tool, "open", id="slow:")


def test_in_a_toolbox() -> None:
    """Calls under the names that models invent reach it; errors are texts."""
    with Toolbox([_folder()]) as toolbox:
        assert "[0] rain" in toolbox.run("functions.browser.search", '{"query": "rain"}')
        assert toolbox.run("browser.open", '{"id": 99}').startswith("[ERROR] there is no link 99")


def test_any_arguments() -> None:
    """A thousand random calls: views of bounded length, or errors that are sentences."""
    values: list[object] = [
        None,
        True,
        -1,
        0,
        1,
        2,
        7,
        10**12,
        1.5,
        "",
        "1",
        "L2",
        "rain",
        "a" * 5_000,
        [],
        {},
    ]
    values += [
        "https://x.no/",
        "../../etc/passwd",
        "index.html",
        "【0†x】",
        "\ud800\0",
        "9" * 5_000,
    ]
    keys = ["id", "cursor", "loc", "num_lines", "view_source", "query", "pattern", "topn", "url"]
    random.seed(7)
    tool = _folder()
    views, errors = 0, list[str]()
    for _ in range(1_000):
        arguments = {key: random.choice(values) for key in random.sample(keys, random.randrange(6))}
        name = random.choice(("search", "open", "find"))
        try:
            tool.preview(f"browser.{name}", json.dumps(arguments))
            shown = _run(tool, name, **arguments)
        except ToolError as error:
            errors.append(str(error))
        else:
            views += 1
            assert shown.startswith(f"[{views - 1}] ")
            assert len(shown) < 20_000
            shown.encode()
    assert min(views, len(errors)) > 100
    assert all(error and "\n" not in error for error in errors)
