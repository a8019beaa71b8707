"""`gptoss-mlx generate`: one prompt, one answer; made for pipes and scripts."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptoss_mlx.cli.common import (
    EngineOptions,
    debug_option,
    engine_options,
    model_option,
    open_engine,
    open_view,
    reasoning_option,
    require_model,
    sampling_options,
    system_option,
)
from gptoss_mlx.cli.oneshot import answer_once, piped_text
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import UsageError

if TYPE_CHECKING:
    from gptoss_mlx.harmony import Effort, FunctionTool

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
    help="A JSON file with functions the model may call, as in OpenAI's APIs; calls are printed.",
)
@click.option("--show-reasoning", is_flag=True, help="Print the chain of thought, too (to stderr).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--stats", is_flag=True, help="Print token counts and speed (to stderr).")
@debug_option
def generate(
    prompt: str | None,
    model: str | None,
    reasoning: Effort,
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
    functions = _described(tools)
    text = piped_text(prompt)
    if not text:
        raise UsageError("no prompt: give one as an argument or on standard input")
    from gptoss_mlx.chat import Chat, Options
    from gptoss_mlx.harmony import Setup

    setup = Setup(reasoning, system, functions, date.today().isoformat())
    model_engine, tokenizer = open_engine(name, engine)
    view = open_view(shows_reasoning=show_reasoning)
    chat = Chat(model_engine, tokenizer, setup, engine.speculation)
    options = Options(params, view.on_prefill)
    answer_once(chat, text, options, view, model=name, as_json=as_json, stats=stats)


def _described(path: Path | None) -> tuple[FunctionTool, ...]:
    """The functions of a file; nothing is run here, so that who has them does not matter."""
    if path is None:
        return ()
    from gptoss_mlx.tools.functions import load_functions

    tool = load_functions(path)
    tool.close()
    return (*tool.functions, *tool.client_functions)
