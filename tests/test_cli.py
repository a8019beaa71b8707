"""The command line as a user meets it: commands, errors in one line, exit codes, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import BABBLER
from pseudo_terminal import INTERRUPTIBLE

from gptoss_mlx.cli import run
from gptoss_mlx.convert import convert
from gptoss_mlx.convert.synthetic import write_random_checkpoint

WEATHER = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string", "description": "City name"}},
                "required": ["location"],
            },
        },
    }
]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the user's own data folder."""
    monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint in OpenAI's layout, with the full vocabulary."""
    folder = tmp_path_factory.mktemp("source") / "original"
    write_random_checkpoint(folder, BABBLER)
    return folder


@pytest.fixture(scope="module")
def babbler(source: Path) -> Path:
    """The same converted: a model that talks nonsense and hardly ever stops."""
    folder = source.parent / "mlx"
    convert(source, folder)
    return folder


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from gptoss_mlx.__main__ import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the name and a number."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gptoss-mlx, version 0.")


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The completion script asks our program through click's variable."""
    assert run(["completion", shell]) == 0
    assert "_GPTOSS_MLX_COMPLETE" in capsys.readouterr().out


def test_completion_answers() -> None:
    """What the script asks for is answered: the commands that begin with `c`."""
    environment = {
        **os.environ,
        "_GPTOSS_MLX_COMPLETE": "bash_complete",
        "COMP_WORDS": "gptoss-mlx c",
        "COMP_CWORD": "1",
    }
    script = "from gptoss_mlx.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert {line.split(",")[1] for line in result.stdout.split()} == {
        "chat",
        "completion",
        "convert",
    }


@pytest.mark.parametrize("arguments", [["chat"], ["generate", "Hello"]])
def test_no_model(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a model the line says what to do, and that the demo works now."""
    monkeypatch.delenv("GPTOSS_MLX_MODEL", raising=False)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert "demo works now" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["generate", "-m", "/nowhere", "Hi"], 1, "/nowhere: no such folder"),
        (["convert", "/nowhere", "/tmp/never-made"], 1, "/nowhere: no such folder"),
        (["convert", "only-one"], 2, "Missing argument 'DST'"),
        (["convert", "", "/tmp/never-made"], 2, "'SRC': the path is empty"),
        (["convert", "/nowhere", ""], 2, "'DST': the path is empty"),
        (["convert", "--verify", "", "/nowhere"], 2, "'SRC': the path is empty"),
        (["generate", "-m", "", "Hi"], 2, "the model's name is empty"),
        (["chat", "-m", ""], 2, "the model's name is empty"),
        (["generate", "-m", "demo", "--top-p", "0", "Hi"], 2, "top_p"),
        (["generate", "-m", "demo", "--top-p", "nan", "Hi"], 2, "top_p"),
        (["generate", "-m", "demo", "--temperature", "nan", "Hi"], 2, "temperature"),
        (["generate", "-m", "demo", "--temperature", "inf", "Hi"], 2, "temperature"),
        (["generate", "-m", "demo", "--seed", "99999999999999999999999", "Hi"], 2, "seed"),
        (["generate", "-m", "demo", "--max-tokens", "0", "Hi"], 2, "--max-tokens"),
        (["convert", "--verify", "--force", "a", "b"], 2, "--verify only compares"),
        (["convert", "--verify", "--dense", "q8", "a", "b"], 2, "--verify only compares"),
        (["generate", "-m", "demo", "-r", "extreme", "Hi"], 2, "'low', 'medium', 'high'"),
        (["frobnicate"], 2, "No such command 'frobnicate'"),
    ],
)
def test_errors(
    arguments: list[str],
    code: int,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bad input gives the right exit code and says what is wrong, without a traceback."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(arguments) == code
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    """--debug shows where an error came from, before or after the command's name."""
    for arguments in (["--debug", "convert"], ["convert", "--debug"]):
        result = command(*arguments, "/nowhere", "/tmp/never-made")
        assert result.returncode == 1
        assert "Traceback" in result.stderr
        assert result.stderr.strip().endswith("/nowhere: no such folder")


def test_generate_needs_a_prompt(babbler: Path) -> None:
    """No prompt and nothing on standard input is a usage error."""
    result = command("generate", "--model", str(babbler))
    assert result.returncode == 2
    assert "no prompt" in result.stderr


def test_model_that_needs_conversion(source: Path) -> None:
    """A published checkpoint given as a model: the line names the conversion."""
    result = command("generate", "--model", str(source), "Hi")
    assert result.returncode == 2
    assert f"gptoss-mlx convert {source}" in result.stderr


def test_convert_and_verify(source: Path, tmp_path: Path) -> None:
    """Converting, converting again, and verifying, as a user would."""
    destination = tmp_path / "mlx"
    first = command("convert", str(source), str(destination), "--dense", "q4")
    assert first.returncode == 0, first.stderr
    assert f"Next: gptoss-mlx chat --model {destination}" in first.stdout
    again = command("convert", str(source), str(destination))
    assert again.returncode == 2
    assert "--force" in again.stderr
    for order in ((destination, source), (source, destination)):
        verified = command("convert", "--verify", *map(str, order))
        assert verified.returncode == 0, verified.stderr
        assert "q4" in verified.stdout


def test_generate_reads_a_pipe_and_a_prompt() -> None:
    """Standard input alone is the prompt; it does for the demo what an argument does."""
    options = ("generate", "-m", "demo", "--temperature", "0")
    piped = command(*options, stdin="What is 2 + 2?")
    given = command(*options, "What is 2 + 2?")
    assert piped.returncode == given.returncode == 0, piped.stderr + given.stderr
    assert piped.stdout == given.stdout
    assert "4" in piped.stdout


def test_generate_json() -> None:
    """--json prints one object that holds everything, and nothing else."""
    result = command("generate", "-m", "demo", "--json", "--temperature", "0", "Capital of France?")
    answer = json.loads(result.stdout)
    assert "Paris" in answer["content"]
    assert answer["reasoning"]
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] > answer["usage"]["completion_tokens"] > 0


