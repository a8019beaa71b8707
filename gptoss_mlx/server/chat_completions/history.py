"""The messages of a request -> harmony's.

What the assistant said becomes the very messages that were sampled, as far as the client has left
it as it was; what was changed or forgotten is read as text. A tool message answers the call whose
id it has. Instructions that stand first go into the setup; later ones stay where they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.chat_completions.memory import Called, Memory
from gptoss_mlx.server.chat_completions.schema import ChatMessage, Part, ToolCall
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.problems import Problem

__all__ = ["instructions", "read_messages"]

_SYSTEM = ("system", "developer")


def instructions(messages: Sequence[ChatMessage]) -> str:
    """What the messages that stand first, and are the developer's, say together."""
    return "\n\n".join(filter(None, (text_of(m.content) for m in _leading(messages))))


def read_messages(
    messages: Sequence[ChatMessage], names: ToolNames, memory: Memory | None = None
) -> list[Message]:
    """The conversation after its instructions.

    Raises:
        Problem: a tool message answers a call that is nowhere.
    """
    memory = memory or Memory()
    calls: dict[str, Message] = {}  # by their ids
    result: list[Message] = []
    for number in range(len(_leading(messages)), len(messages)):
        message = messages[number]
        match message.role:
            case "assistant":
                result += _assistant(message, names, calls, memory)
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


def _assistant(
    message: ChatMessage, names: ToolNames, calls: dict[str, Message], memory: Memory
) -> Iterator[Message]:
    """Reasoning, text and calls, in the order they were made; text before calls is a preamble."""
    made = [call for call in message.tool_calls or () if call.function is not None]
    reasoning, text = message.reasoning or message.reasoning_content, _text(message)
    if not made:
        if reasoning:
            yield Message("assistant", reasoning, "analysis")
        if text:
            yield from memory.answer(text) or [Message("assistant", text, "final")]
        return
    known, text = memory.calls(made, text, names)
    pairs = zip(known, made, strict=True)
    called = [one or Called((), _plain(call, names)) for one, call in pairs]
    if reasoning and reasoning != "\n\n".join(t for one in called for t in one.reasoning):
        called = [one.without_reasoning() for one in called]
        yield Message("assistant", reasoning, "analysis")
    if text:
        preamble = Message("assistant", text, "commentary")
        called[0] = replace(called[0], before=(*called[0].before, preamble))
    for call, one in zip(made, called, strict=True):
        if call.id is not None:
            calls[call.id] = one.call
        yield from one.messages


def _plain(call: ToolCall, names: ToolNames) -> Message:
    """A call as its text says it."""
    assert call.function is not None, "others were left out"
    recipient = f"functions.{names.to_model(call.function.name)}"
    arguments = call.function.arguments
    content = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return Message("assistant", content, "commentary", recipient, "<|constrain|>json")


def _tool_result(
    message: ChatMessage, number: int, names: ToolNames, calls: dict[str, Message]
) -> Message:
    """What a tool has said; a name helps where no id does, as in old requests."""
    call = calls.get(message.tool_call_id or "")
    if call is not None:
        return Message("tool", _text(message), call.channel, "assistant", name=call.recipient)
    if message.name:
        recipient = f"functions.{names.to_model(message.name)}"
        return Message("tool", _text(message), "commentary", "assistant", name=recipient)
    raise Problem(
        400,
        f"messages.{number}: there is no call with the id {message.tool_call_id!r} before it",
        param=f"messages.{number}.tool_call_id",
    )
