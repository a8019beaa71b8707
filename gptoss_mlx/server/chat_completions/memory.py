"""What this server has said to a client, as it was sampled, for when the client sends it back.

A client returns an assistant's message as text, and most without its reasoning. A call is known
again by its id and what it says, an answer by its text. What the client has changed is not found.
It does not know how messages are rendered.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.chat_completions.schema import ToolCall
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.recall import Recall

__all__ = ["Called", "Memory"]


@dataclass(frozen=True)
class Called:
    """A call, what was sampled before it, and what followed before the client was asked."""

    before: tuple[Message, ...]
    call: Message
    after: tuple[Message, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of it."""
        return (*self.before, self.call, *self.after)

    @property
    def reasoning(self) -> list[str]:
        """The chains of thought."""
        return [m.content for m in self.messages if m.is_reasoning and m.content]

    def without_reasoning(self) -> Called:
        """The rest of it."""
        before, after = (
            [m for m in part if not m.is_reasoning] for part in (self.before, self.after)
        )
        return replace(self, before=tuple(before), after=tuple(after))


@dataclass(frozen=True)
class Memory:
    """What one client, `owner`, was told."""

    recall: Recall = field(default_factory=Recall)
    owner: str = ""

    def keep(
        self, given: Mapping[str, Any], sampled: Sequence[Message], functions: Collection[str]
    ) -> None:
        """Remember a complete reply: the message that the client is given, and what it was.

        `functions` are the client's, under the names that the model sees.
        """
        text, calls = given.get("content") or "", given.get("tool_calls") or ()
        if text and not calls:
            shown = [message for message in sampled if message.is_shown]
            self.recall.keep(self.owner, [_answer(text)], shown)
        whole = _beside(text, [call["id"] for call in calls])
        for call, part in zip(calls, _parts(sampled, functions), strict=True):
            function = call["function"]
            said = (call["id"], function["name"], function["arguments"])
            self.recall.keep(self.owner, [_call(*said, whole)], part)
            if text:
                silent = [message for message in part if not message.is_shown]
                self.recall.keep(self.owner, [_call(*said, None)], silent)

    def answer(self, text: str) -> tuple[Message, ...]:
        """What an answer was; nothing, where it is not known."""
        return self.recall.find(self.owner, [_answer(text)])

    def calls(
        self, calls: Sequence[ToolCall], text: str, names: ToolNames
    ) -> tuple[list[Called | None], str]:
        """What each call of a message was, as far as it is known; and the text, unless it is there.

        The text is part of what the calls were, if neither it nor one of them has changed.
        """
        whole = _beside(text, [call.id for call in calls])
        found = [self._call(call, whole, names) for call in calls]
        if all(found):
            return found, ""
        return [self._call(call, None, names) for call in calls], text

    def _call(self, call: ToolCall, beside: object, names: ToolNames) -> Called | None:
        assert call.function is not None, "others were left out"
        name = call.function.name
        said = (call.id, name, call.function.arguments)
        messages = self.recall.find(self.owner, [_call(*said, beside)])
        for n, message in enumerate(messages):  # by now a name may be another function's
            if message.is_tool_call and _name(message) == names.to_model(name):
                return Called(messages[:n], message, messages[n + 1 :])
        return None


def _parts(sampled: Sequence[Message], functions: Collection[str]) -> list[list[Message]]:
    """For each call of the client's functions what led to it, and it; the last has all the rest."""
    parts: list[list[Message]] = [[]]
    for message in sampled:
        parts[-1].append(message)
        if message.is_tool_call and _name(message) in functions:
            parts.append([])
    rest = parts.pop()
    if parts:
        parts[-1] += rest
    return parts


def _name(message: Message) -> str:
    return (message.recipient or "").removeprefix("functions.")


def _answer(text: str) -> object:
    return ["chat answer", text]


def _beside(text: str, ids: Sequence[str | None]) -> object:
    """What must all be there for the text to be part of the calls."""
    return [text, *ids] if text else None


def _call(identity: str | None, name: str, arguments: object, beside: object) -> object:
    """Some clients write the arguments anew: only what they mean must be as it was."""
    try:
        value: object = json.loads(arguments) if isinstance(arguments, str) else arguments or {}
        arguments = json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        pass  # what a model has written, and no JSON
    return ["chat call", identity, name, arguments, beside]
