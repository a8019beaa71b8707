"""A session in the terminal: one conversation after another with one model after another.

Reads messages and commands until the user leaves, sends and shows, and keeps every conversation on
disk as it grows. It does not know how lines are edited, nor how answers are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gptoss_mlx.chat import Chat, Options, Turn
from gptoss_mlx.conversations import Conversation, ConversationStore
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import GptOssError, UsageError
from gptoss_mlx.harmony import Effort, Setup
from gptoss_mlx.terminal import commands
from gptoss_mlx.terminal.view import View
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox

__all__ = ["Doors", "Reader", "Session"]

_NEARLY_FULL = 0.85  # of the context


class Reader(Protocol):
    """Where messages come from: `terminal.prompt.Prompt`, or a pipe."""

    def read(self, default: str = "") -> str:
        """The next message.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: the user has thought better of it.
        """
        ...


class Doors(Protocol):
    """How a session gets what only the command line knows to open."""

    def open_model(self, name: str) -> tuple[Engine, Tokenizer]:
        """Load a model."""
        ...

    def open_tools(self, names: Sequence[str]) -> Toolbox:
        """Make tools, by the names that --tools knows."""
        ...


class Session:
    """What the user has open: `chat`, which holds the messages, and `conversation`, its record.

    Args:
        chat: the conversation with the model; its messages become the record's.
        conversation: as it begins, or as it was left.
        store: where it is kept; None: nowhere.
        view: shows what comes.
        options: of all replies.
        doors: opens other models and tools.
    """

    def __init__(
        self,
        chat: Chat,
        conversation: Conversation,
        store: ConversationStore | None,
        view: View,
        options: Options,
        doors: Doors,
    ) -> None:
        self.chat, self.view, self.store, self.options = chat, view, store, options
        self.doors = doors
        self.conversation = conversation
        self.chat.messages = conversation.messages
        self.is_over = False
        self.next_default = ""  # what stands in the line next, to be edited

    def run(self, reader: Reader) -> None:
        """Until the user leaves."""
        while not self.is_over:
            default, self.next_default = self.next_default, ""
            try:
                text = reader.read(default)
            except EOFError:
                return
            except KeyboardInterrupt:
                self.view.note("(/bye or Ctrl-D leaves)")
                continue
            if text.strip():
                self.handle(text)

    def handle(self, text: str) -> None:
        """A message, or a command; what goes wrong is one line, and the session goes on."""
        try:
            if commands.is_command(text):
                commands.run(self, text)
            else:
                self.ask(text)
        except GptOssError as error:
            self.view.note(f"Error: {error}", "red")
        except KeyboardInterrupt:
            self.view.note("(stopped)")

    def ask(self, text: str | None) -> Turn | None:
        """Send a message, or go on without; show what comes, and keep it."""
        for call in self.chat.open_calls if text is not None else ():
            self.chat.add_tool_result(call, "[ERROR] the user gave no result")
        turn = None
        try:
            turn = self.view.show(self.chat.send(text, self.options))
        finally:
            self.save()
        if turn is not None:
            self._say_how_it_ended(turn)
        return turn

    def save(self) -> None:
        """Write the conversation down, once there is something in it."""
        if self.store is None or not self.conversation.messages:
            return
        self.conversation.setup = self.chat.setup
        self.conversation.tools = tuple(tool.name for tool in self.chat.toolbox.tools)
        try:
            self.store.save(self.conversation)
        except GptOssError as error:
            self.view.note(f"This conversation is not being kept: {error}", "yellow")
            self.store = None

    def begin(self, conversation: Conversation | None = None) -> None:
        """Leave this conversation for another, or for a new one."""
        self.save()
        if conversation is None:
            setup = replace(self.chat.setup)
            conversation = Conversation.begin(self.conversation.model, setup)
        else:
            functions = self.chat.setup.functions
            self.chat.setup = replace(conversation.setup, functions=functions)
        self.conversation = conversation
        self.chat.messages = conversation.messages
        self.chat.last_turn = None

    def take_back(self) -> str:
        """Remove the last message of the user, and all that followed; its text.

        Raises:
            UsageError: there is none.
        """
        messages = self.chat.messages
        asked = [i for i, message in enumerate(messages) if message.role == "user"]
        if not asked:
            raise UsageError("there is no message of yours yet")
        text = messages[asked[-1]].content
        del messages[asked[-1] :]
        self.save()
        return text

    def retry(self) -> None:
        """Ask for another answer to the last message.

        Raises:
            UsageError: there is none.
        """
        self.ask(self.take_back())

    def set_setup(
        self, *, reasoning: Effort | None = None, instructions: str | None = None
    ) -> None:
        """Change the effort, or the instructions (an empty text removes them)."""
        setup: Setup = self.chat.setup
        if reasoning is not None:
            setup = replace(setup, reasoning=reasoning)
        if instructions is not None:
            setup = replace(setup, instructions=instructions or None)
        self.chat.setup = setup
        self.save()

    def set_tools(self, names: Sequence[str]) -> None:
        """Replace the tools.

        Raises:
            UsageError: one of them cannot be had; the old ones stay.
        """
        toolbox = self.doors.open_tools(names)
        self.chat.toolbox.close()
        self.chat.toolbox = toolbox

    def set_model(self, name: str) -> None:
        """Go on with another model; the old one makes room first, and comes back if that fails.

        Raises:
            GptOssError: why it cannot be loaded.
        """
        self.chat.engine.close()
        try:
            self.chat.engine, self.chat.tokenizer = self.doors.open_model(name)
        except BaseException:
            old = self.conversation.model
            self.chat.engine, self.chat.tokenizer = self.doors.open_model(old)
            raise
        self.conversation.model = name
        self.save()

    @property
    def used(self) -> int:
        """Tokens of the context that the last turn left filled."""
        turn = self.chat.last_turn
        return turn.stats.prompt_tokens + turn.stats.completion_tokens if turn else 0

    def status(self) -> str:
        """Model, effort, context and speed in a line."""
        context = self.chat.engine.context
        parts = [
            f"{self.conversation.model}, {self.chat.setup.reasoning} effort",
            f"{self.used:,} of {context:,} tokens ({self.used / context:.0%})",
        ]
        turn = self.chat.last_turn
        if turn is not None:
            parts.append(f"{turn.stats.decode_rate:.1f} tok/s")
            parts.append(f"{turn.stats.cached_tokens:,} reused")
        tools = ", ".join(tool.name for tool in self.chat.toolbox.tools)
        return " | ".join([*parts, tools] if tools else parts)

    def _say_how_it_ended(self, turn: Turn) -> None:
        if turn.finish_reason == "length":
            self.view.note("(cut off: the token limit was reached)")
        if turn.finish_reason == "tool_calls":
            self._say_who_answers()
        if self.used > _NEARLY_FULL * self.chat.engine.context:
            share = self.used / self.chat.engine.context
            self.view.note(
                f"(the context is {share:.0%} full: the oldest turns will be left out when it is; "
                "/clear begins anew)",
                "yellow",
            )

    def _say_who_answers(self) -> None:
        calls = self.chat.open_calls
        for call in calls:
            self.view.note(f"-> {call.recipient} {call.content}", "cyan")
        if calls:
            self.view.note("(the result is yours to give: /result TEXT)")
        else:
            self.view.note(f"(stopped after {self.chat.max_rounds} calls of tools)", "yellow")
