"""Processes and all that they start: counted, measured, ended.

It does not know why a process runs, nor what encloses it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

__all__ = [
    "UNLISTED",
    "end",
    "folder_bytes",
    "hidden_bytes",
    "is_alive",
    "marked",
    "memory",
    "tree",
]

UNLISTED = 1 << 60


def tree(pid: int) -> list[Process]:
    """The process and its descendants; empty where it is gone."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def memory(processes: Iterable[Process]) -> int:
    """Bytes that they hold in memory; what two share counts twice."""
    import psutil

    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def marked(name: str, value: str) -> list[Process]:
    """Processes with `name=value` in their environment, wherever they have gone to."""
    import psutil

    found: list[Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value:
                found.append(process)
    return found


def end(heads: Sequence[Process], pid: int, marker: tuple[str, str]) -> None:
    """Kill the process, its group, its descendants and what bears the mark, until none is left.

    `pid` must be a child that was not waited for: its number is not another's yet. `heads` die
    first: with the first process of a namespace all others die at once, however many they are,
    and it is gone only when they are. What was seen once is waited for, as a process that is
    being killed has no environment, hence no mark, a while before it has gone.
    """
    _kill(heads)
    seen = set(heads)
    for _ in range(500):
        seen.update(tree(pid), marked(*marker))
        alive = [process for process in seen if is_alive(process)]
        if not alive:
            return
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        _kill(alive)
        time.sleep(0.01)


def _kill(processes: Iterable[Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def is_alive(process: Process) -> bool:
    """Whether it runs; a process that ended and was not waited for does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def folder_bytes(folders: Iterable[Path], limit: float = math.inf) -> int:
    """Disk space of everything below the folders; stops counting above `limit`.

    A folder that cannot be listed may hold anything: it counts as more than any disk has.
    """
    total = 0
    for size in _sizes(folders):
        total += size
        if total > limit:
            break
    return total


def _sizes(folders: Iterable[Path]) -> Iterator[int]:
    """Bytes on disk of each entry; at least 1,024, as empty files and folders are not free."""
    pending = [str(folder) for folder in folders]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    yield _size(entry)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ENAMETOOLONG):
                yield UNLISTED


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return max(entry.stat(follow_symlinks=False).st_blocks * 512, 1024)
    except OSError:
        return 0  # it has gone; a folder that cannot be reached is noticed when it is listed


def hidden_bytes(processes: Iterable[Process]) -> int:
    """Bytes of open files that no folder shows: deleted ones and memory files. Linux only.

    Not those of deleted files that are only mapped, or on their way through a socket.
    """
    files: dict[tuple[int, int], int] = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    about = link.stat()
                    if about.st_nlink == 0 and stat.S_ISREG(about.st_mode):
                        files[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(files.values())
