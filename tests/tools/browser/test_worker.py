"""Waiting, bounded."""

from __future__ import annotations

import _thread
import threading
import time

import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.browser.worker import within


def test_what_the_work_returns() -> None:
    """The value, or the exception, is the work's."""

    def failing(_: threading.Event) -> int:
        raise ZeroDivisionError("here")

    assert within(5, threading.Event(), lambda stop: not stop.is_set())
    with pytest.raises(ZeroDivisionError, match="here"):
        within(5, threading.Event(), failing)


def test_work_that_takes_too_long() -> None:
    """Time is up after the given seconds, and the work is told."""
    told = threading.Event()

    def slow(stop: threading.Event) -> None:
        if stop.wait(10):
            told.set()

    began = time.monotonic()
    with pytest.raises(ToolError, match=r"no answer in 0\.2 s"):
        within(0.2, threading.Event(), slow)
    assert time.monotonic() - began < 2
    assert told.wait(5)


def test_being_closed() -> None:
    """From another thread the waiting is ended soon."""
    closed = threading.Event()
    threading.Timer(0.1, closed.set).start()
    with pytest.raises(ToolError, match="was closed"):
        within(10, closed, lambda stop: stop.wait(10))


def test_ctrl_c() -> None:
    """A KeyboardInterrupt of the one who waits goes on, and the work is told."""
    told = threading.Event()

    def slow(stop: threading.Event) -> None:
        _thread.interrupt_main()
        if stop.wait(10):
            told.set()

    with pytest.raises(KeyboardInterrupt):
        within(10, threading.Event(), slow)
    assert told.wait(5)
