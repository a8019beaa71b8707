"""A request of /v1/messages -> a job, and what its writer must know.

It knows no HTTP and no engine.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.grammar import Format, json_schema
from gptoss_mlx.harmony import Effort, Setup
from gptoss_mlx.server.job import Job, ToolNames
from gptoss_mlx.server.messages import schema
from gptoss_mlx.server.messages.history import instructions, read_messages
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.messages.tools import read_tools
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.schemas import format_text

__all__ = ["Reading", "read", "read_count"]

_EFFORTS: dict[schema.Effort, Effort] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_LOW_BUDGET, _HIGH_BUDGET = 4_096, 16_384  # tokens: below is low, from there on is high


@dataclass(frozen=True)
class Reading:
    """What a request says.

    names: the client's names of its tools. shows_thinking: whether there are thinking blocks.
    omits_thinking: whether they are without text.
    """

    job: Job
    names: ToolNames
    model: str | None
    is_streamed: bool = False
    shows_thinking: bool = False
    omits_thinking: bool = False


def read(
    request: schema.MessagesRequest,
    builtins: Collection[str] = (),
    date: str | None = None,
    memory: Memory | None = None,
) -> Reading:
    """What a request asks for, on a server that has these builtin tools.

    Raises:
        Problem: what the request says makes no sense.
        UsageError: two tools have one name.
        GrammarError: the answer's schema cannot be used.
    """
    if request.messages[-1].role == "assistant":
        message = "messages must end with the user's: an answer cannot be begun by the client"
        raise Problem(400, message, param="messages")
    job, names = _job(request, builtins, date, memory or Memory())
    stops = tuple(stop for stop in request.stop_sequences or () if stop)
    thinking = request.thinking
    return Reading(
        replace(job, params=_params(request), stop=stops),
        names,
        request.model,
        bool(request.stream),
        shows_thinking=thinking is not None and thinking.type != "disabled",
        omits_thinking=thinking is not None and thinking.display == "omitted",
    )


def read_count(
    request: schema.CountRequest,
    builtins: Collection[str] = (),
    date: str | None = None,
    memory: Memory | None = None,
) -> Job:
    """The job whose prompt is to be counted; raises what `read` raises."""
    return _job(request, builtins, date, memory or Memory())[0]


def _job(
    request: schema.CountRequest, builtins: Collection[str], date: str | None, memory: Memory
) -> tuple[Job, ToolNames]:
    tools = read_tools(request, builtins)
    messages = read_messages(request.messages, tools.names, memory)
    if not messages:
        raise Problem(400, "messages: nothing is said in them", param="messages")
    answer, told = _answer(request)
    told = "\n\n".join(text for text in (instructions(request), told) if text)
    job = Job(
        tuple(messages),
        Setup(_effort(request), told or None, tools.functions, date),
        answer=answer,
        tool_choice=tools.choice,
        strict=tools.strict,
        builtins=tools.builtins,
    )
    return job, tools.names


def _effort(request: schema.CountRequest) -> Effort:
    """How much the model thinks; it always does.

    `thinking: disabled` is low. Else `output_config.effort` counts: low, medium, and high, which
    xhigh and max are, too. Else the budget: low below 4,096 tokens, high from 16,384 on. Else, as
    for `adaptive` or where nothing is said, it is medium.
    """
    thinking, config = request.thinking, request.output_config
    if thinking is not None and thinking.type == "disabled":
        return "low"
    if config is not None and config.effort is not None:
        return _EFFORTS[config.effort]
    budget = thinking and thinking.budget_tokens
    if budget is None:
        return "medium"
    return "low" if budget < _LOW_BUDGET else "high" if budget >= _HIGH_BUDGET else "medium"


def _params(request: schema.MessagesRequest) -> SamplingParams:
    return SamplingParams(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k or 0,
        max_tokens=request.max_tokens,
    )


def _answer(request: schema.CountRequest) -> tuple[Format | None, str]:
    """What the answer must look like, and what the model is told of it."""
    config = request.output_config
    form = (config and config.format) or request.output_format
    if form is None or form.type != "json_schema":
        return None, ""
    if form.json_schema is None:
        raise Problem(400, "a json_schema format needs a schema", param="output_config.format")
    return json_schema(form.json_schema), format_text(form.json_schema)
