"""/v1/completions over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from gptoss_mlx.server.answer import Answer
from gptoss_mlx.server.body import read_json
from gptoss_mlx.server.completions.reading import read
from gptoss_mlx.server.completions.schema import CompletionRequest
from gptoss_mlx.server.completions.work import RawCompletion, Result
from gptoss_mlx.server.completions.writing import CompletionWriter
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.openapi import Operation

__all__ = ["OPERATIONS", "routes"]

OPERATIONS = (
    Operation(
        "POST",
        "/v1/completions",
        "What follows a text, or several.",
        body=CompletionRequest,
        returns=("id", "object", "created", "model", "choices", "usage"),
        streams=True,
    ),
)


def routes(context: Context) -> list[Route]:
    """The API's routes."""
    settings = context.settings

    async def create(request: Request) -> ASGIApp:
        body = await read_json(request, settings.max_body)
        reading = read(CompletionRequest.model_validate(body))
        return Answer[Result](
            context.host,
            lambda model: [RawCompletion(asked, model) for asked in reading.completions],
            lambda model: CompletionWriter(reading, settings.model, model.tokenizer, context.now()),
            is_streamed=reading.is_streamed,
            heartbeat=settings.heartbeat,
        )

    return [Route("/v1/completions", create, methods=["POST"])]
