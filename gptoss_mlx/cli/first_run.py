"""The first `gptoss-mlx chat`, with nothing installed: what suits this machine, if it is wanted."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from gptoss_mlx.cli.common import EngineOptions
from gptoss_mlx.cli.download import carry_out
from gptoss_mlx.errors import MemoryPlanError

if TYPE_CHECKING:
    from gptoss_mlx.fit import Recommendation

__all__ = ["is_first_run", "offer"]

_LINE = 100e6 / 8  # bytes a second of a usual connection


def is_first_run() -> bool:
    """Whether there is no model, and somebody who can be asked."""
    from gptoss_mlx import library

    return sys.stderr.isatty() and library.default() is None


def offer(engine: EngineOptions) -> tuple[str, EngineOptions] | None:
    """Say what suits this machine, ask, and install it; None if it is not wanted.

    Returns the model's name and how it is to be run.

    Raises:
        MemoryPlanError: nothing fits into this machine's memory.
        DiskError: nor is there room on the disk.
        UsageError: a context that no model knows.
    """
    from gptoss_mlx.fit import Wish, recommend
    from gptoss_mlx.installation import Order, check_room

    found = recommend(wish=Wish(engine.context))
    if found.model is None or found.variant is None:
        raise MemoryPlanError(f"{found.reason}; gptoss-mlx chat --model demo works everywhere")
    check_room(found.download_bytes, found.disk_bytes)
    for line in _description(found):
        click.echo(line, err=True)
    if not click.confirm("Download and install it now?", err=True):
        click.echo("Nothing was downloaded. To try it without: gptoss-mlx chat --model demo")
        return None
    variant = found.variant
    outcome = carry_out(Order(found.model, converts=True, dense=variant.dense))
    assert outcome.model is not None, "what is converted is installed"
    if variant.options:
        again = " ".join(("gptoss-mlx chat", *variant.options))
        click.echo(f"{outcome.model} is installed. From now on: {again}", err=True)
    return outcome.model, _merged(engine, found)


def _description(found: Recommendation) -> list[str]:
    minutes = max(1, round(found.download_bytes / _LINE / 60))
    fetched, written = found.download_bytes / 1e9, found.disk_bytes / 1e9
    return [
        "No model is installed yet. What suits this machine:",
        f"  {found.reason}",
        f"  It is a download of {fetched:.1f} GB (about {minutes} minutes at 100 Mbit/s), once, "
        f"and is converted to {written:.1f} GB; then the download is removed.",
        "  `gptoss-mlx fit` shows what else there is; `gptoss-mlx chat --model demo` needs none.",
    ]


def _merged(engine: EngineOptions, found: Recommendation) -> EngineOptions:
    """What was said on the command line counts; the rest is as recommended."""
    assert found.variant is not None
    return replace(engine, kv_bits=min(engine.kv_bits, found.variant.kv_bits))
