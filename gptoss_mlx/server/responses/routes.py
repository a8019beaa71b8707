"""/v1/responses over HTTP: create, get, delete, cancel, and list what was asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gptoss_mlx.chat import Event
from gptoss_mlx.errors import ContextLengthError, DiskError
from gptoss_mlx.harmony import Builtin
from gptoss_mlx.server.answer import Answer
from gptoss_mlx.server.body import read_json
from gptoss_mlx.server.context import Context as ServerContext
from gptoss_mlx.server.host import OpenModel
from gptoss_mlx.server.problems import Problem, problem_of
from gptoss_mlx.server.reply import OpenTools, Reply
from gptoss_mlx.server.responses.listing import input_items
from gptoss_mlx.server.responses.reading import Context, History, Reading, read
from gptoss_mlx.server.responses.response import blank_response, error_of
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.store import ResponseStore, StoredResponse
from gptoss_mlx.server.responses.writing import ResponseWriter, new_id
from gptoss_mlx.server.run import Run
from gptoss_mlx.server.sse import as_json
from gptoss_mlx.tools.browser import BrowserTool
from gptoss_mlx.tools.browser.page import Page

__all__ = ["routes"]

_log = logging.getLogger(__name__)
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
        Route(f"{path}/{{identity}}", service.get, methods=["GET"]),
        Route(f"{path}/{{identity}}", service.delete, methods=["DELETE"]),
        Route(f"{path}/{{identity}}/cancel", service.cancel, methods=["POST"]),
        Route(f"{path}/{{identity}}/input_items", service.input_items, methods=["GET"]),
    ]


class _Reply(Reply):
    """A reply whose pages can be cited, and whose oldest turns may be dropped.

    That a prompt is too long is an event where there are events: Codex then compacts its history,
    which it does not at a status.
    """

    def __init__(self, reading: Reading, model: OpenModel, open_tools: OpenTools) -> None:
        super().__init__(reading.job, model, open_tools)
        self._chat.drops_oldest = reading.drops_oldest
        self._is_streamed = bool(reading.request.stream)

    def begin(self) -> Generator[Event]:
        """As any reply begins."""
        try:
            return super().begin()
        except ContextLengthError as error:
            if not self._is_streamed:
                raise
            return _raising(error)

    def source(self, cursor: int) -> Page | None:
        """The page of a citation."""
        browsers = [t for t in self._chat.toolbox.tools if isinstance(t, BrowserTool)]
        return browsers[0].source(cursor) if browsers else None


@dataclass
class _Exchange:
    """One request and its response."""

    service: _Service
    reading: Reading
    context: Context
    identity: str
    items: tuple[dict[str, Any], ...]
    reply: _Reply | None = None
    on_end: Callable[[ResponseWriter], object] | None = None

    def works(self, model: OpenModel) -> list[_Reply]:
        """What is to be run."""
        self.reply = _Reply(self.reading, model, self.service.server.open_tools)
        return [self.reply]

    def writer(self, model: OpenModel) -> ResponseWriter:
        """What writes the events of the works."""
        assert self.reply is not None, "works come first"
        return ResponseWriter(
            self.reading,
            self.context,
            model.tokenizer,
            model=self.service.server.settings.model,
            identity=self.identity,
            source=self.reply.source if "browser" in self.reading.job.builtins else None,
            open_responses=self.service.open_responses,
            clock=self.service.server.now,
            on_end=self.on_end,
        )

    def blank(self, **changes: Any) -> dict[str, Any]:
        """The response before anything was generated."""
        server = self.service.server
        blank = blank_response(
            self.reading,
            identity=self.identity,
            model=server.settings.model,
            created_at=server.now(),
        )
        return blank | changes

    def stored(self, response: dict[str, Any], output: History | None = None) -> StoredResponse:
        """The response as it is kept."""
        own, output = self.reading.own, output or History()
        history = History(own.messages + output.messages, {**own.calls, **output.calls})
        return StoredResponse(response, self.items, history)


class _Service:
    """All requests to the API."""

    def __init__(self, server: ServerContext, store: ResponseStore, open_responses: bool) -> None:
        self.server, self.open_responses = server, open_responses
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

    async def create(self, request: Request) -> ASGIApp:
        """A new response: streamed, in one piece, or in the background."""
        body = await read_json(request, self.server.settings.max_body)
        exchange = self._exchange(CreateRequest.model_validate(body), _owner(request))
        asked = exchange.reading.request
        if asked.background:
            return self._begin(exchange)
        if asked.is_stored:
            exchange.on_end = lambda writer: self._keep(exchange, writer)
        return Answer[Event](
            self.server.host,
            exchange.works,
            exchange.writer,
            is_streamed=bool(asked.stream),
            heartbeat=self.server.settings.heartbeat,
        )

    async def get(self, request: Request) -> Response:
        """A stored response."""
        if request.query_params.get("stream") in ("true", "1"):
            raise Problem(400, "a stored response cannot be streamed: get it whole", param="stream")
        return _json(self._store.get(_owner(request), _identity(request)).response)

    async def delete(self, request: Request) -> Response:
        """Forget a response."""
        return _json(self._store.delete(_owner(request), _identity(request)))

    async def cancel(self, request: Request) -> Response:
        """End a response that runs in the background."""
        return _json(self._store.cancel(_owner(request), _identity(request)).response)

    async def input_items(self, request: Request) -> Response:
        """What a response was asked."""
        query = request.query_params
        try:
            limit = int(query.get("limit", "20"))
        except ValueError:
            raise Problem(400, "limit must be a whole number", param="limit") from None
        page = self._store.input_items(
            _owner(request),
            _identity(request),
            order=query.get("order", "desc"),
            after=query.get("after"),
            limit=limit,
        )
        return _json(page)

    def _exchange(self, asked: CreateRequest, owner: str) -> _Exchange:
        if asked.background and asked.stream:
            message = "a response in the background cannot be streamed: ask for it by its id"
            raise Problem(400, message, param="stream")

        def find_item(identity: str) -> dict[str, Any] | None:
            return self._store.find_item(owner, identity)

        context = Context(
            owner=owner,
            builtins=[name for name in _BUILTINS if name in self.server.settings.tools],
            date=date.today().isoformat(),
            recall=self.server.recall,
            seal=self.server.seal,
            find_item=find_item,
        )
        previous = asked.previous_response_id
        history = self._store.history(owner, previous) if previous else None
        reading = read(asked, context, history)
        items = input_items(asked, new_id, find_item)
        return _Exchange(self, reading, context, new_id("resp"), items)

    def _keep(self, exchange: _Exchange, writer: ResponseWriter) -> None:
        """Store a response; where that fails, the client has it nevertheless."""
        try:
            stored = exchange.stored(writer.result(), writer.history)
            self._store.put(exchange.context.owner, stored)
        except DiskError as error:
            _log.warning("a response was not stored: %s", error)

    def _begin(self, exchange: _Exchange) -> Response:
        """Work on a response, and say for now that it will be worked on."""
        queued = exchange.blank(status="queued")
        task = asyncio.create_task(self._work(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        loop = asyncio.get_running_loop()
        self._store.started(
            exchange.context.owner,
            exchange.stored(queued),
            lambda: loop.call_soon_threadsafe(task.cancel),
        )
        return _json(queued)

    async def _work(self, exchange: _Exchange) -> None:
        owner = exchange.context.owner
        writer: ResponseWriter | None = None
        response = exchange.blank(status="cancelled")
        try:
            async with self.server.host.use() as model, Run(exchange.works(model)) as run:
                writer = exchange.writer(model)
                self._store.progressed(owner, exchange.stored(exchange.blank()))
                async with aclosing(run.events(self.server.settings.heartbeat)) as events:
                    async for event in events:
                        if event is not None:
                            writer.push(*event)
            writer.end()
        except asyncio.CancelledError:
            if writer is not None:
                writer.cancel()
        except Exception as error:
            problem = problem_of(error)
            response = exchange.blank(status="failed", error=error_of(problem))
            if writer is not None:
                writer.fail(problem)
        if writer is not None:
            self._store.finished(owner, exchange.stored(writer.result(), writer.history))
        else:
            self._store.finished(owner, exchange.stored(response))


def _raising(error: Exception) -> Generator[Event]:
    raise error
    yield


def _owner(request: Request) -> str:
    """Whose request it is: a digest of the key, as the guard has noted it."""
    return request.scope.get("caller", "")


def _identity(request: Request) -> str:
    return request.path_params["identity"]


def _json(value: object) -> Response:
    return Response(as_json(value), media_type="application/json")
