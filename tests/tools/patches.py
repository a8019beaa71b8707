"""What the tests of patches share: how one is written, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

from gptoss_mlx.errors import ToolError
from gptoss_mlx.tools.apply_patch.tool import ApplyPatchTool

__all__ = ["CALL", "Tree", "outcome", "tree", "wrap"]

CALL = "functions.apply_patch"
Tree = dict[str, tuple[bytes, int] | None]


def wrap(*lines: str) -> str:
    """A patch of these lines."""
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


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
