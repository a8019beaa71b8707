"""A request of /v1/chat/completions -> jobs, one for each choice, and what their writer must know.

It knows no HTTP and no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.grammar import Format, json_object, json_schema
from gptoss_mlx.harmony import Effort, FunctionTool, Setup
from gptoss_mlx.server.chat_completions.history import instructions, read_messages
from gptoss_mlx.server.chat_completions.memory import Memory
from gptoss_mlx.server.chat_completions.schema import (
    ChatRequest,
    Function,
    NamedChoice,
)
from gptoss_mlx.server.job import Job, ToolNames
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.schemas import format_text, written_out

__all__ = ["Reading", "read", "sampling", "stop_texts"]

_EFFORTS: dict[str, Effort] = {  # the model always thinks
    "none": "low",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
}
# Types of tools that others run, by the builtin that is the same; also as `web_search_preview`.
_BUILTINS = {
    "browser": "browser",
    "web_search": "browser",
    "code_interpreter": "python",
    "python": "python",
}


@dataclass(frozen=True)
class Reading:
    """What a request says.

    names: the client's names of its functions. top_logprobs: how many to show, None: no logprobs.
    """

    jobs: tuple[Job, ...]
    names: ToolNames
    is_streamed: bool
    includes_usage: bool
    top_logprobs: int | None


def read(
    request: ChatRequest,
    builtins: Collection[str] = (),
    date: str | None = None,
    memory: Memory | None = None,
) -> Reading:
    """What a request asks for, on a server that has these builtin tools and this memory.

    Raises:
        Problem: what the request says makes no sense.
        UsageError: a number is out of its range, or two functions have one name.
    """
    functions = _functions(request)
    names = ToolNames([function.name for function in functions])
    answer, format_text = _answer(request)
    setup = Setup(
        _effort(request),
        "\n\n".join(filter(None, (instructions(request.messages), format_text))) or None,
        tuple(_described(function, names) for function in functions),
        date,
    )
    job = Job(
        tuple(read_messages(request.messages, names, memory)),
        setup,
        sampling(request),
        stop_texts(request.stop),
        answer,
        _choice(request, names, functions),
        frozenset(names.to_model(f.name) for f in functions if f.strict),
        tuple(sorted(_asked_builtins(request) & set(builtins))),
    )
    options = request.stream_options
    return Reading(
        tuple(_choices(job, request.n or 1)),
        names,
        bool(request.stream),
        bool(options and options.include_usage),
        job.params.logprobs,
    )


def stop_texts(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """What an answer ends before; empty texts, which would end any, are none."""
    stops = [stop] if isinstance(stop, str) else stop or []
    return tuple(text for text in stops if text)


def _choices(job: Job, n: int) -> list[Job]:
    """The job n times; a seed must not make all choices the same one."""
    seed = job.params.seed
    if seed is None:
        return [job] * n
    seeds = [(seed + i) % 2**64 for i in range(n)]
    return [replace(job, params=replace(job.params, seed=s)) for s in seeds]


def _effort(request: ChatRequest) -> Effort:
    asked = request.reasoning_effort or (request.reasoning and request.reasoning.effort)
    return _EFFORTS[asked or "medium"]


def _described(function: Function, names: ToolNames) -> FunctionTool:
    parameters = written_out(function.parameters)
    return FunctionTool(names.to_model(function.name), function.description or "", parameters)


def _functions(request: ChatRequest) -> list[Function]:
    """The functions that are described to the model."""
    functions = [tool.function for tool in request.tools or () if tool.function is not None]
    choice = request.tool_choice
    if isinstance(choice, NamedChoice) and choice.allowed_tools is not None:
        allowed = {t.function.name for t in choice.allowed_tools.tools if t.function is not None}
        return [function for function in functions if function.name in allowed]
    return functions


def _choice(request: ChatRequest, names: ToolNames, functions: Sequence[Function]) -> str:
    """The job's tool_choice."""
    choice = request.tool_choice or "auto"
    if isinstance(choice, NamedChoice):
        if choice.allowed_tools is not None:
            return choice.allowed_tools.mode
        if choice.function is None:  # of a tool that the server does not know
            return "auto"
        name = choice.function.name
        if name not in {function.name for function in functions}:
            message = f"tool_choice: there is no function {name!r} among the tools"
            raise Problem(400, message, param="tool_choice")
        return names.to_model(name)
    if choice == "required" and not (functions or _asked_builtins(request)):
        raise Problem(400, "tool_choice: a call is required, but there are no tools", param="tools")
    return "auto" if choice == "none" and not functions else choice


def _asked_builtins(request: ChatRequest) -> set[str]:
    """What would be run by the server, if it has it."""
    if request.tool_choice == "none":
        return set()
    types = [tool.type.removesuffix("_preview") for tool in request.tools or ()]
    asked = {_BUILTINS[kind] for kind in types if kind in _BUILTINS}
    return asked | ({"browser"} if request.web_search_options is not None else set())


def sampling(request: ChatRequest) -> SamplingParams:
    """How to draw; what is not said is OpenAI's recommendation for the model."""
    limit = request.max_completion_tokens
    limit = request.max_tokens if limit is None else limit
    if limit == 0:
        raise Problem(400, "max_tokens: at least one token must be allowed", param="max_tokens")
    if request.top_logprobs is not None and not request.logprobs:
        raise Problem(400, "top_logprobs: it needs logprobs: true", param="top_logprobs")
    return SamplingParams(
        temperature=_or(request.temperature, 1.0),
        top_p=_or(request.top_p, 1.0),
        seed=None if request.seed is None else request.seed % 2**64,
        max_tokens=None if limit == -1 else limit,
        top_k=max(0, request.top_k or 0),  # -1 is what other servers call all
        min_p=_or(request.min_p, 0.0),
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        presence_penalty=_or(request.presence_penalty, 0.0),
        frequency_penalty=_or(request.frequency_penalty, 0.0),
        logit_bias=logit_bias(request.logit_bias),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
    )


def logit_bias(biases: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    """Pairs of (id, bias).

    Raises:
        Problem: a key is no id.
    """
    try:
        return tuple((int(key), bias) for key, bias in (biases or {}).items())
    except ValueError:
        raise Problem(400, "logit_bias: its keys must be token ids", param="logit_bias") from None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _answer(request: ChatRequest) -> tuple[Format | None, str]:
    """What the answer must look like, and what the model is told of it."""
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None, ""
    if wanted.type == "json_object":
        return json_object(), ""
    named = wanted.json_schema
    if named is None or named.json_schema is None:
        message = "response_format: json_schema needs a schema"
        raise Problem(400, message, param="response_format.json_schema.schema")
    form = json_schema(named.json_schema, strict=bool(named.strict))
    return form, format_text(named.json_schema, named.name, named.description)