def test_generate_calls_a_tool(tmp_path: Path) -> None:
    """A weather function in a JSON file is called with arguments that parse."""
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(WEATHER))
    question = "What is the weather in Paris?"
    result = command(
        "generate", "-m", "demo", "--tools", str(tools), "--json", "--temperature", "0", question
    )
    answer = json.loads(result.stdout)
    assert answer["finish_reason"] == "tool_calls"
    (call,) = answer["tool_calls"]
    assert call["name"] == "functions.get_weather"
    assert json.loads(call["arguments"]) == {"location": "Paris"}


@pytest.mark.parametrize(
    "contents",
    [
        "{",
        "[1]",
        "7",
        "{}x",
        '[{"description": "no name"}]',
        '[{"type": "function", "function": {"name": 5}}]',
        '[{"name": "f", "parameters": "text"}]',
        '[{"name": "f", "description": 5}]',
        "[" * 100_000,
    ],
)
def test_bad_tools_file(contents: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tools file that is not one names itself in the error, on one line."""
    tools = tmp_path / "tools.json"
    tools.write_text(contents)
    assert run(["generate", "-m", "demo", "--tools", str(tools), "Hi"]) == 2
    error = capsys.readouterr().err
    assert str(tools) in error
    assert error.count("\n") == 1


def test_reasoning_is_hidden_unless_asked_for() -> None:
    """The chain of thought stays out of the answer; --show-reasoning prints it beside it."""
    options = ("generate", "-m", "demo", "--temperature", "0", "Capital of Japan?")
    hidden, shown = command(*options), command(*options, "--show-reasoning", "--stats")
    assert hidden.stdout == shown.stdout
    assert hidden.stderr == ""
    assert "prompt tokens" in shown.stderr
    assert len(shown.stderr.splitlines()[0]) > 0


def test_ctrl_c_ends_generate(babbler: Path) -> None:
    """Ctrl-C in `generate` ends the program with the shells' code for it."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", INTERRUPTIBLE),
            *("generate", "--model", str(babbler), "--show-reasoning", "Talk"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.endswith("Stopped.\n")
    assert "Traceback" not in error


def test_chat_without_a_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stdin is the end of the conversation."""
    monkeypatch.setattr(sys, "stdin", None)
    assert run(["chat", "--model", "demo"]) == 0
