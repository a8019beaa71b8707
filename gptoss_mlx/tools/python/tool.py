"""The python tool, as the models were trained with: code in, what it shows out, state kept.

    with Toolbox([PythonTool()]) as tools:
        tools.run("python", "x = 6")
        tools.run("python", "print(7 * x)")  # 42

The code runs in a Jupyter kernel in a sandbox. It does not know how either works.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
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

__all__ = ["Limits", "PythonTool"]

NO_OUTPUT = (  # as the models were trained
    "[WARN] No output available. Use print() to output anything to stdout to receive the output"
)
TITLE_WIDTH = 60


class PythonTool(Tool):
    """Runs Python in a kernel that starts at the first call and keeps its variables.

    The working folder is the only place where files stay; the code knows it as /mnt/data on
    Linux, and as its current folder everywhere.

    Args:
        folder: the working folder, which is kept; None is a fresh one, removed at the end.
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
        self._is_kept = folder is not None
        self._folder = (folder or Path(tempfile.mkdtemp(prefix="gptoss-data-"))).resolve()
        self._timeout, self._limits = timeout, limits or Limits()
        self._kernel: Kernel | None = None
        self._first_found: int | None = None  # bytes in the folder before the first kernel
        self._calls = threading.Lock()  # held while a call runs
        self._state = threading.Lock()  # held for moments: which kernel there is
        self._is_closed = False

    @property
    def folder(self) -> Path:
        """The working folder, as the user knows it."""
        return self._folder

    @property
    def recipients(self) -> Sequence[str]:
        """What its calls are addressed to."""
        return ("python",)

    def preview(self, recipient: str, content: str) -> Preview:  # noqa: ARG002
        """The code, its first line in the title."""
        code = _code(content)
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
        with self._calls:
            if self._kernel:
                self._kernel.close()
                self._kernel = None
            if not self._is_kept:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _ready(self) -> Kernel:
        """The kernel, started if there is none."""
        with self._state:
            if self._is_closed:
                raise ToolError("the python tool is closed: answer without it")
            if self._kernel:
                self._kernel.check()  # it may have ended since the last call
                return self._kernel
            kernel = self._kernel = Kernel(
                self._sandbox, self._folder, self._limits, self._disk_before()
            )
        try:
            kernel.wait()
        except BaseException:
            kernel.kill("it was interrupted at its start")
            raise
        return kernel

    def _disk_before(self) -> int:
        """Bytes that a new kernel finds. Those of its forerunners count only once as found.

        So code that fills the disk may go on after it, and clean up; but not again and again.
        """
        found = folder_bytes([self._folder])
        if self._first_found is None:
            self._first_found = found
        return min(found, self._first_found + self._limits.disk)

    def _forget_dead(self) -> None:
        if self._kernel and not self._kernel.is_alive:
            self._kernel.close()
            self._kernel = None


def _code(content: str) -> str:
    """The code of a call: all of its content, or of {"code": ...}, as models write at times."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return content
    code = cast("dict[str, object]", value).get("code") if isinstance(value, dict) else None
    return code if isinstance(code, str) else content
