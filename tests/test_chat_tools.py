"""Conversations that use the real tools: a model that replays calls, and the demo."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ReplayModel

from gptoss_mlx.chat import Chat, Options
from gptoss_mlx.config import SamplingParams
from gptoss_mlx.engine import Engine
from gptoss_mlx.errors import UsageError
from gptoss_mlx.harmony import Delta, Message, Setup
from gptoss_mlx.models import load
from gptoss_mlx.tokenizer import Tokenizer
from gptoss_mlx.tools import Toolbox
from gptoss_mlx.tools.browser import BrowserTool, CitationFilter
from gptoss_mlx.tools.opening import ToolOptions, open_tools

GREEDY = Options(SamplingParams(temperature=0))
WEATHER = '''
def get_weather(location: str) -> dict:
    """Get the current weather in a place.

    Args:
        location: A city.
    """
    return {"temperature": 18, "condition": "sunny"}
'''


def call(recipient: str, content: object, channel: str = "commentary") -> str:
    """A completion that calls; what is no text is sent as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return f"<|channel|>{channel} to={recipient}<|message|>{text}<|call|>"


def answer(text: str) -> str:
    """A completion that answers."""
    return f"<|channel|>final<|message|>{text}<|return|>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place to work in."""
    return tmp_path


@pytest.fixture
def opened() -> Iterator[list[Toolbox]]:
    """Toolboxes to be closed."""
    toolboxes: list[Toolbox] = []
    yield toolboxes
    for toolbox in toolboxes:
        toolbox.close()


def results(
    tokenizer: Tokenizer, toolbox: Toolbox, *scripts: str, setup: Setup | None = None
) -> list[str]:
    """What the tools say to a model that replays these completions."""
    model = ReplayModel(*(tokenizer.encode_with_special(script) for script in scripts))
    chat = Chat(Engine(model), tokenizer, setup, toolbox=toolbox)
    list(chat.send("Go on.", GREEDY))
    assert chat.messages[-1].is_final
    return [message.content for message in chat.messages if message.role == "tool"]


def open_here(names: list[str], folder: Path, opened: list[Toolbox]) -> Toolbox:
    """The tools of these names, at work in a folder."""
    opened.append(open_tools(names, ToolOptions(root=folder)))
    return opened[-1]


def test_browsing_on_local_pages(tokenizer: Tokenizer, folder: Path, opened: list[Toolbox]) -> None:
    """Search, open, find, and an answer whose citation leads to the page."""
    (folder / "oak.html").write_text("<title>Oaks</title><p>Oaks can live a thousand years.")
    (folder / "pine.html").write_text(
        "<title>Pines</title><h1>Pines</h1><p>The pine named Methuselah is 4,800 years old."
    )
    toolbox = open_here([f"browser:folder:{folder}"], folder, opened)
    found, page, hits = results(
        tokenizer,
        toolbox,
        call("browser.search", {"query": "Methuselah pine age"}, "analysis"),
        call("browser.open", {"id": 0, "cursor": 0}, "analysis"),
        call("functions.browser.find", {"pattern": "methuselah"}, "analysis"),
        answer("It is 4,800 years old 【1†L2-L3】."),
    )
    assert found.startswith("[0]")
    assert "Pines" in found
    assert page.startswith("[1] Pines (")
    assert "4,800 years old" in page
    assert hits.startswith("[2]")
    assert "4,800 years old" in hits
    (browser,) = toolbox.tools
    assert isinstance(browser, BrowserTool)
    citations = CitationFilter(browser.source)
    text = "".join(citations.push(c) for c in "Old 【1†L2-L3】.") + citations.close()
    assert "pine.html" in text
    assert "【" not in text


