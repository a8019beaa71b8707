"""`gptoss-mlx chat`: a conversation in the terminal, streamed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import suppress
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
    events = conversation.send(text, params)
    try:
        _show(events, show_reasoning=show_reasoning)
    except KeyboardInterrupt:
        events.close()
        click.echo("\n(stopped)")
    except GptOssError as error:
        click.echo(f"Error: {error}", err=True)
        return
    turn = conversation.last_turn
    if turn is not None and turn.finish_reason == "length":
        _note("(cut off: the token limit was reached)")
    if stats and turn is not None:
        _note(stats_line(turn))


def _show(events: Iterator[Delta | Message], *, show_reasoning: bool) -> None:
    from gptoss_mlx.harmony import Delta

    for event in events:
        if isinstance(event, Delta):
            hidden = event.channel == "analysis" and event.recipient is None
            if not hidden:
                click.echo(printable(event.text), nl=False)
            elif show_reasoning:
                click.secho(printable(event.text), nl=False, dim=True)
        elif event.channel != "analysis" or show_reasoning:
            click.echo()


def _note(text: str) -> None:
    click.secho(text, err=True, dim=True)
