"""A Jupyter kernel in a sandbox: asked to run code, interrupted, ended.

It speaks through pipes with a relay that runs beside the kernel. All that comes may be forged by
the code that runs: it is read as text, and no more of it than is kept or can be dropped. It does
not know the model's calls.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path
from typing import Literal

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.python.guard import Limits
from gptoss_mlx.tools.python.launch import folders_for, prepare, short_folder
from gptoss_mlx.tools.python.sandbox import Sandbox
from gptoss_mlx.tools.python.transcript import Transcript
from gptoss_mlx.tools.python.wire import GarbageError, Line, Wire

__all__ = ["LOST", "Kernel"]

START_SECONDS = 60.0
POLL_SECONDS = 0.05
END_SECONDS = 1.0  # until the end of the process is seen, once its pipe is closed
LOST = "All variables are lost, files in the working folder are kept; the next call starts afresh."
Ending = Literal["done", "late", "full"]


class Kernel:
    """One process that runs code in one namespace. One call at a time, but from any thread.

    Args:
        sandbox: what shuts it in.
        work: its working folder, which exists.
        limits: what it may use.
        disk_before: bytes in the working folder that are not held against it.

    Raises:
        UsageError: it cannot be started with this folder.
    """

    def __init__(self, sandbox: Sandbox, work: Path, limits: Limits, disk_before: int = 0) -> None:
        self._limits = limits
        self._scratch = short_folder()
        self._wire = Wire(limits.output + 1)
        try:
            folders = folders_for(work, self._scratch.path)
            self._guard = prepare(
                sandbox, folders, self._scratch.path, self._wire.far, limits, disk_before
            )
        except BaseException:
            self._wire.close(is_far_too=True)
            self._scratch.remove()
            raise
        self._guard.busy.set()
        try:
            self._guard.start()
        except BaseException:
            self._guard.kill("it was interrupted at its start")
            self._wire.close()
            self._scratch.remove()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked to run code."""
        return self._guard.is_alive()

    def check(self, transcript: Transcript | None = None) -> None:
        """Nothing, while it lives.

        Raises:
            ToolError: it has ended; says why, and what the code had shown.
        """
        if self._guard.is_alive():
            return
        shown = _so_far(transcript.text) if transcript else ""
        raise ToolError(f"the Python kernel has ended: {self._guard.reason}. {LOST}{shown}")

    def kill(self, reason: str) -> None:
        """End it, and a call that runs: that is a ToolError then. From any thread."""
        self._guard.kill(reason)

    def close(self) -> None:
        """End it and free what it holds, when no call runs."""
        self.kill("it was closed")
        self._wire.close()
        self._scratch.remove()

    def wait(self) -> None:
        """Wait until it can be asked.

        Raises:
            ToolError: it ended, or did not start in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while not any(line.kind == "ready" for line in self._receive()):
            if time.monotonic() > deadline:
                self.kill(f"it did not start within {START_SECONDS:.0f} s")
                self.check()

    def execute(self, code: str, seconds: float) -> str:
        """Run code and return what it shows.

        Raises:
            ToolError: it took too long, or the kernel ended; says what that means.
        """
        transcript = Transcript(self._limits.output)
        request = secrets.token_hex(8)
        self._guard.busy.set()
        self._wire.send({"execute": code, "id": request})
        try:
            ending = self._collect(request, transcript, seconds)
            if ending != "done":
                self._interrupt(request, ending, transcript)
        except KeyboardInterrupt:
            with contextlib.suppress(ToolError):  # killed: the next call is told
                self._interrupt(request, "late", transcript)
            raise
        finally:
            if self.is_alive:
                self._guard.busy.clear()
        return _concluded(ending, transcript, seconds)

    def _interrupt(self, request: str, ending: Ending, transcript: Transcript) -> None:
        """Stop the code, the kernel with it if need be."""
        unheard = Transcript(0)
        self._wire.send({"interrupt": True})
        try:
            if self._collect(request, unheard, self._limits.grace, is_last=True) == "done":
                return
        except KeyboardInterrupt:
            self.kill("it was interrupted")
            raise
        what = "took too long" if ending == "late" else "showed too much"
        self.kill(f"its code {what} and did not stop when interrupted")
        self.check(transcript)

    def _collect(
        self, request: str, transcript: Transcript, seconds: float, is_last: bool = False
    ) -> Ending:
        """Read what comes until the code ends, the time does, or there is too much."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self._receive(transcript):
                if line.id != request:
                    continue
                if line.kind == "idle":
                    return "done"
                transcript.add(line.kind, line.text)
            if transcript.is_full and not is_last:
                return "full"
        return "late"

    def _receive(self, transcript: Transcript | None = None) -> list[Line]:
        """What has come, while it lives; waits a moment when there is nothing.

        Raises:
            ToolError: it has ended.
        """
        self.check(transcript)
        try:
            return self._wire.receive(POLL_SECONDS)
        except GarbageError as problem:
            self._guard.join(END_SECONDS)  # most likely it has ended, and the guard says why
            self.kill(str(problem))
        self.check(transcript)
        return []


def _concluded(ending: Ending, transcript: Transcript, seconds: float) -> str:
    if ending == "late":
        raise ToolError(
            f"the code ran longer than {seconds:g} s and was interrupted; variables are kept."
            + _so_far(transcript.text)
        )
    if transcript.is_full:  # even if it was done before anybody could interrupt it
        what, limit = "cut" if ending == "done" else "interrupted", len(transcript.text)
        return f"{transcript.text}\n[{what} after {limit:,} characters of output]"
    return transcript.text


def _so_far(text: str) -> str:
    return f" Its output until then:\n{text}" if text.strip() else ""
