"""The line: what is typed, completed, remembered and shown below it. The screen is in test_pty."""

from __future__ import annotations

import os
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from gptoss_mlx.terminal.prompt import CommandCompleter, Prompt, ask, fitting, unechoed, unquoted

COMMANDS = {"/effort": ("low", "high"), "/export": ("path",), "/help": ()}
ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    """Where keys are pressed; there is no screen."""
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


def prompt(history: Path | None = None) -> Prompt:
    """A line with a few commands."""
    return Prompt(COMMANDS, history, lambda: "status")


def typed(keyboard: PipeInput, keys: str) -> str:
    """What a line makes of these keys."""
    keyboard.send_text(keys)
    return prompt().read()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (f"one{ENTER}", "one"),
        (f"one{ALT_ENTER}two{ENTER}", "one\ntwo"),
        (f'"""one{ENTER}two"""{ENTER}', "one\ntwo"),
        (f'"""{ENTER}one{ENTER}{ENTER}two{ENTER}"""{ENTER}', "one\n\ntwo"),
        (f'say """ to me{ENTER}', 'say """ to me'),
        (f'""{ENTER}', '""'),
        (f"\x1b[200~one\rtwo\r\x1b[201~{ENTER}", "one\ntwo\n"),
        (f"  code{ALT_ENTER}    more{ENTER}", "  code\n    more"),
        (ENTER, ""),
    ],
)
def test_what_is_typed(keyboard: PipeInput, keys: str, text: str) -> None:
    """Enter sends, but not between three quotes nor in what is pasted."""
    assert typed(keyboard, keys) == text


@pytest.mark.parametrize(("key", "error"), [(CTRL_D, EOFError), (CTRL_C, KeyboardInterrupt)])
def test_leaving_the_line(keyboard: PipeInput, key: str, error: type[BaseException]) -> None:
    """Ctrl-D in an empty line, and Ctrl-C in any."""
    with pytest.raises(error):
        typed(keyboard, key)


def test_a_text_to_be_changed(keyboard: PipeInput) -> None:
    """It stands there, the cursor at its end."""
    keyboard.send_text(f"!{ENTER}")
    assert prompt().read("one\ntwo") == "one\ntwo!"


@pytest.mark.parametrize(
    ("text", "inner"),
    [('"""x"""', "x"), (' """\nx\ny\n""" ', "x\ny"), ('"""', '"""'), ('"""x', '"""x'), ("x", "x")],
)
def test_unquoted(text: str, inner: str) -> None:
    """Only a pair of quotes is taken away."""
    assert unquoted(text) == inner


@pytest.mark.parametrize(
    ("text", "completions"),
    [
        ("/e", ["/effort", "/export"]),
        ("/help", ["/help"]),
        ("/effort ", ["low", "high"]),
        ("/effort h", ["high"]),
        ("/help x", []),
        ("/nonsense x", []),
        ("e", []),
        ("/export conv", ["ersation.md"]),
    ],
)
def test_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, completions: list[str]
) -> None:
    """Commands and their values, paths after those that take one, and nothing elsewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conversation.md").touch()
    found = CommandCompleter(COMMANDS).get_completions(Document(text), CompleteEvent())
    assert [completion.text for completion in found] == completions


def test_history(keyboard: PipeInput, tmp_path: Path) -> None:
    """What was typed is kept, of several lines, too, in a file for its owner only."""
    file = tmp_path / "new" / "history"
    keyboard.send_text(f"one{ALT_ENTER}two{ENTER}")
    assert prompt(file).read() == "one\ntwo"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(FileHistory(file).load_history_strings()) == ["one\ntwo"]


def test_a_history_of_others_becomes_private(keyboard: PipeInput, tmp_path: Path) -> None:
    """Whatever its rights were."""
    file = tmp_path / "history"
    file.touch(0o644)
    keyboard.send_text(f"one{ENTER}")
    prompt(file).read()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_history(keyboard: PipeInput, tmp_path: Path) -> None:
    """One that cannot be written is no reason not to talk."""
    (tmp_path / "file").touch()
    keyboard.send_text(f"one{ENTER}two{ENTER}")
    assert prompt(tmp_path / "file" / "history").read() == "one"
    assert prompt(None).read() == "two"


def test_a_disk_that_fills_up(keyboard: PipeInput, tmp_path: Path) -> None:
    """What is typed is sent, if not remembered."""
    line = prompt(tmp_path / "history")
    (tmp_path / "history").unlink()
    (tmp_path / "history").mkdir()
    keyboard.send_text(f"one{ENTER}")
    assert line.read() == "one"


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(30, "model, low | 5 tokens | tools"), (28, "model, low | 5 tokens"), (5, "model, low")],
)
def test_as_much_status_as_fits(columns: int, shown: str) -> None:
    """Whole parts of it, the first in any case."""
    assert fitting("model, low | 5 tokens | tools", columns) == shown


def test_a_question(keyboard: PipeInput) -> None:
    """What is typed is the reply, as it is."""
    keyboard.send_text(f' "y" {ENTER}')
    assert ask("Run it? ") == ' "y" '


def test_no_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody reads, a terminal does not show keys; afterwards it is as it was."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "r") as terminal, os.fdopen(ours, "rb", 0):
        monkeypatch.setattr("sys.stdin", terminal)
        before = termios.tcgetattr(terminal)
        with unechoed():
            assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        assert termios.tcgetattr(terminal) == before


def test_no_echo_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has none."""
    with (tmp_path / "file").open("w+") as file:
        monkeypatch.setattr("sys.stdin", file)
        with unechoed():
            assert file.writable()
