"""`gptoss-mlx chat`: a conversation in the terminal, or one answer in a pipe."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from gptoss_mlx import demo, library
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
from gptoss_mlx.cli.first_run import is_first_run, offer
from gptoss_mlx.cli.oneshot import answer_once, piped_text
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import UsageError
from gptoss_mlx.paths import expand

if TYPE_CHECKING:
    from gptoss_mlx.chat import Chat
    from gptoss_mlx.conversations import Conversation, ConversationStore
    from gptoss_mlx.engine import Engine
    from gptoss_mlx.harmony import Effort
    from gptoss_mlx.sequence import Constraint
    from gptoss_mlx.terminal.session import Session
    from gptoss_mlx.terminal.view import Filter, View
    from gptoss_mlx.tokenizer import Tokenizer
    from gptoss_mlx.tools import Toolbox
    from gptoss_mlx.tools.opening import ToolOptions

__all__ = ["chat"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class _Choices:
    """The options of the command."""

    prompt: str | None
    model: str | None
    reasoning: Effort
    system: str | None
    tools: tuple[str, ...]
    yes: bool
    root: Path
    unsafe_python: bool
    allow_private: bool
    schema: Path | None
    as_json: bool
    continued: bool
    resume: str | None
    result: str | None
    lists: bool
    private: bool
    params: SamplingParams
    engine: EngineOptions
    show_reasoning: bool
    stats: bool
    is_effort_given: bool

    @property
    def takes_up(self) -> str | None:
        """The conversation to go on with."""
        return self.resume or ("last" if self.continued else None)


@dataclass(frozen=True)
class _Doors:
    """Opens models and tools as the options of the command say."""

    engine: EngineOptions
    tools: ToolOptions

    def open_model(self, name: str) -> tuple[Engine, Tokenizer]:
        return open_engine(name, self.engine)

    def open_tools(self, names: Sequence[str]) -> Toolbox:
        from gptoss_mlx.tools.opening import open_tools

        return open_tools(names, self.tools)


@click.command()
@click.argument("prompt", required=False)
@model_option
@reasoning_option
@system_option
@click.option(
    "-t",
    "--tools",
    multiple=True,
    metavar="NAMES",
    help="What the model may call: python, browser, browser:exa, browser:you, browser:folder:DIR, "
    "apply_patch, FILE.py or FILE.json of functions, FILE.json of MCP servers.",
)
@click.option("--yes", is_flag=True, help="Run tools without asking.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="The folder whose files apply_patch may change; by default the current one.",
)
@click.option("--unsafe-python", is_flag=True, help="Run Python without a sandbox.")
@click.option(
    "--allow-private", is_flag=True, help="Let the browser open pages in your own network."
)
@click.option("--schema", type=_FILE, help="A JSON schema that answers must follow.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object about the answer.")
@click.option("-c", "--continue", "continued", is_flag=True, help="Go on with the last one.")
@click.option("--resume", metavar="ID", help="Go on with this conversation.")
@click.option("--result", metavar="TEXT", help="What the call returned with which it ended.")
@click.option("--list", "lists", is_flag=True, help="List the conversations, and leave.")
@click.option("--private", is_flag=True, help="Keep nothing on disk.")
@sampling_options
@engine_options
@click.option("--show-reasoning", is_flag=True, help="Show the chain of thought, dimmed.")
@click.option("--stats", is_flag=True, help="Show token counts and speed after an answer.")
@debug_option
@click.pass_context
def chat(context: click.Context, /, **options: Any) -> None:
    """Talk to a model; with a PROMPT, or in a pipe, ask it one thing.

    \b
    gptoss-mlx chat --model demo
    git diff | gptoss-mlx chat --model PATH "Review this."
    gptoss-mlx chat --model PATH -t python,browser "How old is the oldest tree?"
    """
    source = context.get_parameter_source("reasoning")
    is_given = source is not click.core.ParameterSource.DEFAULT
    choices = _Choices(**options, is_effort_given=is_given)
    from gptoss_mlx.conversations import ConversationStore

    store = None if choices.private else ConversationStore()
    if choices.result is not None and choices.takes_up is None:
        raise UsageError("--result answers a call: say with --continue or --resume ID, of what")
    if choices.result is not None and choices.prompt is not None:
        raise UsageError(
            "--result and a PROMPT cannot be sent at once: first the one, then the other"
        )
    if choices.lists:
        _list(store or ConversationStore())
        return
    earlier = _earlier(store, choices.takes_up)
    is_asked_once = choices.prompt is not None or choices.result is not None
    is_interactive = not is_asked_once and sys.stdin is not None and sys.stdin.isatty()
    name = choices.model or (earlier.model if earlier else choices.model)
    if name is None and is_interactive and is_first_run():
        _read_schema(choices.schema)  # what is wrong shows before anything is downloaded
        _doors(choices).open_tools(choices.tools).close()
        offered = offer(choices.engine)
        if offered is None:
            return
        name, engine = offered
        choices = replace(choices, engine=engine)
    model = require_model(name)
    text = "" if is_interactive else choices.result or piped_text(choices.prompt)
    view = open_view(shows_reasoning=choices.show_reasoning)
    if is_interactive:
        view = _all_on_the_terminal(view)
    if not text:
        view.note(f"Loading {model} ...")
    session = _open_session(choices, model, earlier, store, view, is_interactive=is_interactive)
    with _ended_well_when_told():
        try:
            if text:
                _answer_once(session, text, choices)
            else:
                _converse(session, reads=is_interactive)
        finally:
            session.close()


def _all_on_the_terminal(view: View) -> View:
    """Where only stdout is a terminal, what would go to stderr must be seen as well."""
    if sys.stderr.isatty() or not sys.stdout.isatty():
        return view
    from gptoss_mlx.terminal.view import View

    return View(
        view.out,
        view.out,
        shows_reasoning=view.shows_reasoning,
        shows_tracebacks=view.shows_tracebacks,
    )


@contextmanager
def _ended_well_when_told() -> Generator[None]:
    """A window that is closed, or `kill`, leaves what was said on disk, and no tools behind."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {n: signal.signal(n, leave) for n in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _list(store: ConversationStore) -> None:
    for summary in store.list():
        click.echo(f"{summary.id}  {summary.turns:>3} turns  {summary.title}")


