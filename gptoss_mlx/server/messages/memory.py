"""What this server has said to a client, as it was sampled, for when the client sends it back.

A call is known by its id and by what it says. What the model said on its way to a call (thoughts
that the client was not given or has dropped, calls that the server ran, preambles) is known by the
call's id and the texts that the client was shown meanwhile. Thoughts are sealed besides, in their
signatures. It knows no blocks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_mlx.harmony import Message
from gptoss_mlx.server.recall import Recall
from gptoss_mlx.server.sealing import Seal

__all__ = ["Keeper", "Memory"]


@dataclass(frozen=True)
class Memory:
    """What one client, `owner`, was told."""

    owner: str = ""
    recall: Recall = field(default_factory=Recall)
    seal: Seal = field(default_factory=Seal)

    def call(self, identity: str, name: str, input_: Any) -> Message | None:
        """The call of the function that the model knows by this name."""
        return next(iter(self._find(_call_fact(identity, name, input_))), None)

    def way(self, identity: str, texts: Sequence[str]) -> tuple[Message, ...]:
        """What was said before the call with this id, after the call before it."""
        return self._find(_way_fact(identity, texts))

    def answer(self, text: str) -> Message | None:
        """The answer that the client saw so."""
        return next(iter(self._find(_text_fact(text))), None)

    def keep(self, fact: object, messages: Sequence[Message]) -> None:
        """Remember messages by a fact."""
        self.recall.keep(self.owner, [fact], messages)

    def _find(self, fact: object) -> tuple[Message, ...]:
        return self.recall.find(self.owner, [fact])


class Keeper:
    """Keeps what one reply says, as its messages come."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._way: list[Message] = []  # since the last call of a client's tool
        self._texts: list[str] = []  # that were shown on it

    def passed(self, message: Message) -> None:
        """Something that the client may not see: a thought, or what the server ran a tool for."""
        self._way.append(message)

    def said(self, message: Message, shown: str) -> None:
        """A text, and how the client saw it."""
        self._way.append(message)
        self._texts.append(shown)
        if message.is_final:
            self._memory.keep(_text_fact(shown), [message])

    def called(self, message: Message, identity: str, name: str, input_: Any) -> None:
        """A call of a client's tool, which ends a way."""
        self._memory.keep(_call_fact(identity, name, input_), [message])
        if self._way:
            self._memory.keep(_way_fact(identity, self._texts), self._way)
        self._way, self._texts = [], []


def _call_fact(identity: str, name: str, input_: Any) -> object:
    """Clients write the input anew, its keys perhaps in another order."""
    return ["anthropic call", identity, name, json.dumps(input_, sort_keys=True)]


def _way_fact(identity: str, texts: Sequence[str]) -> object:
    return ["anthropic way", identity, list(texts)]


def _text_fact(text: str) -> object:
    return ["anthropic text", text]
