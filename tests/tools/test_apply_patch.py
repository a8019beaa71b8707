"""Patches on real files: what is changed, what is refused, and that it is all or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.apply_patch.files import MAX_FILE_BYTES
from gptoss_mlx.tools.apply_patch.tool import ApplyPatchTool
from tools.patches import CALL, EVERYTHING, make_project, outcome, tree, wrap


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project, in a folder with something outside of it."""
    return make_project(tmp_path)


@pytest.fixture
def tool(root: Path) -> ApplyPatchTool:
    """The tool, in the project."""
    return ApplyPatchTool(root)


def test_all_kinds_at_once(tool: ApplyPatchTool, root: Path) -> None:
    """Files are added, deleted, changed and moved, and the result says so."""
    (root / "src" / "a.py").chmod(0o755)
    assert tool.run(CALL, EVERYTHING) == "Done!\nA new/deep/c.md\nD b.txt\nM src/a.py -> lib/a.py"
    assert (root / "new/deep/c.md").read_text() == "# C\n"
    assert not (root / "b.txt").exists()
    assert not (root / "src/a.py").exists()
    assert (root / "lib/a.py").read_text() == "def f():\n    return 2\n"
    assert (root / "lib/a.py").stat().st_mode & 0o777 == 0o755
    assert not [path for path in root.rglob("*") if path.suffix == ".patch"]


@pytest.mark.parametrize(
    "content",
    [
        EVERYTHING,
        json.dumps(EVERYTHING),
        json.dumps({"patch": EVERYTHING}),
        json.dumps({"command": ["apply_patch", EVERYTHING]}),
        json.dumps({"input": EVERYTHING}).replace("\\n", "\n"),
        f"```\n{EVERYTHING}\n```",
        f"```json\n{json.dumps({'patch': EVERYTHING})}\n```",
        f"apply_patch <<'EOF'\n{EVERYTHING}\nEOF",
    ],
)
def test_forms_of_a_call(tool: ApplyPatchTool, content: str) -> None:
    """The patch may be bare, in JSON, in a code fence or a heredoc."""
    assert tool.run(CALL, content).startswith("Done!")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no patch"),
        ("{", "not JSON"),
        ("{}", "one text with"),
        (json.dumps([EVERYTHING, EVERYTHING]), "one text with"),
        ('"*** Begin Patch\\n*** Add File: x\\n+\\ud800\\n*** End Patch"', "no text"),
        ("x" * 1_000_001, "1,000,001 characters"),
    ],
)
def test_calls_without_a_patch(tool: ApplyPatchTool, content: str, message: str) -> None:
    """What holds no patch is refused with what to send instead."""
    with pytest.raises(ToolError, match=message):
        tool.run(CALL, content)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "src/../../outside.txt",
        "src/../b.txt",
        "/etc/passwd",
        ".git/config",
        ".GIT/config",
        "src/.git/hooks/x",
        "link.txt",
        "folder/outside.txt",
        "git/config",
        "a\0b",
        "a\x1bb",
        ".",
        "src",
        "src/",
        "ring/x",
        "b.txt/x",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("action", ["Add", "Delete", "Update", "Move"])
def test_names_that_lead_astray(tool: ApplyPatchTool, root: Path, name: str, action: str) -> None:
    """Nothing outside the root, nothing of git's and nothing odd can be named in any way."""
    (root / "link.txt").symlink_to(root.parent / "outside.txt")
    (root / "folder").symlink_to(root.parent)
    (root / "git").symlink_to(".git")
    (root / "ring").symlink_to("ring")
    before = tree(root.parent)
    sections = {
        "Add": [f"*** Add File: {name}", "+outside"],
        "Delete": [f"*** Delete File: {name}"],
        "Update": [f"*** Update File: {name}", "-outside", "+inside"],
        "Move": ["*** Update File: b.txt", f"*** Move to: {name}", "-one", "+1"],
    }
    for method in (tool.preview, tool.run):
        with pytest.raises(ToolError):
            method(CALL, wrap(*sections[action]))
    assert tree(root.parent) == before


def test_names_that_are_inside(tool: ApplyPatchTool, root: Path) -> None:
    """Absolute names below the root, ./ and links that stay inside are fine; links are kept."""
    (root / "link").symlink_to("src")
    (root / "a.link").symlink_to("src/a.py")
    tool.run(CALL, wrap(f"*** Update File: {root}/b.txt", "-one", "+1"))
    tool.run(CALL, wrap("*** Update File: ./link/a.py", "-    return 1", "+    return 2"))
    tool.run(CALL, wrap("*** Update File: a.link", "-    return 2", "+    return 3"))
    assert (root / "src/a.py").read_text() == "def f():\n    return 3\n"
    assert (root / "a.link").is_symlink()
    with pytest.raises(ToolError, match="symbolic link"):
        tool.run(CALL, wrap("*** Delete File: a.link"))


