"""Tools by the names that a user knows: `python`, `browser:exa`, `apply_patch`, `weather.py`.

It knows which tools there are, and nothing of what they do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gptoss_mlx.errors import UsageError
from gptoss_mlx.paths import expand
from gptoss_mlx.tools.base import Tool
from gptoss_mlx.tools.toolbox import MAX_OUTPUT, Toolbox

__all__ = ["TOOL_NAMES", "ToolOptions", "open_tools"]

TOOL_NAMES = ("python", "browser", "apply_patch")
_DEFAULT_BACKEND = "ddgs"  # needs no key


@dataclass(frozen=True)
class ToolOptions:
    """What holds for all tools.

    root: the folder whose files apply_patch may change. sandboxed: whether Python is shut in.
    max_output: characters of a result that the model is given. allow_private: whether the browser
    may open pages in the user's own network.
    """

    root: Path = field(default_factory=Path.cwd)
    sandboxed: bool = True
    max_output: int = MAX_OUTPUT
    allow_private: bool = False


def open_tools(names: Iterable[str], options: ToolOptions) -> Toolbox:
    """The tools of these names; several may stand in one, between commas.

    Raises:
        UsageError: a name stands for nothing, or what it stands for cannot be used here.
    """
    tools: list[Tool] = []
    try:
        for name in _split(names):
            taken = {r.removeprefix("functions.") for tool in tools for r in tool.recipients}
            tools += _open(name, options, taken)
        return Toolbox(tools, options.max_output)
    except BaseException:
        for tool in tools:
            tool.close()
        raise


def _split(names: Iterable[str]) -> list[str]:
    """The names one by one; a file's name may hold a comma."""
    split: list[str] = []
    for name in names:
        split += [name] if Path(name).is_file() else [part.strip() for part in name.split(",")]
    return list(dict.fromkeys(name for name in split if name))


def _open(name: str, options: ToolOptions, taken: Collection[str]) -> Sequence[Tool]:
    kind, _, detail = name.partition(":")
    if kind == "python" and not detail:
        from gptoss_mlx.tools.python import PythonTool

        return [PythonTool(sandboxed=options.sandboxed)]
    if kind == "browser":
        from gptoss_mlx.tools.browser import BrowserTool, make_backend

        return [
            BrowserTool(
                make_backend(detail or _DEFAULT_BACKEND, allow_private=options.allow_private)
            )
        ]
    if name == "apply_patch":
        from gptoss_mlx.tools.apply_patch import ApplyPatchTool

        return [ApplyPatchTool(options.root)]
    return _from_file(expand(name), taken)


def _from_file(path: Path, taken: Collection[str]) -> Sequence[Tool]:
    if path.suffix not in (".py", ".json"):
        known = ", ".join(TOOL_NAMES)
        raise UsageError(
            f"there is no tool {str(path)!r}: there are {known}, FILE.py and FILE.json"
        )
    if path.suffix == ".json" and _is_mcp(path):
        from gptoss_mlx.tools.mcp import load_mcp

        return load_mcp(path, taken=taken)
    from gptoss_mlx.tools.functions import load_functions

    return [load_functions(path)]


def _is_mcp(path: Path) -> bool:
    """Whether a file is a configuration of MCP servers; what it cannot be is said elsewhere."""
    try:
        return "mcpServers" in json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
