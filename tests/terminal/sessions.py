"""Sessions in memory: a model that replays a script, pipes to look into, and somebody who types."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from helpers import ReplayModel
from rich.console import Console

from gptoss_mlx.chat import Approve, Chat, Options
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.conversations import Conversation, ConversationStore
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import UsageError
from gptoss_mlx.harmony import FunctionTool, Setup
from gptoss_mlx.terminal.session import Session
from gptoss_mlx.terminal.view import View
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Preview, Tool, Toolbox

__all__ = ["Opened", "Typed", "answer", "open_session"]


def answer(text: str, thought: str = "Hm.") -> str:
    """A completion that thinks and answers."""
    return (
        f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{text}<|return|>"
    )


class Echo(Tool):
    """Returns what it is sent; it may interrupt as Ctrl-C does."""

    name = "echo"
    functions = (FunctionTool("echo"),)

    def __init__(self) -> None:
        self.is_closed = False

    @property
    def recipients(self) -> Sequence[str]:
        """One."""
        return ("functions.echo",)

    def preview(self, recipient: str, content: str) -> Preview:
        """The call."""
        return Preview(f"{recipient}({content})")

    def run(self, recipient: str, content: str) -> str:
        """What was sent."""
        assert recipient == "functions.echo"
        if content == "ctrl-c":
            raise KeyboardInterrupt
        return content

    def close(self) -> None:
        """Note that it is closed."""
        self.is_closed = True


class Doors:
    """Opens the tool `echo`, and models that answer `I am NAME.`; not those called `missing`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.missing = {"missing"}
        self.opened: list[str] = []

    def open_model(self, name: str) -> tuple[Engine, Tokenizer]:
        """A model that knows its name."""
        self.opened.append(name)
        if name in self.missing:
            raise UsageError(f"{name}: no such folder")
        script = self._tokenizer.encode_with_special(answer(f"I am {name}."))
        return Engine(ReplayModel(script)), self._tokenizer

    def open_tools(self, names: Sequence[str]) -> Toolbox:
        """The tools."""
        if set(names) - {"echo"}:
            raise UsageError(f"there is no tool {names[0]!r}")
        return Toolbox([Echo() for _ in names])


class Typed:
    """Somebody who types this, or leaves; what stood in the line before is noted."""

    def __init__(self, *texts: str | type[BaseException]) -> None:
        self._texts = list(texts)
        self.defaults: list[str] = []

    def read(self, default: str = "") -> str:
        """The next text."""
        self.defaults.append(default)
        text = self._texts.pop(0) if self._texts else EOFError
        if isinstance(text, str):
            return text
        raise text


class Opened(Session):
    """A session with a script for a model, of which `out` and `err` can be read."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        scripts: Sequence[str],
        store: ConversationStore | None,
        conversation: Conversation,
        tools: Sequence[Tool],
        approve: Approve | None,
    ) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()
        model = ReplayModel(*(tokenizer.encode_with_special(script) for script in scripts))
        chat = Chat(
            Engine(model), tokenizer, conversation.setup, toolbox=Toolbox(tools), drops_oldest=True
        )
        consoles = (Console(file=file, highlight=False) for file in (self._out, self._err))
        self.models = Doors(tokenizer)
        options = Options(SamplingParams(temperature=0), approve=approve)
        super().__init__(chat, conversation, store, View(*consoles), options, self.models)

    @property
    def out(self) -> str:
        """What stdout got since this was last asked."""
        return _taken(self._out)

    @property
    def err(self) -> str:
        """What stderr got since this was last asked."""
        return _taken(self._err)

    @property
    def said(self) -> list[str]:
        """What user and tools said, and the model to them."""
        shown = (m for m in self.chat.messages if m.is_shown or m.role != "assistant")
        return [message.content for message in shown]

    @property
    def on_disk(self) -> list[str]:
        """The same, of the file."""
        assert self.store is not None
        messages = self.store.load(self.conversation.id).messages
        return [m.content for m in messages if m.is_shown or m.role != "assistant"]


def open_session(
    tokenizer: Tokenizer,
    *scripts: str,
    store: ConversationStore | None = None,
    conversation: Conversation | None = None,
    tools: Sequence[Tool] = (),
    approve: Approve | None = None,
    setup: Setup | None = None,
) -> Opened:
    """A session in which the model answers with these completions; kept, if there is a store."""
    conversation = conversation or Conversation("replay", setup or Setup())
    return Opened(tokenizer, scripts, store, conversation, tools, approve)


def file_of(session: Opened) -> Path:
    """Where a session is kept."""
    assert session.store is not None
    return session.store.path(session.conversation.id)


def _taken(file: io.StringIO) -> str:
    text = file.getvalue()
    file.seek(0)
    file.truncate()
    return text
