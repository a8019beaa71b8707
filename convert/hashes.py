"""The sha256 of every tensor of a conversion: taken while it is written, and held against it later.

It does not know how tensors are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from gptoss_mlx.config import read_config_file
from gptoss_mlx.convert.reader import find_files, read_header
from gptoss_mlx.convert.writer import RECORD
from gptoss_mlx.errors import CorruptFileError

__all__ = ["Hashing", "Sink", "check_hashes", "has_hashes", "hashing"]

_BLOCK = 4 << 20


class Sink(Protocol):
    """Where the bytes of tensors go."""

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at an offset from the start of a tensor."""
        ...


class Hashing:
    """A sink that hashes, in a thread, what it passes on; a tensor's bytes come in their order."""

    def __init__(self, sink: Sink, thread: ThreadPoolExecutor) -> None:
        self._sink = sink
        self._thread = thread
        self._digests: dict[str, Any] = {}
        self._ends: dict[str, int] = {}
        self._pending: Future[None] | None = None

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Pass on, and hash while that is done."""
        assert offset == self._ends.get(name, 0), f"{name} is not written in order"
        self._ends[name] = offset + len(data)
        self._wait()
        digest = self._digests.setdefault(name, hashlib.sha256())
        self._pending = self._thread.submit(digest.update, data)
        self._sink.write(name, offset, data)

    @property
    def hashes(self) -> dict[str, str]:
        """The sha256 of each tensor, once all is written."""
        self._wait()
        return {name: digest.hexdigest() for name, digest in sorted(self._digests.items())}

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


@contextmanager
def hashing(sink: Sink) -> Generator[Hashing]:
    """A sink that hashes what goes to another one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield Hashing(sink, thread)


def has_hashes(folder: Path) -> bool:
    """Whether a checkpoint's record holds hashes: ready-made ones and old conversions have none."""
    return (folder / RECORD).is_file() and bool(_recorded(folder))


def check_hashes(folder: Path, on_progress: Callable[[int, int], None] | None = None) -> None:
    """Read all of a conversion again, and hold it against the hashes in its record.

    Args:
        folder: a conversion for which `has_hashes`.
        on_progress: called with (bytes done, bytes in all).

    Raises:
        CorruptFileError: a tensor is not what was written.
        CheckpointError: a file is missing or damaged.
    """
    expected = _recorded(folder)
    places = [(path, at) for path in find_files(folder) for at in read_header(path).items()]
    total, done = sum(stored.spec.nbytes for _, (_, stored) in places), 0
    for path, (name, stored) in places:
        digest = hashlib.sha256()
        for block in _blocks(path, stored.offset, stored.spec.nbytes):
            digest.update(block)
            done += len(block)
            if on_progress is not None:
                on_progress(done, total)
        if digest.hexdigest() != expected.get(name):
            raise CorruptFileError(
                f"{path}: {name} is not what was written there; convert again, and check the disk"
            )


def _recorded(folder: Path) -> dict[str, str]:
    tensors: object = read_config_file(folder / RECORD).get("tensors")
    return cast("dict[str, str]", tensors) if isinstance(tensors, dict) else {}


def _blocks(path: Path, start: int, nbytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while nbytes and (block := file.read(min(nbytes, _BLOCK))):
            nbytes -= len(block)
            yield block
