"""What a conversation is made of. Data only: how it becomes ids is the matter of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CHANNELS", "ROLES", "Builtin", "Delta", "Effort", "FunctionTool", "Message", "Setup"]

Builtin = Literal["browser", "python"]
Effort = Literal["low", "medium", "high"]
CHANNELS = ("analysis", "commentary", "final")
ROLES = ("system", "developer", "user", "assistant", "tool")


class _Addressed:
    """What follows from who says something to whom, for whole messages and for pieces of them."""

    role: str
    channel: str | None
    recipient: str | None

    @property
    def is_shown(self) -> bool:
        """Whether it is for the user to read: an answer, or a preamble before a call."""
        return self.role == "assistant" and self.recipient is None and self.channel != "analysis"

    @property
    def is_reasoning(self) -> bool:
        """Whether it is chain of thought, and not a call that stands among it."""
        return self.role == "assistant" and self.recipient is None and self.channel == "analysis"


class _SampledIds(tuple[int, ...]):
    """Ids that remember the fields of the message that was sampled as them."""

    said: tuple[str | None, ...]


@dataclass(frozen=True)
class Message(_Addressed):
    """One message of a conversation.

    `name` is the tool's for role tool; `recipient` whom it addresses (`functions.f`, `python`);
    `content_type` what the header says of the content (`<|constrain|>json`, `code`); `ids` the
    tokens from `<|start|>` to the end marker, if it was sampled and well-formed. They do not
    outlive a change by `dataclasses.replace`, since they would still say what the old one said.
    """

    role: str
    content: str
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    name: str | None = None
    ids: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        said = (self.role, self.content, self.channel, self.recipient, self.content_type, self.name)
        ids = None
        if self.ids is not None and getattr(self.ids, "said", said) == said:
            ids = _SampledIds(self.ids)
            ids.said = said
        object.__setattr__(self, "ids", ids)

    @property
    def is_tool_call(self) -> bool:
        """Whether the assistant addresses a tool: the recipient decides, not the channel."""
        return self.role == "assistant" and self.recipient is not None

    @property
    def is_final(self) -> bool:
        """Whether this is an answer to the user."""
        return self.role == "assistant" and self.recipient is None and self.channel == "final"


@dataclass(frozen=True)
class Delta(_Addressed):
    """Text that a message still being generated has grown by."""

    channel: str | None
    recipient: str | None
    text: str
    role: str = "assistant"


@dataclass(frozen=True)
class FunctionTool:
    """A function that the model may call: its name, what it does, and a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class Setup:
    """What stands before a conversation: the system message and the developer message.

    `date` is today's, YYYY-MM-DD, or None to leave it out; `instructions` is what other APIs call
    the system prompt. `builtins` are the tools that the models were trained with: harmony itself
    describes them, in the system message.
    """

    reasoning: Effort = "medium"
    instructions: str | None = None
    functions: tuple[FunctionTool, ...] = ()
    date: str | None = None
    builtins: tuple[Builtin, ...] = ()
