"""The host's end of the pipes to the relay: one JSON object a line, whoever wrote it.

What is held of what comes is bounded by the longest line; what is not asked for is not read, and
its writer waits. It does not know what the messages mean, nor whether their author is honest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Mapping
from typing import NamedTuple, cast

__all__ = ["GarbageError", "Line", "Wire"]

CHUNK = 1 << 16  # bytes
ESCAPED = 12  # bytes that one character may take in JSON: two halves of a pair
FRAME = 1024  # bytes of a line beside its text


class GarbageError(Exception):
    """What came is no line of a relay, or nothing will come any more."""


class Line(NamedTuple):
    """A message of the relay."""

    id: str
    kind: str
    text: str


class Wire:
    """Two pipes; `far` are the ends for the process at the other side, which gets them as its own.

    Args:
        max_text: characters of text that a line may have.
    """

    def __init__(self, max_text: int) -> None:
        far_in, self._out = os.pipe()
        self._in, far_out = os.pipe()
        self.far = (far_in, far_out)
        for end in (self._in, self._out):  # the other side may take from a pipe what poll has seen
            os.set_blocking(end, False)
        self._max_line = ESCAPED * max_text + FRAME
        self._unsent = b""
        self._unread = b""

    def send(self, message: Mapping[str, object]) -> None:
        """Take a message along; `receive` sends it."""
        self._unsent += json.dumps(message).encode() + b"\n"

    def receive(self, seconds: float) -> list[Line]:
        """What has come; waits a moment when there is nothing.

        Raises:
            GarbageError: nothing that comes will make sense.
        """
        poller = select.poll()
        poller.register(self._in, select.POLLIN)
        if self._unsent:
            poller.register(self._out, select.POLLOUT)
        ready = dict(poller.poll(seconds * 1000))
        if self._out in ready:
            self._write()
        return self._read() if self._in in ready else []

    def close(self, *, is_far_too: bool = False) -> None:
        """Close this side's ends; those of the other side as well, if nobody has taken them."""
        for end in (self._in, self._out, *(self.far if is_far_too else ())):
            os.close(end)

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._unsent = self._unsent[os.write(self._out, self._unsent[:CHUNK]) :]
            except BrokenPipeError:
                raise GarbageError("it does not listen") from None

    def _read(self) -> list[Line]:
        try:
            chunk = os.read(self._in, CHUNK)
        except BlockingIOError:
            return []
        if not chunk:
            raise GarbageError("it hung up")
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        if max(map(len, (*lines, self._unread))) > self._max_line:
            raise GarbageError("it sent a line that is too long")
        return [_parsed(line) for line in lines]


def _parsed(line: bytes) -> Line:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        raise GarbageError("it sent what is no message") from None
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    found = [fields.get(name) for name in Line._fields]
    if not all(isinstance(field, str) for field in found):
        raise GarbageError("it sent what is no message")
    return Line(*cast("list[str]", found))
