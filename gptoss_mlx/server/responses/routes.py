"""/v1/responses over HTTP: create, get, delete, cancel, and what else the API has."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_mlx.chat import Event
from gptoss_mlx.harmony import Builtin
from gptoss_mlx.server.answer import STREAM_HEADERS, Answer
from gptoss_mlx.server.body import read_json
from gptoss_mlx.server.context import Context as ServerContext
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.background import Background, EventLog, EventLogs
from gptoss_mlx.server.responses.compacting import CompactionWriter, as_create, summarizing
from gptoss_mlx.server.responses.exchange import Exchange
from gptoss_mlx.server.responses.listing import input_items
from gptoss_mlx.server.responses.reading import Context, read
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.store import ResponseStore
from gptoss_mlx.server.responses.storing import StoreThread
from gptoss_mlx.server.responses.writing import new_id
from gptoss_mlx.server.sse import as_json

__all__ = ["routes"]

_BUILTINS: tuple[Builtin, ...] = ("browser", "python")


def routes(
    context: ServerContext,
    *,
    store: ResponseStore | None = None,
    open_responses: bool = False,
) -> list[Route]:
    """The API's routes.

    Args:
        context: the server.
        store: where responses are kept; in memory by default.
        open_responses: name events as the Open Responses specification does.
    """
    service = _Service(context, store or ResponseStore(), open_responses)
    path = "/v1/responses"
    return [
        Route(path, service.create, methods=["POST"]),
        Route(f"{path}/input_tokens", service.input_tokens, methods=["POST"]),
        Route(f"{path}/compact", service.compact, methods=["POST"]),
        Route(f"{path}/{{identity}}", service.get, methods=["GET"]),
        Route(f"{path}/{{identity}}", service.delete, methods=["DELETE"]),
        Route(f"{path}/{{identity}}/cancel", service.cancel, methods=["POST"]),
        Route(f"{path}/{{identity}}/input_items", service.input_items, methods=["GET"]),
    ]


class _Abandoned:
    """An answer that is streamed and stored: if its client goes away, what came by then is kept."""

    def __init__(self, answer: ASGIApp, exchange: Exchange) -> None:
        self._answer, self._exchange = answer, exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await self._answer(scope, receive, send)
        finally:
            writer = self._exchange.writer
            if writer is not None and not writer.is_over:
                writer.cancel()


class _Service:
    """All requests to the API."""

    def __init__(self, server: ServerContext, store: ResponseStore, open_responses: bool) -> None:
        self._server, self._open_responses = server, open_responses
        self._store = StoreThread(store)
        self._background = Background(self._store)
        self._logs = EventLogs()

    async def create(self, request: Request) -> ASGIApp:
        """A new response: streamed, in one piece, or in the background."""
        exchange = await self._read(request)
        asked = exchange.reading.request
        if asked.background:
            return await self._begin(exchange)
        if asked.is_stored:
            exchange.on_end = self._keep
        answer = Answer[Event](
            self._server.host,
            exchange.works,
            exchange.make_writer,
            is_streamed=bool(asked.stream),
            heartbeat=self._server.settings.heartbeat,
        )
        return _Abandoned(answer, exchange) if asked.stream else answer

    async def input_tokens(self, request: Request) -> Response:
        """How many tokens the prompt of such a response would have."""
        exchange = await self._read(request)
        async with self._server.host.use() as model:
            (reply,) = exchange.works(model)
            with closing(reply):
                count = await asyncio.to_thread(reply.count)
        return _json({"object": "response.input_tokens", "input_tokens": count})

    async def compact(self, request: Request) -> ASGIApp:
        """An item that stands for a conversation."""
        body = await read_json(request, self._server.settings.max_body)
        asked, owner = as_create(body), _owner(request)
        exchange = await self._store.call(lambda store: self._exchange(store, asked, owner))
        said = exchange.reading.job.messages
        exchange.reading = summarizing(exchange.reading)
        server = self._server
        return Answer[Event](
            server.host,
            exchange.works,
            lambda model: CompactionWriter(said, server.seal, model.tokenizer, server.now()),
            is_streamed=False,
            heartbeat=server.settings.heartbeat,
        )

    async def get(self, request: Request) -> Response:
        """A stored response, or the events of one that was streamed in the background."""
        owner, identity = _owner(request), _identity(request)
        stored = await self._store.call(lambda store: store.get(owner, identity))
        if request.query_params.get("stream") not in ("true", "1"):
            return _json(stored.response)
        log = self._logs.find(owner, identity)
        if log is None:
            message = (
                "only a response that was created with background and stream can be streamed "
                "again, for a while: get it whole"
            )
            raise Problem(400, message, param="stream")
        return self._follow(log, max(0, _number(request, "starting_after", -1) + 1))

    async def delete(self, request: Request) -> Response:
        """Forget a response."""
        owner, identity = _owner(request), _identity(request)
        deleted = await self._store.call(lambda store: store.delete(owner, identity))
        self._logs.drop(owner, identity)
        return _json(deleted)

    async def cancel(self, request: Request) -> Response:
        """End a response that runs in the background."""
        owner, identity = _owner(request), _identity(request)
        stored = await self._store.call(lambda store: store.cancel(owner, identity))
        return _json(stored.response)

    async def input_items(self, request: Request) -> Response:
        """What a response was asked."""
        owner, identity = _owner(request), _identity(request)
        order = request.query_params.get("order", "desc")
        after = request.query_params.get("after")
        limit = _number(request, "limit", 20)
        page = await self._store.call(
            lambda store: store.input_items(owner, identity, order=order, after=after, limit=limit)
        )
        return _json(page)

    async def _read(self, request: Request) -> Exchange:
        """A request, understood: in the store's thread, since it may go on from much."""
        body = await read_json(request, self._server.settings.max_body)
        asked, owner = CreateRequest.model_validate(body), _owner(request)
        return await self._store.call(lambda store: self._exchange(store, asked, owner))

    def _exchange(self, store: ResponseStore, asked: CreateRequest, owner: str) -> Exchange:
        def find_item(identity: str) -> dict[str, Any] | None:
            return store.find_item(owner, identity)

        server = self._server
        context = Context(
            owner=owner,
            builtins=[name for name in _BUILTINS if name in server.settings.tools],
            date=date.today().isoformat(),
            recall=server.recall,
            seal=server.seal,
            find_item=find_item,
        )
        previous = asked.previous_response_id
        history = store.history(owner, previous) if previous else None
        reading = read(asked, context, history)
        items = input_items(asked, new_id, find_item)
        return Exchange(server, self._open_responses, reading, context, new_id("resp"), items)

    def _keep(self, exchange: Exchange) -> None:
        """Store a response; where that fails, the client has it nevertheless."""
        owner, stored = exchange.context.owner, exchange.stored()
        self._store.later(lambda store: store.put(owner, stored))

    async def _begin(self, exchange: Exchange) -> Response:
        """Work on a response, and say for now that it will be worked on, or what comes of it."""
        if not exchange.reading.request.stream:
            return _json(await self._background.begin(exchange))
        log = EventLog()
        await self._background.begin(exchange, log)
        self._logs.keep(exchange.context.owner, exchange.identity, log)
        return self._follow(log, 0)

    def _follow(self, log: EventLog, start: int) -> Response:
        events = log.follow(start, self._server.settings.heartbeat)
        return StreamingResponse(events, headers=STREAM_HEADERS, media_type="text/event-stream")


def _owner(request: Request) -> str:
    """Whose request it is: a digest of the key, as the guard has noted it."""
    return request.scope.get("caller", "")


def _identity(request: Request) -> str:
    return request.path_params["identity"]


def _number(request: Request, name: str, default: int) -> int:
    """A whole number of the query."""
    try:
        return int(request.query_params.get(name, default))
    except ValueError:
        raise Problem(400, f"{name} must be a whole number", param=name) from None


def _json(value: object) -> Response:
    return Response(as_json(value), media_type="application/json")
