"""A conversation as Markdown, and as the Chat Completions API has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gptoss_mlx.conversations.record import Conversation, one_line, readable_json, title_of
from gptoss_mlx.harmony import Message

__all__ = ["export_json", "export_markdown"]


def export_markdown(conversation: Conversation, with_reasoning: bool = False) -> str:
    """The conversation for people to read; code of calls and their results stands in fences."""
    title = one_line(conversation.title) or title_of(conversation.messages)
    parts = [f"# {title}", f"{one_line(conversation.model)} · {conversation.created}"]
    speaker = ""
    for message in _as_shown(conversation):
        if message.is_reasoning and not with_reasoning:
            continue
        voice = "assistant" if message.role == "tool" else message.role
        if voice != speaker:
            parts.append(f"## {voice.capitalize()}")
            speaker = voice
        parts.append(_paragraphs(message))
    return "\n\n".join(parts) + "\n"


def export_json(conversation: Conversation) -> str:
    """`model` and `messages` as the Chat Completions API has them.

    With the instructions as a system message, reasoning in `reasoning`, and what was sent to a
    tool as the arguments of a call, as the model wrote it.
    """
    messages: list[dict[str, Any]] = []
    if conversation.setup.instructions:
        messages.append({"role": "system", "content": conversation.setup.instructions})
    messages += _completions(_as_shown(conversation))
    return readable_json({"model": conversation.model, "messages": messages})


def _as_shown(conversation: Conversation) -> list[Message]:
    """The messages, their citations links."""
    shown = conversation.shown
    return [
        replace(message, content=shown.get(i, message.content))
        for i, message in enumerate(conversation.messages)
    ]


def _paragraphs(message: Message) -> str:
    if message.role == "tool":
        return f"Result of {one_line(message.name or 'a tool')}:\n\n{_fenced(message.content)}"
    if message.is_tool_call:
        language = "python" if message.recipient == "python" else "json"
        call = f"Call of {one_line(message.recipient or '')}:"
        return f"{call}\n\n{_fenced(message.content, language)}"
    if message.is_reasoning:
        text = message.content.replace("</details", "&lt;/details")
        return f"<details>\n<summary>Reasoning</summary>\n\n{_closed(text)}\n\n</details>"
    return _closed(message.content)


def _fenced(text: str, language: str = "text") -> str:
    """The text in a fence longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.removesuffix(chr(10))}\n{fence}"


def _closed(text: str) -> str:
    """The text, with its last fence closed where an answer was cut short."""
    fence = ""
    for line in text.splitlines():
        mark = re.match(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})(.*)", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


def _completions(messages: list[Message]) -> Iterator[dict[str, Any]]:
    turn = _Turn()
    for message in messages:
        if message.role == "assistant":
            if turn.calls and not message.is_tool_call:
                yield from turn.end()
            turn.add(message)
            if message.is_final:
                yield from turn.end()
            continue
        yield from turn.end()
        if message.role == "tool":
            yield {"role": "tool", "tool_call_id": turn.answered(), "content": message.content}
        else:
            yield {"role": message.role, "content": message.content}
    yield from turn.end()


class _Turn:
    """What the assistant said since it was last interrupted, to be one message."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self._open: list[str] = []  # calls without a result, in order
        self._number = 0

    def add(self, message: Message) -> None:
        if not message.is_tool_call:
            (self.reasoning if message.is_reasoning else self.content).append(message.content)
            return
        name = (message.recipient or "").removeprefix("functions.")
        function = {"name": name, "arguments": message.content}
        self._open.append(self._next_id())
        self.calls.append({"id": self._open[-1], "type": "function", "function": function})

    def answered(self) -> str:
        """The id of the call that the next result answers."""
        return self._open.pop(0) if self._open else self._next_id()

    def end(self) -> Iterator[dict[str, Any]]:
        """The message, if there is any, and a new one begins."""
        if not (self.content or self.reasoning or self.calls):
            return
        content = "\n\n".join(self.content) if self.content else None
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self.reasoning:
            message["reasoning"] = "\n\n".join(self.reasoning)
        if self.calls:
            message["tool_calls"] = self.calls
        yield message
        self.content, self.reasoning, self.calls = [], [], []

    def _next_id(self) -> str:
        self._number += 1
        return f"call_{self._number}"
