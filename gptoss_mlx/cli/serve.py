"""`gptoss-mlx serve`: OpenAI's and Anthropic's APIs for local applications."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptoss_mlx.cli.common import (
    EngineOptions,
    debug_option,
    engine_options,
    model_option,
    require_model,
)
from gptoss_mlx.errors import UsageError

if TYPE_CHECKING:
    from gptoss_mlx.server.host import OpenModel
    from gptoss_mlx.server.logs import LogFormat
    from gptoss_mlx.server.responses.store import ResponseStore
    from gptoss_mlx.server.sealing import Seal
    from gptoss_mlx.tools import Toolbox

__all__ = ["clients_text", "serve"]

_BUILTINS = ("browser", "python")


@click.command()
@model_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="GPTOSS_MLX_API_KEY",
    metavar="KEY",
    help="What requests must bring; needed where others can reach the address.  "
    "[env: GPTOSS_MLX_API_KEY]",
)
@click.option("--open", "is_open", is_flag=True, help="Let everybody in who reaches the address.")
@click.option(
    "--allowed-host", multiple=True, metavar="NAME", help="A name that clients call it by."
)
@click.option(
    "--cors", multiple=True, metavar="ORIGIN", help="Web pages that may call it, as https://a.b."
)
@click.option(
    "-t",
    "--tools",
    multiple=True,
    metavar="NAMES",
    help="Tools that requests may use: python, browser, browser:exa, browser:you, "
    "browser:folder:DIR.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Requests of the full context at once, for which memory is planned.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    metavar="N",
    help="Requests that may wait; further ones are told to come back (429).",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1024),
    default=32,
    show_default=True,
    metavar="MIB",
    help="The largest request.",
)
@click.option(
    "--idle",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Unload the model when it was not needed for so long.",
)
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep responses in this SQLite file, and beside it the key that signs what clients keep; "
    "otherwise both end with the server.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least that is logged, on stderr; never what was said.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="An object a line, or lines for people.",
)
@click.option(
    "--open-responses", is_flag=True, help="Name the events of /v1/responses as that standard does."
)
@click.option("--name", metavar="TEXT", help="What clients see as the model's name.")
@engine_options
@debug_option
def serve(
    model: str | None,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    is_open: bool,
    allowed_host: tuple[str, ...],
    cors: tuple[str, ...],
    tools: tuple[str, ...],
    parallel: int,
    max_waiting: int,
    max_body: int,
    idle: float | None,
    store: Path | None,
    log_level: str,
    log_format: LogFormat,
    open_responses: bool,
    name: str | None,
    engine: EngineOptions,
) -> None:
    """Serve a model over HTTP: chat completions, responses, messages.

    \b
    gptoss-mlx serve --model demo
    gptoss-mlx serve --model PATH --tools python,browser --idle 900
    """
    path = require_model(model)
    from gptoss_mlx.server.app import make_app
    from gptoss_mlx.server.host import ModelHost
    from gptoss_mlx.server.logs import logging_to
    from gptoss_mlx.server.serving import listen, url_of
    from gptoss_mlx.server.serving import serve as run
    from gptoss_mlx.server.settings import Settings

    settings = Settings(
        name or Path(path).expanduser().resolve().name,
        host,
        api_keys,
        is_open,
        allowed_host,
        cors,
        _builtins(tools),
        max_body=max_body << 20,
        open_responses=open_responses,
    )
    if settings.tools:
        _open_tools(settings.tools, list(settings.tools)).close()  # what is wrong shows now
    with (
        listen(host, port) as listener,
        logging_to(sys.stderr, getattr(logging, log_level.upper()), log_format),
    ):
        responses, seal = _kept(store)
        click.echo(f"Loading {path} ...", err=True)
        models = ModelHost(lambda: _open(path, engine, parallel, max_waiting), idle)
        models.open()
        app = make_app(
            settings,
            models,
            lambda names: _open_tools(settings.tools, names),
            store=responses,
            seal=seal,
        )
        assert models.model is not None, "it was just opened"
        context = models.model.engine.context
        url = url_of(listener)
        click.echo(clients_text(url, settings.model, context, needs_key=bool(api_keys)))
        run(app, listener, cut=models.cut)


def clients_text(url: str, model: str, context: int, *, needs_key: bool) -> str:
    """Where the server is, and how clients are told."""
    key = "KEY" if needs_key else "none"
    provider = f'name="gptoss-mlx",base_url="{url}/v1",wire_api="responses"'
    provider += ',env_key="OPENAI_API_KEY"' * needs_key
    codex_key = f"OPENAI_API_KEY={key} " * needs_key
    return "\n".join(
        [
            f"Serving {model} at {url}  (Ctrl-C ends it)",
            f"  OpenAI SDKs  OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key}",
            f"  Claude Code  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key} "
            f"ANTHROPIC_MODEL={model} CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 claude",
            f"  Codex        {codex_key}codex -m {model} -c model_provider=local "
            f"-c model_context_window={context} "
            f"-c 'model_providers.local={{{provider}}}'",
        ]
    )


def _builtins(tools: Sequence[str]) -> dict[str, str]:
    """The builtin tools by their names, as `open_tools` takes each."""
    names = [part.strip() for name in tools for part in name.split(",") if part.strip()]
    for name in names:
        if name.partition(":")[0] not in _BUILTINS:
            raise UsageError(
                f"--tools {name}: a server runs only python and browser; clients answer the calls "
                "of their own functions"
            )
    return {name.partition(":")[0]: name for name in names}


def _kept(store: Path | None) -> tuple[ResponseStore, Seal]:
    """What outlives the server where a file was named: responses, and the key of what was sealed.

    Raises:
        DiskError: the file, or the key beside it, cannot be used.
    """
    from gptoss_mlx.paths import expand
    from gptoss_mlx.server.responses.store import ResponseStore
    from gptoss_mlx.server.sealing import Seal, kept_key

    if store is None:
        return ResponseStore(), Seal()
    path = expand(store)
    return ResponseStore(path), Seal(kept_key(path.with_name(f"{path.name}.key")))


def _open(path: str, options: EngineOptions, parallel: int, max_waiting: int) -> OpenModel:
    """Load the model, and what the first request with tools would wait for."""
    from gptoss_mlx.engine import Engine
    from gptoss_mlx.grammar import GrammarSpec, compile_grammar
    from gptoss_mlx.memory import Use
    from gptoss_mlx.models import resolve
    from gptoss_mlx.server.host import OpenModel
    from gptoss_mlx.tokenizer import load_tokenizer

    folder = resolve(path)
    use = Use(options.context, parallel, embedding=options.embedding, kv_bits=options.kv_bits)
    engine = Engine.load(folder, use, max_waiting=max_waiting, prompt_cache=options.prompt_cache)
    tokenizer = load_tokenizer(folder)
    compile_grammar(GrammarSpec(), tokenizer)
    return OpenModel(engine, tokenizer, options.speculation)


def _open_tools(known: Mapping[str, str], names: Sequence[str]) -> Toolbox:
    """The tools of one request: a browser and a Python of its own."""
    from gptoss_mlx.tools.opening import ToolOptions, open_tools

    return open_tools([known[name] for name in names], ToolOptions())
