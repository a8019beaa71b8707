"""`gptoss-mlx generate`: one prompt, one answer; made for pipes and scripts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from gptoss_mlx.cli.common import (
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
from gptoss_mlx.errors import UsageError

if TYPE_CHECKING:
    from gptoss_mlx.chat import Turn
    from gptoss_mlx.harmony import Delta, FunctionTool, Message

__all__ = ["generate"]


@click.command()
@click.argument("prompt", required=False)
@model_option
@reasoning_option
@system_option
@sampling_options
@engine_options
@click.option(
    "--tools",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON file with functions the model may call, as in OpenAI's APIs.",
)
@click.option("--show-reasoning", is_flag=True, help="Print the chain of thought, too (to stderr).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--stats", is_flag=True, help="Print token counts and speed (to stderr).")
@debug_option
def generate(
    prompt: str | None,
    model: str | None,
    reasoning: str,
    system: str | None,
    params: SamplingParams,
    engine: EngineOptions,
    tools: Path | None,
    show_reasoning: bool,
    as_json: bool,
    stats: bool,
) -> None:
    """Answer PROMPT, or standard input, or PROMPT about standard input.

    Standard input is read to its end whenever it is not a terminal; </dev/null keeps it out.

    \b
    gptoss-mlx generate --model demo "What is 2 + 2?"
    git diff | gptoss-mlx generate --model PATH "Review this."
    """
    name = require_model(model)
    functions = _read_tools(tools)
    text = _prompt_text(prompt)
    chat = open_chat(name, reasoning, system, engine, functions)
    from gptoss_mlx.chat import Options

    with prefill_line() as on_prefill:
        for event in chat.send(text, Options(params, on_prefill)):
            _show(event, as_json=as_json, show_reasoning=show_reasoning)
    turn = chat.last_turn
    assert turn is not None
    if as_json:
        click.echo(json.dumps(_as_dict(name, turn), ensure_ascii=False))
    else:
        _finish_text(turn)
    if stats:
        click.echo(stats_line(turn), err=True)


def _show(event: Delta | Message, *, as_json: bool, show_reasoning: bool) -> None:
    from gptoss_mlx.harmony import Delta

    if not isinstance(event, Delta):
        if event.is_reasoning and show_reasoning:
            click.echo(err=True)
    elif as_json:
        return
    elif event.is_shown:
        click.echo(_safe(event.text), nl=False)
    elif event.is_reasoning and show_reasoning:
        click.secho(_safe(event.text), nl=False, err=True, dim=styled(sys.stderr) or None)


def _prompt_text(prompt: str | None) -> str:
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().strip()
    text = "\n\n".join(part for part in (prompt, piped) if part)
    if not text.strip():
        raise UsageError("no prompt: give one as an argument or on standard input")
    return text


def _read_tools(path: Path | None) -> tuple[FunctionTool, ...]:
    """Functions from `[{"name": ..., "description": ..., "parameters": {...}}, ...]`.

    Both of OpenAI's spellings are read, with and without `{"type": "function", "function": ...}`.
    """
    if path is None:
        return ()
    try:
        entries: Any = json.loads(path.read_text("utf-8"))
        return tuple(_function(entry) for entry in ([entries] if _is_one(entries) else entries))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        problem = str(error) if type(error) is TypeError else "not JSON"
        raise UsageError(f"{path}: {problem}; expected a list of functions with names") from None


def _is_one(entries: Any) -> bool:
    return isinstance(entries, dict) and ("name" in entries or "function" in entries)


def _function(entry: Any) -> FunctionTool:
    from gptoss_mlx.harmony import FunctionTool

    outer = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    function: Any = outer.get("function", outer)
    if not isinstance(function, dict):
        raise TypeError("an entry is not a function")
    function = cast("dict[str, Any]", function)
    name, description = function.get("name"), function.get("description", "")
    parameters = function.get("parameters")
    if not isinstance(name, str) or not name:
        raise TypeError("a function has no name")
    if not isinstance(description, str) or not isinstance(parameters, (dict, type(None))):
        raise TypeError(f"{name}: the description must be a text, the parameters a JSON schema")
    return FunctionTool(name, description, cast("dict[str, Any] | None", parameters))


def _finish_text(turn: Turn) -> None:
    for call in turn.tool_calls:
        click.echo(_safe(f"{call.recipient}({call.content})"), nl=False)
    click.echo()
    if turn.finish_reason == "length":
        click.echo("Cut off: the limit was reached (--max-tokens, or the context).", err=True)


def _as_dict(model: str, turn: Turn) -> dict[str, Any]:
    stats = turn.stats
    return {
        "model": model,
        "reasoning": turn.reasoning,
        "content": turn.answer,
        "tool_calls": [{"name": c.recipient, "arguments": c.content} for c in turn.tool_calls],
        "finish_reason": turn.finish_reason,
        "usage": {
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "completion_tokens": stats.completion_tokens,
            "prefill_seconds": round(stats.prefill_seconds, 3),
            "decode_seconds": round(stats.decode_seconds, 3),
        },
    }


def _safe(text: str) -> str:
    return printable(text) if sys.stdout.isatty() else text
