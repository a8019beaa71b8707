"""What Open Responses demands of a response and of its events, in as few words as it can be said.

https://www.openresponses.org: keys that must be there, and their types; more keys are allowed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag

__all__ = ["EVENTS", "Event", "Resource"]


class _Rule(BaseModel):
    """Nothing is converted: a number is no text."""

    model_config = ConfigDict(strict=True)


class Logprob(_Rule):
    """A token that was drawn, with others that were likely."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[dict[str, Any]]


class Citation(_Rule):
    """A page that is cited."""

    type: Literal["url_citation"]
    url: str
    start_index: int
    end_index: int
    title: str


class OutputText(_Rule):
    """A piece of an answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Citation]
    logprobs: list[Logprob] = []


class OtherText(_Rule):
    """A piece of reasoning, of its summary, or of a question."""

    type: Literal["reasoning_text", "summary_text", "input_text"]
    text: str


Part = OutputText | OtherText


class MessageItem(_Rule):
    """An answer, or what comes before it."""

    type: Literal["message"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["user", "assistant", "system", "developer"]
    content: list[Part]
    phase: Literal["commentary", "final_answer"] = "final_answer"


class FunctionCallItem(_Rule):
    """A call."""

    type: Literal["function_call"]
    id: str
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class ReasoningItem(_Rule):
    """A chain of thought."""

    type: Literal["reasoning"]
    id: str
    summary: list[OtherText]
    content: list[OtherText] = []
    encrypted_content: str = ""


def _tag(value: object) -> object:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)  # pyright: ignore


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_tag),
]


class Usage(_Rule):
    """What it took."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[Literal["cached_tokens", "cache_write_tokens"], int]
    output_tokens_details: dict[Literal["reasoning_tokens"], int]


class Resource(_Rule):
    """A response. Keys whose value may be null must be there all the same."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    incomplete_details: dict[Literal["reason"], str] | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[Item]
    error: dict[Literal["code", "message"], str] | None
    tools: list[dict[str, Any]]
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any]
    truncation: Literal["auto", "disabled"]
    parallel_tool_calls: bool
    text: dict[str, Any]
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: dict[Literal["effort", "summary"], str | None] | None
    usage: Usage | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    safety_identifier: str | None
    prompt_cache_key: str | None


class Event(_Rule):
    """What every event has."""

    type: str
    sequence_number: int


class _OfResponse(Event):
    response: Resource


class _OfOutput(Event):
    output_index: int
    item: Item


class _OfItem(Event):
    item_id: str
    output_index: int


class _OfContent(_OfItem):
    content_index: int


class _Part(_OfContent):
    part: Part


class _Delta(_OfContent):
    delta: str


class _Text(_OfContent):
    text: str


class _ArgumentsDelta(_OfItem):
    delta: str


class _Arguments(_OfItem):
    arguments: str


class _SummaryPart(_OfItem):
    summary_index: int
    part: OtherText


class _SummaryDelta(_OfItem):
    summary_index: int
    delta: str


class _SummaryText(_OfItem):
    summary_index: int
    text: str


EVENTS: dict[str, type[Event]] = {
    "response.created": _OfResponse,
    "response.queued": _OfResponse,
    "response.in_progress": _OfResponse,
    "response.completed": _OfResponse,
    "response.incomplete": _OfResponse,
    "response.failed": _OfResponse,
    "response.output_item.added": _OfOutput,
    "response.output_item.done": _OfOutput,
    "response.content_part.added": _Part,
    "response.content_part.done": _Part,
    "response.output_text.delta": _Delta,
    "response.output_text.done": _Text,
    "response.reasoning.delta": _Delta,
    "response.reasoning.done": _Text,
    "response.reasoning_summary_part.added": _SummaryPart,
    "response.reasoning_summary_part.done": _SummaryPart,
    "response.reasoning_summary_text.delta": _SummaryDelta,
    "response.reasoning_summary_text.done": _SummaryText,
    "response.function_call_arguments.delta": _ArgumentsDelta,
    "response.function_call_arguments.done": _Arguments,
}
