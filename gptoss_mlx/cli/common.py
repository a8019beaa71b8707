"""Options and small helpers that several commands share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from click.shell_completion import CompletionItem

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import UsageError

if TYPE_CHECKING:
    from gptoss_mlx.chat import Turn
    from gptoss_mlx.engine import Engine
    from gptoss_mlx.memory import EmbeddingChoice
    from gptoss_mlx.segment import KVBits
    from gptoss_mlx.sequence import SpeculationMode
    from gptoss_mlx.terminal.view import View
    from gptoss_mlx.tokenizer import Tokenizer

__all__ = [
    "EngineOptions",
    "complete_installed",
    "complete_model",
    "debug_option",
    "debugging",
    "embedding_option",
    "engine_options",
    "kv_bits_option",
    "model_option",
    "open_engine",
    "open_view",
    "reasoning_option",
    "require_model",
    "sampling_options",
    "show_passing",
    "stats_line",
    "styled",
    "system_option",
]

_DEBUG_VARIABLE = "GPTOSS_MLX_DEBUG"
_CLEAR_LINE = "\r\x1b[K"  # to the start of the terminal's line, and erase it


def _set_debug(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        os.environ[_DEBUG_VARIABLE] = "1"


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_set_debug,
    help="Show a traceback with errors.",
)


def complete_installed(
    _: click.Context, __: click.Parameter, typed: str
) -> list[CompletionItem[str]]:
    """The names of installed models that begin so."""
    from gptoss_mlx.library import installed

    return [CompletionItem(m.name) for m in installed() if m.name.startswith(typed)]


def complete_model(
    context: click.Context, parameter: click.Parameter, typed: str
) -> list[CompletionItem[str]]:
    """The short names of models, those that are installed, and folders."""
    short = [CompletionItem(name) for name in ("20b", "120b", "demo") if name.startswith(typed)]
    names = complete_installed(context, parameter, typed)
    return [*short, *names, CompletionItem(typed, type="dir")]


model_option = click.option(
    "-m",
    "--model",
    envvar="GPTOSS_MLX_MODEL",
    metavar="NAME|PATH",
    shell_complete=complete_model,
    help="20b, 120b, demo, a name that `models` lists, or the folder of a converted checkpoint; by "
    "default the one installed last.  [env: GPTOSS_MLX_MODEL]",
)
reasoning_option = click.option(
    "-r",
    "--reasoning",
    type=click.Choice(["low", "medium", "high"], case_sensitive=False),
    default="medium",
    show_default=True,
    help="How long to think before answering.",
)
system_option = click.option("-s", "--system", metavar="TEXT", help="Instructions for the model.")


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --max-tokens, --temperature, --top-p and --seed; the command gets them as `params`."""

    @functools.wraps(command)
    def wrapped(
        max_tokens: int | None, temperature: float, top_p: float, seed: int | None, **rest: Any
    ) -> None:
        command(params=SamplingParams(temperature, top_p, seed, max_tokens), **rest)

    options = [
        click.option("--max-tokens", type=click.IntRange(1), help="Limit, reasoning included."),
        click.option(
            "--temperature",
            type=float,
            default=1.0,
            show_default=True,
            help="0 always takes the likeliest token.",
        ),
        click.option(
            "--top-p",
            type=float,
            default=1.0,
            show_default=True,
            help="Draw from the likeliest tokens that sum to this.",
        ),
        click.option("--seed", type=int, help="Make the draw repeatable."),
    ]
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@dataclass(frozen=True)
class EngineOptions:
    """How the engine of a command is to run; None and the defaults leave it to the memory plan."""

    context: int | None = None
    embedding: EmbeddingChoice = "auto"
    kv_bits: KVBits = 16
    prompt_cache: Path | None = None
    speculation: SpeculationMode = "off"


def _to_number(_: click.Context, __: click.Parameter, choice: str) -> int:
    return int(choice)


