"""What blocks, in threads of its own, read by one coroutine.

A run has one or more works, each with a thread; what they give comes out as one stream, with
heartbeats where all are silent. When the run is left, however that comes about, its works are told
to stop, and their threads end. It does not know what the works do.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

__all__ = ["Run", "Work"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_log = logging.getLogger(__name__)


class Work(Protocol[T_co]):
    """Something that blocks until each of its results is there."""

    def begin(self) -> Generator[T_co]:
        """In its thread: begin, or raise why that is impossible; then each result as it comes."""
        ...

    def cancel(self) -> None:
        """End `begin` and what it returned, soon; once for all, and from any thread."""
        ...

    def close(self) -> None:
        """In its thread, at the very end: free what it holds."""
        ...


class _Begun:
    """A work has begun."""


class _Ended:
    """A work has no more results."""


_Item = T | _Begun | _Ended | Exception


class Run(Generic[T]):
    """Works under way. Enter it: it begins; leave it: they are cancelled, if they have not ended.

    Entering raises what the first work to fail raises in `begin`, so that a client can be told by a
    status; later errors come out of `events`.
    """

    def __init__(self, works: Sequence[Work[T]]) -> None:
        self._works = works
        self._items: asyncio.Queue[tuple[int, _Item[T]]] = asyncio.Queue()
        self._early: deque[tuple[int, _Item[T]]] = deque()  # while others had not begun
        self._running = len(works)

    async def __aenter__(self) -> Self:
        """Start the threads, and wait until every work has begun."""
        loop = asyncio.get_running_loop()
        for number, work in enumerate(self._works):
            thread = threading.Thread(
                target=self._work, args=(number, work, loop), name="gptoss-mlx reply", daemon=True
            )
            thread.start()
        try:
            await self._begin()
        except BaseException:
            self.cancel()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel what has not ended."""
        self.cancel()

    def cancel(self) -> None:
        """Tell the works to stop; to stop a tool may take a moment, which nobody waits for."""
        if self._running:
            threading.Thread(target=self._cancel, name="gptoss-mlx cancel", daemon=True).start()

    async def events(self, heartbeat: float) -> AsyncGenerator[tuple[int, T] | None]:
        """(number of the work, result) as they come; None after `heartbeat` seconds of silence.

        Raises:
            Exception: what a work raised; the others' results so far have come.
        """
        while self._running or self._early:
            try:
                async with asyncio.timeout(heartbeat):
                    number, item = await self._next()
            except TimeoutError:
                yield None
                continue
            if isinstance(item, Exception):
                raise item
            if isinstance(item, _Ended):
                self._running -= 1
            elif not isinstance(item, _Begun):
                yield number, item

    async def _next(self) -> tuple[int, _Item[T]]:
        return self._early.popleft() if self._early else await self._items.get()

    async def _begin(self) -> None:
        missing = len(self._works)
        while missing:
            number, item = await self._items.get()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, _Begun):
                missing -= 1
            else:
                self._early.append((number, item))

    def _cancel(self) -> None:
        for work in self._works:
            work.cancel()

    def _work(self, number: int, work: Work[T], loop: asyncio.AbstractEventLoop) -> None:
        """All that happens in a work's thread."""

        def put(item: _Item[T]) -> None:
            loop.call_soon_threadsafe(self._items.put_nowait, (number, item))

        try:
            self._give_all(work, put)
        except RuntimeError:
            if not loop.is_closed():  # else nobody is there to hear of anything
                raise
            _log.debug("a reply outlived its server")

    @staticmethod
    def _give_all(work: Work[T], put: Callable[[_Item[T]], object]) -> None:
        try:
            with closing(work.begin()) as results:
                put(_Begun())
                for result in results:
                    put(result)
        except Exception as error:
            put(error)
        else:
            put(_Ended())
        finally:
            work.close()
