"""Whole sessions on a pseudo-terminal: what a user types, and what stands on the screen.

Each session does several things, since each start takes seconds.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from checkpoints import BABBLER
from helpers import write_converted

from terminal.screen import Screen

pytestmark = pytest.mark.slow

DEMO = ("chat", "-m", "demo", "--temperature", "0", "-r", "low")
UP, LEFT, DELETE = "\x1b[A", "\x1b[D", "\x7f"
ALT_ENTER, CTRL_C, CTRL_D, CTRL_U = "\x1b\r", "\x03", "\x04", "\x15"
PARIS = "What is the weather in Paris?"
WEATHER = '''
def get_weather(location: str) -> str:
    """Get the current weather in a city.

    Args:
        location: City name
    """
    return '{"temperature": 21, "condition": "sunny"}'
'''


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that talks nonsense and hardly ever stops."""
    return str(write_converted(tmp_path_factory.mktemp("babbler"), config=BABBLER))


@pytest.fixture
def weather(tmp_path: Path) -> str:
    """A file with a function."""
    (tmp_path / "weather.py").write_text(WEATHER)
    return str(tmp_path / "weather.py")


def asked(data: Path) -> list[str]:
    """What the user said in the only conversation on disk."""
    (file,) = (data / "conversations").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    messages: list[dict[str, Any]] = json.loads(file.read_text())["messages"]
    return [message["content"] for message in messages if message["role"] == "user"]


def say(screen: Screen, keys: str, expected: str) -> None:
    """Type a message and Enter; wait for what it brings, and for the next prompt."""
    screen.press(keys + "\r")
    screen.wait_for(expected)
    screen.wait_for_prompt()


def test_typing_and_taking_back(data: Path) -> None:
    """Lines of every kind, /retry, /edit, /undo, /save; the file and the history are private."""
    with Screen(*DEMO, data=data) as screen:
        screen.wait_for_prompt()
        screen.wait_for(r"demo, low \| 0 of 131,072 tokens \(0%\)$")
        say(screen, "What is 2 + 2?", r">>> What is 2 \+ 2\?\nthought .*\n2 \+ 2 = 4\.\n\n>>>")
        screen.wait_for(r"demo, low \| [1-9][0-9]* of 131,072 .* tok/s \| 0 reused$")
        screen.press("/edit\r")
        screen.wait_for(r">>> What is 2 \+ 2\?$")
        say(screen, LEFT + DELETE + "3", r"2 \+ 3 = 5\.\n\n>>>")
        say(screen, "/retry", r"/retry\nthought .*\n2 \+ 3 = 5\.\n\n>>>")
        assert asked(data) == ["What is 2 + 3?"]
        say(screen, f"one{ALT_ENTER}two", r">>> one\n\.\.\. two\nthought (.*\n)+\n>>>")
        say(screen, '"""three\rfour\r"""', r'\.\.\. """\nthought (.*\n)+\n>>>')
        say(screen, "\x1b[200~five\rsix\x1b[201~", r"\.\.\. six\nthought (.*\n)+\n>>>")
        assert asked(data)[1:] == ["one\ntwo", "three\nfour", "five\nsix"]
        screen.press("/undo\rWhat is 2 + 4?\r")
        screen.wait_for(r"taken back: five\n\n>>> What is .*\nthought")
        screen.press("/undo")
        screen.wait_for(r"2 \+ 4 = 6\.\n\n>>> /undo$")
        say(screen, "", "taken back: What is 2")
        say(screen, "/save Sums and words", "saved as .*: Sums and words")
        screen.press("half a line" + CTRL_C)
        screen.wait_for(r"\(/bye or Ctrl-D leaves\)")
        screen.wait_for_prompt()
        screen.press(CTRL_D)
        assert screen.exit_code() == 0
    assert asked(data) == ["What is 2 + 3?", "one\ntwo", "three\nfour"]
    assert (data / "history").stat().st_mode & 0o777 == 0o600


def test_history_and_taking_up_again(data: Path) -> None:
    """Up finds what was typed in another session; Tab completes; --continue shows the last turn."""
    with Screen(*DEMO, data=data) as screen:
        screen.wait_for_prompt()
        say(screen, "My name is Alice.", r"Alice(.*\n)+\n>>>")
        screen.press("/ef\t")
        screen.wait_for(">>> /effort$")
        say(screen, " high", "effort: high")
        screen.press("/bye\r")
        assert screen.exit_code() == 0
    with Screen(*DEMO, "--continue", data=data) as screen:
        screen.wait_for_prompt()
        screen.wait_for(r"My name is Alice\. \(1 turn\)\n>>> My name is Alice\.\n.*Alice")
        screen.press(UP * 3)
        screen.wait_for(r"\n\n>>> My name is Alice\.$")
        screen.press(CTRL_U)
        say(screen, "What is my name?", r"What is my name\?\n.*\n.*Alice")
        screen.press("/bye\r")
        assert screen.exit_code() == 0
    with Screen("chat", "--list", data=data) as screen:
        assert screen.exit_code() == 0
        assert screen.lines[0].endswith("   2 turns  My name is Alice.")


