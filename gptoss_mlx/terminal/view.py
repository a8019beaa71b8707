"""What is shown of a turn: the answer, a line for the thoughts, calls and their results, counts.

Answers go to stdout, all else to stderr. On a terminal answers are rendered as Markdown while they
stream, and what is under way stands in one line that vanishes; elsewhere the text goes out as it
comes. It does not know what the user may type.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Protocol

from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from gptoss_mlx.chat import Dropped, Event, Turn
from gptoss_mlx.harmony import Delta, Message
from gptoss_mlx.terminal.line import PassingLine
from gptoss_mlx.terminal.markdown import MarkdownStream
from gptoss_mlx.terminal.text import printable

__all__ = ["Filter", "View"]

_RESULT_LINES = 6  # of a tool's result; the rest is counted
_LONG_PROMPT = 256  # tokens; shorter ones are mostly read before anybody wonders
_READING = "reading the prompt"


class Filter(Protocol):
    """Rewrites an answer's text on its way, as citations into links."""

    def push(self, text: str) -> str:
        """Some text in, as much out as is decided."""
        ...

    def close(self) -> str:
        """What was held back."""
        ...


def _no_filter() -> None:
    """Text stays as it is."""


class View:
    """Shows events; one for a session.

    Args:
        out: for answers.
        err: for all else.
        shows_reasoning: print the chain of thought, too, dimmed.
        make_filter: makes, for each answer, what rewrites its text, if anything does.
        shows_tracebacks: show where errors came from.
    """

    def __init__(
        self,
        out: Console,
        err: Console,
        *,
        shows_reasoning: bool = False,
        make_filter: Callable[[], Filter | None] = _no_filter,
        shows_tracebacks: bool = False,
    ) -> None:
        self.out, self.err = out, err
        self.shows_reasoning = shows_reasoning
        self.make_filter = make_filter
        self.shows_tracebacks = shows_tracebacks
        self._line = PassingLine(err)
        self._answer: MarkdownStream | None = None
        self._filter: Filter | None = None
        self._thinking_since: float | None = None
        self._is_mid_line = False  # stderr stands in a line of reasoning

    def note(self, text: str, style: str = "dim") -> None:
        """A line about what goes on."""
        self._close()
        self.err.print(Text(printable(text)), style=style, soft_wrap=not self.err.is_terminal)

    def error(self, error: Exception, text: str) -> None:
        """What went wrong, in one line; where, if tracebacks are wanted."""
        if self.shows_tracebacks:
            self.note("".join(traceback.format_exception(error)).rstrip())
        self.note(text, "red")

    def gap(self) -> None:
        """An empty line before the next prompt, on a terminal."""
        if self.err.is_terminal:
            self.err.print()

    def on_prefill(self, done: int, total: int) -> None:
        """How far a prompt was read; counted if it is long."""
        if total >= _LONG_PROMPT:
            self._line.show(_READING, f"{done:,} of {total:,} tokens,")

    def show(self, events: Generator[Event]) -> Turn | None:
        """Show a stream to its end; the last turn of it. Closes it, whatever happens."""
        turn = None
        try:
            with closing(events):
                self._line.show(_READING)
                for event in events:
                    self._show(event)
                    turn = event if isinstance(event, Turn) else turn
        finally:
            self._close()
        return turn

    def filtered(self, text: str) -> str:
        """An answer's whole text as it is shown."""
        rewrite = self.make_filter()
        return rewrite.push(text) + rewrite.close() if rewrite else text

    def show_answer(self, text: str) -> None:
        """An answer that was rewritten before."""
        self._close()
        with MarkdownStream(self.out) as answer:
            answer.push(text)

    def show_running(self, what: str) -> None:
        """A tool runs, until its result comes."""
        self._line.show(f"running {what}")

    def show_code(self, code: str, language: str) -> None:
        """Code that is about to run, or a diff."""
        self._close()
        shown = Syntax(printable(code).rstrip(), language, theme="ansi_dark", word_wrap=True)
        self.err.print(Padding(shown, (0, 0, 0, 2)))

    def _show(self, event: Event) -> None:
        match event:
            case Delta() if event.is_reasoning:
                self._think(event.text)
            case Delta() if event.is_shown:
                self._write(event.text)
            case Delta() if event.recipient and event.role == "assistant":
                self._line.show(f"writing to {event.recipient}")
            case Message() if event.is_reasoning:
                self._thought(event)
            case Message(role="tool", recipient="assistant", ids=None):
                self._show_result(event)
            case Dropped():
                turns = "turn does" if event.turns == 1 else f"{event.turns} turns do"
                self.note(f"(the context is full: the oldest {turns} not fit, and are left out)")
            case _:
                self._close()

    def _write(self, text: str) -> None:
        """Text of an answer."""
        if self._answer is None:
            self._close()
            self._answer = MarkdownStream(self.out)
            self._filter = self.make_filter()
        self._answer.push(self._filter.push(text) if self._filter else text)

    def _think(self, text: str) -> None:
        if self._thinking_since is None:
            self._close()
            self._thinking_since = time.monotonic()
            if not self.shows_reasoning:
                self._line.show("thinking")
        if self.shows_reasoning:
            self.err.print(Text(printable(text)), style="dim", end="", soft_wrap=True)
            self._is_mid_line = True

    def _thought(self, message: Message) -> None:
        """A thought is complete: a line remains."""
        seconds = time.monotonic() - (self._thinking_since or time.monotonic())
        self._close()
        if self.err.is_terminal and not self.shows_reasoning and message.content:
            count = f", {len(message.ids):,} tokens" if message.ids else ""
            self.note(f"thought for {seconds:.0f} s{count}")

    def _show_result(self, result: Message) -> None:
        """What a tool said, in a few lines."""
        self._close()
        lines = printable(result.content).splitlines()
        style = "red" if result.content.startswith("[ERROR]") else "dim"
        more = (
            [f"... {len(lines) - _RESULT_LINES:,} more lines"] if len(lines) > _RESULT_LINES else []
        )
        for line in [*lines[:_RESULT_LINES], *more]:
            text = Text("  " + line, style)
            if self.err.is_terminal:
                text.truncate(self.err.width, overflow="ellipsis")
            self.err.print(text, soft_wrap=True)

    def _close(self) -> None:
        """End whatever is open."""
        self._line.clear()
        self._thinking_since = None
        if self._is_mid_line:
            self.err.print()
            self._is_mid_line = False
        answer, self._answer = self._answer, None
        if answer is not None:
            held = self._filter.close() if self._filter else ""
            if held:
                answer.push(held)
            answer.close()
