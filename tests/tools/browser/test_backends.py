"""Backends by name, and the services against doubles on this machine."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import ddgs
import ddgs.exceptions
import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.browser import make_backend, services
from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.services import DdgsBackend, ExaBackend, YouBackend
from tools.browser.server import Handler, Route, Server, serving

KEY = "key-of-a-test"


def _body(body: bytes, status: int = 200) -> Route:
    return lambda handler: handler.reply(body, status, content_type="application/json")


def _json(value: object, status: int = 200) -> Route:
    return _body(json.dumps(value).encode(), status)


def _sent(server: Server) -> tuple[str, dict[str, object]]:
    """The last request's first line, and its JSON; the key was in its header."""
    request, headers, body = server.requests[-1]
    assert {name.lower(): value for name, value in headers.items()}["x-api-key"] == KEY
    return request, json.loads(body or b"{}")


def test_exa() -> None:
    """A search asks for summaries; a page comes as HTML. What lacks a URL is left out."""
    hits = [{"title": "Rain", "url": "https://a.no/", "summary": " It\nrains "}, {"url": None}]
    hits += [{"title": None, "url": "https://b.no/", "summary": None}]
    routes = {
        "/search": _json({"results": hits}),
        "/contents": _json({"results": [{"text": "<p>It rains", "title": "Rain"}]}),
    }
    with serving(routes) as server:
        backend = ExaBackend(KEY, server.url(""))
        assert backend.search("rain", 5) == [
            Result("https://a.no/", "Rain", "It rains"),
            Result("https://b.no/", "https://b.no/", ""),
        ]
        asked = {"query": "rain", "numResults": 5, "contents": {"summary": True}}
        assert _sent(server) == ("POST /search", asked)
        document = backend.fetch("https://a.no/", threading.Event())
        asked = {"urls": ["https://a.no/"], "text": {"includeHtmlTags": True}}
        assert _sent(server) == ("POST /contents", asked)
    assert (document.url, document.text, document.title) == ("https://a.no/", "<p>It rains", "Rain")


def test_you() -> None:
    """Hits of the web go before those of the news."""
    results = {
        "news": [{"title": "New", "url": "https://n.no/", "description": "d"}],
        "web": [{"title": "Web", "url": "https://w.no/", "snippets": ["one", "two"]}],
    }
    routes = {
        "/v1/search": _json({"results": results}),
        "/v1/contents": _json([{"html": "<p>It rains", "title": "Rain", "url": "https://w.no/"}]),
    }
    with serving(routes) as server:
        backend = YouBackend(KEY, server.url(""))
        assert backend.search("rain in Oslo", 2) == [
            Result("https://w.no/", "Web", "one two"),
            Result("https://n.no/", "New", "d"),
        ]
        assert _sent(server)[0] == "GET /v1/search?query=rain+in+Oslo&count=2"
        document = backend.fetch("https://w.no/", threading.Event())
        asked = {"urls": ["https://w.no/"], "livecrawl_formats": "html"}
        assert _sent(server) == ("POST /v1/contents", asked)
    assert (document.text, document.title) == ("<p>It rains", "Rain")


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (_json({"error": KEY}, 401), "HTTP 401: its key was refused"),
        (_json({}, 429), "too many requests"),
        (_json({}, 500), "HTTP 500"),
        (_body(b"<html>"), "not JSON"),
        (_body(b"[" * 100_000), "not JSON"),
        (_body(b" " * 11_000_000), "larger than 10 MB"),
    ],
)
def test_services_that_fail(route: Route, message: str) -> None:
    """Whatever a service answers is a sentence for the model, without the key."""
    with serving({"/search": route, "/v1/search": route}) as server:
        for backend in (ExaBackend(KEY, server.url("")), YouBackend(KEY, server.url(""))):
            with pytest.raises(ToolError, match=message) as caught:
                backend.search("rain", 3)
            assert KEY not in str(caught.value)
    with pytest.raises(ToolError, match="cannot be reached"):
        ExaBackend(KEY, server.url("")).search("rain", 3)