def _earlier(store: ConversationStore | None, name: str | None) -> Conversation | None:
    if name is None:
        return None
    if store is None:
        raise UsageError("--private keeps no conversations to go on with: leave it out")
    return store.load(name)


def _open_session(
    choices: _Choices,
    model: str,
    earlier: Conversation | None,
    store: ConversationStore | None,
    view: View,
    *,
    is_interactive: bool,
) -> Session:
    """Load everything, cheapest first."""
    from gptoss_mlx.chat import Chat, Options
    from gptoss_mlx.terminal.approval import Approval
    from gptoss_mlx.terminal.session import Session

    schema, doors = _read_schema(choices.schema), _doors(choices)
    toolbox = doors.open_tools(choices.tools)
    try:
        engine, tokenizer = doors.open_model(model)
    except BaseException:
        toolbox.close()
        raise
    conversation = _conversation(choices, model, earlier)
    chat = Chat(
        engine,
        tokenizer,
        conversation.setup,
        choices.engine.speculation,
        toolbox=toolbox,
        drops_oldest=is_interactive,
    )
    options = Options(
        choices.params,
        view.on_prefill,
        constrain=_constrain(chat, schema),
        approve=Approval(view, _asker(view), allows_all=choices.yes),
    )
    view.make_filter = _make_filter(chat)
    return Session(chat, conversation, store, view, options, doors)


def _doors(choices: _Choices) -> _Doors:
    from gptoss_mlx.tools.opening import ToolOptions
    from gptoss_mlx.tools.toolbox import MAX_OUTPUT

    # as many characters as the context has tokens: a result fills a third of it, and no more
    limit = min(MAX_OUTPUT, choices.engine.context or MAX_OUTPUT)
    sandboxed, allow_private = not choices.unsafe_python, choices.allow_private
    return _Doors(choices.engine, ToolOptions(choices.root, sandboxed, limit, allow_private))


