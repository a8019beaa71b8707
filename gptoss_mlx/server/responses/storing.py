"""A store behind a thread of its own: a file may be slow, and the event loop must not wait for it.

Calls are carried out in the order of their coming: what was stored before an answer went out is
there when its client goes on from it. It does not know what is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gptoss_mlx.errors import DiskError
from gptoss_mlx.server.responses.store import ResponseStore

__all__ = ["StoreThread"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class StoreThread:
    """The one thread that uses a store."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "gptoss-mlx store")

    async def call(self, function: Callable[[ResponseStore], T]) -> T:
        """What a function of the store gives.

        Raises:
            Exception: as the function does.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, self._store)

    def later(self, function: Callable[[ResponseStore], object]) -> None:
        """Have a function called; a disk that fails is logged: no client waits for it."""
        self._thread.submit(self._quietly, function)

    def _quietly(self, function: Callable[[ResponseStore], object]) -> None:
        try:
            function(self._store)
        except DiskError as error:
            _log.warning("a response was not stored: %s", error)
        except Exception:
            _log.exception("a response was not stored")
