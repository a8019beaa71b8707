"""What `POST /v1/messages` accepts. Unknown keys, blocks and tools pass: clients send news.

It knows the shapes only: what a request means is the matter of reading.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag

__all__ = [
    "Block",
    "ClientTool",
    "Content",
    "CountRequest",
    "HostedTool",
    "InputMessage",
    "MediaBlock",
    "MessagesRequest",
    "OtherBlock",
    "OtherTool",
    "OutputConfig",
    "OutputFormat",
    "RedactedThinkingBlock",
    "TextBlock",
    "Thinking",
    "ThinkingBlock",
    "Tool",
    "ToolChoice",
    "ToolReferenceBlock",
    "ToolResultBlock",
    "ToolUseBlock",
    "blocks_of",
]

Effort = Literal["low", "medium", "high", "xhigh", "max"]


class _Shape(BaseModel):
    """What clients send beyond this is ignored, `cache_control` among it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TextBlock(_Shape):
    """A piece of text."""

    type: Literal["text"]
    text: str


class MediaBlock(_Shape):
    """An image, a document or a search result: its text where it has one, else a placeholder."""

    type: Literal["image", "document", "search_result"]
    title: str | None = None
    context: str | None = None
    source: str | dict[str, Any] | None = None
    content: Content | None = None


class ThinkingBlock(_Shape):
    """A chain of thought passed back, as it was given out."""

    type: Literal["thinking"]
    thinking: str = ""
    signature: str = ""


class ToolReferenceBlock(_Shape):
    """A tool that a client's search has found: from now on it can be called."""

    type: Literal["tool_reference"]
    tool_name: str


class RedactedThinkingBlock(_Shape):
    """A chain of thought that only its maker can read; this server makes none."""

    type: Literal["redacted_thinking"]
    data: str = ""


class ToolUseBlock(_Shape):
    """A call of a client's tool, as it was given out."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any] = {}


class ToolResultBlock(_Shape):
    """What a client's tool returned."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Content | None = None
    is_error: bool | None = None


class OtherBlock(_Shape):
    """A block that means nothing to this server, or that it gave out itself; see memory.py."""

    type: Any = None


_BLOCKS = frozenset(
    {"text", "thinking", "redacted_thinking", "tool_use", "tool_result", "tool_reference"}
)
_MEDIA = frozenset({"image", "document", "search_result"})


def _type_of(value: object) -> object:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get("type")
    return getattr(value, "type", None)


def _tag_of_block(value: object) -> str | None:
    kind = _type_of(value)
    if not isinstance(value, (Mapping, BaseModel)):
        return None
    if not isinstance(kind, str):
        return "other"
    return kind if kind in _BLOCKS else "media" if kind in _MEDIA else "other"


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[MediaBlock, Tag("media")]
    | Annotated[ThinkingBlock, Tag("thinking")]
    | Annotated[RedactedThinkingBlock, Tag("redacted_thinking")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")]
    | Annotated[ToolReferenceBlock, Tag("tool_reference")]
    | Annotated[OtherBlock, Tag("other")],
    Discriminator(_tag_of_block),
]
Content = str | list[Block]


def blocks_of(content: Content) -> list[Block]:
    """A text is one block."""
    return [TextBlock(type="text", text=content)] if isinstance(content, str) else content


class InputMessage(_Shape):
    """Something said by the user, the assistant, or the developer (`system`)."""

    role: Literal["user", "assistant", "system"]
    content: Content


class ClientTool(_Shape):
    """A tool of the client's, whatever its type: it has a schema."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    description: str | None = None
    input_schema: dict[str, Any] = Field(description="a JSON schema")
    strict: bool | None = Field(default=None, description="enforce the schema, or refuse it")
    defer_loading: bool | None = Field(
        default=None, description="not to be seen before a tool_reference names it"
    )


class HostedTool(_Shape):
    """`web_search_*` and `web_fetch_*`, `code_execution_*`: run by a server that has them."""

    type: str
    name: str = ""


class OtherTool(_Shape):
    """A tool that this server does not have; it is ignored."""

    type: Any = None


_HOSTED = ("web_search", "web_fetch", "code_execution")


def _tag_of_tool(value: object) -> str | None:
    kind = _type_of(value)
    if not isinstance(value, (Mapping, BaseModel)):
        return None
    has_schema = "input_schema" in value if isinstance(value, Mapping) else False
    if has_schema or isinstance(value, ClientTool) or kind in (None, "custom"):
        return "client"
    return "hosted" if isinstance(kind, str) and kind.startswith(_HOSTED) else "other"


Tool = Annotated[
    Annotated[ClientTool, Tag("client")]
    | Annotated[HostedTool, Tag("hosted")]
    | Annotated[OtherTool, Tag("other")],
    Discriminator(_tag_of_tool),
]


class ToolChoice(_Shape):
    """Which tools may, or must, be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(default=None, description="of the tool, where type is tool")
    disable_parallel_tool_use: bool | None = Field(
        default=None, description="accepted; the models call one tool after the other"
    )


class Thinking(_Shape):
    """Whether the chain of thought is shown, and how long it may be.

    Types that are not known here are like `adaptive`.
    """

    type: str = Field(description="enabled, adaptive, disabled")
    budget_tokens: Annotated[int, Field(ge=0)] | None = None
    display: str | None = Field(
        default=None, description="`omitted` leaves its text out, and keeps its signature"
    )


class OutputFormat(_Shape):
    """What the answer must look like; it is enforced."""

    type: str = "json_schema"
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class OutputConfig(_Shape):
    """How the answer is made."""

    effort: Effort | None = None
    format: OutputFormat | None = None


class CountRequest(_Shape):
    """A conversation, and what else becomes part of its prompt."""

    model: str | None = Field(default=None, description="any name: the server has one model")
    messages: list[InputMessage] = Field(min_length=1)
    system: Content | None = None
    tools: list[Tool] | None = Field(default=None, description="unknown types are ignored")
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = Field(
        default=None, description="the older place of output_config.format"
    )


class MessagesRequest(CountRequest):
    """A request for a message."""

    max_tokens: int | None = Field(default=None, ge=1, le=2**31)
    stream: bool | None = None
    stop_sequences: list[str] | None = Field(
        default=None, max_length=64, description="the answer ends before the first of these"
    )
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=2**31)
