"""A request of /v1/completions -> what is to be completed, and how.

It knows no HTTP and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.server.completions.schema import CompletionRequest
from gptoss_mlx.server.problems import Problem

__all__ = ["Completion", "Reading", "read"]


@dataclass(frozen=True)
class Completion:
    """One text to go on with. `prompt` is text, or ids."""

    prompt: str | tuple[int, ...]
    params: SamplingParams
    stop: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What a request says: completions in the order of their indices."""

    completions: tuple[Completion, ...]
    choices_per_prompt: int
    is_streamed: bool
    includes_usage: bool
    echo: bool


def read(request: CompletionRequest) -> Reading:
    """What a request asks for.

    Raises:
        Problem: it cannot be done, or makes no sense.
        UsageError: a number is out of its range.
    """
    if request.suffix:
        raise Problem(400, "suffix: these models cannot fill in between texts", param="suffix")
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    prompts, n = _prompts(request), request.n or 1
    completions = [
        Completion(prompt, _params(request, i), tuple(text for text in stops if text))
        for prompt in prompts
        for i in range(n)
    ]
    options = request.stream_options
    return Reading(
        tuple(completions),
        n,
        bool(request.stream),
        bool(options and options.include_usage),
        bool(request.echo),
    )


def _prompts(request: CompletionRequest) -> Sequence[str | tuple[int, ...]]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [tuple(cast("list[int]", prompt))]
    several = cast("list[str | list[int]]", prompt)
    return [item if isinstance(item, str) else tuple(item) for item in several]


def _params(request: CompletionRequest, choice: int) -> SamplingParams:
    """How to draw; a seed must not make all choices the same one."""
    try:
        bias = tuple((int(key), value) for key, value in (request.logit_bias or {}).items())
    except ValueError:
        raise Problem(400, "logit_bias: its keys must be token ids", param="logit_bias") from None
    return SamplingParams(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=None if request.seed is None else (request.seed + choice) % 2**64,
        max_tokens=request.max_tokens,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=bias,
        logprobs=request.logprobs,
    )
