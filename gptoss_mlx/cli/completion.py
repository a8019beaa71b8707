"""`gptoss-mlx completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gptoss_mlx.cli.common import debug_option

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@debug_option
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  gptoss-mlx completion bash >> ~/.bashrc
    zsh:   gptoss-mlx completion zsh >> ~/.zshrc
    fish:  gptoss-mlx completion fish > ~/.config/fish/completions/gptoss-mlx.fish
    """
    root = click.get_current_context().find_root()
    script = get_completion_class(shell)
    assert script is not None, "click knows all three"
    maker = script(root.command, {}, "gptoss-mlx", "_GPTOSS_MLX_COMPLETE")
    click.echo(maker.source())
