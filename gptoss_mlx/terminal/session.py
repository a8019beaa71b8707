"""A session in the terminal: one conversation after another with one model after another.

Reads messages and commands until the user leaves, sends and shows, and keeps every conversation on
disk as it grows. It does not know how lines are edited, nor how answers are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from gptoss_mlx.chat import Chat, Options, Turn
from gptoss_mlx.conversations import Conversation, ConversationStore
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import GptOssError, UsageError
from gptoss_mlx.harmony import Effort, Setup, without_foreign_ids
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
        self._take_up(conversation)
        self.is_over = False
        self.edited: str | None = None  # the last message, while it stands in the line once more
        self._is_kept = True  # what is on disk is what is here

    def run(self, reader: Reader) -> None:
        """Until the user leaves."""
        while not self.is_over:
            try:
                self._next(reader)
            except EOFError:
                break
            except KeyboardInterrupt:
                self.edited = None
                self.view.note("(/bye or Ctrl-D leaves)")
        if not self._is_kept:
            self.keep()

    def _next(self, reader: Reader) -> None:
        text = reader.read(self.edited or "")
        if text.strip():
            self.handle(text)
        if not self.is_over:
            self.view.gap()

    def handle(self, text: str) -> None:
        """A message, or a command; what goes wrong is one line, and the session goes on."""
        edited, self.edited = self.edited, None
        try:
            if commands.is_command(text):
                commands.run(self, text)
            elif edited is not None:
                self.replace_last(text)
            else:
                self.ask(text)
        except GptOssError as error:
            self.view.error(error, f"Error: {error}")
        except KeyboardInterrupt:
            self.view.note("(stopped)")
        except BrokenPipeError:  # nobody reads on
            raise
        except Exception as error:
            self.view.error(error, f"Internal error: {error!r}")

    def ask(self, text: str | None) -> Turn | None:
        """Send a message, or go on without; show what comes, and keep it."""
        if text is not None:
            self.answer_open_calls()
        turn = None
        try:
            turn = self.view.show(self.chat.send(text, self.options))
        finally:
            self.keep()
        if turn is not None:
            self._say_how_it_ended(turn)
        return turn

    def answer_open_calls(self) -> None:
        """Tell the model that calls which waited for the user got no result."""
        for call in self.chat.open_calls:
            self.chat.add_tool_result(call, "[ERROR] the user gave no result")

    def save(self) -> None:
        """Write the conversation down; one in which nothing is said any more has no file.

        Raises:
            GptOssError: it cannot be written.
        """
        if self.store is None:
            return
        conversation = self.conversation
        self._resolve_citations()
        conversation.setup = self.chat.setup
        conversation.tools = tuple(tool.name for tool in self.chat.toolbox.tools)
        if conversation.messages:
            self.store.save(conversation)
        elif self.store.path(conversation.id).exists():
            self.store.delete(conversation.id)
        self._is_kept = True

    def keep(self) -> None:
        """Save, or say once why that is not possible; the next change tries again."""
        try:
            self.save()
        except GptOssError as error:
            if self._is_kept:
                self.view.note(f"This conversation is not being kept: {error}", "yellow")
            self._is_kept = False

    def begin(self, conversation: Conversation | None = None) -> None:
        """Leave this conversation for another, or for a new one."""
        self.keep()
        if conversation is None:
            setup = replace(self.chat.setup)
            conversation = Conversation(self.conversation.model, setup)
        else:
            functions = self.chat.setup.functions
            self.chat.setup = replace(conversation.setup, functions=functions)
            conversation.model = self.conversation.model  # that goes on with it
        self._take_up(conversation)
        self.chat.last_turn = None
        self.chat.toolbox.reset()

    def _take_up(self, conversation: Conversation) -> None:
        """The record's messages become the chat's; a file may have been changed by hand."""
        conversation.messages[:] = [
            without_foreign_ids(message, self.chat.tokenizer) for message in conversation.messages
        ]
        self.conversation = conversation
        self.chat.messages = conversation.messages
        self._resolved = len(conversation.messages)

    def _resolve_citations(self) -> None:
        """Note what citations of pages lead to, while the pages are known."""
        messages, shown = self.conversation.messages, self.conversation.shown
        for i in range(min(self._resolved, len(messages)), len(messages)):
            text = self.view.filtered(messages[i].content) if messages[i].is_shown else ""
            if text and text != messages[i].content:
                shown[i] = text
        self._resolved = len(messages)

    def recall(self) -> None:
        """Show which conversation this is, and what was said last."""
        conversation = self.conversation
        turns = "1 turn" if conversation.turns == 1 else f"{conversation.turns} turns"
        self.view.note(f"{conversation.title or '(no title)'} ({turns})")
        missing = set(conversation.tools) - {tool.name for tool in self.chat.toolbox.tools}
        if missing:
            self.view.note(f"(it had tools that are not open now: {', '.join(sorted(missing))})")
        if not conversation.turns:
            return
        self.view.note(f">>> {self.last_message}")
        said = enumerate(conversation.messages[self._last_asked :], self._last_asked)
        answers = (conversation.shown.get(i, m.content) for i, m in said if m.is_shown)
        if answer := "\n\n".join(answers):
            self.view.show_answer(answer)

    @property
    def _last_asked(self) -> int:
        """Where the last message of the user stands."""
        asked = (i for i, message in enumerate(self.chat.messages) if message.role == "user")
        last = max(asked, default=None)
        if last is None:
            raise UsageError("there is no message of yours yet")
        return last

    @property
    def last_message(self) -> str:
        """What the user said last.

        Raises:
            UsageError: there is no message.
        """
        return self.chat.messages[self._last_asked].content

    def take_back(self) -> str:
        """Remove the last message of the user, and all that followed; its text.

        Raises:
            UsageError: there is none.
        """
        text, length = self.last_message, self._last_asked
        del self.chat.messages[length:]
        shown = self.conversation.shown
        self.conversation.shown = {i: text for i, text in shown.items() if i < length}
        self._resolved = min(self._resolved, length)
        return text

    def replace_last(self, text: str | None = None) -> None:
        """Send another text, or the same, in place of the last; if it cannot be sent, all stays.

        Raises:
            UsageError: there is none.
            GptOssError: it cannot be sent, or the answer failed.
        """
        messages = self.chat.messages
        before, shown = list(messages), self.conversation.shown
        taken = self.take_back()
        length = len(messages)
        try:
            self.ask(taken if text is None else text)
        finally:
            if len(messages) == length:
                messages[:], self.conversation.shown = before, shown
                self._resolved = len(before)
                self.keep()

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
        self.keep()

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
        old = self.conversation.model
        self.chat.engine.close()
        del self.chat.engine  # and its weights
        try:
            self._open_model(name)
        except BaseException:
            self._open_model(old)
            raise
        self.conversation.model = name
        self.keep()

    def _open_model(self, name: str) -> None:
        """Without a model the session is over, should it stay so."""
        self.is_over = True
        self.chat.engine, self.chat.tokenizer = self.doors.open_model(name)
        self.is_over = False

    def close(self) -> None:
        """Close the tools and the model."""
        self.chat.toolbox.close()
        if hasattr(self.chat, "engine"):
            self.chat.engine.close()

    @property
    def used(self) -> int:
        """Tokens of the context that the last turn left filled."""
        turn = self.chat.last_turn
        return turn.stats.prompt_tokens + turn.stats.completion_tokens if turn else 0

    def status(self) -> str:
        """Model, effort, context and speed in a line; what matters least comes last."""
        context = self.chat.engine.context
        parts = [
            f"{Path(self.conversation.model).name}, {self.chat.setup.reasoning}",
            f"{self.used:,} of {context:,} tokens ({self.used / context:.0%})",
        ]
        turn = self.chat.last_turn
        if turn is not None:
            parts.append(f"{turn.stats.decode_rate:.1f} tok/s")
            parts.append(f"{turn.stats.cached_tokens:,} reused")
        tools = ", ".join(tool.name for tool in self.chat.toolbox.tools)
        return " | ".join([*parts, tools] if tools else parts)

    def _say_how_it_ended(self, turn: Turn) -> None:
        if turn.finish_reason == "stop" and not turn.answer.strip():
            self.view.note("(the model ended without an answer: /retry asks again)", "yellow")
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
