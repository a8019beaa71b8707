"""Who may run a tool: what is asked, what is remembered, what is told to the model."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gptoss_mlx.harmony import Message
from gptoss_mlx.terminal.approval import Approval
from gptoss_mlx.terminal.view import View
from gptoss_mlx.tools import Preview

CODE = Preview("run Python", "print(1)", "python")


class Asked:
    """Somebody who answers what is asked, and the screen they see."""

    def __init__(
        self, *replies: str | type[BaseException], allows_all: bool = False, is_there: bool = True
    ) -> None:
        self.questions = 0
        self._replies = list(replies)
        self.screen = io.StringIO()
        view = View(Console(file=io.StringIO()), Console(file=self.screen))
        self.approval = Approval(view, self._answer if is_there else None, allows_all=allows_all)

    def _answer(self, question: str) -> str:
        assert question.startswith("Run it?")
        self.questions += 1
        reply = self._replies.pop(0)
        if isinstance(reply, str):
            return reply
        raise reply

    def about(self, recipient: str, preview: Preview = CODE) -> str | None:
        """Why a call may not run."""
        return self.approval(Message("assistant", "", recipient=recipient), preview)


@pytest.mark.parametrize("reply", ["y", "yes", " Y ", "YES"])
def test_yes(reply: str) -> None:
    """The call is shown, code and all, and may run; the next one is asked about again."""
    user = Asked(reply, reply)
    assert user.about("python") is None
    assert user.about("python") is None
    assert user.questions == 2
    assert user.screen.getvalue().startswith("-> run Python\n  print(1)")


@pytest.mark.parametrize("reply", ["", "n", "No"])
def test_no(reply: str) -> None:
    """The model is told."""
    assert Asked(reply).about("python") == "the user does not want this call to run"


def test_no_and_what_instead() -> None:
    """Any other reply is a refusal with a reason for the model."""
    said = Asked("use numpy").about("python")
    assert said == "the user does not want this call to run, and says: use numpy"


def test_nobody_replies() -> None:
    """Ctrl-D instead of a reply is a no; Ctrl-C stops more than this call."""
    user = Asked(EOFError, KeyboardInterrupt)
    assert user.about("python") == "the user does not want this call to run"
    with pytest.raises(KeyboardInterrupt):
        user.about("python")


def test_always_is_for_one_tool() -> None:
    """All of a builtin, or one function, and nothing else."""
    user = Asked("a", "always", "n", "n", "n")
    assert [user.about(name) for name in ("browser.open", "browser.search")] == [None, None]
    assert [user.about(name) for name in ("functions.f", "functions.f")] == [None, None]
    assert user.about("functions.g") is not None
    assert user.about("functions.browser") is not None
    assert user.about("python") is not None
    assert user.questions == 5


def test_harmless_calls_are_not_asked_about() -> None:
    """They are shown, and run."""
    user = Asked()
    assert user.about("browser.find", Preview("find x", is_harmless=True)) is None
    assert user.screen.getvalue() == "-> find x\n"


def test_all_may_be_allowed() -> None:
    """As in scripts, with --yes."""
    assert Asked(allows_all=True, is_there=False).about("python") is None


def test_nobody_to_ask() -> None:
    """Nothing runs unasked; who started the program can be told."""
    user = Asked(is_there=False)
    assert "cannot be asked" in (user.about("python") or "")
    assert user.approval.refused == 1
