"""What a user who waits sees: on a terminal, and nowhere else."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from pseudo_terminal import Terminal

from gptoss_mlx.cli.common import CLEAR_LINE, prefill_line

LONG = "word " * 300


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a terminal that can redraw."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


class Screen(io.StringIO):
    """Stands for the terminal that is standard error."""

    def isatty(self) -> bool:
        """Whether it is one."""
        return True

    def lines(self) -> list[str]:
        """What stood in the line, one after the other, without styles."""
        text = self.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "")
        first, *rest = text.split(CLEAR_LINE)
        assert first == ""
        return rest


def prefill(
    stream: io.StringIO, *done: int, total: int = 3000, after: Callable[[], object] | None = None
) -> None:
    """Show a prefill that comes so far, in these steps."""
    with redirect_stderr(stream), prefill_line(after) as on_prefill:
        for count in done:
            on_prefill(count, total)


def test_the_line_counts_and_vanishes() -> None:
    """Each step replaces the one before, and nothing is left once the prompt is read."""
    screen = Screen()
    prefill(screen, 0, 2048, 3000)
    assert screen.lines() == [
        "Reading the prompt: 0 of 3,000 tokens",
        "Reading the prompt: 2,048 of 3,000 tokens",
        "",
    ]


def test_the_line_vanishes_when_a_prefill_is_cut_off() -> None:
    """Ctrl-C in the middle leaves no line for the next text to run into."""
    screen = Screen()

    def interrupted() -> None:
        with prefill_line() as on_prefill:
            on_prefill(0, 3000)
            raise KeyboardInterrupt

    with redirect_stderr(screen), pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.lines() == ["Reading the prompt: 0 of 3,000 tokens", ""]


def test_what_stood_in_the_line_comes_back() -> None:
    """Once the prompt is read, and not before, the caller may put its own mark there again."""
    screen = Screen()
    prefill(screen, 0, 2048, after=lambda: screen.write("thinking"))
    assert "thinking" not in screen.getvalue()
    prefill(screen, 0, 2048, 3000, after=lambda: screen.write("thinking"))
    assert screen.lines()[-1] == "thinking"


def test_short_prompts_have_no_line() -> None:
    """What is read in an instant does not flicker."""
    screen = Screen()
    prefill(screen, 0, 100, total=100, after=lambda: screen.write("thinking"))
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_a_terminal_that_cannot_redraw_has_no_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Nor one whose user wants plain text."""
    monkeypatch.setenv(variable, value)
    screen = Screen()
    prefill(screen, 0, 3000)
    assert screen.getvalue() == ""


def test_a_file_has_no_line() -> None:
    """Standard error in a file or a pipe stays empty."""
    file = io.StringIO()
    prefill(file, 0, 2048, 3000)
    assert file.getvalue() == ""


def test_generate_shows_its_prefill() -> None:
    """On a terminal, `generate` counts a long prompt's tokens before it answers."""
    terminal = Terminal("generate", "-m", "demo", "--max-tokens", "3", LONG)
    terminal.wait_for("Reading the prompt: 0 of ")
    terminal.wait_for(" tokens")
    terminal.wait_for(CLEAR_LINE)
    terminal.wait_for("Cut off")
    assert terminal.exit_code() == 0


def test_chat_shows_its_prefill() -> None:
    """In `chat` the mark for reasoning gives way to the count, and comes back after it."""
    terminal = Terminal("chat", "-m", "demo", "--max-tokens", "3")
    terminal.wait_for(">>> ")
    terminal.type(f"{LONG}\r")
    terminal.wait_for("thinking ...")
    terminal.wait_for("Reading the prompt: 0 of ")
    terminal.wait_for("thinking ...")
    terminal.wait_for(">>> ")
    terminal.type("/bye\r")
    assert terminal.exit_code() == 0


def test_convert_names_what_follows_the_tensors(source: Path, tmp_path: Path) -> None:
    """While the full bar stands still it says why: the tokenizer takes seconds."""
    terminal = Terminal("convert", str(source), str(tmp_path / "out"))
    terminal.wait_for("Converting")
    terminal.wait_for("Writing tokenizer, flushing")
    terminal.wait_for("Next: gptoss-mlx chat")
    assert terminal.exit_code() == 0
