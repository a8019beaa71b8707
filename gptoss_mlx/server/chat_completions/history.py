"""The messages of a request -> harmony's.

A tool message answers the call whose id it has. Instructions that stand first go into the setup;
later ones stay where they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.chat_completions.schema import ChatMessage, Part, ToolCall
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.problems import Problem

__all__ = ["instructions", "read_messages"]

_SYSTEM = ("system", "developer")


def instructions(messages: Sequence[ChatMessage]) -> str:
    """What the messages that stand first, and are the developer's, say together."""
    return "\n\n".join(filter(None, (text_of(m.content) for m in _leading(messages))))


def read_messages(messages: Sequence[ChatMessage], names: ToolNames) -> list[Message]:
    """The conversation after its instructions.

    Raises:
        Problem: a tool message answers a call that is nowhere.
    """
    calls: dict[str, str] = {}  # a call's id -> its recipient
    result: list[Message] = []
    for number in range(len(_leading(messages)), len(messages)):
        message = messages[number]
        match message.role:
            case "assistant":
                result += _assistant(message, names, calls)
            case "tool" | "function":
                result.append(_tool_result(message, number, names, calls))
            case role:
                result.append(Message("user" if role == "user" else "developer", _text(message)))
    return result


def text_of(content: str | Sequence[Part] | None) -> str:
    """Text and refusals as they are, placeholders for all else: the models read only text."""
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part) for part in content or ())


def _text(message: ChatMessage) -> str:
    return text_of(message.content)


def _part_text(part: Part) -> str:
    text = part.text if part.text is not None else part.refusal
    if text is not None:
        return text
    kind = part.type.removeprefix("input_").removesuffix("_url")
    return f"[{kind} left out: this model reads only text]"


def _leading(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    count = next((i for i, m in enumerate(messages) if m.role not in _SYSTEM), len(messages))
    return messages[:count]


def _assistant(message: ChatMessage, names: ToolNames, calls: dict[str, str]) -> Iterator[Message]:
    """Reasoning, text and calls, in the order they were made; text before calls is a preamble."""
    made = [call for call in message.tool_calls or () if call.function is not None]
    if reasoning := message.reasoning or message.reasoning_content:
        yield Message("assistant", reasoning, channel="analysis")
    if text := _text(message):
        yield Message("assistant", text, channel="commentary" if made else "final")
    yield from _calls(made, names, calls)


def _calls(made: Iterable[ToolCall], names: ToolNames, calls: dict[str, str]) -> Iterator[Message]:
    for call in made:
        assert call.function is not None, "others were left out"
        recipient = f"functions.{names.to_model(call.function.name)}"
        if call.id is not None:
            calls[call.id] = recipient
        arguments = call.function.arguments
        content = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
        yield Message("assistant", content, "commentary", recipient, "<|constrain|>json")


def _tool_result(
    message: ChatMessage, number: int, names: ToolNames, calls: dict[str, str]
) -> Message:
    """What a tool has said; a name helps where no id does, as in old requests."""
    recipient = calls.get(message.tool_call_id or "")
    if recipient is None and message.name:
        recipient = f"functions.{names.to_model(message.name)}"
    if recipient is None:
        raise Problem(
            400,
            f"messages.{number}: there is no call with the id {message.tool_call_id!r} before it",
            param=f"messages.{number}.tool_call_id",
        )
    return Message("tool", _text(message), "commentary", "assistant", name=recipient)
