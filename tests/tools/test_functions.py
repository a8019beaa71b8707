"""Functions of a Python file and of a JSON file, and what they do when they misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.calls import inlined
from gptoss_mlx.tools.functions import process as function_process
from gptoss_mlx.tools.functions.tool import FunctionsTool, load_functions
from gptoss_mlx.tools.toolbox import Toolbox
from tools.alive import is_gone

WEATHER = Path(__file__).with_name("weather.py")


def call(tool: FunctionsTool, name: str, **arguments: Any) -> str:
    """The output of a call."""
    return tool.run(f"functions.{name}", json.dumps(arguments))


@pytest.fixture(scope="module")
def tool() -> Iterator[FunctionsTool]:
    """The functions of weather.py, in one process for all tests."""
    tool = load_functions(WEATHER)
    yield tool
    tool.close()


def test_name(tool: FunctionsTool) -> None:
    """Tools of several files can be told apart."""
    assert tool.name == "weather.py"


def test_public_functions_are_found(tool: FunctionsTool) -> None:
    """What is imported, hidden or a class is no function of the file."""
    names = [function.name for function in tool.functions]
    assert names[:4] == ["get_weather", "plan", "later", "count"]
    assert {"dedent", "_hidden", "Unit", "Place"}.isdisjoint(names)
    assert tool.recipients == tuple(f"functions.{name}" for name in names)


def test_schema_from_hints_and_docstring(tool: FunctionsTool) -> None:
    """Types, defaults and descriptions arrive in the schema, without references."""
    weather = tool.functions[0]
    assert weather.description == "Tell the weather of a city.\n\nIt is always fine."
    assert weather.parameters
    assert weather.parameters["required"] == ["city"]
    city, unit, days = weather.parameters["properties"].values()
    assert city == {"type": "string", "description": "The name of the city, in English."}
    assert unit["enum"] == ["c", "k"]
    assert unit["default"] == "c"
    assert unit["description"] == "What to measure in."
    assert days["description"] == "How many."
    assert days["anyOf"] == [{"type": "integer"}, {"type": "null"}]


def test_schema_of_nested_types(tool: FunctionsTool) -> None:
    """Dataclasses, typed dictionaries, lists and literals are described in place."""
    schema = tool.functions[1].parameters
    assert schema
    assert "$ref" not in json.dumps(schema)
    assert schema["properties"]["place"]["properties"]["height"]["type"] == "number"
    assert schema["properties"]["periods"]["items"]["required"] == ["days"]
    assert schema["properties"]["mode"]["enum"] == ["walk", "ski"]


def test_calls(tool: FunctionsTool) -> None:
    """Arguments become what the hints say; text is the result as it is, other values as JSON."""
    assert call(tool, "get_weather", city="Oslo", unit="k") == "fine in Oslo, KELVIN, None"
    result = call(
        tool, "plan", place={"city": "Røros"}, periods=[{"days": 2}], mode="ski", extra={"x": [1]}
    )
    place = {"city": "Røros", "height": 0.0}
    assert json.loads(result) == {"place": place, "days": 2, "mode": "ski", "x": [1]}


def test_asynchronous_functions_share_a_loop(tool: FunctionsTool) -> None:
    """What one call leaves in the loop is there in the next."""
    first = call(tool, "later", seconds=0.01)
    assert first.startswith("slept in")
    assert call(tool, "later", seconds=0) == first


def test_printed_text(tool: FunctionsTool) -> None:
    """It is the result of a function that returns nothing, and never breaks the protocol."""
    assert call(tool, "speak", text='{"result": "fake"}\n') == '{"result": "fake"}\n'
    assert call(tool, "speak", text="") == "null"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{}", "arguments of get_weather are wrong: city: Missing required"),
        ('{"city": "Oslo", "unit": "f"}', "unit: Input should be 'c' or 'k'"),
        ('{"city": "Oslo", "zone": 1}', "zone: Unexpected keyword"),
        ("{", "not JSON"),
        ("[]", "no object"),
    ],
)
def test_wrong_arguments(tool: FunctionsTool, arguments: str, message: str) -> None:
    """The error names the argument and what it should be."""
    with pytest.raises(ToolError, match=message):
        tool.run("functions.get_weather", arguments)


def test_exceptions(tool: FunctionsTool) -> None:
    """An exception is the last line of its traceback, and where; the process goes on."""
    before = int(call(tool, "count"))
    with pytest.raises(ToolError, match=r"fail raised ValueError: no such city \(weather.py, line"):
        call(tool, "fail")
    with pytest.raises(ToolError, match=r"(?s)invalid raised .*ValidationError.*weather.py, line"):
        call(tool, "invalid")
    with pytest.raises(ToolError, match="quit_politely raised SystemExit: enough"):
        call(tool, "quit_politely")
    assert int(call(tool, "count")) == before + 1


def test_megabytes(tool: FunctionsTool) -> None:
    """Large results are cut, what goes to stdout and stderr is dropped; nothing blocks."""
    assert call(tool, "flood", size=3_000_000) == "x" * 1_000_000
    assert call(tool, "speak", text="😀" * 1_500_000) == "😀" * 1_000_000


def test_stdin_is_empty(tool: FunctionsTool) -> None:
    """A function cannot read what the user types."""
    assert call(tool, "read_input") == "not for the model"


def test_terminal_is_out_of_reach(tool: FunctionsTool) -> None:
    """The child leads a session of its own, so Ctrl-C in the terminal does not get there."""
    pid = int(call(tool, "child"))
    assert os.getsid(pid) != os.getsid(0)
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [("leave", {"code": 3}, r"exit code 3\)(?s:.*)bye"), ("crash", {}, r"\(SIGSEGV\)")],
)
def test_crash_and_restart(
    tool: FunctionsTool, name: str, arguments: dict[str, Any], message: str
) -> None:
    """A crash says how; the next call has a new process."""
    with pytest.raises(ToolError, match=f"{name} ended its process .*{message}"):
        call(tool, name, **arguments)
    assert call(tool, "count") == "1"


def test_a_fork_does_not_answer(tool: FunctionsTool) -> None:
    """What a function forks has no pipe, and ends where it would answer."""
    pid = call(tool, "process")
    assert call(tool, "fork") == "parent"
    assert int(call(tool, "last_fork")) == 0  # its exit code
    assert call(tool, "speak", text="mine") == "mine"
    assert call(tool, "process") == pid


def test_a_file_that_forks(tmp_path: Path) -> None:
    """The functions are described once, also where the file forks as it is loaded."""
    path = tmp_path / "f.py"
    path.write_text("import os\nif os.fork(): os.wait()\ndef f() -> int: return 1\n")
    tool = load_functions(path)
    assert call(tool, "f") == "1"
    tool.close()


def test_a_fork_that_outlives_the_process(tool: FunctionsTool) -> None:
    """The end of the process is seen at once, not when the fork ends."""
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"fork_and_leave ended its process \(exit code 3\)"):
        call(tool, "fork_and_leave")
    assert time.monotonic() - started < 5
    assert call(tool, "count") == "1"


def test_an_answer_to_something_else(tool: FunctionsTool) -> None:
    """It is not taken for the answer; the next call has a new process."""
    with pytest.raises(ToolError, match="forge: something else than its answer came back"):
        call(tool, "forge")
    assert call(tool, "count") == "1"


def test_timeout_kills_children() -> None:
    """A function that hangs is stopped, with what it started; the next call works."""
    tool = load_functions(WEATHER, timeout=1)
    pid = int(call(tool, "child"))
    with pytest.raises(ToolError, match=r"hang took longer than 1 s: .* lost"):
        call(tool, "hang")
    assert is_gone(pid)
    assert call(tool, "count") == "1"
    tool.close()


def test_interrupt(tool: FunctionsTool) -> None:
    """Ctrl-C kills the call and goes on; the next call has a new process."""
    pid = int(call(tool, "child"))
    with (
        patch.object(function_process, "exchange", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        call(tool, "hang")
    assert is_gone(pid)
    assert call(tool, "count") == "1"


def test_close_during_a_call() -> None:
    """A call that runs ends soon; children are gone, and later calls are refused."""
    tool = load_functions(WEATHER)
    pid = int(call(tool, "child"))
    timer = threading.Timer(0.2, tool.close)
    timer.start()
    with pytest.raises(ToolError, match="it was closed"):
        call(tool, "hang")
    timer.join()
    assert is_gone(pid)
    with pytest.raises(ToolError, match="were closed"):
        call(tool, "count")


def test_end_of_the_parent_ends_the_child() -> None:
    """When this process is killed, the worker and its children end, even during a call."""
    code = f"""
