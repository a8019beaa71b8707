"""The response object: what of it the request says, and what comes of the events.

It does not know how output items come about.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses import schema
from gptoss_mlx.server.responses.reading import Reading
from gptoss_mlx.server.usage import Usage

__all__ = ["blank_response", "error_of", "usage_json"]

# The codes that OpenAI's clients know; `context_length_exceeded` is not among them by its types,
# but by its server, and Codex compacts its history when it comes.
_CODES = frozenset({"rate_limit_exceeded", "context_length_exceeded", "server_error"})


def usage_json(usage: Usage) -> dict[str, Any]:
    """As the API has it; what goes into the cache is no matter of money here, and not counted."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def blank_response(
    reading: Reading, *, identity: str, model: str, created_at: int
) -> dict[str, Any]:
    """A response before anything was generated, with every key that it will have."""
    request = reading.request
    return {
        "id": identity,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "in_progress",
        "background": bool(request.background),
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "presence_penalty": reading.job.params.presence_penalty,
        "frequency_penalty": reading.job.params.frequency_penalty,
        "reasoning": _reasoning(reading),
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.is_stored,
        "temperature": reading.job.params.temperature,
        "text": _text(request),
        "tool_choice": _tool_choice(request),
        "tools": list(reading.tools.echo),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": reading.job.params.top_p,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


def error_of(problem: Problem) -> dict[str, Any]:
    """What a failed response says of its error."""
    code = problem.code if problem.code in _CODES else "server_error"
    return {"code": code, "message": problem.message}


def _reasoning(reading: Reading) -> dict[str, Any]:
    """The effort that was used, whatever was asked for."""
    asked = reading.request.reasoning
    return {"effort": reading.job.setup.reasoning, "summary": asked.summary if asked else None}


def _text(request: schema.CreateRequest) -> dict[str, Any]:
    text = request.text or schema.TextConfig()
    form = text.format or schema.TextFormat()
    shown: dict[str, Any] = {"type": form.type}
    if form.type == "json_schema":
        schema_and_name = {"name": form.name or "response", "schema": form.json_schema or {}}
        details = {"description": form.description, "strict": bool(form.strict)}
        shown |= schema_and_name | details
    return {"format": shown, "verbosity": text.verbosity or "medium"}


def _tool_choice(request: schema.CreateRequest) -> Any:
    choice = request.tool_choice
    if not isinstance(choice, schema.ToolChoice):
        return choice or "auto"
    keys: Iterable[str] = ("type", "mode", "tools")
    if choice.type != "allowed_tools":
        keys = ("type", "name", "namespace") if choice.name else ("type",)
    values = ((key, getattr(choice, key)) for key in keys)
    return {key: value for key, value in values if value is not None}
