"""apply_patch: files below a root folder, changed in the format that the models were trained with.

A patch is computed whole before anything is written, and then written whole or not at all. The last
patches can be taken back. What was shown in a preview is what is written, or nothing is. Nothing
here asks anyone for permission.
"""

from __future__ import annotations

import collections
import contextlib
import difflib
import json
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.harmony import FunctionTool
from gptoss_mlx.tools.apply_patch.files import MAX_FILE_BYTES, Change, Root, commit, reverted
from gptoss_mlx.tools.apply_patch.patch import Section, parse_patch, patched
from gptoss_mlx.tools.base import Preview, Tool

__all__ = ["ApplyPatchTool"]

MAX_PATCH = 1_000_000  # characters
UNDO_LEVELS = 20
_BEGIN = "*** Begin Patch"
_CHANGED = "nothing was changed, for a file has changed since the patch was shown"
_AGAIN = "Read it again, and send the patch again"

_FUNCTION = FunctionTool(
    "apply_patch",
    "Patch a file",
    {
        "type": "string",
        "description": "Formatted patch code",
        "default": "*** Begin Patch\n*** End Patch\n",
    },
)

_INSTRUCTIONS = """\
# Changing files

Change files with `apply_patch` only. Its argument is a patch in this format, and nothing else:

*** Begin Patch
*** Update File: src/greeting.py
*** Move to: src/welcome.py
@@ class Greeter:
@@     def greet(self, name):
         name = name.strip()
-        return "Hello " + name
+        return f"Welcome, {name}!"

*** Add File: docs/notes.md
+# Notes
+Every line of a new file begins with a plus sign.
*** Delete File: old.txt
*** End Patch

- Names are relative to the root of the project. A file appears once in a patch.
- `*** Move to:` is optional and renames the file.
- Below Update File, each line begins with one character: a space for a line that stays, `-` for one
  that goes, `+` for one that comes. The rest of the line is copied from the file exactly,
  indentation included.
- Give three unchanged lines above and below a change. Where they stand in several places, put `@@`
  and the line of the class or function above them; several such lines go from outside to inside.
- Changes of one file are in the order of the file. Start each one that is apart from the last with
  `@@`.
- `*** End of File` after a change says that it is at the end of the file.
- If a patch is refused, nothing was changed: read the file again and send a corrected patch."""


@dataclass(frozen=True)
class _Step:
    """What one section comes to: one change, or two for a file that moves."""

    letter: str
    names: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Applied:
    """A patch that was written, to be taken back."""

    changes: tuple[Change, ...]
    names: tuple[str, ...]
    folders: tuple[Path, ...]


class ApplyPatchTool(Tool):
    """Patches of files below one folder.

    Args:
        root: the folder that names are relative to, and nothing outside of which is changed.

    Raises:
        UsageError: `root` is no folder.
    """

    name = "apply_patch"
    functions = (_FUNCTION,)
    instructions = _INSTRUCTIONS

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError(f"{root} is no folder that patches could be applied in")
        self._root = Root(root)
        self._applied: collections.deque[_Applied] = collections.deque(maxlen=UNDO_LEVELS)
        self._shown: tuple[str, list[_Step]] | None = None  # a call, and what it came to

    @property
    def recipients(self) -> Sequence[str]:
        """What its calls are addressed to."""
        return ("functions.apply_patch",)

    def preview(self, recipient: str, content: str) -> Preview:
        """The patch as a unified diff of the files as they are."""
        del recipient
        steps = self._plan(content)
        self._shown = content, steps
        names = ", ".join(" -> ".join(step.names) for step in steps)
        title = f"apply_patch {names}" if len(names) <= 80 else f"apply_patch ({len(steps)} files)"
        return Preview(title, "".join(map(_diff, steps)), "diff")

    def run(self, recipient: str, content: str) -> str:
        """Apply the patch; returns what happened to each file.

        Raises:
            ToolError: it cannot be applied; or not as it was shown, if it is what the last preview
                was of.
        """
        del recipient
        steps = self._as_shown(content)
        changes = tuple(change for step in steps for change in step.changes)
        folders = commit(changes)
        names = tuple(f"{step.letter} {' -> '.join(step.names)}" for step in steps)
        self._applied.append(_Applied(changes, names, tuple(folders)))
        return "\n".join(("Done!", *names))

    def undo(self) -> str:
        """Take the last patch back, then the one before; returns what was taken back.

        Raises:
            ToolError: there is none, or a file is no longer as the patch left it.
        """
        if not self._applied:
            raise ToolError("there is no patch to take back")
        last = self._applied[-1]
        changes = reverted(last.changes)
        for change in changes:
            if not change.is_current():
                name = change.path.relative_to(self._root.folder)
                raise ToolError(f"{name} was changed since the patch: it is not taken back")
        commit(changes)
        self._applied.pop()
        for folder in reversed(last.folders):
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()
        return "\n".join(("Taken back:", *last.names))

    def _as_shown(self, content: str) -> list[_Step]:
        """What a call would do; where it was the last to be shown, it must still be that."""
        shown, self._shown = self._shown, None
        if shown is None or shown[0] != content:
            return self._plan(content)
        try:
            steps = self._plan(content)
        except ToolError as error:
            raise ToolError(f"{_CHANGED} ({error}). {_AGAIN}") from error
        for old, new in zip(shown[1], steps, strict=True):
            if old != new:
                raise ToolError(f"{_CHANGED} ({new.names[0]}). {_AGAIN}")
        return steps

    def _plan(self, content: str) -> list[_Step]:
        """What a call would do. Reads the files, and changes nothing."""
        sections = parse_patch(_patch_of(content))
        try:
            steps = [self._step(section) for section in sections]
        except OSError as error:
            raise ToolError(f"a file could not be read: {error}") from error
        _check_distinct(steps)
        return steps

    def _step(self, section: Section) -> _Step:
        path, target = section.path, section.move_to
        if section.action == "Add":
            new = Change(self._root.new_file(path), None, section.added.encode())
            return _Step("A", (path,), (new,))
        if section.action == "Delete":
            return _Step("D", (path,), (_deleted(self._root.own_file(path)),))
        if target is None or target == path:
            old = _deleted(self._root.file(path))
            after = _patched(section, old.before or b"")
            return _Step("M", (path,), (Change(old.path, old.before, after, old.mode),))
        old = _deleted(self._root.own_file(path))
        after = _patched(section, old.before or b"") if section.hunks else old.before
        moved = Change(self._root.new_file(target), None, after, old.mode)
        return _Step("M", (path, target), (moved, old))


