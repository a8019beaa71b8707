"""The command line on a pseudo-terminal with a screen: what a user types, and what they see.

It answers what a real terminal would (where the cursor is), and knows nothing of the program.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pexpect
import pyte
from pseudo_terminal import INTERRUPTIBLE

__all__ = ["Screen"]

_SECONDS = 30  # until a test is given up, on a slow machine
_UNWANTED = ("NO_COLOR", "COLUMNS", "LINES", "GPTOSS_MLX_MODEL", "GPTOSS_MLX_DEBUG")


class _Answering(pyte.HistoryScreen):
    """A screen that tells the program what it asks, such as where the cursor is."""

    def __init__(self, child: pexpect.spawn[bytes], columns: int, rows: int) -> None:
        super().__init__(columns, rows, history=1000)
        self._child = child

    def write_process_input(self, data: str) -> None:
        """Answer."""
        self._child.send(data)


class Screen:
    """The command line in a terminal of its own, with what is on its screen. Used in a `with`.

    Args:
        arguments: of the command line.
        data: where it keeps conversations and its history.
        columns: of the screen.
        rows: of the screen.
        redirection: as a shell has it, such as `2> FILE`.
        environment: variables beyond those of a terminal with colours.
    """

    def __init__(
        self,
        *arguments: str,
        data: Path,
        columns: int = 80,
        rows: int = 24,
        redirection: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
        terminal = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "GPTOSS_MLX_DATA": str(data)}
        command = shlex.join([sys.executable, "-c", INTERRUPTIBLE, *arguments])
        self._child: pexpect.spawn[bytes] = pexpect.spawn(
            "/bin/sh",
            ["-c", f"exec {command} {redirection}"],
            env=kept | terminal | dict(environment or {}),  # pyright: ignore[reportArgumentType]
            dimensions=(rows, columns),
        )
        self._screen = _Answering(self._child, columns, rows)
        self._stream = pyte.ByteStream(self._screen)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close(force=True)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without empty lines at its end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def text(self) -> str:
        """The same, and what has left the screen at its top."""
        rows = (
            "".join(row[i].data for i in range(self._screen.columns))
            for row in self._screen.history.top
        )
        return "\n".join([*(row.rstrip() for row in rows), *self.lines])

    @property
    def has_colours(self) -> bool:
        """Whether anything on the screen has one."""
        cells = [cell for row in self._screen.buffer.values() for cell in row.values()]
        return any((cell.fg, cell.bg) != ("default", "default") for cell in cells)

    @property
    def is_ready(self) -> bool:
        """Whether the cursor stands in an empty line that wants a message."""
        cursor = self._screen.cursor
        return self._screen.display[cursor.y].rstrip() == ">>>" and cursor.x == 4

    def pump(self, seconds: float = 0.05) -> None:
        """Take in what comes within this time."""
        try:
            data: bytes = self._child.read_nonblocking(65536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self._stream.feed(data)

    def wait_for(self, pattern: str) -> None:
        """Wait until a regular expression, in which ^ and $ are for lines, matches the screen."""
        expression = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + _SECONDS
        while not expression.search("\n".join(self.lines)):
            self.pump()
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text}"

    def wait_for_prompt(self) -> None:
        """Wait until the program wants a message."""
        deadline = time.monotonic() + _SECONDS
        while not self.is_ready:
            self.pump()
            assert time.monotonic() < deadline, f"no prompt in:\n{self.text}"

    def press(self, keys: str) -> None:
        """Press keys."""
        self._child.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._child.setwinsize(rows, columns)
        self._screen.resize(rows, columns)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.kill(number)

    def hang_up(self) -> None:
        """Close the window, and wait until the program has noticed."""
        self._child.ptyproc.fileobj.close()  # pyright: ignore[reportAttributeAccessIssue]  # untyped
        deadline = time.monotonic() + _SECONDS
        while self._child.isalive():
            time.sleep(0.05)
            assert time.monotonic() < deadline, "it goes on without a terminal"

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows keys by itself."""
        return self._child.getecho()

    def wait_for_end(self) -> None:
        """Wait until the program has ended."""
        deadline = time.monotonic() + _SECONDS
        while self._child.isalive():
            self.pump()
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"

    def exit_code(self) -> int | None:
        """Wait for the end."""
        self.wait_for_end()
        self.pump()
        self._child.close()
        return self._child.exitstatus
