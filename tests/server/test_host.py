"""The model's life: loaded once, unloaded when idle, ill and well again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from unittest.mock import patch

import pytest
from helpers import ReplayModel

from gptoss_mlx.engine import Engine, Health
from gptoss_mlx.errors import MemoryPlanError
from gptoss_mlx.server.host import ModelHost, OpenModel
from gptoss_mlx.tokenizer import Tokenizer


class Opener:
    """Opens models, and counts them; the first ones may fail."""

    def __init__(self, tokenizer: Tokenizer, failures: int = 0) -> None:
        self.tokenizer, self.failures = tokenizer, failures
        self.engines: list[Engine] = []
        self.may_open = threading.Event()
        self.may_open.set()

    def __call__(self) -> OpenModel:
        """One more."""
        assert self.may_open.wait(5)
        if self.failures:
            self.failures -= 1
            raise MemoryPlanError("too big")
        self.engines.append(Engine(ReplayModel([])))
        return OpenModel(self.engines[-1], self.tokenizer)

    def is_closed(self, number: int) -> bool:
        """Whether an engine was closed."""
        return self.engines[number]._is_closed  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def opener(tokenizer: Tokenizer) -> Opener:
    """Opens models that say nothing."""
    return Opener(tokenizer)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is true."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_it_is_loaded_when_it_is_needed(opener: Opener) -> None:
    """Many that need it at once make one load, and the health says how far it is."""
    host = ModelHost(opener)
    opener.may_open.clear()

    async def need() -> Engine:
        async with host.use() as model:
            return model.engine

    async def main() -> None:
        assert (host.health.status, host.health.is_ready) == ("unloaded", True)
        needs = [asyncio.create_task(need()) for _ in range(5)]
        await asyncio.sleep(0.02)
        assert (host.health.status, host.health.is_ready) == ("loading", False)
        needs[0].cancel()
        opener.may_open.set()
        engines = await asyncio.gather(*needs[1:])
        assert engines == opener.engines * 4
        assert host.health.status == "ok"
        await host.close()

    asyncio.run(main())
    assert len(opener.engines) == 1
    assert opener.is_closed(0)


def test_a_failed_load_is_told_and_tried_again(opener: Opener) -> None:
    """Who needs it gets the error, the health has it, and the next one may be luckier."""
    opener.failures = 1
    host = ModelHost(opener)

    async def main() -> None:
        with pytest.raises(MemoryPlanError):
            async with host.use():
                pass
        assert (host.health.status, host.health.problem) == ("failed", "too big")
        assert not host.health.is_ready
        async with host.use():
            assert host.health.status == "ok"
        await host.close()

    asyncio.run(main())


def test_an_idle_model_is_unloaded(opener: Opener) -> None:
    """Not while it is used; and then it comes back."""
    host = ModelHost(opener, idle=0.05)

    async def main() -> None:
        async with host.use():
            async with host.use():
                pass
            await asyncio.sleep(0.1)
            assert host.health.status == "ok"
        await wait_for(lambda: host.health.status == "unloaded")
        await wait_for(lambda: opener.is_closed(0))
        async with host.use() as model:
            assert model.engine is opener.engines[1]
        await host.close()

    asyncio.run(main())


def test_needed_while_it_is_unloaded(opener: Opener) -> None:
    """Who comes while it is being closed gets a new one, not the closed one."""
    host = ModelHost(opener, idle=0.01)

    async def main() -> None:
        async with host.use() as model:
            engine = model.engine
        with patch.object(engine, "close", lambda: time.sleep(0.1)):
            await wait_for(lambda: host.health.status == "unloaded")
            async with host.use() as model:
                assert model.engine is opener.engines[1]
            await host.close()
        engine.close()

    asyncio.run(main())


def test_open_before_there_is_a_loop(opener: Opener) -> None:
    """A server that loads at its start fails at its start."""
    opener.failures = 1
    host = ModelHost(opener)
    with pytest.raises(MemoryPlanError):
        host.open()
    host.open()
    assert host.health.status == "ok"
    asyncio.run(host.close())
    assert opener.is_closed(0)
    assert host.health.status == "unloaded"


def test_health_is_the_engines(opener: Opener) -> None:
    """A dead generation thread is an illness, and its problem is told."""
    host = ModelHost(opener)
    host.open()
    with patch.object(Engine, "health", Health(False, "out of memory", 2, 3)):
        health = host.health
    assert (health.status, health.problem) == ("failed", "out of memory")
    assert (health.running, health.waiting, health.is_ready) == (2, 3, False)
    asyncio.run(host.close())
