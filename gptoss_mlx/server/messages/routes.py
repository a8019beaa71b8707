"""/v1/messages over HTTP: a message, or the tokens that its prompt would have."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import closing
from datetime import date

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gptoss_mlx.chat import Event
from gptoss_mlx.errors import ContextLengthError
from gptoss_mlx.server.answer import Answer
from gptoss_mlx.server.body import read_json
from gptoss_mlx.server.context import Context
from gptoss_mlx.server.host import OpenModel
from gptoss_mlx.server.messages.memory import Memory
from gptoss_mlx.server.messages.reading import read, read_count
from gptoss_mlx.server.messages.schema import CountRequest, MessagesRequest
from gptoss_mlx.server.messages.writing import MessageWriter
from gptoss_mlx.server.openapi import Operation
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.reply import Reply
from gptoss_mlx.server.sse import as_json

__all__ = ["OPERATIONS", "routes"]

OPERATIONS = (
    Operation(
        "POST",
        "/v1/messages",
        "The assistant's next message in a conversation.",
        body=MessagesRequest,
        returns=("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"),
        streams=True,
    ),
    Operation(
        "POST",
        "/v1/messages/count_tokens",
        "How many tokens the prompt of a message would have.",
        body=CountRequest,
        returns=("input_tokens",),
    ),
)


def routes(context: Context) -> list[Route]:
    """The API's routes."""
    settings = context.settings

    def memory_of(request: Request) -> Memory:
        return Memory(request.scope.get("caller", ""), context.recall, context.seal)

    async def create(request: Request) -> ASGIApp:
        body = await read_json(request, settings.max_body)
        memory = memory_of(request)
        asked = MessagesRequest.model_validate(body)
        reading = read(asked, settings.tools, _today(), memory)
        replies: list[_Reply] = []

        def works(model: OpenModel) -> list[_Reply]:
            replies.append(_Reply(reading.job, model, context.open_tools))
            return replies

        def writer(model: OpenModel) -> MessageWriter:
            (reply,) = replies
            return MessageWriter(
                reading,
                memory,
                reading.model or settings.model,
                model.tokenizer,
                reply.prompt_tokens,
                source=reply.source if "browser" in reading.job.builtins else None,
            )

        return Answer[Event](
            context.host,
            works,
            writer,
            is_streamed=reading.is_streamed,
            heartbeat=settings.heartbeat,
        )

    async def count(request: Request) -> Response:
        body = await read_json(request, settings.max_body)
        asked = CountRequest.model_validate(body)
        job = read_count(asked, settings.tools, _today(), memory_of(request))
        async with context.host.use() as model:
            with closing(Reply(job, model, context.open_tools)) as reply:
                tokens = await asyncio.to_thread(reply.count)
        return Response(as_json({"input_tokens": tokens}), media_type="application/json")

    return [
        Route("/v1/messages", create, methods=["POST"]),
        Route("/v1/messages/count_tokens", count, methods=["POST"]),
    ]


class _Reply(Reply):
    """A reply that knows how long its prompt is, and says it as clients expect.

    Claude Code compacts its history when it reads by how much a prompt is too long.
    """

    @property
    def prompt_tokens(self) -> int:
        """Known when it has begun."""
        return self._chat.prompt_tokens

    def begin(self) -> Generator[Event]:
        """As any reply begins."""
        try:
            return super().begin()
        except ContextLengthError as error:
            limit, tokens = self._chat.engine.context, len(self._chat.prompt())
            message = f"prompt is too long: {tokens} tokens > {limit} maximum"
            raise Problem(400, message, code="context_length_exceeded") from error


def _today() -> str:
    return date.today().isoformat()