def test_a_service_that_dribbles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit is of the whole answer."""

    def dribble(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    monkeypatch.setattr(services, "_SECONDS", 0.3)
    with serving({"/search": dribble}) as server:
        with pytest.raises(ToolError, match=r"longer than 0\.3 s"):
            ExaBackend(KEY, server.url("")).search("rain", 3)
        assert server.cut_off.wait(5)


@pytest.mark.parametrize(
    "answer", ["{}", "[]", "null", "3", '"x"', '{"results": 3}', '{"results": [3, {}]}']
)
def test_services_that_answer_something_else(answer: str) -> None:
    """An answer of another shape has no hits, and no page."""
    paths = ["/search", "/contents", "/v1/search", "/v1/contents"]
    routes = dict.fromkeys(paths, _body(answer.encode()))
    with serving(routes) as server:
        for backend in (ExaBackend(KEY, server.url("")), YouBackend(KEY, server.url(""))):
            assert backend.search("rain", 3) == []
            with pytest.raises(ToolError, match="no contents"):
                backend.fetch("https://a.no/", threading.Event())


def _patched(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[tuple[str, object]]:
    """What DDGS.text was asked from now on; it answers with a value, or raises one."""
    asked: list[tuple[str, object]] = []

    def text(_: object, query: str, *, max_results: int) -> object:
        asked.append((query, max_results))
        if isinstance(answer, Exception):
            raise answer
        return answer

    from ddgs.ddgs import DDGS

    monkeypatch.setattr(DDGS, "text", text)
    return asked


def _ddgs() -> DdgsBackend:
    backend = make_backend("ddgs", allow_private=True)
    assert isinstance(backend, DdgsBackend)
    return backend


def test_ddgs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits come from the library, pages from the web itself."""
    hit = {"title": "Rain", "href": "https://a.no/", "body": "It rains"}
    asked = _patched(monkeypatch, [hit, {}, "x", hit])
    assert _ddgs().search("rain", 1) == [Result("https://a.no/", "Rain", "It rains")]
    assert asked == [("rain", 1)]
    with serving({"/a": lambda handler: handler.reply(b"<html>rain")}) as server:
        assert _ddgs().fetch(server.url("/a"), threading.Event()).text == "<html>rain"
        with pytest.raises(ToolError, match="public internet"):
            make_backend("ddgs").fetch(server.url("/a"), threading.Event())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ddgs.exceptions.DDGSException("No results found."),
            "the search failed: No results found.",
        ),
        (RuntimeError("anything"), "the search failed: RuntimeError"),
    ],
)
def test_ddgs_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    """Whatever the library raises is a sentence for the model."""
    _patched(monkeypatch, error)
    with pytest.raises(ToolError, match=message):
        _ddgs().search("rain", 3)


def test_backends_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each name makes its backend; only a folder is local."""
    monkeypatch.setenv("EXA_API_KEY", KEY)
    monkeypatch.setenv("YDC_API_KEY", KEY)
    names = ("ddgs", "exa", "you", f"folder:{tmp_path}")
    assert [make_backend(name).is_local for name in names] == [False, False, False, True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("google", "choose one of ddgs, exa, you, folder:PATH"),
        ("", "choose one of"),
        ("exa", "set EXA_API_KEY"),
        ("you", "set YDC_API_KEY"),
        ("folder:", "folder:~/pages"),
        ("folder", "folder:~/pages"),
        ("folder:/no/such/folder", "there is no folder '/no/such/folder'"),
    ],
)
def test_backends_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    """An unknown name, a missing key or folder: the remedy is named."""
    monkeypatch.setenv("EXA_API_KEY", " ")
    monkeypatch.delenv("YDC_API_KEY", raising=False)
    with pytest.raises(UsageError, match=message):
        make_backend(name)
