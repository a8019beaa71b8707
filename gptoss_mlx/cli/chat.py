"""`gptoss-mlx chat`: a conversation in the terminal, streamed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from gptoss_mlx import demo
from gptoss_mlx.cli.common import (
    debug_option,
    model_option,
    open_chat,
    printable,
    reasoning_option,
    require_model,
    sampling_options,
    stats_line,
    system_option,
)
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import GptOssError

if TYPE_CHECKING:
    from gptoss_mlx.chat import Chat
    from gptoss_mlx.harmony import Delta, Message

__all__ = ["chat"]

_LEAVE = ("/bye", "/exit", "/quit")
_MAX_ROUNDS = 4  # of calls to tools that are not there


@click.command()
@model_option
@reasoning_option
@system_option
@sampling_options
@click.option("--show-reasoning", is_flag=True, help="Show the chain of thought, dimmed.")
@click.option("--stats", is_flag=True, help="Show token counts and speed after each answer.")
@debug_option
def chat(
    model: str | None,
    reasoning: str,
    system: str | None,
    params: SamplingParams,
    show_reasoning: bool,
    stats: bool,
) -> None:
    """Talk to a model. Ctrl-C stops an answer; /bye or Ctrl-D leaves."""
    name = require_model(model)
    _note(f"Loading {name} ...")
    conversation = open_chat(name, reasoning, system)
    if name == "demo":
        _note(demo.DESCRIPTION)
    _note("Type a message. Ctrl-C stops an answer, /bye or Ctrl-D leaves.")
    for text in _inputs():
        _answer(conversation, text, params, show_reasoning=show_reasoning, stats=stats)


def _inputs() -> Iterator[str]:
    """What the user types, a line at a time, until the end; Ctrl-C clears the line."""
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
        if line.strip() in _LEAVE:
            return
        if line.strip():
            yield line


def _answer(
    conversation: Chat, text: str, params: SamplingParams, *, show_reasoning: bool, stats: bool
) -> None:
    """One turn; Ctrl-C ends it, an error ends only this answer."""
    try:
        events = conversation.send(text, params)
        for _ in range(_MAX_ROUNDS):
            with closing(events):
                _show(events, show_reasoning=show_reasoning)
            turn = conversation.last_turn
            assert turn is not None, "a stream that ended has a turn"
            if turn.finish_reason == "length":
                _note("(cut off: the token limit was reached)")
            if stats:
                _note(stats_line(turn))
            if turn.finish_reason != "tool_calls":
                return
            for call in turn.tool_calls:
                _note(f"(called {call.recipient}, which is not there)")
                conversation.add_tool_result(call, f"Error: there is no tool {call.recipient}.")
            events = conversation.reply(params)
    except KeyboardInterrupt:
        click.echo("\n(stopped)")
    except GptOssError as error:
        click.echo(f"Error: {error}", err=True)


def _show(events: Iterator[Delta | Message], *, show_reasoning: bool) -> None:
    """Print a turn as it comes; where reasoning is hidden, a mark stands in until it ends."""
    from gptoss_mlx.harmony import Delta

    mark = "" if show_reasoning or not sys.stdout.isatty() else "thinking ..."
    marked = False
    for event in events:
        if not (event.is_shown or (event.is_reasoning and show_reasoning)):
            if mark and not marked:
                click.secho(mark, nl=False, dim=True)
                marked = True
            continue
        if marked:
            click.echo("\r\x1b[K", nl=False)  # to the start of the line, and clear it
            marked = False
        if isinstance(event, Delta):
            click.secho(printable(event.text), nl=False, dim=event.is_reasoning or None)
        else:
            click.echo()
    if marked:
        click.echo("\r\x1b[K", nl=False)


def _note(text: str) -> None:
    click.secho(text, err=True, dim=True)
