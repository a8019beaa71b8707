"""Asking the user before a tool's call runs. It does not know what the call does."""

from __future__ import annotations

from collections.abc import Callable

from gptoss_mlx.harmony import Message
from gptoss_mlx.terminal.view import View
from gptoss_mlx.tools import Preview

__all__ = ["Approval"]

_QUESTION = "Run it? [y]es, [n]o, [a]lways, or say what to do instead: "
_REFUSED = "the user does not want this call to run"
_UNASKED = "the user cannot be asked here, and has not allowed tools to run: answer without them"


class Approval:
    """Shows each call, and asks whether it may run; a `gptoss_mlx.chat.Approve`.

    Args:
        view: shows the call.
        ask: puts a question and returns what is typed; None: there is nobody to ask.
        allows_all: every call may run.
    """

    def __init__(
        self, view: View, ask: Callable[[str], str] | None, *, allows_all: bool = False
    ) -> None:
        self._view, self._ask, self._allows_all = view, ask, allows_all
        self._allowed: set[str] = set()  # for the rest of the session
        self.refused = 0  # calls that nobody could be asked about

    def __call__(self, call: Message, preview: Preview) -> str | None:
        """Why the call may not run, or None."""
        self._view.note(f"-> {preview.title}", "cyan")
        if preview.body:
            self._view.show_code(preview.body, preview.language)
        refusal = self._refusal(_kind(call), preview)
        if refusal is None:
            self._view.show_running(_kind(call))
        return refusal

    def _refusal(self, kind: str, preview: Preview) -> str | None:
        if self._allows_all or preview.is_harmless or kind in self._allowed:
            return None
        if self._ask is None:
            self.refused += 1
            return _UNASKED
        try:
            return self._decision(kind, self._ask(_QUESTION).strip())
        except EOFError:  # Ctrl-D
            return _REFUSED

    def _decision(self, kind: str, reply: str) -> str | None:
        match reply.lower():
            case "y" | "yes":
                return None
            case "a" | "always":
                self._allowed.add(kind)
                return None
            case "" | "n" | "no":
                return _REFUSED
            case _:
                return f"{_REFUSED}, and says: {reply}"


def _kind(call: Message) -> str:
    """What `always` is meant for: one function, or all of a builtin tool."""
    name = call.recipient or ""
    return name if name.startswith("functions.") else name.split(".", maxsplit=1)[0]
