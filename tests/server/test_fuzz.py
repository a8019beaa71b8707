"""Requests that nobody would send: never a 5xx, always the API's shape."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from .conftest import ANSWER

Client = Callable[..., TestClient]
CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ],
    "stop": ["a"],
    "logit_bias": {"1": 1},
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
    "reasoning_effort": "low",
    "temperature": 0,
    "max_tokens": 3,
    "n": 1,
    "seed": 1,
    "logprobs": True,
    "top_logprobs": 2,
}
RAW: dict[str, Any] = {
    "prompt": "Hi",
    "max_tokens": 3,
    "temperature": 0,
    "stop": "a",
    "logprobs": 1,
}
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 2**63, 10**30, "", " ", "<|start|>", "\x00", "\ufffd", "x" * 10_000,
    [], [None], [[]], {}, {"": None}, {"type": "function"}, [{"type": "text"}], [0], [2**40],
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something could be changed in a value."""
    found = [path] if path else []
    if isinstance(value, dict):
        items: Any = value.items()  # pyright: ignore
    else:
        items = enumerate(value) if isinstance(value, list) else ()  # pyright: ignore
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)  # pyright: ignore
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy  # pyright: ignore


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", RAW)]
)
def test_odd_values(client: Client, path: str, body: dict[str, Any]) -> None:
    """Anything anywhere is served or refused, and a refusal names what it is about."""
    draw = random.Random(7)
    http = client(*[ANSWER] * 2000)
    cases = [(place, new) for place in places(body) for new in ODD]
    refused = 0
    for place, new in draw.sample(cases, min(120, len(cases))):
        response = http.post(path, json=changed(body, place, new))
        assert response.status_code in (200, 400), (place, new, response.text)
        if response.status_code == 400:
            refused += 1
            error = response.json()["error"]
            assert error["type"] == "invalid_request_error"
            assert error["message"]
            assert len(error["message"]) < 500
    assert refused > 20


@pytest.mark.parametrize("name", ["<|call|>", "a b", "é", " ", "python", "functions.f", "x" * 256])
def test_odd_names(client: Client, name: str) -> None:
    """A function may have any name: the model is shown one that it can write."""
    tool = {"type": "function", "function": {"name": name}}
    body = {**CHAT, "tools": [tool], "tool_choice": "none"}
    response = client(ANSWER).post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
