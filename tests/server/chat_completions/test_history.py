"""Messages as clients send them -> harmony's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from gptoss_mlx.harmony import FunctionTool, Message, Setup, render
from gptoss_mlx.server.chat_completions.history import instructions, read_messages
from gptoss_mlx.server.chat_completions.schema import ChatMessage
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.tokenizer import Tokenizer

MESSAGES = TypeAdapter(list[ChatMessage])
USER = {"role": "user", "content": "Hi"}


def read(*messages: dict[str, Any], names: ToolNames | None = None) -> list[Message]:
    """What messages become."""
    return read_messages(MESSAGES.validate_python(messages), names or ToolNames(["f", "my tool"]))


def call(i: str, name: str = "f", arguments: Any = '{"a": 1}') -> dict[str, Any]:
    """A call as the assistant's message has it."""
    return {"id": i, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(name: str = "f", arguments: str = '{"a": 1}') -> Message:
    """A call as harmony has it."""
    recipient = f"functions.{name}"
    return Message("assistant", arguments, "commentary", recipient, "<|constrain|>json")


def said(text: str, name: str = "f") -> Message:
    """A tool's result."""
    return Message("tool", text, "commentary", "assistant", name=f"functions.{name}")


def test_instructions_stand_first() -> None:
    """What the developer says first is the setup's; what comes later stays in its place."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [{"type": "text", "text": "Be short."}]},
        USER,
        {"role": "system", "content": "Be quick."},
    ]
    assert instructions(MESSAGES.validate_python(messages)) == "Be kind.\n\nBe short."
    assert read(*messages) == [Message("user", "Hi"), Message("developer", "Be quick.")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("text", "text"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "refusal", "refusal": "no"}], "no"),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}],
            "a\n[image left out: this model reads only text]",
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "x"}}],
            "[audio left out: this model reads only text]",
        ),
        (
            [{"type": "file", "file": {"file_id": "x"}}],
            "[file left out: this model reads only text]",
        ),
    ],
)
def test_contents(content: Any, text: str) -> None:
    """Text, parts or nothing; what is no text leaves a word, so that an answer can say so."""
    assert read({"role": "user", "content": content}) == [Message("user", text)]


def test_an_answer_and_its_reasoning() -> None:
    """Reasoning comes back under either name, before what it led to."""
    for key in ("reasoning", "reasoning_content"):
        assert read(USER, {"role": "assistant", "content": "Hello", key: "They greet."})[1:] == [
            Message("assistant", "They greet.", "analysis"),
            Message("assistant", "Hello", "final"),
        ]


@pytest.mark.parametrize("content", [None, "", "I look.", [{"type": "text", "text": "I look."}]])
def test_text_before_calls_is_a_preamble(content: Any) -> None:
    """It was said on the way, and is no final answer; nothing at all is no message."""
    _, *messages = read(USER, {"role": "assistant", "content": content, "tool_calls": [call("1")]})
    preamble = [Message("assistant", "I look.", "commentary")] if content else []
    assert messages == [*preamble, called()]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [('{"a": 1}', '{"a": 1}'), ({"a": 1}, '{"a": 1}'), ("", ""), ({}, "{}"), (None, "{}")],
)
def test_arguments(arguments: Any, text: str) -> None:
    """JSON as text, which stays as it is, or as an object."""
    message = {"role": "assistant", "tool_calls": [call("1", arguments=arguments)]}
    assert read(message) == [called(arguments=text)]


def test_results_go_to_their_calls() -> None:
    """By id, in whatever order they come; names are the model's."""
    calls = [call("1"), call("2", "my tool")]
    messages = read(
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "one"}]},
    )
    assert messages == [called(), called("my_tool"), said("two", "my_tool"), said("one")]


def test_a_name_helps_where_no_id_does() -> None:
    """As in requests of old, or in histories that were cut."""
    assert read({"role": "function", "name": "f", "content": "1"}) == [said("1")]
    lost = {"role": "tool", "tool_call_id": "gone", "name": "my tool", "content": "1"}
    assert read(lost) == [said("1", "my_tool")]


def test_a_result_of_nothing() -> None:
    """Names the message that is wrong."""
    with pytest.raises(Problem, match="no call with the id 'x'") as caught:
        read(USER, {"role": "tool", "tool_call_id": "x", "content": "1"})
    assert (caught.value.status, caught.value.param) == (400, "messages.1.tool_call_id")


def test_unknown_calls_are_left_out() -> None:
    """Of a type that this server does not have."""
    custom = {"id": "1", "type": "custom", "custom": {"name": "x", "input": "y"}}
    assert read({"role": "assistant", "content": "Hi", "tool_calls": [custom]}) == [
        Message("assistant", "Hi", "final")
    ]


def test_reasoning_stays_only_while_a_call_is_open(tokenizer: Tokenizer) -> None:
    """Of finished turns the prompt has none, of the turn under way all."""
    messages = read(
        USER,
        {"role": "assistant", "content": "Hello", "reasoning": "old thoughts"},
        USER,
        {"role": "assistant", "reasoning": "new thoughts", "tool_calls": [call("1")]},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "assistant", "reasoning": "newer thoughts", "tool_calls": [call("2")]},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
    )
    setup = Setup(functions=(FunctionTool("f"),))
    prompt = tokenizer.decode(render(setup, messages, tokenizer))
    assert "old thoughts" not in prompt
    assert prompt.count("new thoughts") == prompt.count("newer thoughts") == 1


def test_lists_that_are_null() -> None:
    """Some clients send every key they know."""
    message = {"role": "assistant", "content": "Hi", "tool_calls": None, "name": None}
    assert read(message) == [Message("assistant", "Hi", "final")]
