"""What a user who waits sees: on a terminal, and nowhere else."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pyte
import pytest
from pseudo_terminal import Terminal
from rich.console import Console
from terminal.screen import Screen

from gptoss_mlx.terminal.line import PassingLine

LONG = "word " * 1500  # is read in a second or more


def console(file: io.StringIO, term: str = "xterm", width: int = 60) -> Console:
    """A console on a terminal of this kind."""
    return Console(file=file, force_terminal=True, width=width, _environ={"TERM": term})


def screen_of(file: io.StringIO) -> pyte.Screen:
    """What a terminal shows."""
    screen = pyte.Screen(60, 5)
    pyte.Stream(screen).feed(file.getvalue().replace("\n", "\r\n"))
    return screen


def test_the_line_stands_and_vanishes() -> None:
    """It says what is under way and for how long; nothing is left of it, and the cursor is back."""
    file = io.StringIO()
    line = PassingLine(console(file))
    line.show("reading", "5 of 10 tokens,")
    assert screen_of(file).display[0].rstrip() == "reading ... 5 of 10 tokens, 0 s"
    line.clear()
    screen = screen_of(file)
    assert "".join(screen.display).strip() == ""
    assert (screen.cursor.y, screen.cursor.hidden) == (0, False)


def test_the_line_changes_by_itself() -> None:
    """Details and seconds go on, without another line; another thing counts from 0 again."""
    file = io.StringIO()
    line = PassingLine(console(file))
    line.show("reading", "5 of 10 tokens,")
    line.show("reading", "9 of 10 tokens,")
    time.sleep(1.3)
    assert screen_of(file).display[0].rstrip() == "reading ... 9 of 10 tokens, 1 s"
    line.show("thinking")
    time.sleep(0.4)
    screen = screen_of(file)
    line.clear()
    assert [row.rstrip() for row in screen.display] == ["thinking ... 0 s", "", "", "", ""]


def test_the_line_is_one_line() -> None:
    """In a narrow terminal it is cut."""
    file = io.StringIO()
    line = PassingLine(console(file, width=12))
    line.show("a long thing that is under way")
    line.clear()
    assert "a long thin…" in file.getvalue()


@pytest.mark.parametrize(
    "where", [Console(file=io.StringIO()), console(io.StringIO(), "dumb")], ids=["file", "dumb"]
)
def test_no_line_where_it_cannot_vanish(where: Console) -> None:
    """In a file, and on a terminal that cannot redraw."""
    line = PassingLine(where)
    line.show("reading", "5 of 10 tokens,")
    line.clear()
    assert isinstance(where.file, io.StringIO)
    assert where.file.getvalue() == ""


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_long_prompt_is_counted(command: str, tmp_path: Path) -> None:
    """On a terminal its tokens are counted before the answer, and nothing remains of that."""
    arguments = (command, "-m", "demo", "--max-tokens", "3", LONG)
    with Screen(*arguments, data=tmp_path, columns=100) as screen:
        screen.wait_for(r"^reading the prompt \.\.\. [0-9,]+ of 1,5[0-9]+ tokens, [0-9]+ s")
        screen.wait_for("Cut off")
        assert screen.exit_code() == 0
        assert "reading" not in screen.text


def test_convert_names_what_follows_the_tensors(source: Path, tmp_path: Path) -> None:
    """While the full bar stands still it says why: the tokenizer takes seconds."""
    terminal = Terminal("convert", str(source), str(tmp_path / "out"))
    terminal.wait_for("Converting")
    terminal.wait_for("Writing tokenizer, flushing")
    terminal.wait_for("Next: gptoss-mlx chat")
    assert terminal.exit_code() == 0
