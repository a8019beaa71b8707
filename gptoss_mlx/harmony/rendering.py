"""Messages -> the ids of a prompt.

openai-harmony renders, message by message, except that a message which was sampled here goes back
as the very ids that were sampled, so that a cached prefix stays valid. Which messages still belong
into a prompt is decided here, too: openai-harmony drops analysis only before the first answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import openai_harmony as oh

from gptoss_mlx.harmony.messages import Message, Setup
from gptoss_mlx.tokenizer import START, Tokenizer

__all__ = ["prune", "render"]


def render(setup: Setup, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The prompt for the assistant's next message; reasoning of finished turns is left out."""
    options = oh.RenderOptions(conversation_has_function_tools=bool(setup.functions))
    ids: list[int] = []
    for message in _setup_messages(setup):
        ids += tokenizer.encoding.render(message, options)
    for message in prune(messages):
        ids += message.ids or tokenizer.encoding.render(_to_openai(message), options)
    return [*ids, START, *tokenizer.encode("assistant")]


def prune(messages: Sequence[Message]) -> list[Message]:
    """The messages a prompt still needs: analysis before the last final answer goes.

    Later analysis stays, because calls and their results belong to it. Function calls and results
    stay whatever their channel; built-in tools' go with the analysis they are part of.
    """
    finals = [i for i, message in enumerate(messages) if message.is_final]
    last_final = finals[-1] if finals else 0
    kept: list[Message] = []
    dropped_tools: set[str] = set()  # whose last call went
    for message in messages[:last_final]:
        if message.is_tool_call and message.recipient:
            dropped_tools.discard(message.recipient)
        goes = message.channel == "analysis" or message.name in dropped_tools
        if not goes or _concerns_function(message):
            kept.append(message)
        elif message.is_tool_call and message.recipient:
            dropped_tools.add(message.recipient)
    return kept + list(messages[last_final:])


def _setup_messages(setup: Setup) -> list[oh.Message]:
    system = oh.SystemContent.new().with_reasoning_effort(
        oh.ReasoningEffort[setup.reasoning.upper()]
    )
    if "browser" in setup.builtins:
        system = system.with_browser_tool()
    if "python" in setup.builtins:
        system = system.with_python_tool()
    if setup.date is not None:
        system = system.with_conversation_start_date(setup.date)
    messages = [oh.Message.from_role_and_content(oh.Role.SYSTEM, system)]
    if setup.instructions or setup.functions:
        developer = oh.DeveloperContent.new()
        if setup.instructions:
            developer = developer.with_instructions(_valid(setup.instructions))
        if setup.functions:
            tools = [
                oh.ToolDescription.new(*_valid([t.name, t.description, t.parameters]))
                for t in setup.functions
            ]
            developer = developer.with_function_tools(tools)
        messages.append(oh.Message.from_role_and_content(oh.Role.DEVELOPER, developer))
    return messages


def _to_openai(message: Message) -> oh.Message:
    author = oh.Author(role=oh.Role(message.role), name=_valid(message.name))
    rendered = oh.Message.from_author_and_content(author, _valid(message.content))
    rendered.channel = _valid(message.channel)
    rendered.recipient = _valid(message.recipient)
    rendered.content_type = _valid(message.content_type)
    return rendered


def _concerns_function(message: Message) -> bool:
    """Whether it is a call of a user's function, or the result of one."""
    return any((who or "").startswith("functions.") for who in (message.recipient, message.name))


def _valid(value: Any) -> Any:
    """The same with lone surrogates replaced in every string; they have no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_valid(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {_valid(k): _valid(v) for k, v in cast("dict[Any, Any]", value).items()}
    return value
