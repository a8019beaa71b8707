"""The files below a root folder: which names are allowed, and changes made all or not at all.

A name that leads outside, by `..` or over a symbolic link, into a `.git`, or to what is no regular
file, is refused. It does not know patches, and it is no sandbox: it does not defend against another
process that swaps a folder for a link at the same moment. Times, owners and extended attributes of
a changed file are those of a new one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gptoss_mlx.errors import ToolError

__all__ = ["MAX_FILE_BYTES", "Change", "Root", "commit", "reverted"]

MAX_FILE_BYTES = 2_000_000
_MAX_NAME_BYTES = 200  # of one folder or file; file systems allow 255


@dataclass(frozen=True)
class Change:
    """What a file was and is to be, None where there is none, and the mode it has or gets."""

    path: Path
    before: bytes | None
    after: bytes | None
    mode: int | None = None  # None is what a new file gets

    def is_current(self) -> bool:
        """Whether the file still is what it was `before`."""
        try:
            return _content(self.path) == self.before
        except OSError:
            return False


class Root:
    """The folder that names are below of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._given = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links, as a model may

    def file(self, name: str) -> Path:
        """The regular file of that name, links followed.

        Raises:
            ToolError: there is none, it may not be written, or it lies outside.
        """
        path = self._path(name)
        if not path.exists():
            raise ToolError(f"{name}: there is no such file")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ToolError(f"{name}: this is not a regular file")
        if not status.st_mode & 0o222:
            raise ToolError(f"{name}: the file is read-only")
        if status.st_size > MAX_FILE_BYTES:
            raise ToolError(f"{name}: {status.st_size:,} bytes are too much to be patched")
        return path

    def own_file(self, name: str) -> Path:
        """The same for a file that is to go, which must not be a symbolic link."""
        path = self.file(name)
        if (self.folder / self._relative(name)).is_symlink():
            raise ToolError(f"{name}: this is a symbolic link: name the file that it leads to")
        return path

    def new_file(self, name: str) -> Path:
        """Where a file of that name would be.

        Raises:
            ToolError: there is one, or it would lie outside or below a file.
        """
        path = self._path(name)
        if os.path.lexists(self.folder / self._relative(name)):
            raise ToolError(f"{name}: this is there already: update it instead")
        if any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in path.parts):
            raise ToolError(f"{name[:80]}...: the name is too long")
        parent = next(parent for parent in path.parents if parent.exists())
        if not parent.is_dir():
            raise ToolError(f"{name}: {parent.name} is a file and no folder")
        return path

    def _path(self, name: str) -> Path:
        """Below the folder, wherever links lead."""
        try:
            path = (self.folder / self._relative(name)).resolve()
        except (OSError, RuntimeError) as error:  # a ring of links, a name that is too long
            raise ToolError(f"{name}: {error}") from None
        if not path.is_relative_to(self.folder) or path == self.folder:
            raise ToolError(f"{name}: this lies outside the folder that may be changed")
        self._refuse_git(name, path.relative_to(self.folder))
        return path

    def _relative(self, name: str) -> Path:
        """The name relative to the folder, as it is written."""
        if not name.strip() or not name.isprintable() or name.endswith("/"):
            raise ToolError(f"{name!r} is not the name of a file")
        path = Path(name)
        if ".." in path.parts:
            raise ToolError(
                f"{name}: names with .. are refused: give it from the root of the project"
            )
        for folder in (self.folder, self._given):
            if path.is_absolute() and path.is_relative_to(folder):
                path = path.relative_to(folder)
        if path.is_absolute():
            raise ToolError(f"{name}: give the name relative to the root of the project")
        self._refuse_git(name, path)
        return path

    @staticmethod
    def _refuse_git(name: str, path: Path) -> None:
        if any(part.casefold() == ".git" for part in path.parts):  # macOS ignores case
            raise ToolError(f"{name}: what git keeps in .git is not changed by patches")


def reverted(changes: Sequence[Change]) -> list[Change]:
    """The changes that take these back."""
    return [replace(change, before=change.after, after=change.before) for change in changes]


def commit(changes: Sequence[Change]) -> list[Path]:
    """Make all the changes, or leave everything as it was; returns the folders that it made.

    Everything is written beside its place first, so a full disk is met before anything changes;
    then each file is replaced at once. What fails after that is undone by renaming.

    Raises:
        ToolError: it could not be written, or a file is not what it was `before`.
    """
    folders: list[Path] = []
    undo = contextlib.ExitStack()  # run when something fails, last things first
    tidy = contextlib.ExitStack()  # run in any case
    try:
        with tidy, undo:
            _write(changes, folders, undo, tidy)
            undo.pop_all()
    except OSError as error:
        text = f"{error.strerror or error}: {error.filename or 'the files'}"
        raise ToolError(f"nothing was changed, for a file could not be written ({text})") from error
    return folders


def _write(
    changes: Sequence[Change],
    folders: list[Path],
    undo: contextlib.ExitStack,
    tidy: contextlib.ExitStack,
) -> None:
    staged: list[tuple[Change, Path | None]] = []
    for change in changes:
        _make_folders(change.path.parent, folders, undo)
        staged.append((change, None if change.after is None else _stage(change, undo)))
    for change, new in staged:
        if not change.is_current():
            raise ToolError(f"nothing was changed: {change.path.name} has changed meanwhile")
        if change.before is None:
            undo.callback(change.path.unlink, missing_ok=True)
        else:
            undo.callback(_keep(change.path, tidy))
        if new is None:
            change.path.unlink()
        else:
            new.replace(change.path)


def _make_folders(folder: Path, made: list[Path], undo: contextlib.ExitStack) -> None:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir()
        made.append(parent)
        undo.callback(parent.rmdir)


def _stage(change: Change, undo: contextlib.ExitStack) -> Path:
    """The new content in a file of its own, beside the one it is to replace."""
    path = _free_name(change.path)
    undo.callback(path.unlink, missing_ok=True)
    with path.open("xb") as file:
        file.write(change.after or b"")
        if change.mode is not None:
            os.fchmod(file.fileno(), change.mode)
    return path


def _keep(path: Path, tidy: contextlib.ExitStack) -> Callable[[], object]:
    """A second name for a file that is about to go; returns what brings it back."""
    spare = _free_name(path)
    tidy.callback(_remove, spare)
    try:
        spare.hardlink_to(path)
    except OSError:  # not every file system has hard links
        shutil.copy2(path, spare)
    return lambda: spare.replace(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _free_name(path: Path) -> Path:
    return path.parent / f".{secrets.token_hex(8)}.patch"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if os.path.lexists(path) else None
