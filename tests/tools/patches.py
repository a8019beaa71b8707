"""What the tests of patches share: how one is written, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.apply_patch.tool import ApplyPatchTool

__all__ = ["CALL", "EVERYTHING", "Tree", "make_project", "outcome", "tree", "wrap"]

CALL = "functions.apply_patch"
Tree = dict[str, tuple[bytes, int] | None]


def wrap(*lines: str) -> str:
    """A patch of these lines."""
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


# of the files of make_project
EVERYTHING = wrap(
    "*** Add File: new/deep/c.md",
    "+# C",
    "*** Delete File: b.txt",
    "*** Update File: src/a.py",
    "*** Move to: lib/a.py",
    " def f():",
    "-    return 1",
    "+    return 2",
)


def make_project(folder: Path) -> Path:
    """A small project below a folder, with something outside of it."""
    root = folder / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("def f():\n    return 1\n")
    (root / "b.txt").write_text("one\ntwo\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    (folder / "outside.txt").write_text("outside\n")
    return root


def tree(root: Path) -> Tree:
    """Everything below a folder: contents and modes, None for folders."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode)
        if path.is_file()
        else None
        for path in root.rglob("*")
    }


def outcome(tool: ApplyPatchTool, content: str) -> str | None:
    """The error, if there is one."""
    try:
        tool.run(CALL, content)
    except ToolError as error:
        return str(error)
    return None
