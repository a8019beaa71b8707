"""The messages of a request, read without a memory: as text."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.messages.history import read_messages
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.messages.schema import CountRequest
from gptoss_mlx.server.problems import Problem

from .scenes import USER, JsonObject

LEFT_OUT = "left out: this model reads only text]"


def messages(*given: JsonObject) -> list[Message]:
    """What the model is given of them."""
    request = CountRequest.model_validate({"messages": list(given)})
    return read_messages(request.messages, ToolNames(["f", "my tool"]), Memory())


def text(value: str) -> JsonObject:
    """A block of text."""
    return {"type": "text", "text": value}


def call(identity: str = "1", name: str = "f", **input_: Any) -> JsonObject:
    """A call that the client has been given."""
    return {"type": "tool_use", "id": identity, "name": name, "input": input_}


def result(identity: str = "1", **more: Any) -> JsonObject:
    """What the client says to a call."""
    return {"type": "tool_result", "tool_use_id": identity, **more}


def called(arguments: str = "{}", name: str = "f") -> Message:
    """A call as the model writes it."""
    to = f"functions.{name}"
    return Message("assistant", arguments, "commentary", to, "<|constrain|>json")


def said(content: str, name: str = "f") -> Message:
    """A result as the model reads it."""
    return Message("tool", content, "commentary", "assistant", name=f"functions.{name}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", "a"),
        ([text("a"), text("b")], "a\nb"),
        ([text("a"), {"type": "image", "source": {"type": "base64"}}], f"a\n[image {LEFT_OUT}"),
        (
            [{"type": "document", "title": "T", "source": {"type": "url"}}],
            f"T\n[document {LEFT_OUT}",
        ),
        (
            [{"type": "document", "source": {"type": "text", "data": "D"}, "context": "C"}],
            "C\nD",
        ),
        (
            [
                {
                    "type": "search_result",
                    "source": "https://a",
                    "title": "A",
                    "content": [text("x")],
                }
            ],
            "A\nhttps://a\nx",
        ),
        ([{"type": "news"}, text("a")], "a"),
    ],
)
def test_what_the_user_says(content: Any, expected: str) -> None:
    """Texts, what of documents is text, and a word for what is none."""
    assert messages({"role": "user", "content": content}) == [Message("user", expected)]


def test_an_answer() -> None:
    """With its thoughts before it; those that only their maker can read are left out."""
    blocks = [
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "Hm.", "signature": "of somebody else"},
        {"type": "thinking", "thinking": "", "signature": "of somebody else"},
        text("No."),
        text(""),
    ]
    assert messages(USER, {"role": "assistant", "content": blocks})[1:] == [
        Message("assistant", "Hm.", "analysis"),
        Message("assistant", "No.", "final"),
    ]
    assert messages({"role": "assistant", "content": "No."}) == [
        Message("assistant", "No.", "final")
    ]


def test_calls_and_their_results() -> None:
    """Text beside calls is no answer; results go to their calls, and the user speaks in between."""
    found = messages(
        {"role": "assistant", "content": [text("I look."), call(a=1), call("2", "my tool")]},
        {
            "role": "user",
            "content": [
                result("2", content=[text("two"), {"type": "image", "source": {}}]),
                text("Hurry."),
                result("1", content="one"),
                text("Now."),
                text("Go."),
            ],
        },
    )
    assert found == [
        Message("assistant", "I look.", "commentary"),
        called('{"a": 1}'),
        called(name="my_tool"),
        said(f"two\n[image {LEFT_OUT}", "my_tool"),
        Message("user", "Hurry."),
        said("one"),
        Message("user", "Now.\nGo."),
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ""),
        ({"content": None}, ""),
        ({"content": []}, ""),
        ({"content": "no file", "is_error": True}, "[ERROR] no file"),
        ({"content": "[ERROR] no file", "is_error": True}, "[ERROR] no file"),
        ({"content": "x", "is_error": False}, "x"),
        (
            {"content": [{"type": "tool_reference", "tool_name": "g"}]},
            "The tool g can be called now.",
        ),
    ],
)
def test_results(more: JsonObject, expected: str) -> None:
    """Empty ones, failures, and tools that were found."""
    found = messages(
        {"role": "assistant", "content": [call()]}, {"role": "user", "content": [result(**more)]}
    )
    assert found[-1] == said(expected)


def test_a_result_of_nothing() -> None:
    """Names the block that is wrong."""
    with pytest.raises(Problem, match="no tool_use block with the id 'x'") as caught:
        messages(USER, {"role": "user", "content": [text("a"), result("x")]})
    assert caught.value.status == 400
    assert caught.value.param == "messages.1.content.1.tool_use_id"


def test_results_of_the_servers_own_tools() -> None:
    """They were for the client to show; what the model had of them is remembered, or gone."""
    blocks: list[JsonObject] = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        text("No."),
    ]
    assert messages(USER, {"role": "assistant", "content": blocks})[1:] == [
        Message("assistant", "No.", "final")
    ]
