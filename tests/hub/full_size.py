"""The whole 20b from a Hub here, killed at 30% and gone on with, converted, and used: minutes.

    make install-20b

Needs 40 GB of disk. The weights are random, of the published shape; GPTOSS_MLX_ORIGINAL names a
folder that holds such a checkpoint already (benchmarks/make_checkpoint.py). Prints how long each
step took, and what was sent.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from pseudo_terminal import INTERRUPTIBLE

from gptoss_mlx.convert import verify
from gptoss_mlx.convert.synthetic import GPT_OSS_20B, write_random_checkpoint

from .server import Big, FakeHub, Repository, running

REPO = "openai/gpt-oss-20b"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the published shape, in OpenAI's layout."""
    if given := os.environ.get("GPTOSS_MLX_ORIGINAL"):
        return Path(given)
    folder = tmp_path_factory.mktemp("original")
    write_random_checkpoint(folder, GPT_OSS_20B)
    return folder


@pytest.fixture
def fake(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that has it, where every command looks for one."""
    with running() as hub:
        files = {f"original/{path.name}": _contents(path) for path in original.iterdir()}
        hub.repositories[REPO] = Repository(files)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("GPTOSS_MLX_DATA", str(tmp_path / "data"))
        yield hub


def _contents(path: Path) -> bytes | Big:
    with path.open("rb") as file:
        return Big(file.fileno(), 0, prot=mmap.PROT_READ)


def test_from_nothing_to_an_answer(fake: FakeHub, original: Path, tmp_path: Path) -> None:
    """No byte comes twice, the conversion is right, the download is gone, and the model answers."""
    size = sum(path.stat().st_size for path in original.iterdir())
    install = ("download", "20b", "--convert")
    killed = _run("downloaded to 30%", *install, until=lambda: _have(tmp_path) > 0.3 * size)
    assert killed != 0
    have = _have(tmp_path)
    fake.served.clear()
    assert _run(f"the rest of {size / 1e9:.1f} GB, checked, converted", *install) == 0
    sent = sum(fake.served.values())
    click.echo(f"sent after the kill: {sent / 1e9:.2f} GB, here before it: {have / 1e9:.2f} GB")
    assert sent + have == pytest.approx(size, abs=1e6)  # small files come anew, and are not counted
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    assert _run("one answer, loading included", "chat", "Hi", "--max-tokens", "3") in (0, 1)
    verify(tmp_path / "data" / "models" / "gpt-oss-20b-q8", original)


def _run(title: str, *arguments: str, until: Callable[[], bool] = lambda: False) -> int:
    """Run a command, or kill it when something is the case; prints how long it took."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTIBLE, *arguments])
    while process.poll() is None:
        time.sleep(0.1)
        if until():
            process.kill()
    click.echo(f"{title}: {time.monotonic() - started:.0f} s")
    return process.wait()


def _have(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.gptoss-mlx.incomplete"))
