"""`gptoss-mlx download`, `models` and `rm` as a user meets them: kills, Ctrl-C, what is printed."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from checkpoints import ONE_FILE
from helpers import write_converted
from hub.server import FakeHub, Repository, running
from pseudo_terminal import INTERRUPTIBLE, Terminal
from rich.console import Console
from rich.progress import Progress

from gptoss_mlx import installation
from gptoss_mlx.cli import cli, run
from gptoss_mlx.cli.common import complete_installed
from gptoss_mlx.cli.progress import _Bars  # pyright: ignore[reportPrivateUsage]
from gptoss_mlx.convert import conversion
from gptoss_mlx.hub import Hub, Manifest

Call = Callable[..., tuple[int, str, str]]
REPO = "openai/gpt-oss-20b"
BIG = bytes(range(256)) * (3 << 12)  # 3 MiB
WEIGHTS = "original/model.safetensors"
QUICK = (  # the tokenizer takes seconds, and has tests of its own
    "from gptoss_mlx.convert import conversion; conversion.add_tokenizer = lambda *_: None; "
)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    """One server for the module."""
    with running() as hub:
        yield hub


@pytest.fixture
def fake(server: FakeHub, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The endpoint of every command that is run; with a large file, and a small model."""
    port = server.port
    FakeHub.__init__(server)
    server.port = port
    config = (source / "config.json").read_bytes()
    server.repositories["a/large"] = Repository({"original/config.json": config, WEIGHTS: BIG})
    files = {f"original/{path.name}": path.read_bytes() for path in source.iterdir()}
    other = b'{"model_type": "llama"}'
    server.repositories["a/llama"] = Repository({"config.json": other, "model.safetensors": BIG})
    top = {"config.json": config, "model.safetensors": BIG}
    server.repositories["a/unconverted"] = Repository(top)
    server.repositories[REPO] = Repository({**files, "metal/model.bin": b"x"})
    settings = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "GPTOSS_MLX_DATA": str(tmp_path / "data"),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def call(
    fake: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """The command line in this process: its exit code, stdout and stderr."""
    hub = Hub(fake.url, tmp_path / "hf" / "hub", pause=0.01, patience=2)
    monkeypatch.setattr(installation, "Hub", lambda: hub)
    monkeypatch.setattr(conversion, "add_tokenizer", lambda *_: None)  # pyright: ignore

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, which reads the environment."""
    return subprocess.Popen(
        [sys.executable, "-c", QUICK + INTERRUPTIBLE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def partial_size(folder: Path) -> int:
    """What has come of a file that is not whole."""
    return sum(path.stat().st_size for path in folder.rglob("*.gptoss-mlx.incomplete"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_interrupted_and_resumed(fake: FakeHub, tmp_path: Path, number: signal.Signals) -> None:
    """At 30% it ends; the same command fetches the rest, no byte twice, and the hash is right."""
    fake.faults.stall = len(BIG) * 3 // 10
    process = start("download", "a/large")
    deadline = time.monotonic() + 60
    while partial_size(tmp_path) < fake.faults.stall and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    code, _, err = finish(process)
    have = partial_size(tmp_path)
    assert have >= fake.faults.stall
    if number == signal.SIGINT:
        assert code == 130
        assert err.endswith("What is here stays: the same command goes on.\n\nStopped.\n")
    assert not list(tmp_path.rglob("model.safetensors"))
    fake.faults.stall = None
    fake.served.clear()
    code, _, err = finish(start("download", "a/large"))
    assert code == 0, err
    assert fake.served == {WEIGHTS: len(BIG) - have}
    assert next(tmp_path.rglob("model.safetensors")).read_bytes() == BIG
    assert "a/large (original): 3.1 MB, 1.0 MB of it here already" in err


def test_from_nothing_to_a_model(call: Call, fake: FakeHub, tmp_path: Path) -> None:
    """One command downloads, converts and cleans up; `models` lists it, `rm` removes it."""
    code, out, err = call("download", "20b", "--convert", "--dense", "q4")
    assert code == 0, err
    folder = tmp_path / "data/models/gpt-oss-20b-q4"
    assert out == (
        f"gpt-oss-20b-q4 is installed, at {folder}. The original was removed.\n"
        "Next: gptoss-mlx chat --model gpt-oss-20b-q4\n"
    )
    assert "100% converted" in err
    assert f"original/{ONE_FILE}: whole, and as it should be" in err
    assert "metal/model.bin" not in fake.served
    _, out, _ = call("models")
    assert re.fullmatch(rf"gpt-oss-20b-q4   0\.\d MB  q4  {folder}\n", out)
    assert call("download", "20b", "--convert", "--dense", "q4")[1] == (
        f"gpt-oss-20b-q4 is installed already, at {folder}.\n"
    )
    code, out, _ = call("rm", "--yes", "gpt-oss-20b-q4")
    assert re.fullmatch(rf"gpt-oss-20b-q4 is removed \(0\.\d MB, {folder}\)\.\n", out)
    assert call("models") == (0, "", "No model is installed: gptoss-mlx download 20b --convert\n")


def test_what_is_to_be_converted(call: Call, tmp_path: Path) -> None:
    """Without --convert it says how to go on, and `models --json` what there is."""
    arguments = ("--source", "original", "--dir", str(tmp_path / "my models"))
    code, out, err = call("download", "20b", *arguments)
    assert code == 0, err
    folder = tmp_path / "my models" / "original"
    expected = f"20b --convert --source original --dir '{tmp_path}/my models'\n"
    assert out.endswith(f"Next: gptoss-mlx download {expected}")
    code, out, _ = call("models", "--json")
    (model,) = json.loads(out)
    assert (model["state"], model["path"]) == ("original, to be converted", str(folder))
    _, out, _ = call("rm", "--yes", "gpt-oss-20b-original")
    assert out == f"gpt-oss-20b-original is forgotten; its files stay in {folder}.\n"


def test_a_ready_made_one(call: Call, fake: FakeHub, tmp_path: Path) -> None:
    """It is not converted, which is said."""
    ready = write_converted(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in ready.iterdir()}
    fake.repositories["mlx-community/gpt-oss-20b-MXFP4-Q8"] = Repository(files, tags=("mlx",))
    code, out, err = call("download", "20b", "--source", "mlx", "--convert")
    assert code == 0, err
    assert "It is ready-made: nothing was converted." in out
    assert out.endswith("Next: gptoss-mlx chat --model gpt-oss-20b-MXFP4-Q8\n")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("21b",), 2, "'21b' cannot be downloaded: name 20b, 120b, or a repository such as "),
        (("demo",), 2, "'demo' cannot be downloaded"),
        (("nobody/nothing",), 1, "has no repository nobody/nothing"),
        (("20b", "--revision", "v9"), 1, "openai/gpt-oss-20b has no revision 'v9'"),
        (("20b", "--dir", ""), 2, "--dir is empty"),
        (("20b", "--revision", ""), 2, "--revision is empty"),
        ((REPO, "--source", "mlx"), 1, "openai/gpt-oss-20b has at its top no config.json"),
    ],
)
def test_one_clear_line(call: Call, arguments: tuple[str, ...], code: int, expected: str) -> None:
    """Whatever is wrong."""
    found, out, err = call("download", *arguments)
    assert (found, out) == (code, "")
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("a/llama",), "Error: a/llama holds no gpt-oss model: config.json"),
        (("a/unconverted", "--source", "mlx"), "Error: a/unconverted holds no MLX conversion: "),
    ],
)
def test_what_is_something_else(
    call: Call, fake: FakeHub, arguments: tuple[str, ...], expected: str
) -> None:
    """It is found out before the weights come."""
    code, _, err = call("download", *arguments)
    assert code == 1
    assert err.splitlines()[-1].startswith(expected)
    assert not fake.served
    assert call("models")[1] == ""


def test_only_its_own_lines(call: Call, fake: FakeHub) -> None:
    """Nothing that huggingface-hub logs comes between."""
    fake.faults.statuses = [503] * 9
    code, _, err = call("download", "20b")
    assert code == 1
    lines = err.splitlines()
    assert lines[0].startswith(f"{REPO} (original): ")
    assert lines[1:-1] == [f"original/{ONE_FILE}: the server fails (status 503); going on."] * 2
    assert lines[-1].startswith(f"Error: {fake.url} fails (status 503): try again later")


def test_the_environment(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_TOKEN opens what is gated; with HF_HUB_OFFLINE what is in HF_HOME serves."""
    fake.token = "secret"
    fake.gated.add(REPO)
    code, _, err = finish(start("download", "20b"))
    assert code == 1
    assert err.splitlines()[-1].startswith(f"Error: {REPO} is only for those who were let in")
    monkeypatch.setenv("HF_TOKEN", "secret")
    code, _, err = finish(start("download", "20b"))
    assert code == 0, err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fake.requests.clear()
    code, out, err = finish(start("download", "20b", "--convert"))
    assert code == 0, err
    assert "gpt-oss-20b-q8 is installed" in out
    assert not fake.requests
    code, _, err = finish(start("download", "120b"))
    assert (code, err.count("\n")) == (1, 1)
    assert "HF_HUB_OFFLINE forbids to fetch it: unset that" in err


def test_bars_on_a_terminal(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bar for the file and one for all."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    fake.faults.pause = 0.3
    terminal = Terminal("download", "20b")
    terminal.wait_for("In all")
    terminal.wait_for(ONE_FILE)
    terminal.wait_for("all files are here, and right")
    assert terminal.exit_code() == 0


def test_a_bar_for_the_conversion() -> None:
    """It takes the place of that for the download, and says what is done at its end."""
    file = io.StringIO()
    with Progress(console=Console(file=file, force_terminal=True, width=80)) as progress:
        bars = _Bars(progress)
        bars.planned(Manifest("a/b", "main", "c" * 40, "original", ()), 0)
        bars.converting(5, 10)
        progress.refresh()
        bars.converting(10, 10)
    assert [task.description for task in progress.tasks] == ["Writing tokenizer"]
    assert "Converting" in file.getvalue()


def test_names_are_completed(call: Call) -> None:
    """A shell completes the names of what is installed."""
    assert call("download", "20b", "--convert", "--keep-original")[0] == 0
    context = click.Context(cli)
    names = [item.value for item in complete_installed(context, cli.params[0], "gpt-oss-20b-o")]
    assert names == ["gpt-oss-20b-original"]


def test_rm_asks(call: Call) -> None:
    """On a terminal; without a yes nothing is removed. Elsewhere --yes must be passed."""
    assert call("download", "20b", "--convert")[0] == 0
    terminal = Terminal("rm", "gpt-oss-20b-q8")
    terminal.wait_for("Remove gpt-oss-20b-q8 (0.")
    terminal.type("n\r")
    terminal.wait_for("gpt-oss-20b-q8 stays.")
    assert terminal.exit_code() == 0
    assert "gpt-oss-20b-q8" in call("models")[1]
    with Path(os.devnull).open() as nothing, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", nothing)
        code, _, err = call("rm", "gpt-oss-20b-q8")
    assert (code, err) == (
        2,
        "Error: gpt-oss-20b-q8 is only removed without asking if you pass --yes\n",
    )