def test_root_behind_a_link(root: Path, tmp_path: Path) -> None:
    """The root may be given by a link, and names may use it."""
    (tmp_path / "alias").symlink_to(root)
    tool = ApplyPatchTool(tmp_path / "alias")
    tool.run(CALL, wrap(f"*** Update File: {tmp_path}/alias/b.txt", "-one", "+1"))
    assert (root / "b.txt").read_text() == "1\ntwo\n"
    with pytest.raises(UsageError, match="is no folder"):
        ApplyPatchTool(root / "b.txt")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["*** Update File: none", "-a"], "none: there is no such file"),
        (["*** Delete File: none"], "none: there is no such file"),
        (["*** Add File: b.txt", "+a"], "b.txt: this is there already"),
        (["*** Update File: b.txt", "*** Move to: src/a.py", "-one"], "src/a.py: this is there"),
        (["*** Add File: x", "+a", "*** Add File: x", "+b"], "x is changed twice"),
        (["*** Update File: b.txt", "-one", "*** Update File: b.txt", "-two"], "changed twice"),
        (["*** Update File: b.txt", "-one", "*** Delete File: twin"], "twin is changed twice"),
        (["*** Add File: d/x", "+a", "*** Add File: d", "+b"], "d/x: d is a file in the same"),
        (["*** Add File: d", "+a", "*** Add File: d/e/x", "+b"], "d/e/x: d is a file in the same"),
        (["*** Update File: pipe", "-one"], "pipe: this is not a regular file"),
        (["*** Update File: locked", "-one"], "locked: the file is read-only"),
        (["*** Update File: huge", "-one"], "too much"),
        (["*** Update File: b.txt", " one"], "changes nothing"),
        (["*** Update File: b.txt", "-three"], "b.txt: the hunk at line 5"),
    ],
)
def test_files_that_cannot_be_changed(
    tool: ApplyPatchTool, root: Path, lines: list[str], message: str
) -> None:
    """The error names the file and why; the rest of the patch is not applied either."""
    os.mkfifo(root / "pipe")
    (root / "twin").hardlink_to(root / "b.txt")
    (root / "locked").write_text("one\n")
    (root / "locked").chmod(0o444)
    (root / "huge").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    before = tree(root)
    for method in (tool.preview, tool.run):
        with pytest.raises(ToolError, match=message):
            method(CALL, wrap("*** Add File: first", "+a", *lines))
    assert tree(root) == before


def test_bytes_are_kept(tool: ApplyPatchTool, root: Path) -> None:
    """CRLF, a missing newline at the end, and bytes that are not UTF-8 stay."""
    (root / "old.txt").write_bytes(b"caf\xe9\r\none\r\ntwo")
    tool.run(CALL, wrap("*** Update File: old.txt", "-one", "+1", "+2"))
    assert (root / "old.txt").read_bytes() == b"caf\xe9\r\n1\r\n2\r\ntwo"


def test_move_without_changes(tool: ApplyPatchTool, root: Path) -> None:
    """A file may just be renamed."""
    patch_ = wrap("*** Update File: b.txt", "*** Move to: c.txt")
    assert tool.preview(CALL, patch_).body == "--- a/b.txt\n+++ b/c.txt\n"
    tool.run(CALL, patch_)
    assert (root / "c.txt").read_text() == "one\ntwo\n"
    assert not (root / "b.txt").exists()


def failing(function: Callable[..., object], nth: int) -> Callable[..., object]:
    """The function, but its n-th call says that the disk is full."""
    calls = iter(range(1, 1000))

    def wrapped(*args: object, **keywords: object) -> object:
        if next(calls) == nth:
            raise OSError(errno.ENOSPC, "No space left on device", "file")
        return function(*args, **keywords)

    return wrapped


