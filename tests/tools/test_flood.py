"""What code sends towards the host to exhaust or mislead it: the host reads bounded text only."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.python.guard import Limits
from gptoss_mlx.tools.python.sandbox import sandbox_problem
from gptoss_mlx.tools.python.tool import PythonTool

PROBLEM = sandbox_problem()
pytestmark = [
    pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM)),
    pytest.mark.skipif(sys.platform != "linux", reason="/run/kernel and /proc are Linux's"),
]
MIB = 1 << 20
GROWTH = 50 * MIB

# A socket in the place of the kernel's own, whose messages never end.
ENDLESS = r"""
import os, socket, threading, time
kernel = get_ipython().kernel
kernel.iopub_thread.schedule(lambda: kernel.iopub_thread.socket.close(0))
time.sleep(0.2)
path = "/run/kernel/k-2"
if os.path.exists(path): os.unlink(path)
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
def pump():
    peer, _ = server.accept()
    peer.sendall(b"\xff" + bytes(7) + b"\x01\x7f\x03\x00NULL" + bytes(48))
    got = b""
    while len(got) < 64: got += peer.recv(64 - len(got))
    ready = b"\x05READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"PUB"
    peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
    peer.recv(1000)
    part = b"x" * 4_000_000
    while True: peer.sendall(b"\x03" + len(part).to_bytes(8, "big") + part)
threading.Thread(target=pump, daemon=True).start()
"""
# Messages as large as messages get, through the kernel's own socket.
LARGE = r"""
import threading, time
kernel = get_ipython().kernel
message = kernel.session.msg("stream", content={"name": "stdout", "text": "x" * 4_000_000})
parts = [b"stream", *kernel.session.serialize(message)]
def pump():
    for _ in range(300):
        kernel.iopub_thread.schedule(lambda: kernel.iopub_thread.socket.send_multipart(parts))
        time.sleep(0.005)
threading.Thread(target=pump, daemon=True).start()
"""
# The relay's own pipe to the host, as whoever has taken over the relay could use it.
PIPE = r"""
import glob, os, threading
def ends():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        folder = os.path.dirname(path)
        if b"relay.py" in open(path, "rb").read():
            for link in glob.glob(folder + "/fd/*"):
                if int(os.path.basename(link)) > 2 and os.readlink(link).startswith("pipe:"):
                    yield link
def pump(link):
    try:
        pipe = os.open(link, os.O_WRONLY)
        while True: os.write(pipe, LINE * 1000)
    except OSError: pass
links = list(ends())
for link in links: threading.Thread(target=pump, args=[link], daemon=True).start()
assert links
"""


@pytest.fixture
def tool() -> Iterator[PythonTool]:
    """A tool; afterwards, a call works, if not the first."""
    with closing(PythonTool(timeout=1.0, limits=Limits(memory=1 << 30, grace=0.5))) as tool:
        yield tool
        try:
            tool.run("python", "1")
        except ToolError:
            assert tool.run("python", "1") == "1\n"


@contextmanager
def _bounded_growth() -> Generator[None]:
    """This process grows by less than `GROWTH` meanwhile."""
    process, ended = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    sizes = [before]

    def watch() -> None:
        while not ended.wait(0.02):
            sizes.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    assert max(sizes) - before < GROWTH


@pytest.mark.parametrize("code", [ENDLESS, LARGE])
def test_messages_between_calls(tool: PythonTool, code: str) -> None:
    """What the kernel sends between calls is not the host's to keep."""
    tool.run("python", "1")
    with _bounded_growth():
        _told(tool, code, "memory")
        time.sleep(1.5)


@pytest.mark.parametrize("line", ["b'x'", r"b'\n'", r"""b'{"id":"","kind":"","text":""}\n'"""])
def test_flooded_pipe(tool: PythonTool, line: str) -> None:
    """What comes through the pipe is bounded between calls and in them, and so is the call."""
    tool.run("python", "1")
    with _bounded_growth():
        _told(tool, f"LINE = {line}" + PIPE, "has ended")
        time.sleep(0.5)
        with pytest.raises(ToolError):
            tool.run("python", "while True: pass")


def _told(tool: PythonTool, code: str, error: str) -> None:
    """Run code; if that ends the kernel as early as this, it is told why."""
    try:
        tool.run("python", code)
    except ToolError as found:
        if error not in str(found):
            raise


@pytest.mark.parametrize("name", ["k-1", "k-2"])
def test_socket_of_another(tool: PythonTool, tmp_path: Path, name: str) -> None:
    """A link in a socket's place leads the host nowhere."""
    path = tmp_path / "s"
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(1)
        tool.run(
            "python",
            f"import os; name = '/run/kernel/{name}'; os.unlink(name); os.symlink('{path}', name)\n"
            "kernel = get_ipython().kernel\n"
            "kernel.iopub_thread.schedule(lambda: kernel.iopub_thread.socket.close(0))",
        )
        with pytest.raises(TimeoutError):
            server.accept()
