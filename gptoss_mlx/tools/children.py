"""Child processes of tools: in sessions of their own, read with limits, killed with all they start.

What makes a session of its own, in turn, gets away. It does not know what the children are for.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import IO

__all__ = ["MAX_OUTPUT_BYTES", "Tail", "ending", "exchange", "kill"]

MAX_OUTPUT_BYTES = 8_000_000  # of one answer
_TAIL_BYTES = 8_000
_CHUNK = 1 << 16
_LOOK = 0.1  # seconds between looks at whether a child has ended
_MOMENT = 0.5  # seconds that its pipe is read after that, for what others still pass on (tee)


class Tail:
    """The last bytes of a stream, read by a thread so that its writer never waits."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._bytes = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def text(self, seconds: float = 1) -> str:
        """The last lines; of a stream that is about to end, after at most `seconds`."""
        self._thread.join(seconds)
        return self._bytes.decode("utf-8", "replace").strip()

    def _drain(self) -> None:
        with self._stream as stream, contextlib.suppress(OSError):
            while chunk := os.read(stream.fileno(), _CHUNK):
                self._bytes = (self._bytes + chunk)[-_TAIL_BYTES:]


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a child that leads a session, and all in it. The child itself may be dead already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: PermissionError
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ending(process: subprocess.Popen[bytes]) -> str:
    """How a dead process ended: `exit code 3`, or `SIGSEGV`."""
    code = process.wait()
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def exchange(
    process: subprocess.Popen[bytes],
    writer: IO[bytes],
    given: bytes,
    reader: IO[bytes],
    seconds: float,
    one_line: bool = False,
) -> bytes:
    """Write to a child, and return its answer: a line; or all it writes once `writer` is closed.

    What the child has started may hold its pipe open: the answer ends a moment after the child.

    Raises:
        TimeoutError: it has not answered in time.
        EOFError: it ended before its line did.
        OverflowError: it wrote more than MAX_OUTPUT_BYTES.
    """
    clock = _Clock(process, seconds)
    output = bytearray()
    is_over = False
    os.set_blocking(writer.fileno(), False)
    with selectors.DefaultSelector() as ready:
        ready.register(reader, selectors.EVENT_READ)
        ready.register(writer, selectors.EVENT_WRITE)
        while not is_over and not (one_line and output.endswith(b"\n")):
            events = ready.select(clock.wait())
            is_over = clock.is_over()
            if any(key.fileobj is writer for key, _ in events):
                given = _feed(writer, given)
                if not given:
                    ready.unregister(writer)
                    _ = one_line or writer.close()
            if any(key.fileobj is reader for key, _ in events):
                chunk = os.read(reader.fileno(), _CHUNK)
                output += chunk
                is_over = is_over or not chunk
            if len(output) > MAX_OUTPUT_BYTES:
                raise OverflowError
    if one_line and not output.endswith(b"\n"):
        raise EOFError
    return bytes(output)


class _Clock:
    """How long a child may take, and how long its pipe is read once it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._deadline = time.monotonic() + seconds
        self._end: float | None = None  # of the reading, once the child has ended

    def wait(self) -> float:
        """Seconds until the child should be looked at again."""
        now = time.monotonic()
        if self._end is None and self._process.poll() is not None:
            self._end = now + _MOMENT
        return max(0, min(_LOOK, (self._end or self._deadline) - now))

    def is_over(self) -> bool:
        """Whether the child has ended a moment ago.

        Raises:
            TimeoutError: it has not, and its time has passed.
        """
        now = time.monotonic()
        if self._end is None and now >= self._deadline:
            raise TimeoutError
        return self._end is not None and now >= self._end


def _feed(writer: IO[bytes], given: bytes) -> bytes:
    """What is left to be written; nothing, where nobody reads."""
    try:
        return given[os.write(writer.fileno(), given[:_CHUNK]) :] if given else b""
    except BrokenPipeError:
        return b""
