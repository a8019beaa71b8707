"""What is shown of a turn, on a terminal and elsewhere."""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence

import pyte
import pytest
from rich.console import Console

from gptoss_mlx.chat import Dropped, Event, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.sequence import GenerationStats
from gptoss_mlx.terminal.view import View

THOUGHT = [Delta("analysis", None, "Hmm"), Delta("analysis", None, ", yes.")]
THOUGHT_OVER = Message("assistant", "Hmm, yes.", "analysis", ids=tuple(range(9)))
ANSWER = [Delta("final", None, "It is "), Delta("final", None, "**42**.")]
ANSWER_OVER = Message("assistant", "It is **42**.", "final")
TURN = Turn((THOUGHT_OVER, ANSWER_OVER), "stop", GenerationStats(9))
CALL = [
    Delta("commentary", "functions.f", "{}"),
    Message("assistant", "{}", recipient="functions.f"),
]


def result(text: str) -> Message:
    """What a tool said."""
    return Message("tool", text, recipient="assistant", name="functions.f")


def stream(*events: Event | Sequence[Event]) -> Generator[Event]:
    """Events, one after the other."""
    for event in events:
        if isinstance(event, Sequence):
            yield from event
        else:
            yield event


class Terminal:
    """A view on a terminal, and its screen."""

    def __init__(self, width: int = 60, height: int = 20, **options: bool) -> None:
        self.file = io.StringIO()
        self._size = (width, height)
        self.view = View(self.console(), self.console(), **options)  # pyright: ignore[reportArgumentType]

    def console(self) -> Console:
        """A console on this terminal."""
        width, height = self._size
        return Console(
            file=self.file,
            force_terminal=True,
            width=width,
            height=height,
            color_system="standard",
            highlight=False,
            markup=False,
            emoji=False,
            _environ={"TERM": "xterm"},
        )

    def lines(self) -> list[str]:
        """What the screen shows in the end, without empty lines at its end."""
        screen = pyte.HistoryScreen(*self._size)
        pyte.Stream(screen).feed(self.file.getvalue().replace("\n", "\r\n"))
        assert not screen.cursor.hidden
        return "\n".join(line.rstrip() for line in screen.display).rstrip().split("\n")


class Pipes:
    """A view on two pipes."""

    def __init__(self, **options: bool) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        consoles = (Console(file=file, highlight=False) for file in (self.out, self.err))
        self.view = View(*consoles, **options)  # pyright: ignore[reportArgumentType]


def test_a_turn_on_a_terminal() -> None:
    """A line remains of the thoughts, and the answer is rendered."""
    terminal = Terminal()
    assert terminal.view.show(stream(THOUGHT, THOUGHT_OVER, ANSWER, ANSWER_OVER, TURN)) is TURN
    assert terminal.lines() == ["thought for 0 s, 9 tokens", "It is 42."]
    assert "thinking ... 0 s" in terminal.file.getvalue()


def test_shown_thoughts_on_a_terminal() -> None:
    """They stand before the answer, and need no line about them."""
    terminal = Terminal(shows_reasoning=True)
    terminal.view.show(stream(THOUGHT, THOUGHT_OVER, ANSWER, ANSWER_OVER, TURN))
    assert terminal.lines() == ["Hmm, yes.", "It is 42."]


@pytest.mark.parametrize(("shows", "err"), [(False, ""), (True, "Hmm, yes.\n")])
def test_a_turn_in_pipes(shows: bool, err: str) -> None:
    """The answer goes out as it is, and nothing else goes there."""
    pipes = Pipes(shows_reasoning=shows)
    pipes.view.show(stream(THOUGHT, THOUGHT_OVER, ANSWER, ANSWER_OVER, TURN))
    assert (pipes.out.getvalue(), pipes.err.getvalue()) == ("It is **42**.\n", err)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ntwo", ["  one", "  two"]),
        ("\n".join("abcdefghi"), ["  a", "  b", "  c", "  d", "  e", "  f", "  ... 3 more lines"]),
        ("x" * 100, ["  " + "x" * 57 + "…"]),
        ("", [""]),
        ("\x1b[2Jgone?", ["  [2Jgone?"]),
        ("[ERROR] no such thing", ["  [ERROR] no such thing"]),
    ],
)
def test_a_result(text: str, shown: list[str]) -> None:
    """A few lines of it, each at most as wide as the screen, that cannot steer the terminal."""
    terminal = Terminal()
    terminal.view.show(stream(CALL, result(text)))
    assert terminal.lines() == shown


def test_long_results_are_whole_lines_in_pipes() -> None:
    """What goes to a file is not cut to a width."""
    pipes = Pipes()
    pipes.view.show(stream(result("x" * 300)))
    assert pipes.err.getvalue() == "  " + "x" * 300 + "\n"


def test_a_prompt_that_is_read() -> None:
    """A long one is counted while it is read; nothing of that remains."""
    terminal = Terminal()
    for done in (0, 2048):
        terminal.view.on_prefill(done, 3000)
    text = terminal.file.getvalue()
    assert "0 of 3,000 tokens" in text
    terminal.view.show(stream(ANSWER, ANSWER_OVER))
    assert terminal.lines() == ["It is 42."]


def test_what_is_quick_or_unseen_is_not_counted() -> None:
    """Short prompts do not flicker, and files hold no lines that vanish."""
    terminal, pipes = Terminal(), Pipes()
    terminal.view.on_prefill(0, 255)
    pipes.view.on_prefill(0, 3000)
    assert (terminal.file.getvalue(), pipes.err.getvalue()) == ("", "")


def test_dropped_turns_are_told() -> None:
    """Nothing leaves the context without notice."""
    pipes = Pipes()
    pipes.view.show(stream(Dropped(1), Dropped(3)))
    assert "the oldest turn does not fit" in pipes.err.getvalue()
    assert "the oldest 3 turns do not fit" in pipes.err.getvalue()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("before", [THOUGHT, ANSWER, CALL[:1]])
def test_whatever_ends_a_stream(error: type[BaseException], before: list[Delta]) -> None:
    """What came stays, the cursor is back, and the next note has a line of its own."""
    terminal = Terminal()

    def broken() -> Generator[Event]:
        yield from before
        raise error

    with pytest.raises(error):
        terminal.view.show(broken())
    terminal.view.note("(stopped)")
    expected = ["It is 42.", "(stopped)"] if before is ANSWER else ["(stopped)"]
    assert terminal.lines() == expected


class Upper:
    """Holds the last character back."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """All but the last character."""
        text = self._held + text.upper()
        self._held = text[-1:]
        return text[:-1]

    def close(self) -> str:
        """The last."""
        return self._held


def test_answers_pass_a_filter() -> None:
    """Each answer has its own, and what it holds back comes in the end."""
    pipes = Pipes()
    pipes.view.make_filter = Upper
    pipes.view.show(stream(ANSWER, ANSWER_OVER, ANSWER, ANSWER_OVER))
    assert pipes.out.getvalue() == "IT IS **42**.\n" * 2


def test_hallucinated_messages_are_not_shown() -> None:
    """What the model says in a tool's or the user's name is neither answer nor result."""
    pipes = Pipes()
    said = Message("tool", "42", recipient="assistant", name="python", ids=(1,))
    pipes.view.show(stream([Delta(None, "assistant", "42", "tool")], said))
    assert (pipes.out.getvalue(), pipes.err.getvalue()) == ("", "")
