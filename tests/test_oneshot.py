"""`chat` with a prompt or in a pipe: the answer on stdout, all else on stderr, and what is kept."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import ReplayModel
from pseudo_terminal import INTERRUPTIBLE
from rich.console import Console

from gptoss_mlx.chat import Chat, Options
from gptoss_mlx.cli import run
from gptoss_mlx.cli.oneshot import answer_once
from gptoss_mlx.engine import Engine
from gptoss_mlx.terminal.view import View
from gptoss_mlx.tokenizer import Tokenizer

DEMO = ("chat", "-m", "demo", "--temperature", "0")
WEATHER = '''
def get_weather(location: str) -> str:
    """Get the current weather in a city.

    Args:
        location: City name
    """
    return '{"temperature": 21, "condition": "sunny"}'
'''
PARIS = "What is the weather in Paris?"


@dataclass
class Shell:
    """Runs the command line in this process; its streams are no terminals."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> tuple[str, str]:
        """(stdout, stderr) of a command that ends with this code."""
        self.monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        got = run(list(arguments))
        out, err = self.capsys.readouterr()
        assert got == code, err
        return out, err


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    """The command line, with a data folder of its own."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("GPTOSS_MLX_MODEL", raising=False)
    return Shell(capsys, monkeypatch)


@pytest.fixture
def weather(tmp_path: Path) -> str:
    """A file with a function."""
    (tmp_path / "weather.py").write_text(WEATHER)
    return str(tmp_path / "weather.py")


def test_prompt_and_pipe(shell: Shell) -> None:
    """Either is the message, or the one about the other; the answer alone goes to stdout."""
    given = shell(*DEMO, "What is 2 + 2?")
    assert given == ("2 + 2 = 4.\n", "")
    assert shell(*DEMO, stdin="What is 2 + 2?\n") == given
    shell(*DEMO, "Review this.", stdin="+ a line\n- another\n")
    listed, _ = shell("chat", "--list")
    assert [line.split("  ")[-1] for line in listed.splitlines()] == [
        "Review this.",
        "What is 2 + 2?",
        "What is 2 + 2?",
    ]


def test_a_conversation_goes_on(shell: Shell) -> None:
    """One-shot answers are turns: --continue adds one, with the model that it had."""
    shell(*DEMO, "My name is Alice.")
    out, _ = shell("chat", "--temperature", "0", "--continue", "What is my name?")
    assert "Alice" in out
    listed, _ = shell("chat", "--list")
    assert len(listed.splitlines()) == 1
    assert " 2 turns  My name is Alice." in listed
    out, _ = shell(*DEMO, "--resume", listed.split()[0][:-2], "-r", "high", stdin="Name me.")
    assert "3 turns" in shell("chat", "--list")[0]


def test_private(shell: Shell, tmp_path: Path) -> None:
    """Nothing is written, and there is nothing to go on with."""
    shell(*DEMO, "--private", "What is 2 + 2?")
    assert not (tmp_path / "data").exists()
    _, err = shell(*DEMO, "--private", "--continue", "And 3 + 3?", code=2)
    assert err == "Error: --private keeps no conversations to go on with: leave it out\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--resume", "20200101"], "there is no conversation '20200101'"),
        (["--continue"], "there is no conversation yet: begin one"),
        (["--resume", "../x"], "'../x' is no conversation's id: see the list for those there are"),
        (["-t", "nonsense"], "there is no tool 'nonsense'"),
    ],
)
def test_what_there_is_not(shell: Shell, options: list[str], said: str) -> None:
    """It is said before a model is loaded, in one line."""
    out, err = shell(*DEMO, *options, "Hi", code=2)
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


def test_json(shell: Shell) -> None:
    """One object on stdout, and nothing else."""
    out, err = shell(*DEMO, "--json", "Capital of France?")
    answer = json.loads(out)
    assert err == ""
    assert "Paris" in answer["content"]
    assert answer["reasoning"]
    assert answer["tool_calls"] == []
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 0


def test_schema(shell: Shell, tmp_path: Path) -> None:
    """Answers follow a schema, even those of a model that knows nothing of JSON."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"sum": {"enum": [4]}}, '
                      '"required": ["sum"], "additionalProperties": false}')  # fmt: skip
    out, _ = shell(*DEMO, "--schema", str(schema), "What is 2 + 2?")
    assert json.loads(out) == {"sum": 4}


@pytest.mark.parametrize("text", ["{", "[]", '{"type": 5}', "[" * 100_000])
def test_what_is_no_schema(shell: Shell, tmp_path: Path, text: str) -> None:
    """It is refused in one line, before anything is answered."""
    schema = tmp_path / "schema.json"
    schema.write_text(text)
    out, err = shell(*DEMO, "--schema", str(schema), "Hi", code=2)
    assert (out, err.count("\n")) == ("", 1)


