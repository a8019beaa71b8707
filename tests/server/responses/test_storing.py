"""Tests of gptoss_mlx.server.responses.storing."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from gptoss_mlx.errors import DiskError
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.store import ResponseStore
from gptoss_mlx.server.responses.storing import StoreThread


def test_calls_come_one_after_the_other() -> None:
    """What was left for later is done before what is asked afterwards."""

    async def main() -> list[str]:
        done: list[str] = []

        def slow(_: ResponseStore) -> None:
            time.sleep(0.05)
            done.append("slow")

        thread = StoreThread(ResponseStore())
        thread.later(slow)
        assert await thread.call(lambda _: list(done)) == ["slow"]
        await asyncio.gather(*(thread.call(lambda _, n=n: done.append(n)) for n in "abc"))
        return done

    assert asyncio.run(main()) == ["slow", "a", "b", "c"]


def test_nobody_else_waits() -> None:
    """While a file is slow, the event loop goes on."""

    async def main() -> int:
        thread = StoreThread(ResponseStore())
        task = asyncio.create_task(thread.call(lambda _: time.sleep(0.2)))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns

    assert asyncio.run(main()) > 10


def test_errors(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits is told; where nobody does it is logged, and the thread lives on."""

    def refuse(_: ResponseStore) -> None:
        raise Problem(404, "no")

    def fail(_: ResponseStore) -> None:
        raise DiskError("the disk is full")

    async def main() -> str:
        thread = StoreThread(ResponseStore())
        with pytest.raises(Problem, match="no"):
            await thread.call(refuse)
        thread.later(fail)
        thread.later(refuse)
        return await thread.call(lambda _: "alive")

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(main()) == "alive"
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "the disk is full" in caplog.text
