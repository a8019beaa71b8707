"""What `POST /v1/responses` accepts. Unknown keys, items and tools pass: clients send news.

It knows the shapes only: what a request means is the matter of reading.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, StringConstraints, Tag

from gptoss_mlx.server.responses.tool_schema import (
    CodeInterpreterTool,
    CustomTool,
    FunctionTool,
    NamespaceTool,
    OtherTool,
    Shape,
    Tool,
    WebSearchTool,
)

__all__ = [
    "AdditionalTools",
    "CodeInterpreterCall",
    "CodeInterpreterTool",
    "CompactRequest",
    "CompactionItem",
    "CreateRequest",
    "CustomCall",
    "CustomCallOutput",
    "CustomTool",
    "FunctionCall",
    "FunctionCallOutput",
    "FunctionTool",
    "Include",
    "InputItem",
    "InputMessage",
    "ItemReference",
    "NamespaceTool",
    "OtherItem",
    "OtherTool",
    "Part",
    "Reasoning",
    "ReasoningItem",
    "TextConfig",
    "TextFormat",
    "Tool",
    "ToolChoice",
    "WebSearchCall",
    "WebSearchTool",
]

Status = Literal["in_progress", "completed", "incomplete"]


class Part(Shape):
    """A piece of content: `input_text`, `output_text`, `refusal`, `input_image`, `input_file`."""

    type: str = "input_text"
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    filename: str | None = None


Content = str | list[Part]


class InputMessage(Shape):
    """Something said by a user, the assistant, the developer or the system."""

    type: Literal["message"] = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    phase: str | None = Field(default=None, description="`commentary` for a preamble before a call")


class ReasoningItem(Shape):
    """A chain of thought passed back, as it was given out."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Part] | None = None
    content: list[Part] | None = None
    encrypted_content: str | None = None


class FunctionCall(Shape):
    """A call of a function, as it was given out."""

    type: Literal["function_call"]
    id: str | None = None
    call_id: str
    name: str
    namespace: str | None = None
    arguments: str


class FunctionCallOutput(Shape):
    """What a function returned: text, parts, or any other JSON."""

    type: Literal["function_call_output"]
    id: str | None = None
    call_id: str
    output: Content | Any


class CustomCall(Shape):
    """A call of a custom tool, as it was given out."""

    type: Literal["custom_tool_call"]
    id: str | None = None
    call_id: str
    name: str
    namespace: str | None = None
    input: str


class CustomCallOutput(Shape):
    """What a custom tool returned."""

    type: Literal["custom_tool_call_output"]
    id: str | None = None
    call_id: str
    output: Content | Any


class WebSearchCall(Shape):
    """A search that the server ran."""

    type: Literal["web_search_call"]
    id: str | None = None
    status: str = "completed"
    action: dict[str, Any] | None = None


class CodeInterpreterCall(Shape):
    """Code that the server ran."""

    type: Literal["code_interpreter_call"]
    id: str | None = None
    status: str = "completed"
    container_id: str | None = None
    code: str | None = None
    outputs: list[dict[str, Any]] | None = None


class CompactionItem(Shape):
    """A conversation so far, as `/v1/responses/compact` gave it out."""

    type: Literal["compaction"]
    id: str | None = None
    encrypted_content: str


class ItemReference(Shape):
    """An item of a stored response, by its id."""

    type: Literal["item_reference"] | None = None
    id: str


class OtherItem(Shape):
    """An item that means nothing to this server; it is ignored."""

    type: Any = None


def _tag_of_item(value: object) -> str | None:
    if not isinstance(value, Mapping):
        return cast("str", getattr(value, "type", "other")) if _is_item(value) else None
    item = cast("Mapping[str, object]", value)
    kind = item.get("type")
    if kind is None:
        return "message" if "role" in item else "item_reference" if "id" in item else "other"
    return kind if isinstance(kind, str) and kind in _ITEMS else "other"


def _is_item(value: object) -> bool:
    return isinstance(value, Shape)


class AdditionalTools(Shape):
    """Tools that are there from this place of the conversation on."""

    type: Literal["additional_tools"]
    tools: list[Tool] = Field(default=[])


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[CustomCall, Tag("custom_tool_call")]
    | Annotated[CustomCallOutput, Tag("custom_tool_call_output")]
    | Annotated[WebSearchCall, Tag("web_search_call")]
    | Annotated[CodeInterpreterCall, Tag("code_interpreter_call")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[AdditionalTools, Tag("additional_tools")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_tag_of_item),
]
_ITEMS = frozenset(
    {
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "web_search_call",
        "code_interpreter_call",
        "compaction",
        "additional_tools",
        "item_reference",
    }
)


class ToolChoice(Shape):
    """One tool that must be called, or (`allowed_tools`) those that may be."""

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[dict[str, Any]] = Field(default=[])


class Reasoning(Shape):
    """How much to think. `none` and `minimal` are low, `xhigh` and `max` are high."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        default=None,
        description="whichever is asked for, it is the chain of thought itself",
    )


class TextFormat(Shape):
    """What the answer must look like; it is enforced."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextConfig(Shape):
    """The answer's format."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = Field(
        default=None, description="without effect: the models do not know it"
    )


Include = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
]
_Metadata = dict[
    Annotated[str, StringConstraints(max_length=64)],
    Annotated[str, StringConstraints(max_length=512)],
]


class CreateRequest(Shape):
    """A request for a response."""

    model: str | None = Field(default=None, description="any name: the server has one model")
    input: str | list[InputItem] = Field(default=[], description="a text, or items")
    instructions: str | None = Field(default=None, description="for this response only")
    previous_response_id: str | None = Field(default=None, description="continue a stored response")
    store: bool | None = Field(default=None, description="keep the response; true by default")
    background: bool | None = Field(default=None, description="answer at once, and work on")
    stream: bool | None = None
    stream_options: dict[str, Any] | None = Field(default=None, description="without effect")
    include: list[Include | str] | None = None
    tools: list[Tool] | None = Field(default=None, description="unknown types are ignored")
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = Field(
        default=None, description="without effect: a turn of the models has one call at most"
    )
    max_tool_calls: int | None = Field(
        default=None, ge=1, description="of builtin tools; the model is told of later ones"
    )
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=2**31)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    truncation: Literal["auto", "disabled"] | None = Field(
        default=None, description="`auto` leaves the oldest turns out where the context is full"
    )
    metadata: _Metadata | None = Field(default=None, max_length=16)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = Field(
        default=None, description="without effect: prompts are cached"
    )
    service_tier: str | None = Field(default=None, description="without effect")
    conversation: Any = Field(default=None, description="not there: use previous_response_id")
    prompt: Any = Field(default=None, description="not there: send the prompt itself")

    def includes(self, what: Include) -> bool:
        """Whether something is asked for that is left out by default."""
        return what in (self.include or ())

    @property
    def is_stored(self) -> bool:
        """Whether the response is kept."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities of the answer's tokens are asked for."""
        return bool(self.top_logprobs) or self.includes("message.output_text.logprobs")


class CompactRequest(Shape):
    """A request to have a conversation summarized."""

    model: str = Field(description="any name: the server has one model")
    input: str | list[InputItem] = Field(default=[], description="a text, or items")
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, description="what was said before")
    prompt_cache_key: str | None = Field(default=None, description="without effect")
    prompt_cache_options: dict[str, Any] | None = Field(default=None, description="without effect")
