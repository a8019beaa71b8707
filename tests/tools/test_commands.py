"""Functions of a JSON file: schemas, and commands that may misbehave."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.functions import process as function_process
from gptoss_mlx.tools.functions.tool import FunctionsTool, load_functions
from tools.alive import is_gone

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MakeTool = Callable[..., FunctionsTool]


def call(tool: FunctionsTool, name: str, **arguments: Any) -> str:
    """The output of a call."""
    return tool.run(f"functions.{name}", json.dumps(arguments))


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[MakeTool]:
    """Makes a tool of entries of a JSON file."""
    tools: list[FunctionsTool] = []

    def make(*entries: Any, timeout: float = 30) -> FunctionsTool:
        path = tmp_path / "functions.json"
        path.write_text(json.dumps(entries))
        tools.append(load_functions(path, timeout))
        return tools[-1]

    yield make
    for tool in tools:
        tool.close()


def script(name: str, code: str) -> dict[str, Any]:
    """An entry whose command is Python code."""
    return {"name": name, "parameters": CITY, "command": [sys.executable, "-c", code]}


def test_commands(commands: MakeTool) -> None:
    """A command gets the arguments on stdin, and its stdout is the result."""
    tool = commands(script("echo", "import sys; print(sys.stdin.read()[::-1], end='')"))
    assert tool.functions[0].parameters == CITY
    assert call(tool, "echo", city="Oslo") == '{"city": "Oslo"}'[::-1]


def test_command_beside_the_file(commands: MakeTool, tmp_path: Path) -> None:
    """A program with a slash in its name is found from the file's folder."""
    program = tmp_path / "tool.sh"
    program.write_text("#!/bin/sh\necho $1\n")
    program.chmod(0o755)
    tool = commands({"name": "f", "command": ["./tool.sh", "said"]})
    assert call(tool, "f") == "said\n"


def test_wrapped_and_client_functions(commands: MakeTool) -> None:
    """OpenAI's wrapping is accepted; entries without a command are described, and not run."""
    function = {"name": "mine", "description": "Mine.", "parameters": CITY}
    tool = commands({"type": "function", "function": function}, script("run", "print(1)"))
    assert [f.name for f in tool.client_functions] == ["mine"]
    assert [f.name for f in tool.functions] == ["run"]
    assert tool.recipients == ("functions.run",)
    with pytest.raises(ToolError, match="not run here"):
        call(tool, "mine", city="Oslo")


def test_failing_commands(commands: MakeTool) -> None:
    """An exit code and a flood are errors; a program that reads nothing is not."""
    tool = commands(
        script("fail", "import sys; sys.exit('no such city')"),
        script("flood", "while True: print('x' * 9999)"),
        script("deaf", "print('done')"),
    )
    with pytest.raises(ToolError, match=r"fail failed \(exit code 1\): no such city"):
        call(tool, "fail", city="Oslo")
    with pytest.raises(ToolError, match="flood wrote more than 8,000,000 bytes"):
        call(tool, "flood", city="Oslo")
    assert call(tool, "deaf", city="x" * 1_000_000) == "done\n"


def test_command_that_leaves_a_process(commands: MakeTool) -> None:
    """All of the result is there when the command ends, and what it has left is killed."""
    code = "sleep 60 & echo $!; head -c 60000 /dev/zero | tr '\\0' x"
    tool = commands({"name": "f", "command": ["sh", "-c", code]})
    started = time.monotonic()
    pid, rest = call(tool, "f").split("\n")
    assert time.monotonic() - started < 5
    assert rest == "x" * 60_000
    assert is_gone(int(pid))


def test_words_after_the_end_of_a_command(commands: MakeTool) -> None:
    """What another process passes on for it may come a moment later."""
    tool = commands({"name": "f", "command": ["sh", "-c", "(sleep 0.2; echo last) & echo first"]})
    assert call(tool, "f") == "first\nlast\n"


def test_command_that_hangs(commands: MakeTool) -> None:
    """It is stopped after its time."""
    tool = commands(script("hang", "import time; time.sleep(60)"), timeout=0.5)
    with pytest.raises(ToolError, match=r"hang took longer than 0.5 s"):
        call(tool, "hang", city="Oslo")


def test_command_is_closed(commands: MakeTool) -> None:
    """A command that runs is killed when the tool is closed."""
    tool = commands(script("hang", "import time; time.sleep(60)"))
    timer = threading.Timer(0.2, tool.close)
    timer.start()
    with pytest.raises(ToolError, match=r"hang failed \(SIGKILL\)"):
        call(tool, "hang", city="Oslo")
    timer.join()
    with pytest.raises(ToolError, match="were closed"):
        call(tool, "hang", city="Oslo")


def test_command_is_interrupted(commands: MakeTool, tmp_path: Path) -> None:
    """Ctrl-C kills the command and goes on."""
    started = tmp_path / "pid"
    script = f"echo $$ > {started}.new; mv {started}.new {started}; sleep 60"
    tool = commands({"name": "f", "command": ["sh", "-c", script]})

    def interrupted(*_: object) -> bytes:
        while not started.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with (
        patch.object(function_process, "exchange", interrupted),
        pytest.raises(KeyboardInterrupt),
    ):
        call(tool, "f")
    assert is_gone(int(started.read_text()))


def test_arguments_of_commands_are_checked(commands: MakeTool) -> None:
    """They must be as the schema says, already in the preview."""
    tool = commands(script("f", "print(1)"))
    with pytest.raises(ToolError, match="arguments: 'city' is a required property"):
        call(tool, "f")
    with pytest.raises(ToolError, match="city: 3 is not of type 'string'"):
        tool.preview("functions.f", '{"city": 3}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ('{"a": 1}', "must have a list"),
        ("[]", "has no functions"),
        ("[3]", "function 1 is no object"),
        ('[{"name": "a b"}]', "function 1: the name 'a b' is not of letters"),
        ('[{"name": "f\\n"}]', r"function 1: the name 'f\\n'"),
        ('[{"name": "f"}, {"name": "f"}]', "has two functions f"),
        ('[{"name": "f", "description": 3}]', "description of f is no text"),
        ('[{"name": "f", "parameters": {"type": "string"}}]', "parameters of f are no schema"),
        (
            '[{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "x"}}}}]',
            "parameters of f are no schema: 'x' is not valid",
        ),
        ('[{"name": "f", "command": "ls"}]', "must be a list"),
        ('[{"name": "f", "command": []}]', "must be a list"),
        ('[{"name": "f", "command": ["ls", 1]}]', "must be a list"),
        ('[{"name": "f", "command": ["no-such-program"]}]', "no program no-such-program"),
    ],
)
def test_bad_json_files(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong is one line with the file's name, and the entry's number."""
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_functions(path)
