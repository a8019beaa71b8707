"""`gptoss-mlx convert`: repack a published checkpoint for MLX, or verify that it was."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
from click.core import ParameterSource

from gptoss_mlx.cli.common import debug_option
from gptoss_mlx.cli.progress import byte_bars
from gptoss_mlx.errors import MemoryPlanError, UsageError
from gptoss_mlx.paths import expand

if TYPE_CHECKING:
    from gptoss_mlx.convert import ConversionReport, Dense
    from gptoss_mlx.convert.conversion import OnProgress

__all__ = ["convert"]


def _folder(_: click.Context, __: click.Parameter, value: str) -> Path:
    if not value:
        raise click.BadParameter(
            "the path is empty (a variable that is not set?); . is the current folder"
        )
    return expand(value)


def _source(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    """A folder, or what `download` gave a name."""
    from gptoss_mlx import library

    _folder(context, parameter, value)
    return library.locate(value)


@click.command()
@click.argument("source", metavar="SRC", type=click.Path(), callback=_source)
@click.argument("destination", metavar="DST", type=click.Path(), callback=_folder)
@click.option(
    "--dense",
    type=click.Choice(["bf16", "q8", "q4"]),
    default="q8",
    show_default=True,
    help="Attention, embedding and output: as they are, or quantized to 8 or 4 bits. "
    "Experts always keep their MXFP4.",
)
@click.option("--force", is_flag=True, help="Replace the checkpoint at DST.")
@click.option(
    "--elsewhere", is_flag=True, help="Convert also what does not fit this machine's memory."
)
@click.option(
    "--allow-unknown-config", is_flag=True, help="Go on when config.json has unknown keys."
)
@click.option(
    "--verify",
    "verify_only",
    is_flag=True,
    help="Convert nothing: compare, byte for byte. The folders may be given in either order.",
)
@debug_option
def convert(
    source: Path,
    destination: Path,
    dense: str,
    force: bool,
    elsewhere: bool,
    allow_unknown_config: bool,
    verify_only: bool,
) -> None:
    """Repack the gpt-oss checkpoint in SRC for MLX, into the new folder DST.

    SRC holds OpenAI's original files (the folder `original/` of openai/gpt-oss-20b) or Hugging
    Face's. DST can be used with gptoss-mlx, mlx-lm and LM Studio.
    """
    from gptoss_mlx.convert import convert as run_conversion
    from gptoss_mlx.convert import verify
    from gptoss_mlx.fit import options_for

    if verify_only:
        if force or _dense_given():
            raise UsageError("--verify only compares: it takes neither --dense nor --force")
        converted, original = _told_apart(source, destination)
        with _progress_bar("Verifying", "Checking tokenizer") as on_progress:
            report = verify(converted, original, on_progress=on_progress)
        click.echo(f"{converted} is what {original} converts to: {_summary(report)}.")
        return
    if not elsewhere:
        _check_memory(source, cast("Dense", dense), allow_unknown_config=allow_unknown_config)
    with _progress_bar("Converting", "Writing tokenizer, flushing") as on_progress:
        report = run_conversion(
            source,
            destination,
            dense=cast("Dense", dense),
            force=force,
            allow_unknown_config=allow_unknown_config,
            on_progress=on_progress,
        )
    click.echo(f"{destination}: {_summary(report)}.")
    options = "".join(f" {option}" for option in options_for(report.config, report.dense))
    click.echo(f"Next: gptoss-mlx chat --model {shlex.quote(str(destination))}{options}")


def _check_memory(source: Path, dense: Dense, *, allow_unknown_config: bool) -> None:
    """Spare people a conversion that this machine could not load."""
    from gptoss_mlx.convert.reader import open_source
    from gptoss_mlx.fit import check_conversion

    config = open_source(source, allow_unknown_config=allow_unknown_config).config
    try:
        check_conversion(config, dense)
    except MemoryPlanError as error:
        raise MemoryPlanError(f"{error}; for another machine, pass --elsewhere") from None


def _dense_given() -> bool:
    """Whether --dense was given, and is not just the default."""
    source = click.get_current_context().get_parameter_source("dense")
    return source is not None and source is not ParameterSource.DEFAULT


def _told_apart(first: Path, second: Path) -> tuple[Path, Path]:
    """(conversion, source), whichever way round they were given."""
    from gptoss_mlx.convert.writer import RECORD

    return (second, first) if (second / RECORD).is_file() else (first, second)


def _summary(report: ConversionReport) -> str:
    return (
        f"{report.tensors} tensors, {report.source_bytes / 1e9:.2f} GB -> "
        f"{report.written_bytes / 1e9:.2f} GB ({report.dense}) in {report.seconds:.1f} s"
    )


@contextmanager
def _progress_bar(title: str, afterwards: str) -> Generator[OnProgress, None, None]:
    """A bar on the terminal with bytes, speed and time left; silent when there is no terminal.

    `afterwards` is its title once all bytes are done, while some seconds of work remain.
    """
    with byte_bars() as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(
            task,
            completed=done,
            total=total,
            description=title if done < total else afterwards,
        )
