"""The line that the user types into: history on disk, several lines, completion, a status line.

Enter sends. Alt-Enter begins a new line, and so does Enter between two lines of three quotes;
pasted lines stay together. It does not know what a command does.
"""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.output.defaults import create_output
from prompt_toolkit.styles import Style

__all__ = ["CommandCompleter", "Prompt", "ask", "fitting", "unechoed", "unquoted"]

_SEPARATOR = " | "
_QUOTES = '"""'
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack"})


class Prompt:
    """Reads what the user types, a message at a time.

    Args:
        commands: the slash commands, for completion: name -> the values it takes, or "path".
        history: a file of earlier messages, readable by its owner only; None keeps none.
        status: what to say below the line, its parts separated by ` | `; as many as fit are shown.
    """

    def __init__(
        self,
        commands: dict[str, tuple[str, ...]],
        history: Path | None,
        status: Callable[[], str],
    ) -> None:
        self._status = status
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            output=_output(),
            completer=CommandCompleter(commands),
            complete_while_typing=False,
            key_bindings=_bindings(),
            bottom_toolbar=self._toolbar,
            style=_STYLE,
            multiline=True,
            prompt_continuation="... ",
            enable_open_in_editor=True,
            reserve_space_for_menu=4,
        )

    def read(self, default: str = "") -> str:
        """The next message, without quotes around it; `default` stands there to be edited.

        Raises:
            EOFError: Ctrl-D in an empty line.
            KeyboardInterrupt: Ctrl-C; what was typed is gone.
        """
        return unquoted(self._session.prompt(">>> ", default=default))

    def _toolbar(self) -> FormattedText:
        columns = get_app().output.get_size().columns
        return FormattedText([("class:bottom-toolbar", fitting(self._status(), columns))])


def fitting(status: str, columns: int) -> str:
    """As many of the parts between ` | ` as fit, the first at least."""
    while len(status) > columns and _SEPARATOR in status:
        status = status.rpartition(_SEPARATOR)[0]
    return status


def ask(question: str) -> str:
    """What is typed after a question; what was typed before it was there does not answer it.

    Raises:
        EOFError: Ctrl-D.
        KeyboardInterrupt: Ctrl-C.
    """
    session: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=_output())
    clear_typeahead(session.input)
    with suppress(termios.error):  # no terminal
        termios.tcflush(session.input.fileno(), termios.TCIFLUSH)
    return session.prompt(question)


@contextmanager
def unechoed() -> Generator[None]:
    """Keys that are pressed while nobody reads do not show; the next prompt gets them."""
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, termios.error):  # no terminal
        yield
        return
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _output() -> Output | None:
    """The terminal on stderr, if only that is one; None: where prompt_toolkit wants to write."""
    if sys.stderr.isatty() and not sys.stdout.isatty():
        return create_output(sys.stderr)
    return None


def unquoted(text: str) -> str:
    """The text between three quotes, or the text as it is."""
    inner = text.strip()
    if inner.startswith(_QUOTES) and inner.endswith(_QUOTES) and len(inner) >= 2 * len(_QUOTES):
        return inner[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text


def _is_open(text: str) -> bool:
    """Whether a text began with three quotes and has not come to the other three."""
    return text.lstrip().startswith(_QUOTES) and text.count(_QUOTES) == 1


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter", filter=~_completing())
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if _is_open(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("enter", filter=_completing())
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.complete_state = None  # the completion stands there already

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return bindings


def _completing() -> Condition:
    """Whether a completion is chosen in the menu: Enter takes it, and sends nothing yet."""

    def chosen() -> bool:
        state = get_app().current_buffer.complete_state
        return state is not None and state.current_completion is not None

    return Condition(chosen)


def _history(path: Path | None) -> History:
    """The history in a file that only its owner reads; in memory if it cannot be written."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return _FileHistory(path)


class _FileHistory(FileHistory):
    """A full disk does not end the conversation."""

    def store_string(self, string: str) -> None:
        """Append to the file, if it can be written."""
        with suppress(OSError):
            super().store_string(string)


class CommandCompleter(Completer):
    """Completes slash commands, their values, and paths."""

    def __init__(self, commands: dict[str, tuple[str, ...]]) -> None:
        self._commands = commands
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What may follow the text before the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/"):
            return
        name, space, argument = text.partition(" ")
        if not space:
            for command in self._commands:
                if command.startswith(name):
                    yield Completion(command, start_position=-len(name))
            return
        values = self._commands.get(name, ())
        if values == ("path",):
            yield from self._paths.get_completions(Document(argument), complete_event)
            return
        for value in values:
            if value.startswith(argument):
                yield Completion(value, start_position=-len(argument))
