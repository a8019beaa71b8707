"""The first `gptoss-mlx chat`: what it offers, and that it does nothing unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import BABBLER
from hub.server import FakeHub, Repository, running
from pseudo_terminal import INTERRUPTIBLE, Terminal

from gptoss_mlx.cli.common import EngineOptions, require_model
from gptoss_mlx.cli.first_run import _merged  # pyright: ignore[reportPrivateUsage]
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.fit import Recommendation, Variant


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    """OpenAI's repository, of a small model with the whole vocabulary."""
    folder = tmp_path_factory.mktemp("source") / "original"
    write_random_checkpoint(folder, BABBLER)
    with running() as hub:
        files = {f"original/{path.name}": path.read_bytes() for path in folder.iterdir()}
        hub.repositories["openai/gpt-oss-20b"] = Repository(files)
        yield hub


@pytest.fixture(autouse=True)
def machine(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing installed, for which the 20b is the right model."""
    settings = {
        "HF_ENDPOINT": fake.url,
        "HF_HOME": str(tmp_path / "hf"),
        "GPTOSS_MLX_DATA": str(tmp_path / "data"),
        "GPTOSS_MLX_MEMORY": "32GiB",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GPTOSS_MLX_MODEL", raising=False)
    fake.requests.clear()


def test_no(fake: FakeHub, tmp_path: Path) -> None:
    """The model, its size and its time are shown; without a yes nothing happens."""
    terminal = Terminal("chat")
    terminal.wait_for("No model is installed yet. What suits this machine:")
    terminal.wait_for("20b, q8: ")
    terminal.wait_for("It is a download of 13.8 GB (about 18 minutes at 100 Mbit/s)")
    terminal.wait_for("Download and install it now? [y/N]")
    terminal.type("\r")
    terminal.wait_for("Nothing was downloaded. To try it without: gptoss-mlx chat --model demo")
    assert terminal.exit_code() == 0
    assert not fake.requests
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--context", "999999"), "the context must lie in 1..131,072 tokens"),
        (("--tools", "nonsense"), "nonsense"),
        (("--schema", __file__), "test_first_run.py holds no JSON schema"),
    ],
)
def test_what_is_wrong_comes_first(fake: FakeHub, arguments: tuple[str, ...], error: str) -> None:
    """Nobody downloads a model to be told then that the command is wrong."""
    terminal = Terminal("chat", *arguments)
    terminal.wait_for("Error: ")
    terminal.wait_for(error)
    assert terminal.exit_code() == 2
    assert not fake.requests


@pytest.mark.slow
def test_yes(tmp_path: Path) -> None:
    """It is downloaded, converted, and the conversation begins; the next one needs no name."""
    terminal = Terminal("chat", "--context", "4096", "--max-tokens", "2")
    terminal.wait_for("[y/N]")
    terminal.type("y\r")
    terminal.wait_for("Loading gpt-oss-20b-q8")
    terminal.wait_for("Type a message.")
    terminal.type("Hello\r")
    terminal.wait_for("cut off")
    terminal.type("/bye\r")
    assert terminal.exit_code() == 0
    assert require_model(None) == "gpt-oss-20b-q8"
    (conversation,) = (tmp_path / "data" / "conversations").glob("*.json")
    assert json.loads(conversation.read_text())["model"] == "gpt-oss-20b-q8"


def test_nothing_fits(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no model fits nothing is offered; it says why."""
    monkeypatch.setenv("GPTOSS_MLX_MEMORY", "4GiB")
    terminal = Terminal("chat")
    terminal.wait_for("Error: ")
    terminal.wait_for("gptoss-mlx chat --model demo works everywhere")
    assert terminal.exit_code() == 1
    assert not fake.requests


@pytest.mark.parametrize("arguments", [("chat",), ("chat", "Hello"), ("generate", "Hello")])
def test_nobody_is_asked_in_a_pipe(fake: FakeHub, arguments: tuple[str, ...]) -> None:
    """Without a terminal, or with a prompt, there is an error with the command that helps."""
    code = [sys.executable, "-c", INTERRUPTIBLE, *arguments]
    done = subprocess.run(code, input="Hello", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: no model given and none installed: `gptoss-mlx download")
    assert not fake.requests


def test_how_it_is_run() -> None:
    """As recommended, but for what was said on the command line."""
    variant = Variant("q4", "disk", 8)
    found = Recommendation("20b", variant, 4096, "because")
    assert _merged(EngineOptions(context=99), found) == EngineOptions(99, kv_bits=8)
    assert _merged(EngineOptions(), replace(found, variant=Variant("q8"))) == EngineOptions()
    given = EngineOptions(embedding="memory", kv_bits=8)
    assert _merged(given, replace(found, variant=Variant("q8", "disk"))) == given