embedding_option = click.option(
    "--embedding",
    type=click.Choice(["auto", "memory", "disk"]),
    default="auto",
    show_default=True,
    help="Where the embedding table stays; auto: on disk where memory is short.",
)
kv_bits_option = click.option(
    "--kv-bits",
    type=click.Choice(["16", "8"]),
    default="16",
    show_default=True,
    callback=_to_number,
    help="Of a number in the context's cache; 8 takes about half the memory.",
)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of EngineOptions; the command gets them as `engine`."""

    @functools.wraps(command)
    def wrapped(
        context: int | None,
        embedding: EmbeddingChoice,
        kv_bits: KVBits,
        prompt_cache: Path | None,
        speculation: SpeculationMode,
        **rest: Any,
    ) -> None:
        engine = EngineOptions(context, embedding, kv_bits, prompt_cache, speculation)
        command(engine=engine, **rest)

    options = [
        click.option(
            "--context",
            type=click.IntRange(1),
            metavar="TOKENS",
            help="Of prompt and answer together; by default as many as fit into memory.",
        ),
        embedding_option,
        kv_bits_option,
        click.option(
            "--prompt-cache",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Keep prompts warm there, from one run to the next.",
        ),
        click.option(
            "--speculation",
            type=click.Choice(["off", "on", "auto"]),
            default="off",
            show_default=True,
            help="Guess tokens from what was said before; auto stops where that does not pay.",
        ),
    ]
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def require_model(name: str | None, demo: str = "--model demo") -> str:
    """The model's name; if none was given, that of the one installed last.

    Args:
        name: as it was given.
        demo: how the command is told to take the demo.

    Raises:
        UsageError: none was given and none is installed, or an empty one was.
    """
    if name:
        return name
    if name == "":
        raise UsageError(
            "the model's name is empty (a variable that is not set?): pass the folder of a "
            "converted checkpoint, . for the current one, or demo"
        )
    from gptoss_mlx import library

    if model := library.default():
        return model.name
    raise UsageError(
        "no model given and none installed: `gptoss-mlx download 20b --convert` installs one; "
        f"{demo} works now, without a download"
    )


def open_engine(name: str, options: EngineOptions) -> tuple[Engine, Tokenizer]:
    """Load a model and its tokenizer."""
    from gptoss_mlx.engine import Engine
    from gptoss_mlx.memory import Use
    from gptoss_mlx.models import resolve
    from gptoss_mlx.tokenizer import load_tokenizer

    folder = resolve(name)
    use = Use(options.context, embedding=options.embedding, kv_bits=options.kv_bits)
    engine = Engine.load(folder, use, prompt_cache=options.prompt_cache)
    return engine, load_tokenizer(folder)


def open_view(*, shows_reasoning: bool) -> View:
    """What shows answers on stdout, and all else on stderr; plain where there is no terminal."""
    from rich.console import Console

    from gptoss_mlx.terminal.view import View

    out, err = (
        Console(
            file=stream,
            force_terminal=styled(stream),
            no_color="NO_COLOR" in os.environ,
            highlight=False,
            markup=False,
            emoji=False,
        )
        for stream in (sys.stdout, sys.stderr)
    )
    return View(out, err, shows_reasoning=shows_reasoning, shows_tracebacks=debugging())


def stats_line(turn: Turn) -> str:
    """Token counts and speeds of a turn, for people."""
    stats = turn.stats
    cached = f" ({stats.cached_tokens} of them cached)" if stats.cached_tokens else ""
    return (
        f"{stats.prompt_tokens} prompt tokens{cached} at {stats.prefill_rate:.0f}/s, "
        f"{stats.completion_tokens} completion tokens at {stats.decode_rate:.1f}/s "
        f"({turn.finish_reason})"
    )


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")


def show_passing(what: str | None) -> None:
    """What is being done, in a line that vanishes; only where stderr is a terminal."""
    if styled(sys.stderr):
        text = f"{what} ..." if what else ""
        click.secho(_CLEAR_LINE + text, nl=False, err=True, dim=True)


def styled(stream: TextIO) -> bool:
    """Whether colours and redrawing are welcome: on a terminal that knows them."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") in ("", "dumb")
    return stream.isatty() and not plain
