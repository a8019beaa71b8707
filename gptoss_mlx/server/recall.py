"""What was sampled for what clients send back, for a while, in memory.

A client returns a call as it was given out: text. What the model wrote is ids, with a header of its
own, and perhaps with reasoning that the client was not given or did not keep; only these are in the
cached prompt. What was forgotten, or changed by the client, is rendered as text. It does not know
any API: each says by which of a reply's facts it is known again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gptoss_mlx.harmony import Message

__all__ = ["Recall"]

_MAX_TOKENS = 4_000_000  # some 16 MB of ids, and as much of text
_OVERHEAD = 32  # tokens that an entry costs beside its own


@dataclass(frozen=True)
class _Entry:
    """Messages, their ids packed: a tuple of ints takes nine times as much."""

    messages: tuple[Message, ...]
    ids: tuple[array[int] | None, ...]

    def unpacked(self) -> tuple[Message, ...]:
        pairs = zip(self.messages, self.ids, strict=True)
        return tuple(m if ids is None else replace(m, ids=tuple(ids)) for m, ids in pairs)

    @property
    def cost(self) -> int:
        num_ids = sum(len(ids) for ids in self.ids if ids is not None)
        return _OVERHEAD + num_ids + sum(len(m.content) // 4 for m in self.messages)


class Recall:
    """Messages by what clients will send back of them, and by client; the latest used stay.

    Args:
        max_tokens: how many tokens of messages are kept, about.
    """

    def __init__(self, max_tokens: int = _MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._num_tokens = 0
        self._lock = threading.Lock()

    def keep(self, owner: str, facts: Sequence[object], messages: Sequence[Message]) -> None:
        """Remember messages by each of some facts: JSON, of which the client returns one at least.

        `owner` is the client: what one was told no other finds.
        """
        ids = tuple(array("I", m.ids) if m.ids is not None else None for m in messages)
        entry = _Entry(tuple(replace(m, ids=None) for m in messages), ids)
        keys = _keys(owner, facts)
        if len(keys) * entry.cost > self._max_tokens:
            return
        with self._lock:
            for key in keys:
                self._drop(key)
                self._entries[key] = entry
                self._num_tokens += entry.cost
            while self._num_tokens > self._max_tokens:
                self._drop(next(iter(self._entries)))

    def find(self, owner: str, facts: Sequence[object]) -> tuple[Message, ...]:
        """What the first fact that is known stands for; nothing, where none is."""
        with self._lock:
            for key in _keys(owner, facts):
                if key in self._entries:
                    self._entries.move_to_end(key)
                    return self._entries[key].unpacked()
        return ()

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_tokens -= entry.cost


def _keys(owner: str, facts: Sequence[object]) -> list[bytes]:
    texts = (json.dumps([owner, fact]) for fact in facts)
    return [hashlib.sha256(text.encode()).digest() for text in dict.fromkeys(texts)]
