"""What runs inside the sandbox beside the kernel: starts it, and stands between it and the host.

    python relay.py '{"kernel": "kernel_main.py", "limits": {"RLIMIT_AS": 4294967296}, ...}'

Run as a script, with nothing of gptoss_mlx in reach. With the kernel it speaks Jupyter's messages
over unix sockets, with the host one JSON object a line over its own stdin and stdout:

    host:   {"execute": code, "id": id}   {"interrupt": true}
    relay:  {"id": id, "kind": "ready" | "stream" | "result" | "error" | "idle", "text": text}

So the host reads lines of bounded length and nothing else. Whatever runs here may take over the
relay: the host takes what comes as text by an unknown author.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

__all__ = ["reduced"]

CHANNELS = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
DELIMITER = b"<IDS|MSG>"
OMITTED = ("image/", "video/", "audio/")
HELLO_MS = 300
QUIET_MS = 500  # the reply came, the end of the output did not: it was dropped
SETTLE_MS = 100  # of silence after code that was interrupted
AT_ONCE = 100  # messages
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER_MODE = 38, 22, 2  # of prctl


def reduced(kind: str, content: Mapping[str, Any], max_text: int) -> tuple[str, str] | None:
    """A message of Jupyter's iopub channel as kind and text for the host, if it shows anything."""
    if kind == "stream":
        return "stream", str(content.get("text", ""))[:max_text]
    if kind in ("execute_result", "display_data"):
        return "result", _shown(content.get("data"), max_text)[:max_text]
    if kind == "error":
        lines = content.get("traceback")
        if isinstance(lines, list):
            return "error", "\n".join(map(str, cast("list[object]", lines)))[:max_text]
    return None


def _shown(data: object, max_text: int) -> str:
    """The text of a result; of a picture, that there was one."""
    if not isinstance(data, dict):
        return ""
    kinds = cast("dict[str, object]", data)
    lines = [str(kinds["text/plain"])[:max_text]] if "text/plain" in kinds else []
    lines += [
        f"[{kind} omitted; save it to the working folder]"
        for kind in kinds
        if kind.startswith(OMITTED)
    ]
    return "\n".join(lines)


class Relay:
    """One kernel, and the one request that it works on.

    Args:
        setup: see `launch`.
        output: where lines for the host go.
    """

    def __init__(self, setup: Mapping[str, Any], output: int) -> None:
        self._max_text: int = setup["max_text"]
        self._output = output
        folder = setup["sockets"]
        connection = f"{folder}/connection.json"
        Path(connection).write_text(json.dumps(_connection(folder)))
        self._kernel = _spawn(setup, connection)
        self._ended, tell = os.pipe()
        threading.Thread(target=self._wait, args=(tell,), daemon=True).start()
        self._status = 1
        self._heard = b""
        self._id = ""  # the host's
        self._request = ""  # the same in Jupyter's messages; none is under way while it is empty
        self._is_ready = self._is_replied = self._is_muted = False
        self._connect(folder)

    def _connect(self, folder: str) -> None:
        """Open the channels; the kernel starts while this imports what speaks with it."""
        import zmq

        context = zmq.Context()
        context.setsockopt(zmq.LINGER, 0)
        context.setsockopt(zmq.RECONNECT_IVL, 10)  # ms: the kernel makes the sockets a while later
        self._shell, self._iopub = context.socket(zmq.DEALER), context.socket(zmq.SUB)
        self._iopub.subscribe(b"")
        self._poller = zmq.Poller()
        for source in (0, self._ended, self._shell, self._iopub):
            self._poller.register(source, zmq.POLLIN)
        for name, channel in (("shell", self._shell), ("iopub", self._iopub)):
            channel.connect(f"ipc://{folder}/k-{CHANNELS[name]}")

    def _wait(self, tell: int) -> None:
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._kernel, 0)[1])
        os.close(tell)

    def run(self) -> int:
        """Pass on until the kernel ends, whose exit status it returns, or the host does."""
        while True:
            if not self._is_ready:
                self._ask("kernel_info_request", {})
            ready = dict(self._poller.poll(self._patience()))
            self._pass_on()
            if self._ended in ready:
                return self._status if self._status >= 0 else 128 - self._status
            if 0 in ready and not self._obey(os.read(0, 1 << 16)):
                os.killpg(self._kernel, signal.SIGKILL)
                return 0
            if not ready and self._is_replied:
                self._finish()

    def _patience(self) -> int | None:
        if not self._is_ready:
            return HELLO_MS
        if not self._is_replied:
            return None
        return SETTLE_MS if self._is_muted else QUIET_MS

    def _obey(self, chunk: bytes) -> bool:
        """Do what the host asks; False when it has gone."""
        *lines, self._heard = (self._heard + chunk).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "execute" in command:
                self._id, self._is_replied, self._is_muted = command["id"], False, False
                self._request = self._ask("execute_request", _request(command["execute"]))
            elif self._request:
                self._is_muted = True  # the host waits for the end only
                os.killpg(self._kernel, signal.SIGINT)
        return bool(chunk)

    def _ask(self, kind: str, content: dict[str, object]) -> str:
        """Send the kernel a message; its id, which answers bear."""
        name = secrets.token_hex(8)
        header = {"msg_id": name, "msg_type": kind, "version": "5.4"}
        header |= {"session": "relay", "username": "", "date": "2000-01-01T00:00:00Z"}
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        self._shell.send_multipart([DELIMITER, b"", *parts])
        return name

    def _pass_on(self) -> None:
        for channel in (self._iopub, self._shell):
            for _ in range(AT_ONCE):
                if not channel.poll(0):
                    break
                try:
                    kind, parent, content = _message(channel.recv_multipart())
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue  # forged
                if channel is self._iopub:
                    self._note_ready()
                if self._request and parent == self._request:
                    self._pass(channel is self._shell, kind, content)

    def _note_ready(self) -> None:
        """The kernel's first word shows that it will be heard."""
        if not self._is_ready:
            self._is_ready = True
            self._tell("ready")

    def _pass(self, is_reply: bool, kind: str, content: Mapping[str, Any]) -> None:
        if is_reply:
            self._is_replied = True
        elif kind == "status":
            if content.get("execution_state") == "idle" and self._is_muted:
                self._is_replied = True  # output that was under way when it stopped may follow
            elif content.get("execution_state") == "idle":
                self._finish()
        elif not self._is_muted and (shown := reduced(kind, content, self._max_text)):
            self._tell(*shown)

    def _finish(self) -> None:
        self._request, self._is_replied = "", False
        self._tell("idle")

    def _tell(self, kind: str, text: str = "") -> None:
        """Send the host a line; waits until it reads."""
        line = json.dumps({"id": self._id, "kind": kind, "text": text}).encode() + b"\n"
        while line:
            line = line[os.write(self._output, line) :]