def _asker(view: View) -> Callable[[str], str] | None:
    """Who is asked before tools run; None: there is nobody who sees the question and can reply."""
    if sys.stdin is None or not (sys.stdin.isatty() and view.err.file.isatty()):
        return None
    from gptoss_mlx.terminal.prompt import ask

    return ask


def _conversation(choices: _Choices, model: str, earlier: Conversation | None) -> Conversation:
    """The conversation to go on with, or a new one; options that were given count for both."""
    from gptoss_mlx.conversations import Conversation
    from gptoss_mlx.harmony import Setup

    if model != "demo" and not library.is_name(model):
        model = str(expand(model).absolute())  # it is taken up from other folders, too
    if earlier is None:
        setup = Setup(choices.reasoning, choices.system, date=date.today().isoformat())
        return Conversation(model, setup)
    setup = earlier.setup
    if choices.is_effort_given:
        setup = replace(setup, reasoning=choices.reasoning)
    if choices.system is not None:
        setup = replace(setup, instructions=choices.system)
    earlier.setup, earlier.model = setup, model
    return earlier


def _answer_once(session: Session, text: str, choices: _Choices) -> None:
    approve = session.options.approve
    if choices.result is None:
        session.answer_open_calls()
    else:
        calls = session.chat.open_calls
        if not calls:
            raise UsageError("--result: no call of this conversation waits for one")
        session.chat.add_tool_result(calls[0], choices.result)
    try:
        answer_once(
            session.chat,
            text if choices.result is None else None,
            session.options,
            session.view,
            model=session.conversation.model,
            as_json=choices.as_json,
            stats=choices.stats,
        )
    finally:
        session.keep()
    if getattr(approve, "refused", 0):
        session.view.note("Note: calls of tools were refused, as nobody was asked: --yes runs them")


def _converse(session: Session, *, reads: bool) -> None:
    """Until the user leaves; at once where there is nobody."""
    if session.conversation.model == "demo":
        session.view.note(demo.DESCRIPTION)
    if not reads:
        return
    session.view.note("Type a message. /help lists the commands, /bye or Ctrl-D leaves.")
    if session.conversation.messages:
        session.recall()
    session.view.gap()
    from gptoss_mlx.terminal.commands import COMMANDS
    from gptoss_mlx.terminal.prompt import Prompt, unechoed

    values = {name: command.values for name, command in COMMANDS.items()}
    history = session.store.folder.parent / "history" if session.store else None
    with unechoed():
        session.run(Prompt(values, history, session.status))


def _read_schema(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        schema: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} holds no JSON schema: {error}") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{path} holds no JSON schema: it must be a JSON object")
    return cast("dict[str, Any]", schema)


def _constrain(chat: Chat, schema: dict[str, Any] | None) -> Callable[[], Constraint] | None:
    """Makes matchers of the schema, over whatever tools there are then."""
    if schema is None:
        return None
    from gptoss_mlx.grammar import GrammarSpec, Tool, compile_grammar, json_schema

    answer = json_schema(schema)

    def constrain() -> Constraint:
        client = [f"functions.{function.name}" for function in chat.toolbox.client_functions]
        names = [r for tool in chat.toolbox.tools for r in tool.recipients] + client
        spec = GrammarSpec(answer, tuple(Tool(name) for name in names), preambles=False)
        return compile_grammar(spec, chat.tokenizer).matcher()

    constrain()  # a schema that cannot be used is refused before anything is asked
    return constrain


def _make_filter(chat: Chat) -> Callable[[], Filter | None]:
    """Citations of the browser's pages become links, while there is a browser."""

    def make() -> Filter | None:
        browser = next((tool for tool in chat.toolbox.tools if tool.name == "browser"), None)
        if browser is None:
            return None
        from gptoss_mlx.tools.browser import BrowserTool, CitationFilter

        assert isinstance(browser, BrowserTool)
        return CitationFilter(browser.source)

    return make
