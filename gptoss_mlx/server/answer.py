"""One request's answer over HTTP: works that run, and a writer that makes events of their results.

The status is decided when all works have begun; later errors are events of the stream. When the
client goes away, the works are cancelled. It does not know which API it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gptoss_mlx.server.access import note
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.server.problems import Problem, problem_of
from gptoss_mlx.server.run import Run, Work
from gptoss_mlx.server.sse import as_json, sse, unless_disconnected

__all__ = ["STREAM_HEADERS", "Answer", "Wire", "Writer"]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Wire = tuple[str | None, dict[str, Any]]  # an event's name, where the API has names, and its data
STREAM_HEADERS = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would wait for more
}


class Writer(Protocol[T_contra]):
    """Results of works in, wire events out. The result is what the events add up to."""

    terminator: bytes  # what follows the last event of a stream

    def begin(self) -> list[Wire]:
        """What a stream begins with."""
        ...

    def push(self, number: int, result: T_contra, /) -> list[Wire]:
        """What the next result of a work becomes."""
        ...

    def heartbeat(self) -> list[Wire]:
        """What says that the stream lives."""
        ...

    def end(self) -> list[Wire]:
        """What follows when all works have ended."""
        ...

    def fail(self, problem: Problem) -> list[Wire]:
        """What a stream ends with that cannot go on."""
        ...

    def result(self) -> dict[str, Any]:
        """The answer in one piece, after the end."""
        ...

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the prompts, and of what was generated, so far; for the log."""
        ...


class Answer(Generic[T]):
    """An answer to a request whose body has been read; an ASGI application.

    Args:
        host: the model.
        works: what to run on it.
        writer: makes events, and the answer in one piece.
        is_streamed: whether the client wants events.
        heartbeat: seconds of silence after which it is told that the stream lives.
    """

    def __init__(
        self,
        host: ModelHost,
        works: Callable[[OpenModel], Sequence[Work[T]]],
        writer: Callable[[OpenModel], Writer[T]],
        *,
        is_streamed: bool,
        heartbeat: float,
    ) -> None:
        self._host, self._works, self._make_writer = host, works, writer
        self._is_streamed, self._heartbeat = is_streamed, heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the works, and send what comes of them.

        Raises:
            Problem: nothing has been sent yet, and the status should say so.
        """
        try:
            await unless_disconnected(receive, lambda: self._answer(scope, receive, send))
        except ClientDisconnect:
            note(scope, disconnected=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._host.use() as model:
                model.engine.check_capacity()  # who is turned away must not cost much
                async with Run(self._works(model)) as run:
                    writer = self._make_writer(model)
                    try:
                        if self._is_streamed:
                            await self._stream(run, writer, send)
                        else:
                            response = await self._whole(run, writer)
                            await response(scope, receive, send)
                    finally:
                        prompt, completion = writer.tokens
                        note(scope, prompt_tokens=prompt, completion_tokens=completion)
        except Exception as error:
            raise problem_of(error) from error

    async def _whole(self, run: Run[T], writer: Writer[T]) -> Response:
        async with aclosing(run.events(self._heartbeat)) as events:
            async for event in events:
                if event is not None:
                    writer.push(*event)
        writer.end()
        return Response(as_json(writer.result()), media_type="application/json")

    async def _stream(self, run: Run[T], writer: Writer[T], send: Send) -> None:
        clock = asyncio.get_running_loop().time
        last = clock()  # when something was sent: much may come that the client is not shown

        async def put(wires: list[Wire]) -> None:
            nonlocal last
            body = b"".join(sse(data, name) for name, data in wires)
            if body:
                last = clock()
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.sleep(0)  # where much has come at once, a lost client is still seen

        headers = Response(headers=STREAM_HEADERS, media_type="text/event-stream").raw_headers
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await put(writer.begin())
        try:
            async with aclosing(run.events(self._heartbeat)) as events:
                async for event in events:
                    wires = [] if event is None else writer.push(*event)
                    if not wires and (event is None or clock() - last >= self._heartbeat):
                        wires = writer.heartbeat()
                    await put(wires)
            await put(writer.end())
        except Exception as error:
            await put(writer.fail(problem_of(error)))
        ending = {"type": "http.response.body", "body": writer.terminator, "more_body": False}
        await send(ending)
