"""The slash commands: what each is called, takes and does.

A table, so that /help, completion and the commands themselves say the same. It does not know how a
line is read; what a command changes is the session's to change.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

from gptoss_mlx.conversations import export_json, export_markdown, load_file
from gptoss_mlx.errors import DiskError, UsageError
from gptoss_mlx.harmony import Effort
from gptoss_mlx.paths import expand

if TYPE_CHECKING:
    from gptoss_mlx.terminal.session import Session

__all__ = ["COMMANDS", "Command", "is_command", "run"]

_COMMAND = re.compile(r"/[a-z?]+(\s|$)")
_PATH = ("path",)


@dataclass(frozen=True)
class Command:
    """One command. `argument` as /help shows it, `values` for completion, `run(session, rest)`."""

    argument: str
    help: str
    run: Callable[[Session, str], object]
    values: tuple[str, ...] = ()


def is_command(text: str) -> bool:
    """Whether a text is a command; a message may begin with a path such as /usr/bin.

    What only looks like a command is one, too, so that a slip of the finger is not sent, unless
    there is a space before it, or it has several lines.
    """
    word, *_ = text.split(maxsplit=1) or [""]
    if _OTHER_NAMES.get(word, word) in COMMANDS:
        return True
    return _COMMAND.match(text) is not None and "\n" not in text.strip()


def run(session: Session, text: str) -> None:
    """Run a command.

    Raises:
        GptOssError: there is none of this name, it takes no such text, or cannot do what it says.
    """
    name, *rest = text.strip().split(maxsplit=1)
    name = _OTHER_NAMES.get(name, name)
    if name not in COMMANDS:
        raise UsageError(f"{name} is no command (/help lists them); a space before it sends it")
    command = COMMANDS[name]
    if rest and not command.argument:
        raise UsageError(f"{name} takes nothing after it; a space before it sends it")
    command.run(session, rest[0] if rest else "")


def _help(session: Session, _: str) -> None:
    width = max(len(f"{name} {command.argument}") for name, command in COMMANDS.items())
    for name, command in COMMANDS.items():
        session.view.note(f"{f'{name} {command.argument}':{width}}  {command.help}")
    session.view.note(
        'Enter sends, Alt-Enter or """ begins a longer text, Ctrl-C stops an answer, Ctrl-X Ctrl-E '
        "opens your editor."
    )


def _effort(session: Session, value: str) -> None:
    if value:
        if value.lower() not in get_args(Effort):
            raise UsageError(f"the effort is low, medium or high, and not {value!r}")
        session.set_setup(reasoning=cast("Effort", value.lower()))
    session.view.note(f"effort: {session.chat.setup.reasoning}")


def _system(session: Session, text: str) -> None:
    if text:
        session.set_setup(instructions="" if text == "off" else text)
    session.view.note(f"instructions: {session.chat.setup.instructions or '(none)'}")


def _tools(session: Session, names: str) -> None:
    if names:
        session.set_tools([] if names == "off" else _words(names))
    for tool in session.chat.toolbox.tools:
        session.view.note(f"{tool.name}: {', '.join(tool.recipients)}")
    if not session.chat.toolbox.tools:
        session.view.note("no tools; for example: /tools python,browser")


def _words(names: str) -> list[str]:
    """Names between spaces; in quotes, a name may have some."""
    try:
        return shlex.split(names)
    except ValueError:
        raise UsageError(f"{names}: a quote is not closed") from None


def _show(session: Session, _: str) -> None:
    view = session.view
    view.shows_reasoning = not view.shows_reasoning
    view.note(f"the chain of thought is {'shown' if view.shows_reasoning else 'hidden'}")
    turn = session.chat.last_turn
    if view.shows_reasoning and turn is not None and turn.reasoning:
        view.note(turn.reasoning)


def _retry(session: Session, _: str) -> None:
    session.replace_last()


def _edit(session: Session, _: str) -> None:
    session.edited = session.last_message


def _undo(session: Session, _: str) -> None:
    first, *_rest = session.take_back().splitlines() or [""]
    session.keep()
    session.view.note(f"taken back: {first[:60]}")


def _revert(session: Session, _: str) -> None:
    from gptoss_mlx.tools.apply_patch import ApplyPatchTool

    tools = session.chat.toolbox.tools
    patcher = next((tool for tool in tools if isinstance(tool, ApplyPatchTool)), None)
    if patcher is None:
        raise UsageError("only patches can be reverted: begin with --tools apply_patch")
    session.view.note(patcher.undo())


