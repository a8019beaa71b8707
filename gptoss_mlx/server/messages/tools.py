"""The tools of a request: what of them the model is shown, and what must be called.

Clients' tools become functions, hosted ones the builtin tools that the server has. Tools that this
server does not have are left out. It does not know the conversation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from gptoss_mlx.harmony import FunctionTool
from gptoss_mlx.server.job import ToolNames
from gptoss_mlx.server.messages import schema
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.schemas import written_out

__all__ = ["ToolSet", "read_tools"]

_SEARCH = "tool_search_tool"  # the beginning of its types


@dataclass(frozen=True)
class ToolSet:
    """The tools of a request. `names` are the client's; the rest is as a `Job` has it."""

    functions: tuple[FunctionTool, ...] = ()
    names: ToolNames = field(default_factory=lambda: ToolNames(()))
    strict: frozenset[str] = frozenset()
    builtins: tuple[str, ...] = ()
    choice: str = "auto"


def read_tools(request: schema.CountRequest, available: Collection[str]) -> ToolSet:
    """The tools of a request to a server that has these builtins.

    Raises:
        Problem: what must be called is not there.
        UsageError: two tools have one name.
    """
    clients = _visible(request)
    hosted = [tool for tool in request.tools or () if isinstance(tool, schema.HostedTool)]
    wanted = request.tool_choice or schema.ToolChoice(type="auto")
    names = ToolNames([tool.name for tool in clients])
    asked = {_builtin(tool) for tool in hosted if wanted.type != "none"}
    builtins = tuple(sorted(asked & set(available)))
    known = {tool.name for tool in clients}
    choice = _choice(wanted, known, [t.name for t in hosted], has_any=bool(clients or builtins))
    return ToolSet(
        tuple(_shown(tool, names) for tool in clients),
        names,
        frozenset(names.to_model(tool.name) for tool in clients if tool.strict),
        builtins,
        names.to_model(choice) if choice in known else choice,
    )


def _visible(request: schema.CountRequest) -> list[schema.ClientTool]:
    """The client's tools, without those that its own search has not found yet.

    A search that the server should run is not there: then all tools are seen.
    """
    tools = request.tools or []
    clients = [tool for tool in tools if isinstance(tool, schema.ClientTool)]
    if any(str(t.type).startswith(_SEARCH) for t in tools if isinstance(t, schema.OtherTool)):
        return clients
    found = set(_references(request.messages))
    return [tool for tool in clients if not tool.defer_loading or tool.name in found]


def _references(messages: Sequence[schema.InputMessage]) -> Iterator[str]:
    for message in messages:
        for result in schema.blocks_of(message.content):
            if isinstance(result, schema.ToolResultBlock):
                for block in schema.blocks_of(result.content or ""):
                    if isinstance(block, schema.ToolReferenceBlock):
                        yield block.tool_name


def _builtin(tool: schema.HostedTool) -> str:
    return "python" if tool.type.startswith("code_execution") else "browser"


def _shown(tool: schema.ClientTool, names: ToolNames) -> FunctionTool:
    """A tool as the model sees it."""
    parameters = written_out(tool.input_schema)
    return FunctionTool(names.to_model(tool.name), tool.description or "", parameters)


def _choice(
    choice: schema.ToolChoice, clients: Collection[str], hosted: Collection[str], *, has_any: bool
) -> str:
    """`auto`, `none`, `required`, or the client's name of the one tool to call.

    Of the tools that the server runs none can be demanded alone.
    """
    if choice.type == "tool" and choice.name is not None and choice.name in clients:
        return choice.name
    if choice.type == "tool" and choice.name not in hosted:
        message = f"tool_choice names {choice.name!r}, which is not among the tools"
        raise Problem(400, message, param="tool_choice.name")
    if choice.type == "none" and clients:
        return "none"
    if choice.type not in ("any", "tool"):
        return "auto"
    if not has_any:
        message = "tool_choice demands a call, but there is no tool here that could be called"
        raise Problem(400, message, param="tool_choice")
    return "required"
