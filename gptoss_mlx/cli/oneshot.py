"""One question, one answer: what `generate` does, and `chat` with a prompt or in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import click

from gptoss_mlx.cli.common import stats_line
from gptoss_mlx.terminal.text import printable

if TYPE_CHECKING:
    from gptoss_mlx.chat import Chat, Event, Options, Turn
    from gptoss_mlx.terminal.view import View

__all__ = ["answer_once", "piped_text"]


def piped_text(prompt: str | None) -> str:
    """The prompt, and what comes on a standard input that is no terminal; empty if neither is."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    return "\n\n".join(part for part in (prompt, piped) if part and part.strip())


def answer_once(
    chat: Chat,
    text: str | None,
    options: Options,
    view: View,
    *,
    model: str,
    as_json: bool,
    stats: bool,
) -> None:
    """Send a text, or go on without, and print the answer, or one JSON object, to stdout."""
    turns: list[Turn] = []
    view.show(_watched(chat.send(text, options), turns, is_silent=as_json))
    calls = [(call.recipient, call.content) for call in chat.open_calls]
    if as_json:
        outcome = _as_dict(model, turns, calls, view.filtered)
        click.echo(json.dumps(outcome, ensure_ascii=False))
    for recipient, content in calls if not as_json else ():
        line = f"{recipient}({content})"
        click.echo(printable(line) if sys.stdout.isatty() else line)
    if turns[-1].finish_reason == "stop" and not turns[-1].answer.strip() and not as_json:
        view.note("The model ended without an answer.")
    if turns[-1].finish_reason == "length" and not as_json:
        view.note("Cut off: the limit was reached (--max-tokens, or the context).")
    if stats:
        for turn in turns:
            click.echo(stats_line(turn), err=True)


def _watched(events: Generator[Event], turns: list[Turn], *, is_silent: bool) -> Generator[Event]:
    """The events, turns noted; without the answer's own if that is not to be shown."""
    from gptoss_mlx.chat import Turn
    from gptoss_mlx.harmony import Delta, Message

    try:
        for event in events:
            if isinstance(event, Turn):
                turns.append(event)
            if not (is_silent and isinstance(event, (Delta, Message)) and event.is_shown):
                yield event
    finally:
        events.close()


def _as_dict(
    model: str,
    turns: Sequence[Turn],
    calls: Sequence[tuple[str | None, str]],
    filtered: Callable[[str], str],
) -> dict[str, Any]:
    """The outcome; counts and seconds are of all turns together."""
    stats = [turn.stats for turn in turns]
    return {
        "model": model,
        "reasoning": "\n\n".join(turn.reasoning for turn in turns if turn.reasoning),
        "content": filtered("\n\n".join(turn.answer for turn in turns if turn.answer)),
        "tool_calls": [{"name": name, "arguments": content} for name, content in calls],
        "finish_reason": turns[-1].finish_reason,
        "usage": {
            "prompt_tokens": sum(s.prompt_tokens for s in stats),
            "cached_tokens": sum(s.cached_tokens for s in stats),
            "completion_tokens": sum(s.completion_tokens for s in stats),
            "prefill_seconds": round(sum(s.prefill_seconds for s in stats), 3),
            "decode_seconds": round(sum(s.decode_seconds for s in stats), 3),
        },
    }
