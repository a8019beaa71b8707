"""The tools of a request: what of them the model is shown, what must be called, what is echoed.

Functions in a namespace get one name (`multi_agent_v1.close` is `multi_agent_v1_close`), custom
tools become functions of one text, hosted tools the builtin ones that the server has. Tools that
this server does not have are left out. It does not know the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_mlx.harmony import Builtin, FunctionTool
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses import schema
from gptoss_mlx.server.schemas import written_out

__all__ = ["ClientTool", "ToolSet", "custom_input", "read_tools"]

_INPUT = "input"  # the one argument of a custom tool
_CUSTOM_PARAMETERS = {
    "type": "object",
    "properties": {_INPUT: {"type": "string"}},
    "required": [_INPUT],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class ClientTool:
    """A function as the client knows it."""

    name: str
    namespace: str | None = None
    is_custom: bool = False

    @property
    def qualified(self) -> str:
        """A name that no other function of the request has."""
        return f"{self.namespace}.{self.name}" if self.namespace else self.name


@dataclass(frozen=True)
class ToolSet:
    """The tools of a request.

    `functions` have the names that the model sees, and `clients` tells whose they are. `choice` and
    `strict` are as a `Job` has them. `echo` is what the response object says of them.
    """

    functions: tuple[FunctionTool, ...] = ()
    clients: Mapping[str, ClientTool] = field(default_factory=dict[str, ClientTool])
    names: ToolNames = field(default_factory=lambda: ToolNames(()))
    builtins: tuple[Builtin, ...] = ()
    strict: frozenset[str] = frozenset()
    choice: str = "auto"
    echo: tuple[dict[str, Any], ...] = ()

    def recipient(self, name: str, namespace: str | None = None) -> str:
        """Whom a call of the client's function is addressed to."""
        return f"functions.{self.names.to_model(ClientTool(name, namespace).qualified)}"


_Function = schema.FunctionTool | schema.CustomTool


@dataclass(frozen=True)
class _Choice:
    """What a request's tool_choice comes to: a mode, and the tools that it leaves."""

    mode: str = "auto"
    only: frozenset[str] | None = None  # qualified names, and names of builtins; None: all
    must: str | None = None  # the qualified name of the one to call


def read_tools(request: schema.CreateRequest, available: Sequence[Builtin]) -> ToolSet:
    """The tools of a request to a server that has these builtins.

    Raises:
        Problem: what must be called is not there.
        UsageError: two functions have one name.
    """
    tools = [*(request.tools or ()), *_additional(request)]
    choice = _choice(request.tool_choice)
    functions = [pair for pair in _functions(tools) if _is_allowed(pair[0].qualified, choice)]
    asked = {_builtin(tool) for tool in tools}
    builtins: list[Builtin] = [b for b in available if b in asked and _is_allowed(b, choice)]
    _check(choice, [c.qualified for c, _ in functions], builtins)
    names = ToolNames([client.qualified for client, _ in functions])
    clients = {names.to_model(client.qualified): client for client, _ in functions}
    strict = [c for c, tool in functions if isinstance(tool, schema.FunctionTool) and tool.strict]
    return ToolSet(
        tuple(_shown(names.to_model(client.qualified), tool) for client, tool in functions),
        clients,
        names,
        tuple(builtins),
        frozenset(names.to_model(client.qualified) for client in strict),
        names.to_model(choice.must) if choice.must else choice.mode,
        tuple(_echo(tools, builtins)),
    )


def custom_input(arguments: str) -> str:
    """The text that a custom tool was called with; what is no JSON was meant as the text."""
    try:
        value: object = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return arguments
    if isinstance(value, dict) and isinstance(text := value.get(_INPUT), str):  # pyright: ignore
        return text
    return arguments


def _additional(request: schema.CreateRequest) -> Iterator[schema.Tool]:
    for item in request.input if isinstance(request.input, list) else ():
        if isinstance(item, schema.AdditionalTools):
            yield from item.tools


def _functions(tools: Sequence[schema.Tool]) -> Iterator[tuple[ClientTool, _Function]]:
    for tool in tools:
        if isinstance(tool, (schema.FunctionTool, schema.CustomTool)):
            yield ClientTool(tool.name, None, isinstance(tool, schema.CustomTool)), tool
        elif isinstance(tool, schema.NamespaceTool):
            for inner in tool.tools:
                if not isinstance(inner, schema.OtherTool):
                    is_custom = isinstance(inner, schema.CustomTool)
                    yield ClientTool(inner.name, tool.name, is_custom), inner


def _builtin(tool: schema.Tool) -> Builtin | None:
    if isinstance(tool, schema.WebSearchTool):
        return "browser"
    return "python" if isinstance(tool, schema.CodeInterpreterTool) else None


def _shown(name: str, tool: _Function) -> FunctionTool:
    """A tool as the model sees it."""
    if isinstance(tool, schema.FunctionTool):
        return FunctionTool(name, tool.description or "", written_out(tool.parameters))
    grammar = (tool.format or {}).get("definition")
    parts = (tool.description, f"The input follows this grammar:\n{grammar}" if grammar else None)
    return FunctionTool(name, "\n\n".join(part for part in parts if part), _CUSTOM_PARAMETERS)


def _choice(choice: str | schema.ToolChoice | None) -> _Choice:
    if not isinstance(choice, schema.ToolChoice):
        return _Choice(choice or "auto")
    if choice.type == "allowed_tools":
        allowed = (schema.ToolChoice.model_validate(tool) for tool in choice.tools)
        return _Choice(choice.mode, frozenset(_meant(tool) for tool in allowed))
    meant = _meant(choice)
    if choice.type in ("function", "custom"):
        return _Choice("required", None, meant)
    return _Choice("required", frozenset({meant}))


def _meant(choice: schema.ToolChoice) -> str:
    """What a choice of one tool names: a function, a builtin, or something we do not have."""
    if choice.type in ("function", "custom"):
        return ClientTool(choice.name or "", choice.namespace).qualified
    if choice.type.startswith("web_search"):
        return "browser"
    return "python" if choice.type == "code_interpreter" else choice.type


def _is_allowed(name: str, choice: _Choice) -> bool:
    return choice.only is None or name in choice.only


def _check(choice: _Choice, functions: Sequence[str], builtins: Sequence[Builtin]) -> None:
    if choice.must is not None and choice.must not in functions:
        raise Problem(400, f"tool_choice names {choice.must!r}, no such tool", param="tool_choice")
    if choice.mode == "required" and not functions and not builtins:
        message = "tool_choice demands a call, but there is no tool here that could be called"
        raise Problem(400, message, param="tool_choice")


def _echo(tools: Sequence[schema.Tool], builtins: Sequence[Builtin]) -> Iterator[dict[str, Any]]:
    """The tools that are there, as the client sent them, without what was ignored."""
    for tool in tools:
        if isinstance(tool, schema.FunctionTool):
            yield tool.model_dump()
        elif isinstance(tool, schema.CodeInterpreterTool) and "python" in builtins:
            yield {"type": tool.type, "container": tool.container or {"type": "auto"}}
        elif isinstance(tool, schema.WebSearchTool) and "browser" in builtins:
            yield tool.model_dump(exclude_none=True)
        elif isinstance(tool, schema.NamespaceTool):
            inner = [t.model_dump() for t in tool.tools if not isinstance(t, schema.OtherTool)]
            yield {**tool.model_dump(), "description": tool.description or "", "tools": inner}
        elif isinstance(tool, schema.CustomTool):
            yield tool.model_dump(exclude_none=True)