def test_python_keeps_its_state(tokenizer: Tokenizer, folder: Path, opened: list[Toolbox]) -> None:
    """Three calls share their variables; the last of them fails, and the chat goes on."""
    said = results(
        tokenizer,
        open_here(["python"], folder, opened),
        call("python", "x = 6", "analysis"),
        call("python", "print(x * 7)", "analysis"),
        call("python", "x / 0", "analysis"),
        answer("42"),
    )
    assert said[0].startswith("[WARN] No output available")
    assert said[1].strip() == "42"
    assert said[2].rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_patch_on_a_repository(tokenizer: Tokenizer, folder: Path, opened: list[Toolbox]) -> None:
    """One patch changes a file and adds one; another that reaches outside changes nothing."""
    (folder / "hello.py").write_text("def hello():\n    print('helo')\n")
    lines = ["*** Update File: hello.py", "@@ def hello():", "-    print('helo')"]
    lines += ["+    print('hello')", "*** Add File: docs/use.md", "+Say hello."]
    done, refused = results(
        tokenizer,
        open_here(["apply_patch"], folder, opened),
        call("functions.apply_patch", patch(*lines)),
        call("functions.apply_patch", patch("*** Add File: ../outside.md", "+x")),
        answer("Done."),
    )
    assert done.startswith("Done!")
    assert (folder / "hello.py").read_text() == "def hello():\n    print('hello')\n"
    assert (folder / "docs" / "use.md").read_text() == "Say hello.\n"
    assert refused.startswith("[ERROR]")
    assert not (folder.parent / "outside.md").exists()


def patch(*lines: str) -> str:
    """A patch of these lines."""
    return "\n".join(["*** Begin Patch", *lines, "*** End Patch"])


def test_an_mcp_server(tokenizer: Tokenizer, folder: Path, opened: list[Toolbox]) -> None:
    """Its tools are functions: one works, one fails, one crashes it, and one works again.

    One that is called as a function of the user's gets the server's name before its own.
    """
    server = Path(__file__).parent / "tools" / "mcp_server.py"
    config = {"mcpServers": {"test": {"command": sys.executable, "args": [str(server)]}}}
    (folder / "mcp.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("def count() -> int:\n    return 7\n")
    toolbox = open_here([str(folder / "mine.py"), str(folder / "mcp.json")], folder, opened)
    added, mine, theirs, failed, crashed, again = results(
        tokenizer,
        toolbox,
        call("functions.add", {"a": 2, "b": 3}),
        call("functions.count", {}),
        call("functions.test__count", {}),
        call("functions.fail", {}),
        call("functions.crash", {}),
        call("functions.add", {"a": 4, "b": 5}),
        answer("9"),
    )
    assert (added, mine, theirs, again) == ("5", "7", "2", "9")
    assert failed.startswith("[ERROR]")
    assert crashed.startswith("[ERROR]")


def test_the_demo_asks_for_the_weather(
    tokenizer: Tokenizer, folder: Path, opened: list[Toolbox]
) -> None:
    """The demo calls the function in a file, which runs, and answers from its result."""
    (folder / "weather.py").write_text(WEATHER)
    toolbox = open_here([str(folder / "weather.py")], folder, opened)
    chat = Chat(Engine(load("demo")), tokenizer, toolbox=toolbox)
    events = list(chat.send("What is the weather in Paris?", GREEDY))
    (result,) = (event for event in events if isinstance(event, Message) and event.role == "tool")
    assert json.loads(result.content) == {"temperature": 18, "condition": "sunny"}
    shown = "".join(e.text for e in events if isinstance(e, Delta) and e.is_shown)
    assert shown == "It is 18 degrees and sunny in Paris."


def test_several_names(folder: Path, opened: list[Toolbox]) -> None:
    """Between commas, or each for itself; twice is once."""
    toolbox = open_here([f"apply_patch, browser:folder:{folder}", "apply_patch"], folder, opened)
    assert [tool.name for tool in toolbox.tools] == ["apply_patch", "browser"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pyton", "there is no tool 'pyton'"),
        ("python:3", "there is no tool 'python:3'"),
        ("missing.py", "missing.py"),
        ("browser:altavista", "altavista"),
        ("browser:folder:missing/pages", "missing/pages"),
        ("browser:exa", "EXA_API_KEY"),
    ],
)
def test_names_that_stand_for_nothing(
    name: str, problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line."""
    monkeypatch.delenv("EXA_API_KEY", raising=False)
    with pytest.raises(UsageError, match=problem):
        open_tools([name], ToolOptions(root=folder))