import os, pathlib, threading, time
from gptoss_mlx.tools.functions.tool import load_functions
tool = load_functions(pathlib.Path({str(WEATHER)!r}))
os.write(1, tool.run("functions.child", "").encode())
threading.Thread(target=tool.run, args=("functions.hang", "")).start()
time.sleep(0.1)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert is_gone(int(done.stdout))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(:", r"SyntaxError: invalid syntax \(f.py, line 1\)"),
        ("\nimport no_such_module", r"No module named 'no_such_module' \(f.py, line 2\)"),
        ("x = 1", "has no functions"),
        ("__all__ = ['g']", "no attribute 'g'"),
        ("def f(*a): pass", r"f: the parameter \*a cannot be given by name"),
        ("def f(a, /): pass", "f: the parameter a cannot be given by name"),
        ("def ähm(): pass", "the name 'ähm' is not of letters"),
        ("class C: pass\ndef f(c: C): pass", "f: Unable to generate .* for <class 'f.C'>"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", "while it was loaded, ended its process .exit code 3"),
    ],
)
def test_bad_python_files(tmp_path: Path, code: str, message: str) -> None:
    """What is wrong is one line with the file's name."""
    path = tmp_path / "f.py"
    path.write_text(code)
    with pytest.raises(UsageError, match=message) as caught:
        load_functions(path)
    assert "f.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_does_not_load(tmp_path: Path) -> None:
    """A file that never ends to load is stopped."""
    path = tmp_path / "f.py"
    path.write_text("import time; time.sleep(60)")
    with (
        patch.object(function_process, "LOAD_SECONDS", 0.3),
        pytest.raises(UsageError, match=r"f.py, while it was loaded, took longer than 0.3 s"),
    ):
        load_functions(path)