def test_ctrl_c_resize_and_a_narrow_window(data: Path, babbler: str) -> None:
    """An answer that is stopped stays as far as it was seen; windows may change at any time."""
    arguments = ("chat", "-m", babbler, "--seed", "1", "--show-reasoning")
    with Screen(*arguments, data=data, columns=40, rows=12) as screen:
        screen.wait_for_prompt()
        screen.wait_for(r"\nmlx, medium \| 0 of 131,072 tokens \(0%\)$")
        screen.press("Talk\r")
        screen.wait_for(r">>> Talk\n(.+\n){2}")
        screen.resize(100, 30)
        screen.wait_for(r"\n.{60,}\n")
        screen.press("unseen" + CTRL_C)
        screen.wait_for(r"\n\(stopped\)\n\n>>>")
        screen.wait_for_prompt()
        screen.resize(60, 20)
        screen.wait_for(r"^mlx, medium \| [0-9,]+ of 131,072 tokens \([0-9]%\)( |$)")
        screen.press(CTRL_C)
        screen.wait_for(r"\(/bye or Ctrl-D leaves\)")
        screen.wait_for_prompt()
        screen.press("/bye\r")
        assert screen.exit_code() == 0
        assert "unseen" not in screen.text
        assert "^C" not in screen.text
    assert asked(data) == ["Talk"]


def test_a_window_that_is_closed(data: Path, babbler: str) -> None:
    """In mid-answer: what was asked is on disk."""
    arguments = ("chat", "-m", babbler, "--seed", "1", "--show-reasoning")
    with Screen(*arguments, data=data) as screen:
        screen.wait_for_prompt()
        screen.press("Talk\r")
        screen.wait_for(r">>> Talk\n(.+\n){2}")
        screen.hang_up()
    assert asked(data) == ["Talk"]


def test_a_program_that_is_told_to_end(data: Path) -> None:
    """At the prompt, too, it ends as it should, and keys are echoed again."""
    with Screen(*DEMO, data=data) as screen:
        screen.wait_for_prompt()
        assert not screen.echoes
        screen.kill(signal.SIGTERM)
        screen.wait_for_end()
        assert screen.echoes
        assert screen.exit_code() == 128 + signal.SIGTERM


def test_asking_before_a_tool_runs(data: Path, weather: str) -> None:
    """The demo calls a function for real, if it may: y, n, words, Ctrl-D, and a."""
    question = r"-> get_weather\(location=\"Paris\"\)\nRun it\? .* instead:\Z"

    def reply(keys: str, expected: str) -> None:
        screen.press(PARIS + "\r")
        screen.wait_for(question)
        screen.press(keys)
        screen.wait_for(expected)
        screen.wait_for_prompt()

    with Screen(*DEMO, "-t", weather, data=data, rows=60) as screen:
        screen.wait_for_prompt()
        reply("y\r", r'instead: y\n  {"temperature": 21, .*}\n.*\nIt is 21 degrees and sunny')
        reply("n\r", r"instead: n\n  \[ERROR\] the user does not want this call to run\n")
        reply("look out\r", r"instead: look out\n  \[ERROR\] .*, and says: look out\n")
        reply(CTRL_D, r"instead:\n  \[ERROR\] the user does not want this call to run\n")
        reply("a\r", r'instead: a\n  {"temperature": 21, .*}\n.*\nIt is 21 degrees and sunny')
        say(screen, PARIS, r"\"Paris\"\)\n  {\"temperature\": 21, .*}\n.*\nIt is 21 degrees")
        say(screen, "/tools", "weather.py: functions.get_weather")
        screen.press("/bye\r")
        assert screen.exit_code() == 0


def test_once_in_a_terminal(data: Path, weather: str) -> None:
    """With a prompt there is somebody to ask as well; an early reply does not count."""
    with Screen(*DEMO, "-t", weather, PARIS, data=data) as screen:
        screen.press("y\r")
        screen.wait_for(r"instead:$")
        screen.pump(0.3)
        assert screen.lines[-1].endswith("instead:")
        screen.press("y\r")
        screen.wait_for("It is 21 degrees and sunny in Paris.")
        assert screen.exit_code() == 0


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_terminals(data: Path, variable: str, value: str) -> None:
    """Nothing is coloured, and answers are not redrawn."""
    with Screen(*DEMO, data=data, environment={variable: value}) as screen:
        screen.wait_for_prompt()
        say(screen, "What is 2 + 2?", r">>> What is 2 \+ 2\?\n2 \+ 2 = 4\.\n>>>")
        screen.press("/bye\r")  # a Ctrl-D that comes too early is the terminal's, not the line's
        assert screen.exit_code() == 0
        assert not screen.has_colours


@pytest.mark.parametrize("redirection", ["> {}", "2> {}"])
def test_one_stream_is_no_terminal(data: Path, tmp_path: Path, redirection: str) -> None:
    """The user sees the prompt and what is said beside answers in any case."""
    file = tmp_path / "file"
    with Screen(*DEMO, data=data, redirection=redirection.format(file)) as screen:
        screen.wait_for_prompt()
        screen.press("What is 2 + 2?\r/effort\r")
        screen.wait_for("effort: low")
        screen.wait_for_prompt()
        screen.press(CTRL_D)
        assert screen.exit_code() == 0
        is_shown = "2 + 2 = 4." in screen.lines
    assert file.read_text() == ("" if is_shown else "2 + 2 = 4.\n")
    assert is_shown == redirection.startswith("2")
