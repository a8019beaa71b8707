"""What a tool is to those who run it: names to be called by, a preview to be approved, an output.

A tool gets the content of a call as the model wrote it and gives the text that the model reads
next. It does not know the conversation, the terminal, or harmony's channels.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from gptoss_mlx.errors import ToolError
from gptoss_mlx.harmony import Builtin, FunctionTool

__all__ = ["Preview", "Tool", "json_arguments"]


@dataclass(frozen=True)
class Preview:
    """What a person is shown of a call before it runs.

    `title` is one line (`search "rain in Oslo"`); `body` what deserves reading (code, a diff), in
    `language`, a name that Pygments knows. `is_harmless` calls need no approval: they change
    nothing and reach nothing beyond this machine.
    """

    title: str
    body: str = ""
    language: str = "text"
    is_harmless: bool = False


class Tool(ABC):
    """One thing that a model may be given: a builtin namespace, or functions.

    `name` is what `--tools` calls it, or whom it stands for (`weather.py`, `mcp:SERVER`). A builtin
    is described to the model by harmony itself, in the system message; functions and instructions
    go into the developer message. `recipients` are the exact names of its calls, as `python`,
    `browser.search` or `functions.apply_patch`.
    `client_functions` are described to the model as well, but are not run here: who holds the
    conversation answers their calls.
    """

    name: str
    builtin: Builtin | None = None
    functions: Sequence[FunctionTool] = ()
    client_functions: Sequence[FunctionTool] = ()
    instructions: str = ""

    @property
    @abstractmethod
    def recipients(self) -> Sequence[str]:
        """What its calls are addressed to."""

    @abstractmethod
    def preview(self, recipient: str, content: str) -> Preview:
        """What a call would do; nothing is done yet.

        Raises:
            ToolError: the call cannot be run as it is; its text is for the model.
        """

    @abstractmethod
    def run(self, recipient: str, content: str) -> str:
        """Do it, and return what the model is to read. Bounded in time by the tool itself.

        On KeyboardInterrupt what was begun is stopped, and the exception goes on.

        Raises:
            ToolError: it failed; its text is for the model, and says what to do otherwise.
        """

    def reset(self) -> None:  # noqa: B027
        """Another conversation begins: forget what belonged to the last one."""

    def close(self) -> None:  # noqa: B027  (most tools hold nothing)
        """Free what the tool holds. From any thread: a call that runs ends soon, in a ToolError."""


def json_arguments(content: str) -> dict[str, Any]:
    """The arguments of a call, which must be a JSON object; nothing at all is an empty one.

    Raises:
        ToolError: they are not.
    """
    try:
        arguments: object = json.loads(content or "{}", strict=False)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the arguments are not JSON ({error}): send one JSON object") from None
    if not isinstance(arguments, dict):
        raise ToolError("the arguments are JSON, but no object: send {...}")
    return cast("dict[str, Any]", arguments)
