"""`gptoss-mlx download`: bring a model here, and if asked convert it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, cast

import click

from gptoss_mlx.cli.common import debug_option
from gptoss_mlx.cli.progress import installing
from gptoss_mlx.errors import UsageError
from gptoss_mlx.paths import expand

if TYPE_CHECKING:
    from gptoss_mlx.convert import Dense
    from gptoss_mlx.hub import Source
    from gptoss_mlx.installation import Order, Outcome

__all__ = ["carry_out", "download"]


@click.command()
@click.argument("model", metavar="[20b|120b|REPO]", default="20b")
@click.option("--revision", default="main", metavar="NAME", help="A branch, tag or commit.")
@click.option(
    "--source",
    type=click.Choice(["original", "hf", "mlx"]),
    help="Which files: OpenAI's own (the default where they are), those for Hugging Face's "
    "libraries, or a ready-made MLX conversion.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Put the files there; by default into the shared cache of Hugging Face.",
)
@click.option("--convert", "converts", is_flag=True, help="Go on to convert, and install that.")
@click.option(
    "--dense",
    type=click.Choice(["bf16", "q8", "q4"]),
    default="q8",
    show_default=True,
    help="What is converted to; or which ready-made conversion.",
)
@click.option(
    "--keep-original", is_flag=True, help="Do not remove what was downloaded to be converted."
)
@click.option("--elsewhere", is_flag=True, help="Also what does not fit this machine's memory.")
@debug_option
def download(
    model: str,
    revision: str,
    source: str | None,
    folder: str | None,
    converts: bool,
    dense: str,
    keep_original: bool,
    elsewhere: bool,
) -> None:
    """Download a model: only the files that are needed, 13.8 GB for the 20b.

    What is interrupted goes on with the same command. All files are checked.

    \b
    gptoss-mlx download 20b --convert
    gptoss-mlx download mlx-community/gpt-oss-20b-MXFP4-Q8
    """
    from gptoss_mlx.installation import Order

    if folder == "":
        raise UsageError("--dir is empty (a variable that is not set?); . is the current folder")
    if revision == "":
        raise UsageError("--revision is empty (a variable that is not set?): leave it out")
    order = Order(
        model,
        revision,
        cast("Source | None", source),
        expand(folder).absolute() if folder else None,
        converts,
        cast("Dense", dense),
        keep_original,
        elsewhere,
    )
    outcome = carry_out(order)
    click.echo(_described(outcome, order))


def carry_out(order: Order) -> Outcome:
    """Install what is ordered, shown on stderr; what is interrupted says how to go on."""
    from gptoss_mlx.hub import quieten
    from gptoss_mlx.installation import install

    quieten()  # what goes wrong is said here, and once
    try:
        with installing() as observer:
            return install(order, observer)
    except KeyboardInterrupt:
        click.echo("What is here stays: the same command goes on.", err=True)
        raise


def _described(outcome: Outcome, order: Order) -> str:
    if outcome.was_there:
        return f"{outcome.model} is installed already, at {outcome.folder}."
    if not outcome.is_ready:
        return f"{outcome.folder}: all files are here, and right.\nNext: {_with_convert(order)}"
    removed = " The original was removed." if outcome.removed else ""
    ready_made = order.converts and not outcome.converted
    note = " It is ready-made: nothing was converted." if ready_made else ""
    return (
        f"{outcome.model} is installed, at {outcome.folder}.{removed}{note}\n"
        f"Next: gptoss-mlx chat --model {outcome.model}"
    )


def _with_convert(order: Order) -> str:
    """The command that goes on with what an order has brought here."""
    from gptoss_mlx.installation import Order

    parts = ["gptoss-mlx", "download", order.model, "--convert"]
    if order.revision != "main":
        parts += ["--revision", order.revision]
    if order.dense != Order.dense:
        parts += ["--dense", order.dense]
    if order.source:
        parts += ["--source", order.source]
    if order.folder:
        parts += ["--dir", str(order.folder)]
    return shlex.join(parts)
