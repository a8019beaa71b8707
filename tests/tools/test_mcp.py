"""Tools of MCP servers, with one that is written with the mcp package and misbehaves on request."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gptoss_mlx.errors import ToolError, UsageError
from gptoss_mlx.tools.mcp import session as mcp_session
from gptoss_mlx.tools.mcp import tool as mcp
from gptoss_mlx.tools.mcp.session import Server
from gptoss_mlx.tools.mcp.tool import McpTool, load_mcp, unique_names
from tools.alive import is_gone

SERVER = Path(__file__).with_name("mcp_server.py")
ENTRY = {"command": sys.executable, "args": [str(SERVER)]}


def configured(folder: Path, **servers: Any) -> Path:
    """A configuration file."""
    path = folder / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def call(tool: McpTool, name: str, **arguments: Any) -> str:
    """The output of a call."""
    return tool.run(f"functions.{name}", json.dumps(arguments))


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpTool]:
    """One server that all well-behaved tests share."""
    folder = tmp_path_factory.mktemp("mcp")
    entry = ENTRY | {"env": {"CITY": "Oslo"}, "cwd": "."}
    with patch.dict(os.environ, {"SECRET_KEY": "hidden"}):
        (tool,) = load_mcp(configured(folder, one=entry))
    yield tool
    tool.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[McpTool]:
    """A server of one test."""
    (tool,) = load_mcp(configured(tmp_path, one=ENTRY))
    yield tool
    tool.close()


def test_tools_become_functions(tool: McpTool) -> None:
    """All pages are listed, names mapped, and schemas have no references."""
    names = [function.name for function in tool.functions]
    assert names[:4] == ["add", "one__web_search", "one__web_search_2", "parts"]
    assert names[-2:] == ["_rger", "_1st"]
    assert tool.recipients == tuple(f"functions.{name}" for name in names)
    add = tool.functions[0]
    assert add.description == "Does add."
    assert add.parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "A number."},
            "b": {"type": "integer"},
        },
    }


def test_name(tool: McpTool) -> None:
    """Servers can be told apart, and from the tools that are no servers."""
    assert tool.name == "mcp:one"


def test_calls(tool: McpTool) -> None:
    """A call reaches the tool of the name that was mapped."""
    assert call(tool, "add", a=2, b=3) == "5"
    assert call(tool, "one__web_search") == "web search"
    assert call(tool, "one__web_search_2") == "web.search"
    assert call(tool, "_rger") == "ärger"


def test_what_is_no_text(tool: McpTool) -> None:
    """Images and resources become a line, structured content JSON."""
    assert call(tool, "parts").split("\n") == [
        "first",
        "[image, image/png, 6 bytes]",
        "[link to notes: file:///notes.txt]",
        "[file:///a.txt]",
        "content",
        "[file:///b.bin, 6 bytes]",
        "last",
    ]
    assert json.loads(call(tool, "structured")) == {"degrees": 21}


def test_errors_of_a_tool(tool: McpTool) -> None:
    """isError, bad arguments and an error of the protocol are errors for the model."""
    with pytest.raises(ToolError, match="no such city"):
        call(tool, "fail")
    with pytest.raises(ToolError, match="add: "):
        call(tool, "add")
    with pytest.raises(ToolError, match="not JSON"):
        tool.run("functions.add", "{")


def test_megabytes_and_noise(tool: McpTool) -> None:
    """Large results arrive; what a server prints besides does not disturb."""
    assert call(tool, "flood") == "x" * 3_000_000
    assert call(tool, "noise") == "still here"


def test_environment(tool: McpTool) -> None:
    """A server gets its own variables and folder, and none of this process's secrets."""
    text = call(tool, "environment")
    assert "'CITY': 'Oslo'" in text
    assert "'PATH': " in text
    assert "SECRET_KEY" not in text
    assert text.rpartition("/")[2].startswith("mcp")


def test_preview(tool: McpTool) -> None:
    """A call is shown as Python would write it."""
    assert tool.preview("functions.add", '{"a": 1, "b": 2}').title == "add(a=1, b=2)"


def test_crash_and_restart(fresh: McpTool) -> None:
    """A server that crashes is named with its last words, and runs again at the next call."""
    assert call(fresh, "count") == "1"
    with pytest.raises(ToolError, match=r"server one ended \(exit code 7: out of luck\)"):
        call(fresh, "crash")
    assert call(fresh, "count") == "1"


def test_end_between_calls(fresh: McpTool) -> None:
    """A server that ended while nobody looked is started by the next call, which succeeds."""
    pid = int(call(fresh, "pid"))
    os.kill(pid, signal.SIGKILL)
    assert is_gone(pid)
    time.sleep(0.2)  # its threads end after it
    assert call(fresh, "count") == "1"


