"""The python tool, as the models were trained with: code in, what it shows out, state kept.

    with Toolbox([PythonTool()]) as tools:
        tools.run("python", "x = 6")
        tools.run("python", "print(7 * x)")  # 42

The code runs in a Jupyter kernel in a sandbox. It does not know how either works.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.harmony import Builtin
from gptoss_mlx.tools.base import Preview, Tool
from gptoss_mlx.tools.python.guard import Limits
from gptoss_mlx.tools.python.kernel import Kernel
from gptoss_mlx.tools.python.processes import folder_bytes
from gptoss_mlx.tools.python.sandbox import Unconfined, find_sandbox
from gptoss_mlx.tools.python.scratch import Scratch, make_listable

__all__ = ["Limits", "PythonTool"]

NO_OUTPUT = (  # as the models were trained
    "[WARN] No output available. Use print() to output anything to stdout to receive the output"
)
TITLE_WIDTH = 60
LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # Python's and IPython's
LONE_HALVES = re.compile(r"[\ud800-\udfff]")  # of pairs, which nothing can write


class PythonTool(Tool):
    """Runs Python in a kernel that starts at the first call and keeps its variables.

    The working folder is the only place where files stay; the code knows it as /mnt/data on
    Linux, and as its current folder everywhere.

    Args:
        folder: the working folder, which is kept; None is a fresh one, made when it is needed
            and removed at the end.
        timeout: seconds that one call may take.
        sandboxed: False lets the code do whatever its user may, on the network as well.
        limits: what the code may use otherwise.

    Raises:
        UsageError: there is no working sandbox on this machine, or the folder cannot be used.
    """

    name = "python"
    builtin: Builtin | None = "python"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        timeout: float = 120.0,
        sandboxed: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self._sandbox = find_sandbox() if sandboxed else Unconfined()
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{folder} is not a folder: Python's working folder must exist")
        self._folder = folder.resolve() if folder else None
        self._own: Scratch | None = None  # made when it is first needed
        self._timeout, self._limits = timeout, limits or Limits()
        self._kernel: Kernel | None = None
        self._first_found: int | None = None  # bytes in the folder before the first kernel
        self._calls = threading.Lock()  # held while a call runs
        self._state = threading.Lock()  # held for moments: which kernel there is
        self._is_closed = False

    @property
    def folder(self) -> Path:
        """The working folder, as the user knows it."""
        with self._state:
            return self._made_folder()

    @property
    def recipients(self) -> Sequence[str]:
        """What its calls are addressed to."""
        return ("python",)

    def preview(self, recipient: str, content: str) -> Preview:  # noqa: ARG002
        """The code, its first line in the title; what is not seen is shown as an escape."""
        code = _visible(_code(content))
        first = next((line.strip() for line in code.splitlines() if line.strip()), "")
        short = first if len(first) <= TITLE_WIDTH else first[: TITLE_WIDTH - 1] + "…"
        return Preview(f"run Python: {short}", body=code, language="python")

    def run(self, recipient: str, content: str) -> str:  # noqa: ARG002
        """Run code and return its output and traceback."""
        with self._calls:
            try:
                output = self._ready().execute(_code(content), self._timeout)
            except ToolError:
                self._forget_dead()  # the model is told: the next call starts afresh
                raise
            return output if output.strip() else NO_OUTPUT

    def close(self) -> None:
        """End the kernel and all that it started; a folder of its own is removed."""
        with self._state:
            self._is_closed = True
            kernel = self._kernel
        if kernel:
            kernel.kill("the tool was closed")  # which ends a call that runs
        self.reset()

    def reset(self) -> None:
        """Another conversation begins, without the variables and files of the last one."""
        with self._calls:
            if self._kernel:
                self._kernel.close()
                self._kernel = None
            if self._own:
                self._own.remove()
                self._own = None
                if not self._is_closed:  # else it is still known where the folder was
                    self._folder = self._first_found = None

    def _ready(self) -> Kernel:
        """The kernel, started if there is none."""
        with self._state:
            if self._is_closed:
                raise ToolError("the python tool is closed: answer without it")
            if self._kernel:
                self._kernel.check()  # it may have ended since the last call
                return self._kernel
            folder = self._made_folder()
            kernel = self._kernel = Kernel(
                self._sandbox, folder, self._limits, self._disk_before(folder)
            )
        try:
            kernel.wait()
        except BaseException:
            kernel.kill("it was interrupted at its start")
            raise
        return kernel

    def _made_folder(self) -> Path:
        """The working folder, made if there is none; to be called with `_state` held."""
        if self._folder is None:
            if self._is_closed:
                raise ToolError("the python tool is closed: it has no folder")
            self._own = Scratch("gptoss-data-")
            self._folder = self._own.path
        return self._folder

    def _disk_before(self, folder: Path) -> int:
        """Bytes that a new kernel finds. Those of its forerunners count only once as found.

        So code that fills the disk may go on after it, and clean up; but not again and again.
        """
        if self._own:
            make_listable(folder)
        found = folder_bytes([folder])
        if self._first_found is None:
            self._first_found = found
        return min(found, self._first_found + self._limits.disk)

    def _forget_dead(self) -> None:
        if self._kernel and not self._kernel.is_alive:
            self._kernel.close()
            self._kernel = None


def _code(content: str) -> str:
    """The code of a call, as it is shown and as it is run: all its line ends are newlines."""
    return LONE_HALVES.sub("\ufffd", LINE_ENDS.sub("\n", _unwrapped(content)))


def _unwrapped(content: str) -> str:
    """All of a call's content, or of {"code": ...}, as models write at times."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return content
    code = cast("dict[str, object]", value).get("code") if isinstance(value, dict) else None
    return code if isinstance(code, str) else content


def _visible(code: str) -> str:
    """The code with escapes for what a terminal would obey or not show at all."""
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in ("Cc", "Cf") and char not in "\n\t"
        else char
        for char in code
    )
