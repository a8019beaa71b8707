"""What every API's request becomes: a conversation that waits for the assistant's next turn.

It knows what the model is to be told and how it may answer. It does not know wire formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_mlx.config import SamplingParams
from gptoss_mlx.errors import GrammarError, UsageError
from gptoss_mlx.grammar import Format, GrammarSpec, Tool, compile_grammar, json_object, json_schema
from gptoss_mlx.harmony import FunctionTool, Message, Setup
from gptoss_mlx.sequence import Constraint
from gptoss_mlx.tokenizer import Tokenizer

__all__ = ["Job", "ToolNames", "constraint"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_TAKEN = frozenset({"python", "browser"})  # builtins, which `functions.` must not be mistaken for


@dataclass(frozen=True)
class Job:
    """One conversation to be replied to.

    `setup` holds the client's functions under the names that the model sees (`ToolNames`).
    `builtins` are tools that the server runs, of those that it was started with. `tool_choice` is
    `auto`, `none`, `required`, or the name (as the model sees it) of the one function to call.
    `answer` is what the final text must look like. `has_strict_arguments` of a function's name:
    its schema is enforced as it is, or the request fails.
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

    `builtins` are the recipients of the tools that the server runs for this job.

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
    tools = [Tool(name) for name in builtins]
    tools += [Tool(f"functions.{f.name}", _arguments(f, job.strict)) for f in job.setup.functions]
    choice = job.tool_choice
    if choice not in ("auto", "none", "required"):
        choice = f"functions.{choice}"
    spec = GrammarSpec(job.answer, tuple(tools), choice)
    return compile_grammar(spec, tokenizer).matcher


def _arguments(function: FunctionTool, strict: frozenset[str]) -> Format:
    """JSON that follows the function's schema, as far as it can be enforced."""
    schema: Mapping[str, Any] = function.parameters or {"type": "object", "properties": {}}
    if function.name in strict:
        return json_schema(schema)
    try:
        return json_schema(schema, strict=False)
    except GrammarError:
        return json_object()
