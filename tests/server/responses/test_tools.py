"""Tests of gptoss_mlx.server.responses.tools."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_mlx.harmony import Builtin
from gptoss_mlx.server.problems import Problem
from gptoss_mlx.server.responses.schema import CreateRequest
from gptoss_mlx.server.responses.tools import ClientTool, ToolSet, custom_input, read_tools

F = {"type": "function", "name": "f", "description": "D.", "parameters": {"type": "object"}}
G = {"type": "function", "name": "g h", "strict": True}
PATCH = {
    "type": "custom",
    "name": "patch",
    "description": "Patches.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'},
}
SPACE = {"type": "namespace", "name": "s", "description": "", "tools": [F, PATCH, {"type": "new"}]}
WEB = {"type": "web_search_preview_2025_03_11", "search_context_size": "low"}
CODE = {"type": "code_interpreter", "container": {"type": "auto"}}
BOTH: tuple[Builtin, ...] = ("browser", "python")


def toolset(*tools: Any, available: tuple[Builtin, ...] = BOTH, **request: Any) -> ToolSet:
    """The tools of a request."""
    asked = CreateRequest.model_validate({"tools": list(tools), **request})
    return read_tools(asked, available)


def test_functions_have_names_that_models_can_write() -> None:
    """And each goes back to whose it is."""
    tools = toolset(F, G, SPACE)
    assert [f.name for f in tools.functions] == ["f", "g_h", "s_f", "s_patch"]
    assert tools.clients == {
        "f": ClientTool("f"),
        "g_h": ClientTool("g h"),
        "s_f": ClientTool("f", "s"),
        "s_patch": ClientTool("patch", "s", is_custom=True),
    }
    assert tools.strict == {"g_h"}
    assert tools.recipient("f", "s") == "functions.s_f"
    assert tools.recipient("gone") == "functions.gone"


def test_names_that_would_collide() -> None:
    """A namespace's function and one whose name looks the same are two."""
    tools = toolset({**F, "name": "s_f"}, SPACE)
    assert tools.clients["s_f"] == ClientTool("s_f")
    assert tools.clients["s_f_2"] == ClientTool("f", "s")


def test_custom_tools_take_one_text() -> None:
    """Their grammar is told; the model writes JSON, or the text itself."""
    (shown,) = toolset(PATCH).functions
    assert shown.description == 'Patches.\n\nThe input follows this grammar:\nstart: "x"'
    assert shown.parameters is not None
    assert list(shown.parameters["properties"]) == ["input"]
    texts = ['{"input": "+a\nb"}', "*** Begin", '{"a": 1}', '{"input": 1}', "[" * 100_000]
    assert [custom_input(text) for text in texts] == ["+a\nb", *texts[1:]]


def test_schemas_are_written_out() -> None:
    """Models are shown no references; where there are too many, they stay."""
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    tool = {**F, "parameters": {**schema, "$defs": {"A": {"type": "string"}}}}
    (shown,) = toolset(tool).functions
    assert shown.parameters == {"type": "object", "properties": {"a": {"type": "string"}}}
    levels = {f"A{i}": {"anyOf": [{"$ref": f"#/$defs/A{i + 1}"}] * 2} for i in range(30)}
    bomb = {**schema, "$defs": {"A": {"$ref": "#/$defs/A0"}, **levels, "A30": {"type": "null"}}}
    (shown,) = toolset({**F, "parameters": bomb}).functions
    assert shown.parameters == bomb


def test_builtins_are_those_that_the_server_has() -> None:
    """Once each, whatever they are called; others are left out and not echoed."""
    assert toolset(WEB, CODE, {"type": "web_search"}).builtins == BOTH
    only_python = toolset(WEB, CODE, available=("python",))
    assert only_python.builtins == ("python",)
    assert [tool["type"] for tool in only_python.echo] == ["code_interpreter"]
    assert toolset({"type": "file_search"}, {"type": "image_generation"}).echo == ()


def test_tools_within_the_input() -> None:
    """They are there like others."""
    item = {"type": "additional_tools", "role": "developer", "tools": [F, CODE]}
    tools = toolset(G, input=[item])
    assert [f.name for f in tools.functions] == ["g_h", "f"]
    assert tools.builtins == ("python",)


@pytest.mark.parametrize(
    ("choice", "functions", "builtins", "job_choice"),
    [
        (None, ["f", "g_h", "s_f", "s_patch"], BOTH, "auto"),
        ("none", ["f", "g_h", "s_f", "s_patch"], BOTH, "none"),
        ("required", ["f", "g_h", "s_f", "s_patch"], BOTH, "required"),
        ({"type": "function", "name": "g h"}, ["f", "g_h", "s_f", "s_patch"], BOTH, "g_h"),
        (
            {"type": "custom", "name": "patch", "namespace": "s"},
            ["f", "g_h", "s_f", "s_patch"],
            BOTH,
            "s_patch",
        ),
        ({"type": "web_search_preview"}, [], ("browser",), "required"),
        ({"type": "code_interpreter"}, [], ("python",), "required"),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "code_interpreter"}],
            },
            ["f"],
            ("python",),
            "required",
        ),
    ],
)
def test_choices(
    choice: Any, functions: list[str], builtins: tuple[Builtin, ...], job_choice: str
) -> None:
    """What is left of the tools, and what must be called."""
    tools = toolset(F, G, SPACE, WEB, CODE, tool_choice=choice)
    assert [f.name for f in tools.functions] == functions
    assert (tools.builtins, tools.choice) == (builtins, job_choice)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "g"},
        {"type": "file_search"},
        {"type": "web_search"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]},
    ],
)
def test_choices_of_what_is_not_there(choice: Any) -> None:
    """They are refused, since they could not be kept."""
    tools = () if choice == "required" else (F, WEB)
    with pytest.raises(Problem) as caught:
        toolset(*tools, available=(), tool_choice=choice)
    assert caught.value.param == "tool_choice"
