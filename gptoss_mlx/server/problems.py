"""What can be wrong with a request, or go wrong with it, and the shapes that the APIs give that.

An error of the package becomes a problem with a status; what nobody foresaw is logged, and the
client is told no more than that. It does not know HTTP beyond numbers and headers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gptoss_mlx.errors import (
    BusyError,
    CacheFullError,
    CheckpointError,
    ContextLengthError,
    DeadlineError,
    GptOssError,
    MemoryPlanError,
    UsageError,
)

__all__ = ["Problem", "anthropic_error", "is_anthropics", "openai_error", "problem_of"]

_log = logging.getLogger(__name__)
_RETRY_AFTER = {"retry-after": "2"}  # seconds; a place in the queue is often free by then
_MAX_MESSAGE = 400  # characters: it may repeat what somebody sent
_TYPE = re.compile(r"(?:str|int|float|bool)$|[A-Z]|.*\[")  # what pydantic calls a union's types
_KINDS = {429: "rate_limit_error"}  # OpenAI's types where the status alone does not tell
_ANTHROPIC_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Problem(Exception):  # noqa: N818  (it is no bug: an answer like others)
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        message: one line for the client, with the remedy.
        kind: OpenAI's `type`; by default what the status stands for.
        param: the field that is wrong, as `messages.0.content`.
        code: what a program may go by, as `context_length_exceeded`.
        headers: of the answer, beside those that every answer has.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if len(message) > _MAX_MESSAGE:
            message = f"{message[:_MAX_MESSAGE]}…"
        super().__init__(message)
        self.status = status
        self.message = message
        default = "server_error" if status >= 500 else "invalid_request_error"
        self.kind = kind or _KINDS.get(status, default)
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error; one that is the server's fault is logged."""
    match error:
        case Problem():
            return error
        case ValidationError():
            return _of_validation(error)
        case ContextLengthError():
            return Problem(400, str(error), code="context_length_exceeded")
        case UsageError():
            return Problem(400, str(error))
        case BusyError():
            headers = _RETRY_AFTER
            return Problem(429, str(error), code="rate_limit_exceeded", headers=headers)
        case DeadlineError():
            return Problem(504, str(error), code="timeout")
        case CacheFullError():
            _log.error("a request failed: %s", error)
            message = f"{error} (serve --kv-bits 8 takes half of it)"
            return Problem(503, message, code="cache_full")
        case MemoryPlanError() | CheckpointError():
            return Problem(503, str(error), code="model_not_loaded")
        case GptOssError():
            _log.error("a request failed: %s", error)
            return Problem(500, str(error))
        case _:
            _log.error("a request failed unexpectedly", exc_info=error)
            return Problem(500, "an internal error; the server's log says more")


def is_anthropics(path: str) -> bool:
    """Whether errors of this path have Anthropic's shape."""
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def openai_error(problem: Problem) -> dict[str, Any]:
    """The body of an error in OpenAI's shape."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.kind,
            "param": problem.param,
            "code": problem.code,
        }
    }


def anthropic_error(problem: Problem) -> dict[str, Any]:
    """The body of an error in Anthropic's shape."""
    default = "api_error" if problem.status >= 500 else "invalid_request_error"
    kind = _ANTHROPIC_KINDS.get(problem.status, default)
    return {"type": "error", "error": {"type": kind, "message": problem.message}}


def _of_validation(error: ValidationError) -> Problem:
    """What a schema does not accept, the innermost of it; a value is not repeated.

    Of a union there is an error for each of its types: the one that came furthest was meant.
    """
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    meant = max(errors, key=lambda one: len(one["loc"]))
    param = ".".join(str(part) for part in meant["loc"] if not _TYPE.match(str(part))) or None
    place = f"{param}: " if param else ""
    others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem(400, f"{place}{meant['msg']}{others}", param=param, code="invalid_value")
