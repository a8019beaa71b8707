"""A Hub to download from, and somebody who is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_mlx.hub import Hub, RemoteFile

from .server import FakeHub, Repository, running

BIG = bytes(range(256)) * 4096  # 1 MiB


class Told:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.checked: list[int] = []
        self.names: list[str] = []
        self.notes: list[str] = []

    def receiving(self, file: RemoteFile, done: int) -> None:  # noqa: ARG002
        """Remember how much."""
        self.received.append(done)

    def checking(self, file: RemoteFile, done: int) -> None:  # noqa: ARG002
        """Remember how much."""
        self.checked.append(done)

    def finished(self, file: RemoteFile) -> None:
        """Remember which."""
        self.names.append(file.name)

    def note(self, text: str) -> None:
        """Remember what."""
        self.notes.append(text)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    """One server for a module: starting it takes a while."""
    with running() as hub:
        yield hub


@pytest.fixture
def fake(server: FakeHub) -> FakeHub:
    """The server as new, with one repository as OpenAI's are: everything three times."""
    port = server.port
    FakeHub.__init__(server)
    server.port = port
    weights = {
        "original/model.safetensors": BIG,
        "model-00000-of-00001.safetensors": BIG[::-1],
        "metal/model.bin": BIG[1:],
        "tokenizer.json": b"{}" * 999,
    }
    small = ("config.json", "original/config.json", "original/dtypes.json", "README.md")
    files = {**weights, **{name: f'{{"{name}": 1}}'.encode() for name in small}}
    server.repositories["openai/gpt-oss-20b"] = Repository(files)
    return server


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    """How it is reached: with a cache of its own, and little patience."""
    return Hub(fake.url, tmp_path / "cache", pause=0.01, patience=2)


@pytest.fixture
def told() -> Told:
    """Somebody who is told."""
    return Told()
