"""The command line: one file a command, each importing what is heavy only when it runs.

Errors raised on purpose become one line and an exit code; `--debug` shows where they came from.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version

import click

from gptoss_mlx.cli.bench import bench
from gptoss_mlx.cli.chat import chat
from gptoss_mlx.cli.common import debug_option, debugging
from gptoss_mlx.cli.completion import completion
from gptoss_mlx.cli.convert import convert
from gptoss_mlx.cli.doctor import doctor
from gptoss_mlx.cli.download import download
from gptoss_mlx.cli.fit import fit
from gptoss_mlx.cli.generate import generate
from gptoss_mlx.cli.models import models, rm
from gptoss_mlx.cli.serve import serve
from gptoss_mlx.errors import GptOssError

__all__ = ["cli", "run"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("gptoss-mlx"), prog_name="gptoss-mlx")
@debug_option
def cli() -> None:
    """Run OpenAI's gpt-oss models on your own Mac.

    Try it at once, without a download:  gptoss-mlx chat --model demo
    """


for command in (
    bench,
    chat,
    completion,
    convert,
    doctor,
    download,
    fit,
    generate,
    models,
    rm,
    serve,
):
    cli.add_command(command)


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        with _warnings_shown():
            code: object = cli.main(arguments, prog_name="gptoss-mlx", standalone_mode=False)
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "gptoss-mlx"
        return _report(f"Error: {error.format_message()} ({name} --help says more)", 2)
    except click.ClickException as error:
        return _report(f"Error: {error.format_message()}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `gptoss-mlx generate ... | head`
        sys.stderr.close()
        return 0
    except GptOssError as error:
        return _report(f"Error: {error}", error.exit_code)
    except MemoryError:
        return _report("Error: out of memory: close other programs, or use a smaller model", 1)
    except OSError as error:
        return _report(f"Error: {error}", 1)
    except Exception as error:
        return _report(f"Internal error: {error!r}; --debug shows the traceback", 1)
    return code if isinstance(code, int) else 0


class _Lines(logging.Handler):
    """Shows warnings as it shows errors."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"Note: {record.getMessage()}", err=True)


@contextmanager
def _warnings_shown() -> Generator[None]:
    """What the package logs as a warning is one line on stderr."""
    logger, handler = logging.getLogger("gptoss_mlx"), _Lines(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _report(message: str, code: int) -> int:
    if debugging():
        traceback.print_exc()
    click.echo(message, err=True)
    return code
