"""The model of a server: loaded when it is needed, unloaded when nobody has needed it for a while.

It does not know requests; who needs the model says so with `use`. Everything but `open` belongs to
one event loop; loading and closing block threads, not the loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

from gptoss_mlx.engine import Engine
from gptoss_mlx.sequence import Sequence, SpeculationMode
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["HostHealth", "ModelHost", "OpenModel"]

_log = logging.getLogger(__name__)
Status = Literal["ok", "loading", "unloaded", "failed"]


@dataclass(frozen=True)
class OpenModel:
    """A model that answers."""

    engine: Engine
    tokenizer: Tokenizer
    speculation: SpeculationMode = "off"


@dataclass(frozen=True)
class HostHealth:
    """How a model does.

    `unloaded` is no illness: the next request loads it. `failed` is one until a request succeeds,
    whether it could not be loaded or its generation thread died; `problem` says why.
    """

    status: Status
    problem: str | None = None
    running: int = 0
    waiting: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether a request would be served now."""
        return self.status in ("ok", "unloaded")


class ModelHost:
    """One model, for all requests.

    Args:
        open_model: loads it; blocks, and may raise.
        idle: seconds without a request after which it is unloaded; None: never.
    """

    def __init__(self, open_model: Callable[[], OpenModel], idle: float | None = None) -> None:
        self._open_model, self._idle = open_model, idle
        self._on_end: Callable[[Sequence], object] | None = None
        self._model: OpenModel | None = None
        self._change: asyncio.Task[None] | None = None  # a load or an unload under way
        self._timer: asyncio.TimerHandle | None = None
        self._is_loading = False
        self._failure: Exception | None = None  # of the last load
        self._users = 0

    def open(self) -> None:
        """Load it now, before there is an event loop.

        Raises:
            GptOssError: why it cannot be loaded.
        """
        self._model = self._opened()

    def watch(self, on_end: Callable[[Sequence], object]) -> None:
        """Have the end of each sequence told, of this engine's and of those to come; see Engine."""
        self._on_end = on_end
        if self._model is not None:
            self._model.engine.on_end = on_end

    @asynccontextmanager
    async def use(self) -> AsyncGenerator[OpenModel]:
        """The model, which stays loaded meanwhile; loads it if it is not there.

        Raises:
            GptOssError: why it cannot be loaded; the next one to need it tries again.
        """
        self._users += 1
        self._stop_timer()
        try:
            yield await self._loaded()
        finally:
            self._users -= 1
            if not self._users and self._idle is not None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._idle, self._unload_if_idle)

    @property
    def model(self) -> OpenModel | None:
        """The model, if it is loaded now; who needs it says so with `use`."""
        return self._model

    @property
    def health(self) -> HostHealth:
        """How it does now."""
        if self._model is None:
            if self._is_loading:
                return HostHealth("loading")
            failure = self._failure
            return HostHealth("failed", str(failure)) if failure else HostHealth("unloaded")
        engine = self._model.engine.health
        status: Status = "ok" if engine.is_green else "failed"
        return HostHealth(status, engine.problem, engine.running, engine.waiting)

    def cut(self) -> None:
        """Have everything that runs fail, soon: the server cannot wait any longer."""
        if self._model is not None and self._change is None:
            self._begin(self._unload())

    async def close(self) -> None:
        """End what runs, and free the model. A load under way is waited for."""
        self._stop_timer()
        while self._change is not None:
            await asyncio.wait([self._change])
        if self._model is not None:
            self._begin(self._unload())
            await self.close()

    async def _loaded(self) -> OpenModel:
        while self._model is None:
            change = self._change or self._begin(self._load())
            await asyncio.shield(change)  # others wait for it as well
        return self._model

    def _opened(self) -> OpenModel:
        model = self._open_model()
        model.engine.on_end = self._on_end
        return model

    def _begin(self, change: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Load or unload, one at a time."""
        task = self._change = asyncio.create_task(change)

        def done(task: asyncio.Task[None]) -> None:
            self._change = None
            if not task.cancelled():
                task.exception()  # it has been seen, also where nobody waits any more

        task.add_done_callback(done)
        return task

    async def _load(self) -> None:
        self._is_loading = True
        try:
            self._model = await asyncio.to_thread(self._opened)
            self._failure = None
        except Exception as error:
            _log.warning("the model could not be loaded: %s", error)
            self._failure = error
            raise
        finally:
            self._is_loading = False

    async def _unload(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            await asyncio.to_thread(model.engine.close)
        del model
        gc.collect()  # an engine's parts know each other
        mx.clear_cache()  # else MLX keeps the memory for arrays to come

    def _unload_if_idle(self) -> None:
        if not self._users and self._change is None and self._model is not None:
            _log.info("the model was idle and is unloaded")
            self._begin(self._unload())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
