"""Search services of the web: ddgs without a key, exa.ai and you.com with one.

exa and you fetch pages through the service, so that this machine reaches only the service; those
requests use the proxies of the environment. ddgs fetches pages itself. It does not know what the
model sees.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx2

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.backends import Result
from gptoss_mlx.tools.browser.fetch import Clock, Fetcher, bounded_body, user_agent
from gptoss_mlx.tools.browser.page import Document, one_line

__all__ = ["DdgsBackend", "ExaBackend", "YouBackend"]

_SECONDS = 15.0
_MAX_ANSWER = 10_000_000  # bytes: some pages of 5 MB, spelled as JSON
_MAX_SUMMARY = 500


class DdgsBackend:
    """Search by the ddgs library, which asks several engines; pages by the fetcher."""

    is_local = False

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def search(self, query: str, topn: int) -> Sequence[Result]:
        """At most `topn` hits."""
        import ddgs
        from ddgs.exceptions import DDGSException

        try:
            hits: object = ddgs.DDGS(timeout=10).text(query, max_results=topn)
        except DDGSException as error:
            raise ToolError(f"the search failed: {one_line(str(error), 200)}") from None
        except Exception as error:  # its engines parse what the web sends, and raise anything
            raise ToolError(f"the search failed: {type(error).__name__}") from error
        return _results(hits, "href", ("body",))[:topn]

    def fetch(self, url: str, stop: threading.Event) -> Document:
        """The page, from where it is."""
        return self._fetcher.fetch(url, stop)


class ExaBackend:
    """exa.ai: searches and pages through its API."""

    is_local = False

    def __init__(self, key: str, base_url: str = "https://api.exa.ai") -> None:
        self._api = _Api("exa.ai", base_url, key)

    def search(self, query: str, topn: int) -> Sequence[Result]:
        """At most `topn` hits, with the service's summaries."""
        request = {"query": query, "numResults": topn, "contents": {"summary": True}}
        answer = _mapping(self._api.call("POST", "/search", json=request))
        return _results(answer.get("results"), "url", ("summary",))[:topn]

    def fetch(self, url: str, stop: threading.Event) -> Document:  # noqa: ARG002
        """The page, as the service has it."""
        request = {"urls": [url], "text": {"includeHtmlTags": True}}
        answer = _mapping(self._api.call("POST", "/contents", json=request))
        return _document(answer.get("results"), "text", url)


class YouBackend:
    """you.com: searches and pages through its API."""

    is_local = False

    def __init__(self, key: str, base_url: str = "https://api.ydc-index.io") -> None:
        self._api = _Api("you.com", base_url, key)

    def search(self, query: str, topn: int) -> Sequence[Result]:
        """At most `topn` hits: of the web, then of the news."""
        params = {"query": query, "count": str(topn)}
        answer = _mapping(self._api.call("GET", "/v1/search", params=params))
        results = _mapping(answer.get("results"))
        keys = ("snippets", "description")
        return [
            hit for kind in ("web", "news") for hit in _results(results.get(kind), "url", keys)
        ][:topn]

    def fetch(self, url: str, stop: threading.Event) -> Document:  # noqa: ARG002
        """The page, as the service has it."""
        request = {"urls": [url], "livecrawl_formats": "html"}
        return _document(self._api.call("POST", "/v1/contents", json=request), "html", url)


class _Api:
    """A JSON API with a key in a header."""

    def __init__(self, name: str, base_url: str, key: str) -> None:
        self._name = name
        self._base_url = base_url
        self._headers = {"x-api-key": key, "user-agent": user_agent()}

    def call(self, method: str, path: str, **request: Any) -> object:
        """The answer of one request.

        Raises:
            ToolError: there is none that can be used; the key is in no message.
        """
        import json

        try:
            status, body = self._send(method, path, request)
            if status >= 400:
                raise ToolError(f"{self._name} answered HTTP {status}{_remedy(status)}")
            return json.loads(body)
        except (httpx2.HTTPError, OSError) as error:
            raise ToolError(f"{self._name} cannot be reached: {type(error).__name__}") from None
        except (ValueError, RecursionError):
            raise ToolError(f"{self._name} answered something that is not JSON") from None

    def _send(self, method: str, path: str, request: dict[str, Any]) -> tuple[int, bytes]:
        clock = Clock(_SECONDS)
        with (
            httpx2.Client(headers=self._headers, timeout=_SECONDS) as client,
            client.stream(method, f"{self._base_url}{path}", **request) as response,
        ):
            body = bounded_body(response.iter_bytes(), _MAX_ANSWER, clock.left)
            return response.status_code, body


def _remedy(status: int) -> str:
    remedies = {401: ": its key was refused", 402: ": its quota is used up", 403: ": not allowed"}
    return remedies.get(status, ": too many requests, wait a little" if status == 429 else "")


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _results(hits: object, url: str, summaries: tuple[str, ...]) -> list[Result]:
    """The hits of an answer, those without a URL left out."""
    entries = [_mapping(hit) for hit in _list(hits)]
    return [
        Result(
            url=_string(entry.get(url)),
            title=_string(entry.get("title")) or _string(entry.get(url)),
            summary=one_line(" ".join(_string(entry.get(key)) for key in summaries), _MAX_SUMMARY),
        )
        for entry in entries
        if _string(entry.get(url))
    ]


def _document(entries: object, key: str, url: str) -> Document:
    """The first page of an answer.

    Raises:
        ToolError: there is none.
    """
    entry = _mapping(next(iter(_list(entries)), None))
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ToolError(f"{one_line(url, 200)} has no contents there: open another page")
    return Document(url, text, title=_string(entry.get("title")))


def _string(value: object) -> str:
    """A value as text: of a list its parts, of nothing nothing."""
    if isinstance(value, list):
        return " ".join(_string(part) for part in cast("list[object]", value))
    return value.strip() if isinstance(value, str) else ""
