"""The messages of a request -> the model's.

What this server gave out becomes the very messages that were sampled, where they are remembered or
sealed; all else is read as text. Instructions that stand first go into the setup; later ones stay
where they are, so that a cached prompt stays valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import cast

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.messages import schema
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.problems import Problem

__all__ = ["instructions", "read_messages"]

_BILLING = "x-anthropic-billing-header:"  # of Claude Code, another one for each request


def instructions(request: schema.CountRequest) -> str:
    """What `system`, and system messages that stand first, say together."""
    texts = _texts(request.system or "")
    for message in _leading(request.messages):
        texts += _texts(message.content)
    return "\n\n".join(text for text in texts if text and not text.startswith(_BILLING))


def read_messages(
    messages: Sequence[schema.InputMessage], names: ToolNames, memory: Memory
) -> list[Message]:
    """The conversation after its instructions.

    Raises:
        Problem: a result is of a call that is nowhere.
    """
    reader = _Reader(names, memory)
    for number in range(len(_leading(messages)), len(messages)):
        message = messages[number]
        if message.role == "assistant":
            reader.assistant(schema.blocks_of(message.content))
        elif message.role == "user":
            reader.user(schema.blocks_of(message.content), number)
        else:
            text = "\n\n".join(_texts(message.content))
            reader.messages.append(Message("developer", f"# Instructions\n\n{text}"))
    return reader.messages


class _Reader:
    """Messages -> the model's, one after the other."""

    def __init__(self, names: ToolNames, memory: Memory) -> None:
        self.messages: list[Message] = []
        self._names, self._memory = names, memory
        self._calls: dict[str, Message] = {}

    def user(self, blocks: Sequence[schema.Block], number: int) -> None:
        """Results of calls, and what the user says: all of it that stands together is one text."""
        texts: list[str] = []
        for place, block in enumerate(blocks):
            if not isinstance(block, schema.ToolResultBlock):
                texts += _texts([block])
                continue
            self._say(texts)
            texts = []
            self._result(block, f"messages.{number}.content.{place}")
        self._say(texts)

    def assistant(self, blocks: Sequence[schema.Block]) -> None:
        """Thoughts, texts and calls as they were made; text beside a call is no answer."""
        has_calls = any(isinstance(block, schema.ToolUseBlock) for block in blocks)
        way: list[Message] = []  # to the next call
        for block in blocks:
            match block:
                case schema.TextBlock() if block.text:
                    way.append(self._text(block.text, is_answer=not has_calls))
                case schema.ThinkingBlock():
                    way += self._thinking(block.signature, block.thinking)
                case schema.RedactedThinkingBlock():
                    way += self._thinking(block.data, "")
                case schema.ToolUseBlock():
                    self.messages += self._way(block.id, way)
                    self.messages.append(self._call(block))
                    way = []
                case _:
                    pass
        self.messages += way

    def _say(self, texts: Sequence[str]) -> None:
        if any(texts):
            self.messages.append(Message("user", "\n".join(texts)))

    def _result(self, block: schema.ToolResultBlock, param: str) -> None:
        call = self._calls.get(block.tool_use_id)
        if call is None:
            raise Problem(
                400,
                f"{param}.tool_use_id: there is no tool_use block with the id "
                f"{block.tool_use_id!r} before it",
                param=f"{param}.tool_use_id",
            )
        text = "\n".join(_texts(block.content or ""))
        if block.is_error and not text.startswith("[ERROR]"):
            text = f"[ERROR] {text}"
        self.messages.append(Message("tool", text, call.channel, "assistant", name=call.recipient))

    def _text(self, text: str, *, is_answer: bool) -> Message:
        if not is_answer:
            return Message("assistant", text, "commentary")
        return self._memory.answer(text) or Message("assistant", text, "final")

    def _thinking(self, sealed: str, text: str) -> Iterator[Message]:
        """Sealed ids where they fit the text, or where there is none; else the text."""
        found = self._memory.seal.open(sealed)
        if found is not None and found.is_reasoning and text in ("", found.content):
            yield found
        elif text:
            yield Message("assistant", text, "analysis")

    def _way(self, identity: str, way: list[Message]) -> Sequence[Message]:
        """What was sampled before a call, if what came back of it is the same; else that."""
        shown = [m.content for m in way if m.is_shown]
        thought = [m.content for m in way if m.is_reasoning]
        known = self._memory.way(identity, shown)
        has_same = [m.content for m in known if m.is_reasoning] == thought
        return known if known and (has_same or not thought) else way

    def _call(self, block: schema.ToolUseBlock) -> Message:
        name = self._names.to_model(block.name)
        known = self._memory.call(block.id, name, block.input)
        text = json.dumps(block.input, ensure_ascii=False)
        to = f"functions.{name}"
        plain = Message("assistant", text, "commentary", to, "<|constrain|>json")
        self._calls[block.id] = message = known or plain
        return message


def _leading(messages: Sequence[schema.InputMessage]) -> Sequence[schema.InputMessage]:
    count = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    return messages[:count]


def _texts(content: schema.Content) -> list[str]:
    """Of each block its text, or a word for what is no text: the models read nothing else."""
    return [text for block in schema.blocks_of(content) for text in _text_of(block)]


def _text_of(block: schema.Block) -> Iterator[str]:
    if isinstance(block, schema.TextBlock):
        yield block.text
    elif isinstance(block, schema.ToolReferenceBlock):
        yield f"The tool {block.tool_name} can be called now."
    elif isinstance(block, schema.MediaBlock):
        yield "\n".join(_media(block))


def _media(block: schema.MediaBlock) -> Iterator[str]:
    """A text with what is said of it; or a placeholder."""
    source = block.source if isinstance(block.source, dict) else {}
    if block.content is not None:
        texts = _texts(block.content)
    elif source.get("type") == "text" and isinstance(source.get("data"), str):
        texts = [cast("str", source["data"])]
    else:
        texts = []
    said = (block.title, block.context, block.source if isinstance(block.source, str) else None)
    yield from filter(None, said)
    yield from texts or [f"[{block.type} left out: this model reads only text]"]
