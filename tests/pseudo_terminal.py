"""A program on a pseudo-terminal, for tests that type and read as a user does."""

from __future__ import annotations

import select
import subprocess
import sys
import time

__all__ = ["INTERRUPTIBLE", "Terminal"]

# A shell's background jobs are started with SIGINT ignored; these tests want it as a user has it.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from gptoss_mlx.__main__ import main; main()"
)
_ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Terminal:
    """A program on a pseudo-terminal, held by a process of its own between it and us."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _ON_A_TERMINAL,
                sys.executable,
                "-c",
                INTERRUPTIBLE,
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Read until the text appears, counting from the last time."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            wait = max(0, deadline - time.monotonic())
            ready = select.select([self.process.stdout], [], [], wait)[0]
            data = self.process.stdout.read(4096) if ready else b""
            assert data, f"no {text!r} in {self.seen!r}"
            self.seen += data.decode("utf-8", "replace")
        self.seen = self.seen.split(text, 1)[1]

    def type(self, keys: str) -> None:
        """Press keys."""
        assert self.process.stdin is not None
        self.process.stdin.write(keys.encode())

    def exit_code(self) -> int:
        """Wait for the end."""
        self.process.communicate(timeout=60)
        return self.process.returncode
