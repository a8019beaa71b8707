"""Temporary folders: locked while their owner lives, removed whatever code has made of them.

A folder whose owner was killed is removed by the next who makes one. It does not know what the
folders are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
import time
from pathlib import Path

__all__ = ["Scratch", "make_listable", "remove"]

STALE_SECONDS = 3600.0  # younger ones may not be locked yet


class Scratch:
    """A new folder of this user's alone.

    Args:
        prefix: of its name; folders with it belong to this class.
        parent: where it is made; None is where temporary files are.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        where = parent or Path(tempfile.gettempdir())
        _sweep(where, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=where)).resolve()
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # some file systems have no locks, and are not swept
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Remove it and all that is in it; once."""
        remove(self.path)
        os.close(self._lock)


def _sweep(where: Path, prefix: str) -> None:
    """Remove what is older and has no owner any more."""
    for path in where.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            about = path.lstat()
            is_own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
            if is_own and about.st_ctime < time.time() - STALE_SECONDS:
                path.chmod(0o700)  # the code may have changed it
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError while the owner lives
        remove(path)
    finally:
        os.close(folder)


def remove(folder: Path) -> None:
    """Remove a folder that no process uses, however deep it is and closed its folders are.

    Folders within are moved up into it one by one, so that no path is too long for the system.
    """
    pending, emptied = [folder], list[Path]()
    while pending:
        current = pending.pop()
        emptied.append(current)
        for path in _unlinked(current):
            with contextlib.suppress(OSError):
                path.chmod(0o700)
                pending.append(path.rename(folder / secrets.token_hex(16)))
    for path in reversed(emptied):
        with contextlib.suppress(OSError):
            path.rmdir()


def _unlinked(folder: Path) -> list[Path]:
    """The folders in a folder, whose other entries are removed."""
    folders: list[Path] = []
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
        with os.scandir(folder) as entries:
            for entry in list(entries):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        Path(entry.path).unlink()
    return folders


def make_listable(folder: Path) -> None:
    """Open the folders in a folder that no process uses, as far as that can be done."""
    pending = [folder]
    while pending:
        with contextlib.suppress(OSError):
            path = pending.pop()
            if path.stat().st_mode & 0o700 != 0o700:
                path.chmod(0o700)
            with os.scandir(path) as entries:
                pending += [
                    Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)
                ]
