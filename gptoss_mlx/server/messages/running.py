"""Calls of tools that the server runs itself, and their results, as the API's blocks have them.

A search is a `web_search`, opening a page or finding something in it a `web_fetch`, Python a
`code_execution`. It does not know who runs the tools.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from gptoss_mlx.server.browsing import arguments_of, page_of
from gptoss_mlx.tools.browser.citations import Source

__all__ = ["call_of", "result_of"]

_TITLE = re.compile(r"【(\d+)†([^†】]+)")
_BROWSER = ("browser.search", "browser.open", "browser.find")


def call_of(
    recipient: str, content: str, builtins: Collection[str], source: Source
) -> tuple[str, dict[str, Any]] | None:
    """(name, input) of a call; None, where it is of no tool that is there."""
    recipient = recipient.strip().removeprefix("functions.")
    if recipient == "python" and "python" in builtins:
        return "code_execution", {"code": content}
    if recipient not in _BROWSER or "browser" not in builtins:
        return None
    arguments = arguments_of(content)
    if recipient == "browser.search":
        return "web_search", {"query": str(arguments.get("query", ""))}
    found: dict[str, Any] = {"url": _address(arguments, source)}
    if recipient == "browser.find":
        found["pattern"] = str(arguments.get("pattern", ""))
    return "web_fetch", found


def result_of(name: str, identity: str, output: str, source: Source) -> dict[str, Any]:
    """The block that holds the result of the call with this name and id."""
    kind = f"{name}_tool_result"
    if output.startswith("[ERROR]"):
        content: Any = {"type": f"{kind}_error", "error_code": "unavailable"}
    else:
        content = _CONTENTS[name](output, source)
    return {"type": kind, "tool_use_id": identity, "content": content}


def _searched(_: str, source: Source) -> list[dict[str, Any]]:
    page = page_of(-1, source)
    if page is None:
        return []
    titles = {int(match[1]): match[2] for match in _TITLE.finditer(page.text)}
    return [
        {
            "type": "web_search_result",
            "url": link.url,
            "title": titles.get(number, link.url),
            "encrypted_content": "",  # what the model has seen of it is not the client's to return
            "page_age": None,
        }
        for number, link in enumerate(page.links)
    ]


def _fetched(output: str, source: Source) -> dict[str, Any]:
    page = page_of(-1, source)
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": output},
        "title": page.title if page else None,
        "citations": None,
    }
    url = page.source_url if page else ""
    return {"type": "web_fetch_result", "url": url, "content": document, "retrieved_at": None}


def _executed(output: str, _: Source) -> dict[str, Any]:
    return {
        "type": "code_execution_result",
        "stdout": output,
        "stderr": "",
        "return_code": 0,
        "content": [],
    }


_CONTENTS: dict[str, Callable[[str, Source], Any]] = {
    "web_search": _searched,
    "web_fetch": _fetched,
    "code_execution": _executed,
}


def _address(arguments: dict[str, Any], source: Source) -> str:
    """What a call opens: a URL, a link of a page, or that page again."""
    target = arguments.get("id")
    if isinstance(target, str):
        return target
    page = page_of(arguments.get("cursor", -1), source)
    if page is not None and isinstance(target, int) and 0 <= target < len(page.links):
        return page.links[target].url
    return page.source_url if page else ""
