"""Threads read by a coroutine: order, errors, heartbeats, and that none stays behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator

import pytest

from gptoss_mlx.errors import BusyError
from gptoss_mlx.server.run import Run


class Count:
    """Counts up to a number; then waits to be cancelled, or fails, if told to."""

    def __init__(self, stop: int, end: Exception | str = "ends") -> None:
        self.stop, self.end = stop, end
        self.cancelled = threading.Event()
        self.closed = threading.Event()
        self.may_begin = threading.Event()
        self.may_begin.set()

    def begin(self) -> Generator[int]:
        """Begin, unless that is what fails."""
        self.may_begin.wait(5)
        if isinstance(self.end, BusyError):
            raise self.end
        return self._count()

    def _count(self) -> Generator[int]:
        yield from range(self.stop)
        if isinstance(self.end, Exception):
            raise self.end
        if self.end == "waits":
            assert self.cancelled.wait(5)

    def cancel(self) -> None:
        """No longer wait."""
        self.cancelled.set()

    def close(self) -> None:
        """Note it."""
        self.closed.set()


async def read(run: Run[int], heartbeat: float = 5) -> list[tuple[int, int] | None]:
    """All that a run gives."""
    return [event async for event in run.events(heartbeat)]


def test_results_come_in_order() -> None:
    """One work's results, and then the end."""
    work = Count(3)

    async def main() -> list[tuple[int, int] | None]:
        async with Run([work]) as run:
            return await read(run)

    assert asyncio.run(main()) == [(0, 0), (0, 1), (0, 2)]
    assert work.closed.wait(5)
    assert not work.cancelled.is_set()


def test_several_works_are_one_stream() -> None:
    """Each keeps its order; what came while another had not begun is not lost."""
    works = [Count(2), Count(3)]
    works[1].may_begin.clear()

    async def main() -> list[tuple[int, int] | None]:
        asyncio.get_running_loop().call_later(0.05, works[1].may_begin.set)
        async with Run(works) as run:
            return await read(run)

    assert asyncio.run(main()) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_what_cannot_begin_says_so_first() -> None:
    """Entering raises, so that there still is a status to be chosen; other works are cancelled."""
    works = [Count(1, "waits"), Count(0, BusyError("full"))]

    async def main() -> None:
        async with Run(works):
            raise AssertionError("it began")

    with pytest.raises(BusyError, match="full"):
        asyncio.run(main())
    assert all(work.closed.wait(5) for work in works)


def test_a_later_error_comes_after_the_results() -> None:
    """What was given before an error is not lost."""
    work = Count(2, ValueError("broken"))
    seen: list[tuple[int, int] | None] = []

    async def main() -> None:
        async with Run([work]) as run:
            async for event in run.events(5):
                seen.append(event)

    with pytest.raises(ValueError, match="broken"):
        asyncio.run(main())
    assert seen == [(0, 0), (0, 1)]
    assert work.closed.wait(5)


def test_heartbeats_while_nothing_comes() -> None:
    """Silence is told, and ends nothing."""
    work = Count(1, "waits")

    async def main() -> list[tuple[int, int] | None]:
        async with Run([work]) as run:
            asyncio.get_running_loop().call_later(0.2, work.cancel)
            return await read(run, 0.05)

    events = asyncio.run(main())
    assert events[0] == (0, 0)
    assert set(events[1:]) == {None}
    assert 2 <= len(events[1:]) <= 5


def leave(run: Run[int]) -> None:
    """The reader goes away."""
    run.cancel()


def fail(_: Run[int]) -> None:
    """The reader fails."""
    raise LookupError


@pytest.mark.parametrize("how", [leave, fail])
def test_no_thread_stays(how: Callable[[Run[int]], None]) -> None:
    """However a run is left, its works are cancelled, closed, and their threads end."""
    work = Count(1, "waits")
    before = set(threading.enumerate())

    async def main() -> None:
        async with Run([work]) as run:
            how(run)

    try:
        asyncio.run(main())
    except LookupError:
        assert how is fail
    assert work.closed.wait(5)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert set(threading.enumerate()) <= before


def test_a_cancelled_reader_cancels_the_work() -> None:
    """A task that is cancelled while it waits for a work to begin leaves nothing running."""
    work = Count(1, "waits")
    work.may_begin.clear()

    async def main() -> None:
        async with Run([work]):
            raise AssertionError("it began")

    async def cancelled() -> None:
        task = asyncio.create_task(main())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        work.may_begin.set()
        assert await asyncio.to_thread(work.closed.wait, 5)

    asyncio.run(cancelled())
    assert work.cancelled.is_set()
