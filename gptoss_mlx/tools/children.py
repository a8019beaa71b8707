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
    writer: IO[bytes], given: bytes, reader: IO[bytes], seconds: float, one_line: bool = False
) -> bytes:
    """Write to a child, and return its answer: a line; or all it writes once `writer` is closed.

    Raises:
        TimeoutError: it has not answered in time.
        EOFError: it ended before its line did.
        OverflowError: it wrote more than MAX_OUTPUT_BYTES.
    """
    deadline = time.monotonic() + seconds
    output = bytearray()
    os.set_blocking(writer.fileno(), False)
    with selectors.DefaultSelector() as ready:
        ready.register(reader, selectors.EVENT_READ)
        ready.register(writer, selectors.EVENT_WRITE)
        while not (one_line and output.endswith(b"\n")):
            events = ready.select(max(0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                raise TimeoutError
            if any(key.fileobj is writer for key, _ in events):
                given = _feed(writer, given)
                if not given:
                    ready.unregister(writer)
                    _ = one_line or writer.close()
            if any(key.fileobj is reader for key, _ in events):
                chunk = os.read(reader.fileno(), _CHUNK)
                output += chunk
                if not chunk and one_line:
                    raise EOFError
                if not chunk:
                    break
            if len(output) > MAX_OUTPUT_BYTES:
                raise OverflowError
    return bytes(output)


def _feed(writer: IO[bytes], given: bytes) -> bytes:
    """What is left to be written; nothing, where nobody reads."""
    try:
        return given[os.write(writer.fileno(), given[:_CHUNK]) :] if given else b""
    except BrokenPipeError:
        return b""