@pytest.mark.parametrize(
    ("name", "nth"),
    [
        *(("os.replace", nth) for nth in (1, 2, 3)),
        *(("os.unlink", nth) for nth in (1, 2)),
        *(("os.link", nth) for nth in (1, 2, 3)),
        *(("os.mkdir", nth) for nth in (1, 2, 3)),
        *(("os.fchmod", nth) for nth in (1, 2)),
    ],
)
def test_a_write_that_fails_changes_nothing(
    tool: ApplyPatchTool, root: Path, name: str, nth: int
) -> None:
    """Wherever the disk fails, the tree is as before or as after, and the result says which."""
    (root / "d.txt").write_text("d\n")
    whole = EVERYTHING.replace("*** End", "*** Update File: d.txt\n-d\n+D\n*** End")
    before = tree(root)
    with patch(name, failing(getattr(os, name.removeprefix("os.")), nth)):
        result = outcome(tool, whole)
    assert (result is None) == (name == "os.link")  # which a copy replaces
    if result is not None:
        assert "nothing was changed" in result
        assert "No space left" in result
        assert tree(root) == before
        tool.run(CALL, whole)
    assert (root / "d.txt").read_text() == "D\n"
    assert set(tree(root)) == {"src", "lib", "lib/a.py", "d.txt", "new", "new/deep"} | {
        "new/deep/c.md",
        ".git",
        ".git/config",
    }


def test_full_disk_while_writing(tool: ApplyPatchTool, root: Path) -> None:
    """A disk that is full is met before any file is replaced."""
    real = Path.open
    before = tree(root)
    write = failing(Path.open, 2)

    def opened(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return (write if mode == "xb" else real)(path, mode, *rest, **options)

    with (
        patch.object(Path, "open", opened),
        pytest.raises(ToolError, match="nothing was changed"),
    ):
        tool.run(CALL, EVERYTHING)
    assert tree(root) == before


def test_interrupt_while_writing(tool: ApplyPatchTool, root: Path) -> None:
    """Ctrl-C leaves the tree as it was."""
    before = tree(root)
    real = os.unlink
    calls = iter([KeyboardInterrupt])

    def unlink(path: Path) -> None:
        if error := next(calls, None):
            raise error
        real(path)

    with patch("os.unlink", unlink), pytest.raises(KeyboardInterrupt):
        tool.run(CALL, EVERYTHING)
    assert tree(root) == before


def test_undo(tool: ApplyPatchTool, root: Path) -> None:
    """Patches are taken back one after another, with modes and folders."""
    (root / "src/a.py").chmod(0o755)
    trees = [tree(root)]
    for text in (EVERYTHING, wrap("*** Update File: lib/a.py", "-    return 2", "+    return 3")):
        tool.run(CALL, text)
        trees.append(tree(root))
    assert tool.undo() == "Taken back:\nM lib/a.py"
    assert tree(root) == trees[1]
    assert tool.undo() == "Taken back:\nA new/deep/c.md\nD b.txt\nM src/a.py -> lib/a.py"
    assert tree(root) == trees[0]
    with pytest.raises(ToolError, match="no patch to take back"):
        tool.undo()


def test_undo_of_changed_files(tool: ApplyPatchTool, root: Path) -> None:
    """What was changed since is not overwritten; once it is as it was, it can be taken back."""
    tool.run(CALL, wrap("*** Update File: b.txt", "-one", "+1", "*** Delete File: src/a.py"))
    (root / "src/a.py").write_text("mine\n")
    with pytest.raises(ToolError, match=r"src/a.py was changed since"):
        tool.undo()
    assert (root / "b.txt").read_text() == "1\ntwo\n"
    (root / "src/a.py").unlink()
    tool.undo()
    assert (root / "b.txt").read_text() == "one\ntwo\n"


def test_description(tool: ApplyPatchTool) -> None:
    """The function is the trained one; the example in the instructions is a patch that works."""
    (function,) = tool.functions
    assert (function.name, function.description) == ("apply_patch", "Patch a file")
    assert function.parameters
    assert function.parameters["type"] == "string"
    assert tool.recipients == (CALL,)


def test_example_in_the_instructions(tool: ApplyPatchTool, root: Path) -> None:
    """The example that the model is given can be applied."""
    (root / "old.txt").touch()
    (root / "src/greeting.py").write_text(
        "class Greeter:\n    def greet(self, name):\n"
        '        name = name.strip()\n        return "Hello " + name\n'
    )
    tool.run(CALL, tool.instructions)
    assert 'return f"Welcome, {name}!"' in (root / "src/welcome.py").read_text()
    assert (root / "docs/notes.md").read_text().count("\n") == 2


def test_trees_are_compared_whole(root: Path) -> None:
    """The comparison that these tests rest on sees a file, a mode and a folder."""
    before = tree(root)
    (root / "b.txt").chmod(0o600)
    assert tree(root) != before
    shutil.rmtree(root / "src")
    assert "src" not in tree(root)
