"""A Jupyter kernel in a sandbox: asked to run code, interrupted, ended.

It speaks Jupyter's messages over unix sockets in a folder of its own, as there is no network. All
that comes back may be forged by the code that runs: it is read as text and bounded. It does not
know the model's calls.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.python.guard import Limits
from gptoss_mlx.tools.python.launch import CHANNELS, folders_for, prepare, short_folder
from gptoss_mlx.tools.python.sandbox import Sandbox
from gptoss_mlx.tools.python.transcript import Transcript

if TYPE_CHECKING:
    import zmq
    from jupyter_client.session import Session

__all__ = ["LOST", "Kernel"]

START_SECONDS = 60.0
POLL_MS = 50
AT_ONCE = 100  # messages
QUIET_SECONDS = 0.5  # the reply came, the end of the output did not: it was dropped
MAX_MESSAGE = 4 << 20  # bytes; a kernel that sends more is cut off
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
        key = secrets.token_hex(32)
        try:
            folders = folders_for(work, self._scratch)
            self._guard = prepare(sandbox, folders, self._scratch, key, limits, disk_before)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._guard.busy.set()
        self._guard.start()
        try:
            self._listen(folders.sockets, key)
        except BaseException:
            self._guard.kill("it was interrupted at its start")
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def _listen(self, sockets: Path, key: str) -> None:
        """Open the channels; the process starts while this one imports what speaks with it."""
        self._context = _context()
        self._session = _session(key)
        self._channels = {
            name: _connect(self._context, name, f"{sockets}/k-{CHANNELS[name]}")
            for name in ("shell", "iopub", "control")
        }
        self._poller = _poller(self._channels["iopub"], self._channels["shell"])

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
        self._context.destroy(linger=0)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def wait(self) -> None:
        """Wait until it can be asked.

        Raises:
            ToolError: it ended, or did not start in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._send("shell", "kernel_info_request")
            if self._channels["iopub"].poll(300):  # its first word shows that it will be heard
                return
            self.check()
            if time.monotonic() > deadline:
                self.kill(f"it did not start within {START_SECONDS:.0f} s")

    def execute(self, code: str, seconds: float) -> str:
        """Run code and return what it shows.

        Raises:
            ToolError: it took too long, or the kernel ended; says what that means.
        """
        transcript = Transcript(self._limits.output)
        request = self._send("shell", "execute_request", _request(code))
        self._guard.busy.set()
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
        self._send("control", "interrupt_request")
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
        replied = float("inf")
        while time.monotonic() < deadline:
            heard = False
            for name, message in self._receive():
                if message["parent"] != request:
                    continue
                heard = True
                if name == "shell":
                    replied = time.monotonic()
                elif message["kind"] == "status":
                    if message["content"].get("execution_state") == "idle":
                        return "done"
                else:
                    transcript.add(message["kind"], message["content"])
            if transcript.is_full and not is_last:
                return "full"
            if not heard and time.monotonic() > replied + QUIET_SECONDS:
                return "done"
            self.check(transcript)
        return "late"

    def _send(self, channel: str, kind: str, content: Mapping[str, object] | None = None) -> str:
        """Send a message; its id, which answers bear."""
        message: Any = self._session.send(self._channels[channel], kind, dict(content or {}))
        return str(message["header"]["msg_id"])

    def _receive(self) -> list[tuple[str, Message]]:
        """What has come, of each channel; waits a moment when there is nothing."""
        received: list[tuple[str, Message]] = []
        if not self._poller.poll(POLL_MS):
            return received
        for name in ("iopub", "shell"):
            channel = self._channels[name]
            for _ in range(AT_ONCE):
                if not channel.poll(0):
                    break
                with contextlib.suppress(Exception):  # forged: whatever is wrong with it
                    received.append((name, _message(self._session.recv(channel)[1])))
        return received


def _concluded(ending: Ending, transcript: Transcript, seconds: float) -> str:
    if ending == "late":
        raise ToolError(
            f"the code ran longer than {seconds:g} s and was interrupted; variables are kept."
            + _so_far(transcript.text)
        )
    if ending == "full":
        limit = len(transcript.text)
        return f"{transcript.text}\n[interrupted after {limit:,} characters of output]"
    return transcript.text


def _so_far(text: str) -> str:
    return f" Its output until then:\n{text}" if text.strip() else ""


def _request(code: str) -> dict[str, object]:
    return {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


class Message(TypedDict):
    """Of a message what matters here; `parent` is the id of the request that it answers."""

    kind: str
    parent: str
    content: dict[str, object]


def _message(raw: Any) -> Message:
    """Raises TypeError or KeyError where it is no message."""
    content: object = raw["content"]
    if not isinstance(content, dict):
        raise TypeError("no message")
    return {
        "kind": str(raw["header"]["msg_type"]),
        "parent": str(raw["parent_header"].get("msg_id")),
        "content": cast("dict[str, object]", content),
    }


def _context() -> zmq.Context[zmq.Socket[bytes]]:
    import zmq

    context = zmq.Context()
    context.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    context.setsockopt(zmq.RECONNECT_IVL, 10)  # ms: the kernel makes the sockets a while later
    return context


def _connect(context: zmq.Context[zmq.Socket[bytes]], name: str, path: str) -> zmq.Socket[bytes]:
    import zmq

    channel = context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
    if name == "iopub":
        channel.subscribe(b"")
    channel.connect(f"ipc://{path}")
    return channel


def _poller(*channels: zmq.Socket[bytes]) -> zmq.Poller:
    import zmq

    poller = zmq.Poller()
    for channel in channels:
        poller.register(channel, zmq.POLLIN)
    return poller


def _session(key: str) -> Session:
    from jupyter_client.session import Session

    return Session(key=key.encode(), username="", check_pid=False)
