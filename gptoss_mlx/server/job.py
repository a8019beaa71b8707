"""What every API's request becomes: a conversation that waits for the assistant's next turn.

It knows what the model is to be told and how it may answer. It does not know wire formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import GrammarError, UsageError
from gptoss_mlx.grammar import (
    Format,
    Grammar,
    GrammarSpec,
    Tool,
    compile_grammar,
    format_problem,
    json_object,
    json_schema,
)
from gptoss_mlx.harmony import Message, Setup
from gptoss_mlx.sequence import Constraint
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["Job", "ToolNames", "constraint"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_SCHEMAS = 300_000  # characters of all functions together that are enforced: takes seconds
_TAKEN = frozenset({"python", "browser"})  # builtins, which `functions.` must not be mistaken for


@dataclass(frozen=True)
class Job:
    """One conversation to be replied to.

    `setup` holds the client's functions under the names that the model sees (`ToolNames`).
    `builtins` are tools that the server runs, of those that it was started with. `tool_choice` is
    `auto`, `none`, `required`, or the name (as the model sees it) of the one function to call.
    `answer` is what the final text must look like; a chain of thought comes before it. `strict` are
    the functions whose schemas are enforced as they are, or the request fails; of others a schema
    is enforced as far as possible.
    """

    messages: tuple[Message, ...]
    setup: Setup = field(default_factory=Setup)
    params: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    answer: Format | None = None
    tool_choice: str = "auto"
    strict: frozenset[str] = frozenset()
    builtins: tuple[str, ...] = ()


class ToolNames:
    """Clients' names of functions <-> names that the model can write, both ways.

    A model copes with letters, digits, `_` and `-`; other characters become `_`, and names that
    become equal, or are a builtin tool's, get a number.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._model: dict[str, str] = {}
        self._client: dict[str, str] = {}
        for name in names:
            if name in self._model:
                raise UsageError(f"there are two functions named {name!r}: rename one")
            seen = self._free(_NOT_IN_NAMES.sub("_", name).strip("_") or "function")
            self._model[name], self._client[seen] = seen, name

    def to_model(self, name: str) -> str:
        """The name that the model sees; of a name that is not there, what it would have been."""
        return self._model.get(name, _NOT_IN_NAMES.sub("_", name) or "function")

    def to_client(self, recipient: str) -> str:
        """The client's name of what a call is addressed to; an unknown one stays as it is."""
        name = recipient.removeprefix("functions.")
        return self._client.get(name, name)

    def _free(self, name: str) -> str:
        taken = {*self._client, *_TAKEN}
        return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 1000))) if n not in taken)


def constraint(
    job: Job, builtins: Sequence[str], tokenizer: Tokenizer
) -> Callable[[], Constraint] | None:
    """What makes the matcher of each of the job's turns; None where anything may come.

    `builtins` are the recipients of the tools that the server runs for this job. A call that is
    demanded is the first turn's: where it is the server's to answer, the others are free to end.

    Raises:
        GrammarError: the answer's schema, or a strict function's, cannot be enforced.
    """
    if (
        job.answer is None
        and not job.setup.functions
        and not builtins
        and job.tool_choice == "auto"
    ):
        return None
    choice = job.tool_choice
    if choice not in ("auto", "none", "required"):
        choice = f"functions.{choice}"
    is_asked = not job.messages or job.messages[-1].role != "tool"
    spec = GrammarSpec(
        job.answer,
        _tools(job, builtins, tokenizer),
        choice,
        must_reason=job.answer is not None and is_asked,
    )
    first = _compiled(spec, job.strict, tokenizer)
    if not builtins:
        return first.matcher
    free = replace(spec, tool_choice="none" if choice == "none" else "auto", must_reason=False)
    turns = chain([first], repeat(_compiled(free, job.strict, tokenizer)))
    return lambda: next(turns).matcher()


def _tools(job: Job, builtins: Sequence[str], tokenizer: Tokenizer) -> tuple[Tool, ...]:
    """All that may be called, with schemas as far as they can be enforced."""
    tools = [Tool(name) for name in builtins]
    room = _MAX_SCHEMAS
    for function in job.setup.functions:
        schema = {**(function.parameters or {"properties": {}}), "type": "object"}
        if function.name in job.strict:
            arguments = _enforced(schema, function.name, room)
        else:
            arguments = _lenient(schema, room, tokenizer)
        room -= len(arguments.text)
        tools.append(Tool(f"functions.{function.name}", arguments))
    return tuple(tools)


def _enforced(schema: Mapping[str, Any], name: str, room: int) -> Format:
    """JSON that follows a schema to the letter."""
    try:
        form = json_schema(schema)
        if len(form.text) > room:
            raise GrammarError(f"all schemas together have more than {_MAX_SCHEMAS:,} characters")
    except GrammarError as error:
        raise GrammarError(f"the arguments of functions.{name}: {error}") from None
    return form


def _lenient(schema: Mapping[str, Any], room: int, tokenizer: Tokenizer) -> Format:
    """JSON that follows a schema; any object, where that is impossible or too long."""
    try:
        form = json_schema(schema, strict=False)
    except GrammarError:
        return json_object()
    is_usable = len(form.text) <= room and format_problem(form, tokenizer) is None
    return form if is_usable else json_object()


def _compiled(spec: GrammarSpec, strict: Collection[str], tokenizer: Tokenizer) -> Grammar:
    """The grammar; where all together is too much, without the schemas that nobody insists on."""
    try:
        return compile_grammar(spec, tokenizer)
    except GrammarError:
        tools = (
            replace(tool, arguments=json_object())
            if tool.arguments and tool.recipient.removeprefix("functions.") not in strict
            else tool
            for tool in spec.tools
        )
        return compile_grammar(replace(spec, tools=tuple(tools)), tokenizer)
