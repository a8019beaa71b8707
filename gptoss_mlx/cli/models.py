"""`gptoss-mlx models` and `rm`: what is installed, and removing it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from gptoss_mlx.cli.common import complete_installed, debug_option
from gptoss_mlx.cli.progress import size_text
from gptoss_mlx.errors import UsageError

if TYPE_CHECKING:
    from gptoss_mlx.library import Installed

__all__ = ["models", "rm"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@debug_option
def models(as_json: bool) -> None:
    """List the models that are installed: name, size on disk, variant, place.

    Also what was downloaded to be converted, and what is not complete.
    """
    from gptoss_mlx import library

    rows = [_row(model) for model in library.installed()]
    if as_json:
        click.echo(json.dumps([vars(row) for row in rows], ensure_ascii=False, indent=2))
        return
    if not rows:
        click.echo("No model is installed: gptoss-mlx download 20b --convert", err=True)
        return
    name_width = max(len(row.name) for row in rows)
    state_width = max(len(row.state) for row in rows)
    for row in rows:
        size = f"{size_text(row.bytes):>9}"
        click.echo(f"{row.name:{name_width}}{size}  {row.state:{state_width}}  {row.path}")


@click.command()
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_installed
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@debug_option
def rm(names: tuple[str, ...], yes: bool) -> None:
    """Remove models, files and all, by the names that `models` lists.

    Files in a folder that was given to download with --dir stay, and so do those that another
    model's name leads to.
    """
    from gptoss_mlx import library

    for model in [library.get(name) for name in dict.fromkeys(names)]:
        if not yes and not _is_wanted(model):
            click.echo(f"{model.name} stays.")
            continue
        place, nbytes = model.place, model.nbytes
        # what is made of a repository goes by its name and a suffix
        with library.only_one(model.name), library.only_one(model.name.rpartition("-")[0]):
            is_gone = library.remove(model)
        if is_gone:
            click.echo(f"{model.name} is removed ({size_text(nbytes)}, {place}).")
        else:
            click.echo(f"{model.name} is forgotten; its files stay in {place}.")


@dataclass(frozen=True)
class _Row:
    name: str
    bytes: int
    model: str
    variant: str
    state: str
    path: str


def _row(model: Installed) -> _Row:
    from gptoss_mlx.library import problem_of

    state = model.variant if model.is_ready else f"{model.variant}, to be converted"
    if problem_of(model):
        state = "damaged" if model.is_ready else "incomplete"
    return _Row(model.name, model.nbytes, model.size, model.variant, state, str(model.place))


def _is_wanted(model: Installed) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{model.name} is only removed without asking if you pass --yes")
    return click.confirm(
        f"Remove {model.name} ({size_text(model.nbytes)}, {model.place})?", err=True
    )