def test_all_chooses(tmp_path: Path) -> None:
    """__all__ offers imported functions too; modules beside the file can be imported."""
    (tmp_path / "helper.py").write_text("def helped(): return 'helped'\n")
    path = tmp_path / "json.py"  # a name of the standard library does not confuse the worker
    path.write_text("from helper import helped\n__all__ = ['helped', 'X']\nX = 1\ndef g(): ...\n")
    tool = load_functions(path)
    assert [function.name for function in tool.functions] == ["helped"]
    assert call(tool, "helped") == "helped"
    tool.close()


def test_preview(tool: FunctionsTool) -> None:
    """Short calls are one line, long ones JSON below it."""
    short = tool.preview("functions.get_weather", '{"city": "Oslo", "days": null}')
    assert (short.title, short.body) == ('get_weather(city="Oslo", days=null)', "")
    assert not short.is_harmless
    long = tool.preview("functions.get_weather", json.dumps({"city": "Å" * 100}))
    assert long.title == "get_weather(...)"
    assert long.body == '{\n  "city": "' + "Å" * 100 + '"\n}'
    assert long.language == "json"
    with pytest.raises(ToolError, match="not JSON"):
        tool.preview("functions.get_weather", "{")


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.py", "no such file"), ("none.json", "no such file"), ("a.txt", r"a .py or a .json")],
)
def test_files_that_are_none(tmp_path: Path, name: str, message: str) -> None:
    """A missing file and an unknown suffix are said clearly."""
    with pytest.raises(UsageError, match=message):
        load_functions(tmp_path / name)


def test_recursive_schemas_end() -> None:
    """A type that holds itself is described once, then left open."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/Node"}},
        "$defs": {"Node": node},
    }
    assert inlined(schema)["properties"]["a"]["properties"] == {"next": {}}


def test_in_a_toolbox(tool: FunctionsTool) -> None:
    """The model may leave `functions.` away, and an error is a text."""
    box = Toolbox([tool])
    assert box.run("get_weather", '{"city": "Oslo"}').startswith("fine in Oslo")
    assert box.run("functions.fail", "").startswith("[ERROR] fail raised ValueError")