def _check_distinct(steps: Sequence[_Step]) -> None:
    """Nothing, where no file is changed twice, or is the folder of another."""
    seen: set[object] = set()
    made = {change.path for step in steps for change in step.changes if change.after is not None}
    for step in steps:
        for change in step.changes:
            # by inode, too: two names of one file, as on a disk that ignores case
            status = change.path.stat() if change.before is not None else None
            keys = {change.path, (status.st_dev, status.st_ino) if status else change.path}
            if keys & seen:
                raise ToolError(f"{step.names[-1]} is changed twice: use one section for it")
            if folder := next((path for path in change.path.parents if path in made), None):
                raise ToolError(
                    f"{step.names[-1]}: {folder.name} is a file in the same patch, and no folder"
                )
            seen |= keys


def _deleted(path: Path) -> Change:
    return Change(path, path.read_bytes(), None, stat.S_IMODE(path.stat().st_mode))


def _patched(section: Section, before: bytes) -> bytes:
    """The file after its hunks. Bytes that are not UTF-8 stay what they are."""
    text = before.decode("utf-8", "surrogateescape")
    after = patched(text, section.hunks, section.path).encode("utf-8", "surrogateescape")
    if after == before and section.move_to is None:
        raise ToolError(f"{section.path}: the patch changes nothing in it")
    if len(after) > MAX_FILE_BYTES:
        raise ToolError(f"{section.path}: the file would become too large")
    return after


def _diff(step: _Step) -> str:
    """One step as git would show it."""
    first, last = step.changes[0], step.changes[-1]
    before, after = last.before, first.after
    old = f"a/{step.names[0]}" if before is not None else "/dev/null"
    new = f"b/{step.names[-1]}" if after is not None else "/dev/null"
    lines = list(difflib.unified_diff(_lines(before), _lines(after), old, new))
    return "".join(_ended(lines or [f"--- {old}\n", f"+++ {new}\n"]))


def _lines(content: bytes | None) -> list[str]:
    """Lines to be shown: control characters and what is no text made visible."""
    text = (content or b"").decode("utf-8", "replace").replace("\r\n", "\n")
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), text)
    text = re.sub(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _ended(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _patch_of(content: str) -> str:
    """The patch in a call: the content itself, or the one text in its JSON that is a patch."""
    if len(content) > MAX_PATCH:
        raise ToolError(f"the patch has {len(content):,} characters: send it in several parts")
    bare = re.sub(r"\A\s*```\w*\n|\n```\s*\Z", "", content).lstrip()
    patch = _patch_in_json(bare) if bare.startswith(("{", '"', "[")) else content
    try:
        patch.encode()
    except UnicodeEncodeError:
        raise ToolError("the patch has characters that are no text") from None
    return patch


def _patch_in_json(content: str) -> str:
    try:
        value: object = json.loads(content, strict=False)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the call is not JSON ({error}): send the bare patch") from None
    patches = [text for text in _strings(value) if _BEGIN in text]
    if len(patches) != 1:
        raise ToolError(f"there must be one text with {_BEGIN!r} in the call: send the bare patch")
    return patches[0]


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        items = cast("dict[str, object] | list[object]", value)
        for item in items.values() if isinstance(items, dict) else items:
            yield from _strings(item)
