"""`gptoss-mlx chat`: a conversation in the terminal, streamed."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from gptoss_mlx import demo
from gptoss_mlx.cli.common import (
    CLEAR_LINE,
    EngineOptions,
    debug_option,
    engine_options,
    model_option,
    open_chat,
    prefill_line,
    printable,
    reasoning_option,
    require_model,
    sampling_options,
    stats_line,
    styled,
    system_option,
)
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import GptOssError

if TYPE_CHECKING:
    from gptoss_mlx.chat import Chat
    from gptoss_mlx.harmony import Delta, Message

__all__ = ["chat"]

_LEAVE = ("/bye", "/exit", "/quit")
_COMMAND = re.compile(r"/[a-z]+")
_MAX_ROUNDS = 4  # of calls to tools that are not there


@click.command()
@model_option
@reasoning_option
@system_option
@sampling_options
@engine_options
@click.option("--show-reasoning", is_flag=True, help="Show the chain of thought, dimmed.")
@click.option("--stats", is_flag=True, help="Show token counts and speed after each answer.")
@debug_option
def chat(
    model: str | None,
    reasoning: str,
    system: str | None,
    params: SamplingParams,
    engine: EngineOptions,
    show_reasoning: bool,
    stats: bool,
) -> None:
    """Talk to a model. Ctrl-C stops an answer; /bye or Ctrl-D leaves."""
    name = require_model(model)
    _note(f"Loading {name} ...")
    conversation = open_chat(name, reasoning, system, engine)
    if name == "demo":
        _note(demo.DESCRIPTION)
    _note("Type a message. Ctrl-C stops an answer, /bye or Ctrl-D leaves.")
    for text in _inputs():
        _answer(conversation, text, params, show_reasoning=show_reasoning, stats=stats)


def _inputs() -> Iterator[str]:
    """What the user types, a line at a time, until the end; Ctrl-C clears the line."""
    if sys.stdin is None:  # closed: there is nobody to talk to
        return
    interactive = sys.stdin.isatty()
    if interactive:
        with suppress(ImportError):
            importlib.import_module("readline")  # gives input() line editing and a history
    while True:
        try:
            line = input(">>> " if interactive else "")
        except EOFError:
            if interactive:
                click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if line.strip().lower() in _LEAVE:
            return
        if interactive and _COMMAND.fullmatch(line.strip()):
            _note(f"{line.strip()} is no command; /bye leaves")
        elif line.strip():
            yield line


def _answer(
    conversation: Chat, text: str, params: SamplingParams, *, show_reasoning: bool, stats: bool
) -> None:
    """One turn; Ctrl-C ends it, an error ends only this answer."""
    marks = styled(sys.stdout) and not show_reasoning
    try:
        with prefill_line(_mark if marks else None) as on_prefill:
            events = conversation.send(text, params, on_prefill)
            for _ in range(_MAX_ROUNDS):
                with closing(events):
                    _show(events, marked=marks and _mark(), show_reasoning=show_reasoning)
                if not _goes_on(conversation, stats=stats):
                    return
                events = conversation.reply(params, on_prefill)
    except KeyboardInterrupt:
        click.echo("\n(stopped)")
    except GptOssError as error:
        click.echo(f"Error: {error}", err=True)


def _goes_on(conversation: Chat, *, stats: bool) -> bool:
    """After a turn: what there is to say about it, and whether calls of tools were answered."""
    turn = conversation.last_turn
    assert turn is not None, "a stream that ended has a turn"
    if turn.finish_reason == "length":
        _note("(cut off: the token limit was reached)")
    if stats:
        _note(stats_line(turn))
    if turn.finish_reason != "tool_calls":
        return False
    for call in turn.tool_calls:
        _note(f"(called {call.recipient}, which is not there)")
        conversation.add_tool_result(call, f"Error: there is no tool {call.recipient}.")
    return True


def _show(events: Iterator[Delta | Message], *, marked: bool, show_reasoning: bool) -> None:
    """Print a turn as it comes; where reasoning is hidden, a mark stands in for it."""
    from gptoss_mlx.harmony import Delta

    for event in events:
        if not (event.is_shown or (event.is_reasoning and show_reasoning)):
            continue
        if marked:
            marked = _unmark()
        if not isinstance(event, Delta):
            click.echo()
        elif event.is_reasoning and styled(sys.stdout):
            click.secho(printable(event.text), nl=False, dim=True)
        else:
            click.echo(printable(event.text), nl=False)
    if marked:
        _unmark()


def _mark() -> bool:
    click.secho("thinking ...", nl=False, dim=True)
    return True


def _unmark() -> bool:
    click.echo(CLEAR_LINE, nl=False)
    return False


def _note(text: str) -> None:
    click.secho(text, err=True, dim=styled(sys.stderr) or None)
