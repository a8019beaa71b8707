"""/v1/chat/completions over HTTP."""

from __future__ import annotations

from datetime import date

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from gptoss_mlx.chat import Event
from gptoss_mlx.server.answer import Answer
from gptoss_mlx.server.body import read_json
from gptoss_mlx.server.chat_completions.memory import Memory
from gptoss_mlx.server.chat_completions.reading import read
from gptoss_mlx.server.chat_completions.schema import ChatRequest
from gptoss_mlx.server.chat_completions.writing import ChatWriter
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.host import OpenModel
from gptoss_mlx.server.openapi import Operation
from gptoss_mlx.server.reply import Reply

__all__ = ["OPERATIONS", "routes"]

OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "The assistant's next message in a conversation.",
        body=ChatRequest,
        returns=("id", "object", "created", "model", "choices", "usage"),
        streams=True,
    ),
)


def routes(context: Context) -> list[Route]:
    """The API's routes."""
    settings = context.settings

    async def create(request: Request) -> ASGIApp:
        body = await read_json(request, settings.max_body)
        asked = ChatRequest.model_validate(body)
        memory = Memory(context.recall, request.scope.get("caller", ""))
        reading = read(asked, settings.tools, date.today().isoformat(), memory)
        replies: list[Reply] = []

        def works(model: OpenModel) -> list[Reply]:
            replies.extend(Reply(job, model, context.open_tools) for job in reading.jobs)
            return replies

        def writer(model: OpenModel) -> ChatWriter:
            browses = "browser" in reading.jobs[0].builtins
            sources = [reply.source for reply in replies] if browses else []
            now = context.now()
            return ChatWriter(
                reading, settings.model, model.tokenizer, now, sources=sources, memory=memory
            )

        return Answer[Event](
            context.host,
            works,
            writer,
            is_streamed=reading.is_streamed,
            heartbeat=settings.heartbeat,
        )

    return [Route("/v1/chat/completions", create, methods=["POST"])]
