"""A process under watch: started, measured against its limits, ended with all its children.

A thread of its own starts it, because bubblewrap dies with the *thread* that started it, and calls
may come from threads that end. It does not know what the process does.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss_mlx.tools.python import processes

if TYPE_CHECKING:
    from psutil import Process

__all__ = ["Guard", "Limits"]

GIB = 1 << 30
MARK = "GPTOSS_MLX_KERNEL"  # in the environment of what is under watch
BUSY_INTERVAL = 0.1  # seconds between two looks
IDLE_INTERVAL = 1.0


@dataclass(frozen=True)
class Limits:
    """What code may use. Bytes, and characters of `output`; `grace` are seconds.

    `memory` holds for one process and for all together, `disk` for what is added to all folders
    that can be written, `file` for one file; `grace` is the time that interrupted code has to stop.
    """

    memory: int = 4 * GIB
    processes: int = 64
    disk: int = 2 * GIB
    file: int = GIB
    output: int = 100_000
    grace: float = 3.0


class Guard(threading.Thread):
    """Runs `command` until it ends, breaks a limit or is killed; `reason` then says why.

    Args:
        command: what to run, in a session of its own: the terminal's Ctrl-C is not for it.
        environment: all its variables; a mark is added.
        mark: tells it from others; not used twice.
        pipes: its stdin and stdout, which are closed here once it has them.
        log: where its stderr goes.
        folders: where it may write, the one that it starts in first.
        limits: what it may use.
        disk_before: bytes in the folders that are not held against it.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        mark: str,
        pipes: tuple[int, int],
        log: Path,
        folders: Sequence[Path],
        limits: Limits,
        disk_before: int = 0,
    ) -> None:
        super().__init__(name="python kernel", daemon=True)
        self.reason: str | None = None
        self.busy = threading.Event()
        self._command, self._environment, self._mark = tuple(command), dict(environment), mark
        self._pipes = pipes
        self._log, self._folders, self._limits = log, tuple(folders), limits
        self._ending = threading.Event()
        self._heads: list[Process] = []
        self._disk_before = disk_before
        self._next_disk = 0.0

    def kill(self, reason: str) -> None:
        """End it; returns when nothing of it is left. From any thread."""
        self.reason = self.reason or reason
        self._ending.set()
        self.busy.set()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Start it, watch it, end it."""
        environment = {**self._environment, MARK: self._mark}
        try:
            with self._log.open("wb") as log:
                process = subprocess.Popen(
                    self._command,
                    stdin=self._pipes[0],
                    stdout=self._pipes[1],
                    stderr=log,
                    env=environment,
                    cwd=self._folders[0],
                    start_new_session=True,
                )
        except OSError as error:
            self.reason = f"it could not be started ({error})"
            return
        finally:
            for pipe in self._pipes:
                os.close(pipe)
        try:
            self._watch(process.pid)
        finally:
            processes.end(self._heads, process.pid, (MARK, self._mark))
            code = process.wait()
            self.reason = self.reason or f"it exited by itself (code {code}){_last_line(self._log)}"

    def _watch(self, pid: int) -> None:
        while not self._ending.is_set():
            family = processes.tree(pid)
            if not family or not processes.is_alive(family[0]):
                return
            self._heads = family[:2]
            broken = self._broken(family)
            if broken:
                self.reason = self.reason or broken
                return
            if self.busy.is_set():
                self._ending.wait(BUSY_INTERVAL)
            else:
                self.busy.wait(IDLE_INTERVAL)

    def _broken(self, family: Sequence[Process]) -> str | None:
        """The limit that is broken, in words."""
        limits = self._limits
        if len(family) > limits.processes:
            return f"it had more than {limits.processes} processes"
        if processes.memory(family) > limits.memory:
            return f"it took more than {_size(limits.memory)} of memory"
        if time.monotonic() > self._next_disk and self._disk(family) > limits.disk:
            return f"it wrote more than {_size(limits.disk)} to disk"
        return None

    def _disk(self, family: Sequence[Process]) -> int:
        """Bytes written since the start. The more files there are, the rarer is the count."""
        began = time.monotonic()
        limit = self._disk_before + self._limits.disk
        found = processes.folder_bytes(self._folders, limit) - self._disk_before
        found += processes.hidden_bytes(family)
        ended = time.monotonic()
        self._next_disk = ended + 10 * (ended - began)
        return found


def _size(count: int) -> str:
    return f"{count / GIB:.3g} GiB"


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 500))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
