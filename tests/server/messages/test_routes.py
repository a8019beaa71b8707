"""/v1/messages over HTTP: what is served, what is refused, and in which shape."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import ReplayModel
from starlette.testclient import TestClient

from gptoss_mlx.server.answer import Wire
from gptoss_mlx.tokenizer import Tokenizer
from server.conftest import MakeServed
from server.test_fuzz import ODD, changed, places

from .checking import check_message, check_stream
from .scenes import CALL, CODE, FINAL, THINK, THINKING, TOOL, USER, WEB, JsonObject

Client = Callable[..., TestClient]
PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
HELLO: JsonObject = {"model": "claude-opus-9", "max_tokens": 100, "messages": [USER]}
EVERYTHING: JsonObject = {
    **HELLO,
    **THINKING,
    "max_tokens": 3,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [{"type": "text", "text": "wet"}],
                    "is_error": False,
                },
                {"type": "document", "source": {"type": "text", "data": "x"}, "title": "T"},
            ],
        },
    ],
    "tools": [
        {
            "name": "f",
            "description": "Does.",
            "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
            "defer_loading": False,
        },
        WEB,
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "stop_sequences": ["a"],
    "temperature": 0,
    "top_p": 1,
    "top_k": 5,
    "metadata": {"user_id": "u"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "context_management": {"edits": []},
}


def events(text: str) -> list[Wire]:
    """The events of a stream."""
    found: list[Wire] = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_message(client: Client) -> None:
    """Whatever the model is called, it answers, and under that name; headers make no difference."""
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "news-2099-01-01"}
    response = client(THINK + FINAL).post(f"{PATH}?beta=true", json=HELLO, headers=headers)
    assert response.status_code == 200
    message = response.json()
    check_message(message)
    assert message["model"] == "claude-opus-9"
    assert [block["type"] for block in message["content"]] == ["text"]
    assert message["stop_reason"] == "end_turn"


def test_a_stream(client: Client) -> None:
    """Named events, which add up to what the answer in one piece would be."""
    http = client(THINK + FINAL, THINK + FINAL)
    body = {**HELLO, **THINKING}
    whole = http.post(PATH, json=body).json()
    response = http.post(PATH, json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.text)
    whole["id"] = found[0][1]["message"]["id"]
    total = whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"]
    assert found[0][1]["message"]["usage"]["input_tokens"] == total
    whole["usage"] = found[-2][1]["usage"]
    check_stream(found, whole)


def test_the_second_turn_is_cached(client: Client) -> None:
    """Over a tool's call: all of the prompt but the result."""
    http = client(THINK + CALL, FINAL)
    body = {**HELLO, **THINKING, "tools": [TOOL]}
    first = http.post(PATH, json=body).json()
    assert first["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": first["content"][-1]["id"], "content": "wet"}
    messages = [
        USER,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = http.post(PATH, json={**body, "messages": messages}).json()
    before = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert second["usage"]["cache_read_input_tokens"] >= before - 2
    assert second["usage"]["input_tokens"] < 20


@pytest.mark.parametrize("body", [HELLO, {**HELLO, "tools": [TOOL, WEB, CODE]}])
def test_a_count_is_that_of_the_prompt(client: Client, body: JsonObject) -> None:
    """Without an answer, and without what only an answer needs."""
    http = client(FINAL)
    counted = http.post(COUNT, json={k: v for k, v in body.items() if k != "max_tokens"}).json()
    usage = http.post(PATH, json=body).json()["usage"]
    assert counted == {"input_tokens": usage["input_tokens"]}


def test_a_format_is_kept(client: Client) -> None:
    """The answer is JSON, though the model would not have said any."""
    schema = {"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"]}
    body = {**HELLO, "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    json_text = '{"a": 7}'
    answer = FINAL.replace("It rains in São Paulo 🫠.", json_text)
    message = client(THINK + answer).post(PATH, json=body).json()
    assert json.loads(message["content"][0]["text"]) == {"a": 7}


def error(response: Any, status: int) -> JsonObject:
    """The error of a response, in Anthropic's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    return body["error"]


def test_refusals(client: Client) -> None:
    """In Anthropic's shape, whatever is wrong."""
    http = client(api_keys=("secret",))
    assert error(http.post(PATH, json=HELLO), 401)["type"] == "authentication_error"
    http.headers["x-api-key"] = "secret"
    assert error(http.post(PATH, content=b"{"), 400)["type"] == "invalid_request_error"
    assert "messages" in error(http.post(PATH, json={}), 400)["message"]
    assert "messages" in error(http.post(COUNT, json={"messages": []}), 400)["message"]
    assert error(http.post(f"{PATH}/batches", json={}), 404)["type"] == "not_found_error"
    assert error(http.get(PATH), 405)["type"] == "invalid_request_error"


def test_a_prompt_that_is_too_long(client: Client, tokenizer: Tokenizer) -> None:
    """Says by how much, in the words by which Claude Code knows to compact its history."""
    model = ReplayModel(tokenizer.encode_with_special(FINAL), max_context_length=512)
    body = {**HELLO, "messages": [{"role": "user", "content": "word " * 1000}], "stream": True}
    http = client(model=model)
    message = error(http.post(PATH, json=body), 400)["message"]
    tokens = http.post(COUNT, json=body).json()["input_tokens"]
    assert message == f"prompt is too long: {tokens} tokens > 512 maximum"


class Slow(ReplayModel):
    """Takes its time for every token."""

    def next_id(self, number: int, n: int) -> int:
        """The script's."""
        time.sleep(0.02)
        return super().next_id(number, n)


def test_hidden_thoughts_are_no_silence(client: Client, tokenizer: Tokenizer) -> None:
    """While the model thinks what the client is not shown, it is told that the stream lives."""
    long = THINK.replace("Hm,", "Hm, " * 40)
    model = Slow(tokenizer.encode_with_special(long + FINAL))
    body = {**HELLO, "max_tokens": 500, "stream": True}
    response = client(model=model, heartbeat=0.25).post(PATH, json=body)
    names = [name for name, _ in events(response.text)]
    assert names[:4] == ["message_start", "ping", "ping", "ping"]
    assert "content_block_start" in names


class Broken(ReplayModel):
    """Fails in the middle of its answer."""

    def next_id(self, number: int, n: int) -> int:
        """The script's first ids."""
        if n == 12:
            raise RuntimeError("it broke")
        return super().next_id(number, n)


def test_a_stream_that_cannot_go_on(served: MakeServed, tokenizer: Tokenizer) -> None:
    """Ends in an error event."""
    made = served(model=Broken(tokenizer.encode_with_special(THINK + FINAL)))
    with TestClient(made.app, "http://127.0.0.1") as http:
        response = http.post(PATH, json={**HELLO, **THINKING, "stream": True})
        assert response.status_code == 200
        name, data = events(response.text)[-1]
        assert (name, data["error"]["type"]) == ("error", "api_error")


def test_odd_values(client: Client) -> None:
    """Anything anywhere is served or refused, and a refusal names what it is about."""
    draw = random.Random(7)
    http = client(*[FINAL] * 2000, tools={"browser": "browser"})
    cases = [(place, new) for place in places(EVERYTHING) for new in ODD]
    assert http.post(PATH, json=EVERYTHING).status_code == 200
    refused = 0
    for place, new in draw.sample(cases, 200):
        path = draw.choice([PATH, COUNT])
        response = http.post(path, json=changed(EVERYTHING, place, new))
        assert response.status_code in (200, 400), (place, new, response.text)
        if response.status_code == 400:
            refused += 1
            message = error(response, 400)["message"]
            assert 0 < len(message) < 500
    assert refused > 40
