"""The tools of one conversation: whose call it is, and an output whatever happens.

What goes wrong becomes a text for the model. It does not know who approves of calls, nor how
results become messages.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.harmony import FunctionTool, Setup
from gptoss_mlx.tools.base import Preview, Tool

__all__ = ["MAX_OUTPUT", "Toolbox"]

MAX_OUTPUT = 20_000  # characters of one result, some 5,000 tokens
_log = logging.getLogger(__name__)


class Toolbox:
    """Tools by the names they are called by. Close it, or use it in a `with`.

    Args:
        tools: what there is; the toolbox closes them.
        max_output: characters of an output that the model is given.

    Raises:
        UsageError: two tools want to be called by one name.
    """

    def __init__(self, tools: Sequence[Tool] = (), max_output: int = MAX_OUTPUT) -> None:
        self.tools = tuple(tools)
        self._max_output = max_output
        self._owners: dict[str, Tool] = {}
        for tool in self.tools:
            for recipient in tool.recipients:
                if recipient in self._owners:
                    raise UsageError(f"two tools are called {recipient}: leave one out")
                self._owners[recipient] = tool

    def __enter__(self) -> Toolbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every tool; one that cannot be closed does not keep the others open."""
        for tool in self.tools:
            try:
                tool.close()
            except Exception:
                _log.warning("the tool %s could not be closed", tool.name, exc_info=True)

    def reset(self) -> None:
        """Another conversation begins."""
        for tool in self.tools:
            tool.reset()

    def extend(self, setup: Setup) -> Setup:
        """The setup, with these tools described in it."""
        builtins = tuple(tool.builtin for tool in self.tools if tool.builtin)
        functions = [f for tool in self.tools for f in (*tool.functions, *tool.client_functions)]
        parts = (setup.instructions, *(tool.instructions for tool in self.tools))
        return replace(
            setup,
            builtins=(*setup.builtins, *builtins),
            functions=(*setup.functions, *functions),
            instructions="\n\n".join(part for part in parts if part) or None,
        )

    @property
    def client_functions(self) -> tuple[FunctionTool, ...]:
        """What is described to the model, and not run here."""
        return tuple(function for tool in self.tools for function in tool.client_functions)

    def resolve(self, recipient: str) -> str | None:
        """The name of the tool's that a call means, or None.

        Models put `functions.` before builtin tools, or leave it away before functions.
        """
        bare = recipient.strip().removeprefix("functions.")
        names = (recipient, bare, f"functions.{bare}")
        return next((name for name in names if name in self._owners), None)

    def preview(self, recipient: str, content: str) -> Preview:
        """What a call would do.

        Raises:
            ToolError: it cannot be run; the text is for the model.
        """
        name = self.resolve(recipient)
        if name is None:
            raise ToolError(f"there is no tool {recipient!r}. {self._names()}")
        try:
            return self._owners[name].preview(name, content)
        except ToolError:
            raise
        except Exception as error:
            _log.exception("the preview of a call of %s failed", name)
            raise ToolError(f"{name} failed: {type(error).__name__}: {error}") from error

    def run(self, recipient: str, content: str) -> str:
        """Run a call; whatever happens but Ctrl-C, returns a text for the model."""
        name = self.resolve(recipient)
        try:
            if name is None:
                raise ToolError(f"there is no tool {recipient!r}. {self._names()}")
            return shortened(self._owners[name].run(name, content), self._max_output)
        except ToolError as error:
            return shortened(f"[ERROR] {error}", self._max_output)
        except Exception as error:
            _log.exception("a call of %s failed", name)
            return shortened(f"[ERROR] {type(error).__name__}: {error}", self._max_output)

    def _names(self) -> str:
        names = ", ".join(self._owners)
        return f"There are: {names}" if names else "There are no tools: answer without."


def shortened(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    omitted = len(text) - 2 * half
    return f"{text[:half]}\n[... {omitted:,} characters left out ...]\n{text[-half:]}"
