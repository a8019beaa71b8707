"""Work that waits on others, bounded in time whatever it calls.

It runs in a thread of its own; who waits for it stays open to Ctrl-C and to being closed. It does
not know what the work is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NoReturn, TypeVar

from gptoss_mlx.errors import ToolError

__all__ = ["within"]

T = TypeVar("T")
_SLICE = 0.1  # seconds between two looks at `closed`


def within(seconds: float, closed: threading.Event, work: Callable[[threading.Event], T]) -> T:
    """What the work returns or raises, if it comes in time.

    The work gets an event that is set once nobody waits any more: it is to end soon then. One that
    does not is left behind, in a daemon thread.

    Raises:
        ToolError: time is up, or `closed` was set.
    """
    stop = threading.Event()
    answers: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run() -> None:
        try:
            value = work(stop)
        except BaseException as error:
            caught = error  # `error` itself is unbound at the end of this block
            answers.put(lambda: _raised(caught))
        else:
            answers.put(lambda: value)

    try:
        threading.Thread(target=run, name="browser", daemon=True).start()
        return _answer(answers, seconds, closed)()
    finally:
        stop.set()


def _answer(
    answers: SimpleQueue[Callable[[], T]], seconds: float, closed: threading.Event
) -> Callable[[], T]:
    end = time.monotonic() + seconds
    while True:
        try:
            return answers.get(timeout=_SLICE)
        except Empty:
            if closed.is_set():
                raise ToolError("the browser was closed") from None
            if time.monotonic() > end:
                raise ToolError(f"no answer in {seconds:g} s: try another page") from None


def _raised(error: BaseException) -> NoReturn:
    raise error
