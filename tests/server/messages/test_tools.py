"""The tools of a request: what the model sees of them, and what it must call."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.server.messages.schema import CountRequest
from gptoss_mlx.server.messages.tools import ToolSet, read_tools

from .scenes import CODE, TOOL, USER, WEB, JsonObject

BOTH = ("browser", "python")
DEFERRED: JsonObject = {**TOOL, "name": "late", "defer_loading": True}


def tools(*given: JsonObject, available: tuple[str, ...] = BOTH, **request: Any) -> ToolSet:
    """The tools, read."""
    body = {"messages": [USER], "tools": list(given), **request}
    return read_tools(CountRequest.model_validate(body), available)


def names(found: ToolSet) -> list[str]:
    """What the model sees."""
    return [function.name for function in found.functions]


def test_a_clients_tool() -> None:
    """With its schema, whose references are written out."""
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/X"}},
        "$defs": {"X": {"type": "integer"}},
    }
    tool: JsonObject = {"name": "my tool", "description": "Does.", "input_schema": schema}
    found = tools({**tool, "type": "custom", "strict": True, "cache_control": {}})
    (function,) = found.functions
    assert (function.name, function.description) == ("my_tool", "Does.")
    assert function.parameters == {"type": "object", "properties": {"x": {"type": "integer"}}}
    assert found.strict == {"my_tool"}
    assert found.names.to_client("my_tool") == "my tool"


@pytest.mark.parametrize(
    ("tool", "builtins"),
    [
        (WEB, ("browser",)),
        ({"type": "web_search_20991231", "name": "web_search", "max_uses": 3}, ("browser",)),
        ({"type": "web_fetch_20250910", "name": "web_fetch"}, ("browser",)),
        (CODE, ("python",)),
        ({"type": "bash_20250124", "name": "bash"}, ()),
        ({"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}, ()),
        ({"type": "mcp_toolset", "mcp_server_name": "x"}, ()),
        ({"type": 5}, ()),
        ({"type": None, "name": "n", "input_schema": {}}, ()),
    ],
)
def test_types(tool: JsonObject, builtins: tuple[str, ...]) -> None:
    """Hosted tools are the builtin ones that the server has; what it does not know is ignored."""
    found = tools(tool)
    assert found.builtins == builtins
    assert names(found) == (["n"] if "input_schema" in tool else [])
    assert tools(tool, available=()).builtins == ()


def test_any_tool_with_a_schema_is_the_clients() -> None:
    """Whatever its type."""
    assert names(tools({**TOOL, "type": "bash_20990101"})) == ["f"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, "f"),
        ({"type": "tool", "name": "web_search"}, "required"),
        ({"type": "none"}, "none"),
    ],
)
def test_choice(choice: Any, expected: str) -> None:
    """In the words of a job; where none may be called, the server's are not there at all."""
    found = tools(TOOL, WEB, tool_choice=choice)
    assert found.choice == expected
    assert found.builtins == (() if expected == "none" else ("browser",))


def test_a_choice_without_tools() -> None:
    """None can be called, so that nothing has to be forbidden."""
    assert tools(tool_choice={"type": "none"}).choice == "auto"
    assert tools(WEB, tool_choice={"type": "any"}).choice == "required"


def test_deferred_tools() -> None:
    """They are seen once the client's own search has found them; or at once, if there is none."""
    found = {"type": "tool_reference", "tool_name": "late"}
    messages = [
        USER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "1", "content": [found]}],
        },
    ]
    assert names(tools(TOOL, DEFERRED)) == ["f"]
    assert names(tools(TOOL, DEFERRED, messages=messages)) == ["f", "late"]
    search = {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"}
    assert names(tools(TOOL, DEFERRED, search)) == ["f", "late"]
