"""A job's reply end to end: its tools, its grammar, and what one request leaves to the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox
from gptoss_mlx.tools.browser import BrowserTool, make_backend

from .chat_completions.streams import ANSWER, CALL, OUR_CALL, THINK, Calculator
from .conftest import MakeServed

Client = Callable[..., TestClient]
PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "my tool"}}


class Closing(Calculator):
    """Remembers that it was closed."""

    closed: list[str]

    def close(self) -> None:
        """Note it."""
        self.closed.append("closed")


def test_tools_of_the_server_are_run(client: Client) -> None:
    """Those that the request asks for, opened for it and closed after it; the client sees none."""
    opened: list[Sequence[str]] = []
    closed: list[str] = []

    def open_tools(names: Sequence[str]) -> Toolbox:
        opened.append(names)
        tool = Closing()
        tool.closed = closed
        return Toolbox([tool])

    http = client(
        THINK + OUR_CALL, ANSWER, ANSWER, open_tools=open_tools, tools={"python": "python"}
    )
    asks = {**HELLO, "tools": [{"type": "code_interpreter"}]}
    (choice,) = http.post(PATH, json=asks).json()["choices"]
    assert choice["message"]["content"] == "Ça va 👩‍🚀!"
    assert "tool_calls" not in choice["message"]
    assert (opened, closed) == ([("python",)], ["closed"])
    http.post(PATH, json=HELLO)
    assert len(opened) == 1


def test_tools_that_cannot_be_opened(client: Client) -> None:
    """Are an error with a status, in a stream too."""

    def open_tools(_: Sequence[str]) -> Toolbox:
        raise ToolError("no sandbox here")

    http = client(open_tools=open_tools, tools={"python": "python"})
    body = {**HELLO, "stream": True, "tools": [{"type": "python"}]}
    response = http.post(PATH, json=body)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "no sandbox here"


def test_a_call_and_its_result_over_two_requests(served: MakeServed, tokenizer: Tokenizer) -> None:
    """The second prompt goes on from the first; ids pair calls with results."""
    made = served(THINK + CALL, THINK + ANSWER)
    with TestClient(made.app, "http://127.0.0.1") as http:
        first = http.post(PATH, json={**HELLO, "tools": [TOOL]}).json()["choices"][0]
        assert first["finish_reason"] == "tool_calls"
        (call,) = first["message"]["tool_calls"]
        assert call["function"] == {"name": "my tool", "arguments": '{"a": 1}'}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "fine"}
        messages = [*HELLO["messages"], first["message"], result]
        second = http.post(PATH, json={"messages": messages, "tools": [TOOL]}).json()
    assert second["choices"][0]["message"]["content"] == "Ça va 👩‍🚀!"
    first_prompt, second_prompt = made.prompts
    assert second_prompt[: len(first_prompt)] == first_prompt
    rest = tokenizer.decode(second_prompt[len(first_prompt) :])
    assert "They ask." in rest
    assert "<|start|>functions.my_tool to=assistant<|channel|>commentary<|message|>fine" in rest
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= len(first_prompt) - 1


def test_grammars_that_cannot_be_are_a_400(client: Client) -> None:
    """Before any event of a stream."""
    schema = {"type": "object", "not": {"type": "object"}}
    named = {"name": "x", "schema": schema, "strict": True}
    wanted = {"type": "json_schema", "json_schema": named}
    response = client().post(PATH, json={**HELLO, "stream": True, "response_format": wanted})
    assert response.status_code == 400
    assert "the answer" in response.json()["error"]["message"]


def test_an_answer_keeps_to_its_schema(client: Client) -> None:
    """And comes after a chain of thought."""
    schema = {
        "type": "object",
        "properties": {"a": {"const": 1}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    script = THINK + '<|channel|>final<|message|>{"a": 1}<|return|>'
    response = client(script).post(PATH, json={**HELLO, "response_format": wanted})
    (choice,) = response.json()["choices"]
    assert json.loads(choice["message"]["content"]) == {"a": 1}


def test_the_browser_of_a_reply_knows_its_citations(client: Client, tmp_path: Path) -> None:
    """A page that the model has seen is what its citation links to."""
    (tmp_path / "oslo.txt").write_text("It rains in Oslo.")

    def open_tools(_: Sequence[str]) -> Toolbox:
        return Toolbox([BrowserTool(make_backend(f"folder:{tmp_path}"))])

    search = '<|channel|>analysis to=browser.search code<|message|>{"query": "Oslo"}<|call|>'
    opened = '<|channel|>analysis to=browser.open code<|message|>{"id": 0}<|call|>'
    answer = "<|channel|>final<|message|>It rains【1†L1】.<|return|>"
    http = client(search, opened, answer, open_tools=open_tools, tools={"browser": "browser"})
    body = {**HELLO, "tools": [{"type": "web_search"}]}
    content = http.post(PATH, json=body).json()["choices"][0]["message"]["content"]
    assert content == "It rains (oslo.txt)."
