"""`gptoss-mlx bench`: how fast a model is here, in a table that can be pasted into an issue."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from gptoss_mlx.cli.common import (
    complete_model,
    debug_option,
    debugging,
    embedding_option,
    kv_bits_option,
    require_model,
    show_passing,
    styled,
)
from gptoss_mlx.errors import UsageError

if TYPE_CHECKING:
    from gptoss_mlx.bench.planning import Planned
    from gptoss_mlx.bench.results import Results
    from gptoss_mlx.bench.sides import SideName
    from gptoss_mlx.bench.turns import Turn
    from gptoss_mlx.memory import EmbeddingChoice
    from gptoss_mlx.segment import KVBits

__all__ = ["bench"]

_COLOURS = {"gptoss-mlx": "green", "mlx-lm": "blue"}
_PLOT_WIDTH = 100  # at most


class _Sizes(click.ParamType[tuple[int, ...]]):
    """Whole numbers: 512,4096."""

    name = "sizes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """In order, each once."""
        parts = str(value).split(",")
        if all(re.fullmatch(r"\s*0*[1-9]\d{0,8}\s*", part) for part in parts):
            return tuple(sorted({int(part) for part in parts}))
        return self.fail(f"{value!r} is no list of sizes such as 512,4096", param, ctx)


@click.command()
@click.argument(
    "model",
    required=False,
    envvar="GPTOSS_MLX_MODEL",
    shell_complete=complete_model,
)
@click.option("--contexts", type=_Sizes(), metavar="N,N,...", help="Tokens of the prompts.")
@click.option("--batches", type=_Sizes(), metavar="N,N,...", help="Sequences at once.")
@click.option("--tokens", type=click.IntRange(2), metavar="N", help="To decode after each prompt.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="How often; medians are shown.",
)
@click.option("--compare", type=click.Choice(["mlx-lm"]), help="Run stock mlx-lm in turns with us.")
@embedding_option
@kv_bits_option
@click.option("--plot", "is_plotted", is_flag=True, help="Draw the decode rates, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every round.")
@debug_option
def bench(
    model: str | None,
    contexts: tuple[int, ...] | None,
    batches: tuple[int, ...] | None,
    tokens: int | None,
    rounds: int,
    compare: str | None,
    embedding: EmbeddingChoice,
    kv_bits: KVBits,
    is_plotted: bool,
    as_json: bool,
) -> int:
    """Measure how fast MODEL is here: prompts, decoding, next turns, batches, memory.

    MODEL is what the other commands take: 20b, demo, the folder of a converted checkpoint; by
    default the one installed last. Prints tables to paste into an issue. Contexts and batches
    depend on the device, and on what fits.
    """
    if as_json and is_plotted:
        raise click.UsageError("--plot draws in a terminal, --json is for scripts: pass one")
    if compare and find_spec("mlx_lm") is None:
        raise UsageError("--compare mlx-lm needs mlx-lm: pip install mlx-lm")
    from gptoss_mlx.bench.planning import Wish, plan

    wish = Wish(contexts, batches, tokens, embedding, kv_bits)
    planned = plan(require_model(model, demo="gptoss-mlx bench demo"), wish)
    results = _measured(planned, ("gptoss-mlx", "mlx-lm") if compare else ("gptoss-mlx",), rounds)
    _show(results, as_json=as_json, is_plotted=is_plotted)
    if not results.is_complete:
        raise click.Abort
    for side, failure in results.failures:
        if debugging():
            click.echo(failure.details, err=True)
        click.echo(f"Error: {side}: {failure.text}", err=True)
    return 1 if results.failures else 0


def _measured(planned: Planned, sides: tuple[SideName, ...], rounds: int) -> Results:
    """Everything; or what there was when somebody stopped it."""
    from gptoss_mlx.bench.machine import this_system
    from gptoss_mlx.bench.results import Results
    from gptoss_mlx.bench.roofline import find_bandwidth
    from gptoss_mlx.bench.turns import in_turns

    show_passing("Reading memory")
    try:
        bandwidth = find_bandwidth()
        turns: list[Turn] = []
        is_complete = False
        running = closing(in_turns(planned.workload, sides, rounds))
        with suppress(KeyboardInterrupt), running as coming:
            for turn in coming:
                turns.append(turn)
                _show_progress(turn, rounds)
            is_complete = True
    finally:
        show_passing(None)
    return Results(this_system(), planned, sides, rounds, bandwidth, tuple(turns), is_complete)


def _show_progress(turn: Turn, rounds: int) -> None:
    from gptoss_mlx.bench.events import Doing

    if isinstance(turn.event, Doing):
        show_passing(f"Round {turn.round + 1} of {rounds}, {turn.side}: {turn.event.text}")


def _show(results: Results, *, as_json: bool, is_plotted: bool) -> None:
    from gptoss_mlx.bench.results import as_dict
    from gptoss_mlx.bench.text import as_text

    if as_json:
        click.echo(json.dumps(as_dict(results), ensure_ascii=False))
    elif any(results.readings(side) for side in results.sides):
        click.echo("\n".join(as_text(results)))
        if is_plotted:
            click.echo("\n" + "\n".join(_plot(results)))


def _plot(results: Results) -> Iterator[str]:
    from gptoss_mlx.bench.plot import plot

    width = min(shutil.get_terminal_size().columns, _PLOT_WIDTH)
    for line in plot(results, width):
        colour = _COLOURS.get(line.name) if styled(sys.stdout) else None
        yield click.style(line.text, fg=colour) if colour else line.text