def test_tools_run_with_yes(shell: Shell, weather: str) -> None:
    """The demo calls a function for real; calls and results go to stderr."""
    out, err = shell(*DEMO, "-t", weather, "--yes", PARIS)
    assert out == "It is 21 degrees and sunny in Paris.\n"
    assert err == (
        '-> get_weather(location="Paris")\n  {"temperature": 21, "condition": "sunny"}\n'
    )


def test_tools_are_refused_without_yes(shell: Shell, weather: str) -> None:
    """Nobody can be asked: the model is told, and so is the user."""
    out, err = shell(*DEMO, "-t", weather, PARIS)
    assert "21 degrees" not in out
    assert "cannot be asked" in err
    assert err.endswith("Note: calls of tools were refused, as nobody was asked: --yes runs them\n")


def test_json_with_tools(shell: Shell, weather: str) -> None:
    """Counts are of all turns; the answer is the last one's."""
    out, _ = shell(*DEMO, "-t", weather, "--yes", "--json", PARIS)
    answer = json.loads(out)
    assert answer["content"] == "It is 21 degrees and sunny in Paris."
    assert answer["finish_reason"] == "stop"


def test_a_call_that_the_caller_answers(shell: Shell, tmp_path: Path) -> None:
    """A function without a command is called; its result goes on where it ended."""
    place = {"type": "object", "properties": {"location": {"type": "string"}}}
    functions = [{"name": "get_weather", "description": "Weather", "parameters": place}]
    (tmp_path / "f.json").write_text(json.dumps(functions))
    tools = ("-t", str(tmp_path / "f.json"))
    assert shell(*DEMO, *tools, PARIS)[0] == 'functions.get_weather({"location":"Paris"})\n'
    result = ("--continue", "--result", '{"temperature": 21, "condition": "sunny"}')
    out, _ = shell(*DEMO, *tools, *result)
    assert out == "It is 21 degrees and sunny in Paris.\n"
    assert "no call of this conversation waits" in shell(*DEMO, *tools, *result, code=2)[1]
    assert "--continue or --resume" in shell(*DEMO, "--result", "x", code=2)[1]


def test_a_call_that_nobody_answered(shell: Shell, tmp_path: Path) -> None:
    """The next message goes on without; the old call is not told as one of the new answer."""
    (tmp_path / "f.json").write_text(json.dumps([{"name": "get_weather"}]))
    tools = ("-t", str(tmp_path / "f.json"))
    shell(*DEMO, *tools, PARIS)
    answer = json.loads(shell(*DEMO, "--continue", "--json", "Hello!")[0])
    assert (answer["finish_reason"], answer["tool_calls"]) == ("stop", [])


def test_cut_off_stats_and_reasoning(shell: Shell) -> None:
    """What is said beside the answer goes to stderr."""
    options = ("--max-tokens", "5", "--stats", "--show-reasoning")
    out, err = shell(*DEMO, *options, "What is 2 + 2?")
    assert out == ""
    thought, cut, stats = err.splitlines()
    assert thought
    assert cut.startswith("Cut off")
    assert "5 completion tokens" in stats


def test_a_full_disk_costs_no_answer(shell: Shell, tmp_path: Path) -> None:
    """It is printed; that it is not kept is a note."""
    (tmp_path / "data").write_text("a file where the folder should be")
    out, err = shell(*DEMO, "What is 2 + 2?")
    assert out == "2 + 2 = 4.\n"
    assert err.startswith("This conversation is not being kept: ")


def test_without_input(shell: Shell) -> None:
    """`chat </dev/null` loads, says what the model is, and ends well."""
    out, err = shell(*DEMO)
    assert out == ""
    assert err.startswith("Loading demo ...\nA tiny demo model")
    assert "Type a message" not in err


def test_an_empty_answer(tokenizer: Tokenizer) -> None:
    """A model that thinks and says nothing: stderr tells, in JSON the content is empty."""
    script = tokenizer.encode_with_special("<|channel|>analysis<|message|>Hm.<|return|>")
    chat = Chat(Engine(ReplayModel(script, script)), tokenizer)
    err = io.StringIO()
    view = View(Console(file=io.StringIO()), Console(file=err))
    answer_once(chat, "Hi", Options(), view, model="replay", as_json=False, stats=False)
    assert err.getvalue() == "The model ended without an answer.\n"
    answer_once(chat, "Hi", Options(), view, model="replay", as_json=True, stats=False)
    assert err.getvalue().count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    """Started without stdout or stderr, it answers as far as there is somebody to read."""
    environment = {**os.environ, "GPTOSS_MLX_DATA": str(tmp_path)}
    command = f"{sys.executable} -m gptoss_mlx chat -m demo --temperature 0 Hello! {closed}"
    done = subprocess.run(
        command, shell=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 0
    assert done.stdout == (
        b"" if ">&-" in closed.split() else b"Hello! How can I help you today?\n"
    )


def test_nobody_reads_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chat "..." | true` ends without a traceback, and the conversation is kept."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path))
    arguments = [sys.executable, "-c", INTERRUPTIBLE, *DEMO, "What is 2 + 2?"]
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1  # as click ends programs whose pipe is broken
    assert len(list((tmp_path / "conversations").iterdir())) == 1
