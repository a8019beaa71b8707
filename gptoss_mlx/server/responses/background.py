"""Responses that are worked on while nobody waits for them.

Those that were asked for as a stream leave their events, for who listens from the beginning and for
who comes back later. It does not know HTTP beyond the bytes of a stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from gptoss_mlx.server.answer import Wire
from gptoss_mlx.server.problems import problem_of
from gptoss_mlx.server.responses.exchange import Exchange
from gptoss_mlx.server.responses.response import error_of
from gptoss_mlx.server.responses.storing import StoreThread
from gptoss_mlx.server.run import Run
from gptoss_mlx.server.sse import DONE, sse

__all__ = ["Background", "EventLog", "EventLogs"]

_MAX_BYTES = 64 << 20
_HEARTBEAT = b": still working\n\n"  # a comment, since an event would need a number


class EventLog:
    """The events of one response; any number of readers, each from where it likes."""

    def __init__(self) -> None:
        self.size = 0
        self.is_over = False
        self._events: list[bytes] = []  # an event's place is its sequence number
        self._end = b""
        self._change = asyncio.Event()

    def add(self, wires: Sequence[Wire]) -> None:
        """What has come."""
        events = [sse(data, name) for name, data in wires]
        self._events += events
        self.size += sum(map(len, events))
        self._wake()

    def end(self, terminator: bytes = b"") -> None:
        """Nothing more comes; `terminator` is what a stream ends with."""
        self.is_over, self._end = True, terminator
        self._wake()

    async def follow(self, start: int, heartbeat: float) -> AsyncGenerator[bytes]:
        """The events from a number on, and a sign of life after so many seconds of silence."""
        while True:
            change = self._change
            if start < (end := len(self._events)):
                yield b"".join(self._events[start:end])
                start = end  # more may have come meanwhile
            elif self.is_over:
                yield self._end
                return
            else:
                try:
                    async with asyncio.timeout(heartbeat):
                        await change.wait()
                except TimeoutError:
                    yield _HEARTBEAT

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


class EventLogs:
    """Logs by owner and response; of those that are over the latest stay.

    Args:
        max_bytes: that logs may have together.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._logs: dict[tuple[str, str], EventLog] = {}

    def keep(self, owner: str, identity: str, log: EventLog) -> None:
        """Keep a new log, for which old ones may go."""
        size = sum(old.size for old in self._logs.values())
        for key, old in list(self._logs.items()):
            if size > self._max_bytes and old.is_over:
                size -= old.size
                del self._logs[key]
        self._logs[owner, identity] = log

    def find(self, owner: str, identity: str) -> EventLog | None:
        """The log of a response, if it has one (any more)."""
        return self._logs.get((owner, identity))

    def drop(self, owner: str, identity: str) -> None:
        """The response is not wanted any more."""
        self._logs.pop((owner, identity), None)


class Background:
    """Works on responses.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: StoreThread) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

    async def begin(self, exchange: Exchange, log: EventLog | None = None) -> dict[str, Any]:
        """Begin to work on a response, which is queued for now; its events go to the log.

        Raises:
            DiskError: it cannot be stored.
        """
        queued = exchange.blank(status="queued")
        task = asyncio.create_task(self._work(exchange, log))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        loop = asyncio.get_running_loop()
        owner, stored = exchange.context.owner, exchange.stored(queued)

        def cancel() -> None:
            loop.call_soon_threadsafe(task.cancel)

        try:  # the task has not begun, so that this is the first that the store hears of it
            await self._store.call(lambda store: store.started(owner, stored, cancel))
        except Exception:
            task.cancel()
            raise
        return queued

    async def _work(self, exchange: Exchange, log: EventLog | None) -> None:
        response: dict[str, Any] | None = None  # what has come of it, where nothing else is said
        wires: list[Wire] = []
        try:
            wires = await self._run(exchange, log)
        except asyncio.CancelledError:
            if exchange.writer is not None:
                wires = exchange.writer.cancel()
            else:
                response = exchange.blank(status="cancelled")
        except Exception as error:
            problem = problem_of(error)
            if exchange.writer is not None:
                wires = exchange.writer.fail(problem)
            else:
                response = exchange.blank(status="failed", error=error_of(problem))
        owner, stored = exchange.context.owner, exchange.stored(response)
        self._store.later(lambda store: store.finished(owner, stored))
        if log is not None:
            log.add(wires if response is None else _stillborn(response))
            log.end(DONE if exchange.open_responses else b"")

    async def _run(self, exchange: Exchange, log: EventLog | None) -> list[Wire]:
        """Its last events; those before go to the log."""

        def put(wires: list[Wire]) -> None:
            if log is not None:
                log.add(wires)

        server, owner = exchange.server, exchange.context.owner
        begun = exchange.stored(exchange.blank())
        async with server.host.use() as model, Run(exchange.works(model)) as run:
            writer = exchange.make_writer(model)
            self._store.later(lambda store: store.progressed(owner, begun))
            put(writer.begin())
            async with aclosing(run.events(server.settings.heartbeat)) as events:
                async for event in events:
                    if event is not None:
                        put(writer.push(*event))
        return writer.end()


def _stillborn(response: dict[str, Any]) -> list[Wire]:
    """The events of a response that ended before it began."""
    names = ("response.created", "response.failed" if response["error"] else "response.incomplete")
    return [
        (name, {"type": name, "sequence_number": number, "response": response})
        for number, name in enumerate(names)
    ]