def _result(session: Session, text: str) -> None:
    calls = session.chat.open_calls
    if not calls:
        raise UsageError("no call waits for a result")
    session.chat.add_tool_result(calls[0], text)
    if not session.chat.open_calls:
        session.ask(None)


def _save(session: Session, title: str) -> None:
    if session.store is None:
        raise UsageError("this session is private: /export FILE writes it where you want")
    if title:
        session.conversation.title = title
    if not session.conversation.messages:
        raise UsageError("there is nothing to save yet")
    session.save()
    session.view.note(f"saved as {session.conversation.id}: {session.conversation.title}")
    session.view.note(f"in {session.store.path(session.conversation.id)}")


def _load(session: Session, name: str) -> None:
    if not name:
        _list(session)
        return
    path = expand(name)
    if path.is_file():
        conversation = load_file(path)
    elif session.store is not None:
        conversation = session.store.load(name)
    else:
        raise UsageError(f"there is no file {name}")
    session.begin(conversation)
    session.recall()


def _list(session: Session) -> None:
    if session.store is None:
        raise UsageError("this session is private; /load FILE reads a file")
    for summary in session.store.list()[:20]:
        session.view.note(f"{summary.id}  {summary.turns:>3} turns  {summary.title}")
    session.view.note("/load ID takes one up again")


def _export(session: Session, name: str) -> None:
    if not name:
        raise UsageError("where to? /export FILE.md or FILE.json")
    path = expand(name)
    conversation = session.conversation
    text = (
        export_json(conversation)
        if path.suffix == ".json"
        else export_markdown(conversation, with_reasoning=session.view.shows_reasoning)
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists: choose another name, or remove it") from None
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}") from None
    session.view.note(f"written to {path}")


def _clear(session: Session, _: str) -> None:
    session.begin()
    session.view.note("a new conversation")


def _stats(session: Session, _: str) -> None:
    turn = session.chat.last_turn
    session.view.note(session.status())
    if turn is None:
        return
    stats = turn.stats
    first = stats.queue_seconds + stats.prefill_seconds
    session.view.note(
        f"prompt: {stats.prompt_tokens:,} tokens, {stats.cached_tokens:,} of them reused, the rest "
        f"read at {stats.prefill_rate:,.0f} tok/s; first token after {first:.2f} s"
    )
    session.view.note(
        f"answer: {stats.completion_tokens:,} tokens, {len(turn.reasoning):,} characters of them "
        f"thought, at {stats.decode_rate:.1f} tok/s"
    )


def _model(session: Session, name: str) -> None:
    if name:
        session.view.note(f"Loading {name} ...")
        session.set_model(name)
    session.view.note(f"model: {session.conversation.model}")


def _bye(session: Session, _: str) -> None:
    session.is_over = True


COMMANDS = {
    "/help": Command("", "this list", _help),
    "/effort": Command("[low|medium|high]", "how long to think", _effort, get_args(Effort)),
    "/system": Command("[TEXT|off]", "instructions for the model", _system),
    "/tools": Command("[NAMES|off]", "what the model may call", _tools, ("python", "browser")),
    "/show": Command("", "show or hide the chain of thought", _show),
    "/retry": Command("", "another answer to the last message", _retry),
    "/edit": Command("", "change the last message and send it again", _edit),
    "/undo": Command("", "take the last message back", _undo),
    "/revert": Command("", "take the last patch back", _revert),
    "/result": Command("TEXT", "answer a call of a function", _result),
    "/save": Command("[TITLE]", "give this conversation a title", _save),
    "/load": Command("[ID|FILE]", "take up an earlier one", _load, _PATH),
    "/export": Command("FILE", "write it as Markdown, or as JSON", _export, _PATH),
    "/clear": Command("", "begin a new conversation", _clear),
    "/stats": Command("", "tokens and speed of the last turn", _stats),
    "/model": Command("[NAME]", "go on with another model", _model, _PATH),
    "/bye": Command("", "leave; so does Ctrl-D", _bye),
}
_OTHER_NAMES = {"/exit": "/bye", "/quit": "/bye", "/?": "/help", "/new": "/clear"}
