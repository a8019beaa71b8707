"""What a request of /v1/chat/completions may say; keys that are not here are ignored.

Types only, wide enough for what clients really send. What it means is the matter of reading.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ChatMessage",
    "ChatRequest",
    "Function",
    "NamedChoice",
    "NamedSchema",
    "Part",
    "ResponseFormat",
    "ToolCall",
    "ToolDefinition",
]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
_MAX_CHOICES = 16


class _Schema(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Part(_Schema):
    """A piece of a message: text, or something that becomes a placeholder."""

    type: str = Field("text", description="text, refusal, image_url, input_audio, file, ...")
    text: str | None = None
    refusal: str | None = None


class CalledFunction(_Schema):
    """A function that was called, and with what."""

    name: str
    arguments: str | dict[str, Any] | None = Field(None, description="JSON, as text or as it is.")


class ToolCall(_Schema):
    """A call that the assistant made."""

    id: str | None = None
    type: str = "function"
    function: CalledFunction | None = None


class ChatMessage(_Schema):
    """One message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = Field(None, description="Of the function, where role is function.")
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = Field(None, description="The call that a tool message answers.")
    reasoning: str | None = Field(
        None, description="The assistant's reasoning, as it was sent; used while a call is open."
    )
    reasoning_content: str | None = Field(None, description="Another name of `reasoning`.")


class Function(_Schema):
    """A function that may be called."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema.")
    strict: bool | None = Field(None, description="Refuse the request if it cannot be enforced.")


class ToolDefinition(_Schema):
    """Something that may be called. `type`s that the server does not know are ignored."""

    type: str = "function"
    function: Function | None = None


class _NamedFunction(_Schema):
    name: str


class _AllowedTools(_Schema):
    mode: Literal["auto", "required"] = "auto"
    tools: list[NamedChoice] = []


class NamedChoice(_Schema):
    """One function that must be called, or several that may be."""

    type: str = "function"
    function: _NamedFunction | None = None
    allowed_tools: _AllowedTools | None = None


class NamedSchema(_Schema):
    """What an answer's JSON must look like."""

    name: str = "answer"
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Schema):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None


class StreamOptions(_Schema):
    """How to stream."""

    include_usage: bool | None = Field(None, description="A last chunk with token counts.")


class _Reasoning(_Schema):
    effort: Effort | None = None


class ChatRequest(_Schema):
    """A conversation, and how the assistant is to go on with it."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = Field(None, description="Any name: there is one model.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = Field(None, description="Accepted; calls come one by one.")
    web_search_options: dict[str, Any] | None = Field(
        None, description="Lets the model search, where the server has a browser."
    )
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    reasoning: _Reasoning | None = Field(None, description="Another place of the effort.")
    max_completion_tokens: Annotated[int, Field(ge=-1)] | None = None
    max_tokens: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="The older name of max_completion_tokens; -1 is no limit."
    )
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description="By token id."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = Field(
        None, description="The answer ends before the first of these; reasoning does not."
    )
    n: Annotated[int, Field(ge=1, le=_MAX_CHOICES)] | None = None
