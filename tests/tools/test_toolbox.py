"""The toolbox: whose call it is, what the model reads, and that nothing escapes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.harmony import FunctionTool, Setup
from gptoss_mlx.tools import Preview, Tool, Toolbox, json_arguments


class Echo(Tool):
    """Says what it is told, or fails as it is told."""

    name = "echo"

    def __init__(self, *recipients: str) -> None:
        self._recipients = recipients
        self.is_open = True

    @property
    def recipients(self) -> Sequence[str]:
        """As given."""
        return self._recipients

    def preview(self, recipient: str, content: str) -> Preview:
        """The call."""
        return Preview(f"{recipient}: {self._said(content)}")

    def run(self, recipient: str, content: str) -> str:
        """The same."""
        return f"{recipient}: {self._said(content)}"

    def close(self) -> None:
        """Or not."""
        self.is_open = False
        self._said("crash")

    @staticmethod
    def _said(content: str) -> str:
        if content == "fail":
            raise ToolError("try again")
        if content == "crash":
            raise ZeroDivisionError("oh")
        if content == "stop":
            raise KeyboardInterrupt
        return content


@pytest.mark.parametrize(
    ("recipient", "name"),
    [
        ("python", "python"),
        ("functions.python", "python"),
        ("browser.search", "browser.search"),
        ("functions.browser.search", "browser.search"),
        ("functions.f", "functions.f"),
        ("f", "functions.f"),
        ("browser", None),
        ("search", None),
        ("functions.", None),
        ("", None),
    ],
)
def test_names_and_their_aliases(recipient: str, name: str | None) -> None:
    """A builtin under `functions.`, a function without it; nothing else is guessed."""
    toolbox = Toolbox([Echo("python"), Echo("browser.search", "functions.f")])
    assert toolbox.resolve(recipient) == name
    said = toolbox.run(recipient, "hi")
    if name is None:
        there = "There are: python, browser.search, functions.f"
        assert said == f"[ERROR] there is no tool {recipient!r}. {there}"
    else:
        assert said == f"{name}: hi"
        assert toolbox.preview(recipient, "hi") == Preview(f"{name}: hi")


def test_failures_are_texts() -> None:
    """What a tool raises is what the model reads."""
    toolbox = Toolbox([Echo("f")])
    assert toolbox.run("f", "fail") == "[ERROR] try again"
    assert toolbox.run("f", "crash") == "[ERROR] ZeroDivisionError: oh"
    with pytest.raises(ToolError, match="try again"):
        toolbox.preview("f", "fail")
    with pytest.raises(ToolError, match="f failed: ZeroDivisionError: oh"):
        toolbox.preview("f", "crash")


def test_ctrl_c_passes() -> None:
    """The user's wish to stop is no failure of the tool."""
    with pytest.raises(KeyboardInterrupt):
        Toolbox([Echo("f")]).run("f", "stop")


@pytest.mark.parametrize("length", [0, 99, 100, 101, 5_000_000])
def test_long_outputs_lose_their_middle(length: int) -> None:
    """Beginning and end are kept, and it is said how much is missing."""
    text = ("0123456789" * (length // 10 + 1))[:length]
    said = Toolbox([Echo("f")], max_output=103).run("f", text)
    assert said.startswith(f"f: {text[:48]}")
    if length <= 100:
        assert said == f"f: {text}"
    else:
        head, notice, tail = said.split("\n")
        assert (len(head), len(tail)) == (51, 51)
        assert text.endswith(tail)
        assert notice == f"[... {length + 3 - 102:,} characters left out ...]"


def test_two_tools_of_one_name() -> None:
    """It would be chance which one is run."""
    with pytest.raises(UsageError, match="two tools are called f"):
        Toolbox([Echo("f"), Echo("g", "f")])


def test_all_are_closed() -> None:
    """A tool that cannot be closed does not keep the next one open."""
    tools = [Echo("f"), Echo("g")]
    with Toolbox(tools):
        assert all(tool.is_open for tool in tools)
    assert not any(tool.is_open for tool in tools)


class Everything(Echo):
    """A tool with all there is to describe."""

    builtin = "python"
    functions = (FunctionTool("f"),)
    client_functions = (FunctionTool("g"),)
    instructions = "Use it."


def test_the_setup_describes_the_tools() -> None:
    """Builtins, functions and instructions come after those of the setup itself."""
    mine = Setup("high", "Be kind.", (FunctionTool("mine"),), "2026-11-22")
    setup = Toolbox([Everything("python"), Echo("x")]).extend(mine)
    assert (setup.reasoning, setup.date, setup.builtins) == ("high", "2026-11-22", ("python",))
    assert setup.instructions == "Be kind.\n\nUse it."
    assert [f.name for f in setup.functions] == ["mine", "f", "g"]
    assert Toolbox().extend(mine) == mine
    assert Toolbox().extend(Setup()) == Setup()


@pytest.mark.parametrize(
    ("content", "arguments"),
    [("", {}), ('{"a": 1}', {"a": 1}), ('{"a": "x\ny"}', {"a": "x\ny"}), (" {} ", {})],
)
def test_arguments(content: str, arguments: dict[str, object]) -> None:
    """A JSON object, raw line breaks in its texts included; nothing is an empty one."""
    assert json_arguments(content) == arguments


@pytest.mark.parametrize("content", ["[]", "1", "null", '"a"', "{", "a", "[" * 100_000])
def test_bad_arguments(content: str) -> None:
    """The model is told what to send instead."""
    with pytest.raises(ToolError, match="JSON"):
        json_arguments(content)
