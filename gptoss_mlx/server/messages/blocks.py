"""One content block of a message, as it comes into being: pieces of text in, wire events out.

`content` is what its events add up to. It does not know in which order blocks come.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from gptoss_mlx.server.answer import Wire

__all__ = ["Block"]

_DELTAS = {  # (a delta's type, the key of its text)
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
    "server_tool_use": ("input_json_delta", "partial_json"),
}


class Block:
    """A block that has its place; `begin` it, let it `grow`, and `end` it.

    Args:
        index: its place in the message.
        content: the block before any text has come.
    """

    def __init__(self, index: int, content: dict[str, Any]) -> None:
        self.index, self.content = index, content
        self._json = ""  # of a call's input

    @property
    def is_call(self) -> bool:
        """Whether it is a call, whose text is the JSON of its input."""
        return self.content["type"] in ("tool_use", "server_tool_use")

    @property
    def is_empty(self) -> bool:
        """Whether it is a call whose input has not begun."""
        return self.is_call and not self._json.strip()

    def begin(self) -> Wire:
        """The block is there."""
        return self._event("start", content_block=dict(self.content))

    def grow(self, text: str) -> Wire:
        """More of its text."""
        kind, key = _DELTAS[self.content["type"]]
        if self.is_call:
            self._json += text
        else:
            self.content[key] += text
        return self._event("delta", delta={"type": kind, key: text})

    def sign(self, signature: str) -> Wire:
        """What it is known by when it comes back."""
        self.content["signature"] = signature
        return self._event("delta", delta={"type": "signature_delta", "signature": signature})

    def end(self) -> Wire:
        """All of it has come; of an input that was cut off, what clients read of it remains."""
        if self._json:
            self.content["input"] = _parsed(self._json)
        return self._event("stop")

    def _event(self, name: str, **fields: Any) -> Wire:
        name = f"content_block_{name}"
        return name, {"type": name, "index": self.index, **fields}


def _parsed(text: str) -> Any:
    try:
        return from_json(text, allow_partial=True)
    except ValueError:
        return {}  # no JSON, which the grammar of a request with tools does not let pass