def test_timeout(tmp_path: Path) -> None:
    """A tool that hangs is stopped, with its server."""
    (fresh,) = load_mcp(configured(tmp_path, one=ENTRY), timeout=1)
    with pytest.raises(ToolError, match="hang took longer than 1 s"):
        call(fresh, "hang")
    assert call(fresh, "add", a=1, b=1) == "2"
    fresh.close()


def test_close_kills_children(fresh: McpTool) -> None:
    """What a server started goes with it; afterwards nothing can be called."""
    pid = int(call(fresh, "child"))
    fresh.close()
    assert is_gone(pid)
    with pytest.raises(ToolError, match="was closed"):
        call(fresh, "count")


def test_close_during_a_call(fresh: McpTool) -> None:
    """A call that runs ends soon, in a ToolError."""
    timer = threading.Timer(0.3, fresh.close)
    timer.start()
    with pytest.raises(ToolError, match="closed"):
        call(fresh, "hang")
    timer.join()


def test_close_during_a_restart(fresh: McpTool) -> None:
    """A server that does not come up again does not keep the tool open."""
    with pytest.raises(ToolError, match="ended"):
        call(fresh, "crash")
    timer = threading.Timer(0.3, fresh.close)
    timer.start()
    fresh.server = Server("one", "sleep", ("60",))
    started = time.monotonic()
    with pytest.raises(ToolError, match="did not start"):
        call(fresh, "count")
    assert time.monotonic() - started < 5
    timer.join()


def test_interrupt(fresh: McpTool) -> None:
    """Ctrl-C stops the call and goes on; the next call has a new server."""
    pid = int(call(fresh, "child"))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call(fresh, "hang")
    timer.join()
    assert is_gone(pid)
    assert call(fresh, "count") == "1"


def test_names_collide_between_servers() -> None:
    """Tools of two servers by one name, or by one that is taken, get their server's before it."""
    assert unique_names(["a", "b c"], [["x", "y"], ["x", "z", "b_c__x"]], {"z"}) == [
        ["a__x", "y"],
        ["b_c__x", "b_c__z", "b_c__b_c__x"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read as JSON"),
        ("[]", "names no servers"),
        ('{"mcpServers": {}}', "names no servers"),
        ('{"mcpServers": {"a": 3}}', "mcp.json: a: "),
        ('{"mcpServers": {"a": {"url": "https://x"}}}', "only those with a command"),
        ('{"mcpServers": {"a": {"command": "x", "args": [1]}}}', r"a.args.0: "),
        ('{"mcpServers": {"a": {"command": "no-such-program"}}}', "server a cannot be started"),
    ],
)
def test_bad_configuration(tmp_path: Path, text: str | None, message: str) -> None:
    """What is wrong with a file is one clear line."""
    path = tmp_path / "mcp.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_mcp(path)


def test_server_that_does_not_start(tmp_path: Path) -> None:
    """One that ends is named with its last words, and the others are ended."""
    script = "import sys; sys.exit('no licence')"
    bad = {"command": sys.executable, "args": ["-c", script]}
    good = {"command": "sleep", "args": ["60"]}
    sessions: list[mcp.Session] = []

    def spawn(server: mcp.Server) -> mcp.Session:
        sessions.append(mcp.Session(server))
        return sessions[-1]

    with (
        patch.object(mcp, "_spawn", spawn),
        pytest.raises(UsageError, match=r"server bad did not start: .*exit code 1: no licence"),
    ):
        load_mcp(configured(tmp_path, bad=bad, good=good))
    assert not any(session.is_alive for session in sessions)


@pytest.mark.parametrize(("limit", "most"), [("_MAX_PAGES", 3), ("_MAX_TOOLS", 15)])
def test_server_that_offers_too_much(tmp_path: Path, limit: str, most: int) -> None:
    """A list that is too long, or never ends, is given up."""
    with (
        patch.object(mcp_session, limit, most),
        pytest.raises(UsageError, match=r"server one did not start: it lists more than .* pages"),
    ):
        load_mcp(configured(tmp_path, one=ENTRY))


def test_server_that_says_nothing(tmp_path: Path) -> None:
    """One that does not answer is given up."""
    silent = {"command": "sleep", "args": ["60"]}
    with (
        patch.object(mcp, "START_TIMEOUT", 0.2),
        pytest.raises(UsageError, match=r"server silent did not start: no answer in 0.2 s"),
    ):
        load_mcp(configured(tmp_path, silent=silent))