def _message(parts: list[bytes]) -> tuple[str, str, dict[str, Any]]:
    """Kind, id of the request that it answers, and content; fails where it is no message."""
    start = parts.index(DELIMITER) + 2  # the signature is empty
    header, parent, _, content = (json.loads(part) for part in parts[start : start + 4])
    return str(header["msg_type"]), str(parent.get("msg_id")), dict(content)


def _connection(folder: str) -> dict[str, str | int]:
    """Without a key messages are not signed: whoever is in here could read it."""
    ports: dict[str, str | int] = {f"{name}_port": port for name, port in CHANNELS.items()}
    return ports | {
        "transport": "ipc",
        "ip": f"{folder}/k",
        "key": "",
        "signature_scheme": "hmac-sha256",
    }


def _spawn(setup: Mapping[str, Any], connection: str) -> int:
    """Start the kernel, in a process group of its own: an interrupt is for all that is in it."""
    options = {"max_text": setup["max_text"], "argv": ["-f", connection, *setup["argv"]]}
    # A thread in the kernel looks for its parent, where no sandbox ends all that is in it.
    parent = {"JPY_PARENT_PID": str(os.getpid())} if setup["looks_for_parent"] else {}
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-s", "-P", setup["kernel"], json.dumps(options)],
        {**os.environ, **parent},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
        ],
        setpgroup=0,
    )


def _request(code: str) -> dict[str, object]:
    return {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _refuse_system_calls(program: bytes) -> None:
    """Set a filter of system calls for this process and all that it starts."""
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    steps = Program(len(program) // 8, program)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    address = ctypes.addressof(steps)
    for arguments in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER_MODE, address, 0, 0)):
        if prctl(*map(ctypes.c_ulong, arguments)):
            raise SystemExit(f"no filter of system calls: {os.strerror(ctypes.get_errno())}")


def _main() -> int:
    setup = json.loads(sys.argv[1])
    for name, value in setup["limits"].items():
        _limit(getattr(resource, name), value)
    if setup["system_calls"]:
        _refuse_system_calls(bytes.fromhex(setup["system_calls"]))
    output = os.dup(1)  # not inherited; what else is written here goes to the log
    os.dup2(2, 1)
    return Relay(setup, output).run()


if __name__ == "__main__":
    code = _main()
    sys.stdout.flush()
    os._exit(code)  # nothing of what was sent is waited for
