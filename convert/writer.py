"""A checkpoint directory that appears whole or not at all.

All sizes are known beforehand, so every shard's header is written first and rows then go to their
places in any order. Everything is written to a sibling `NAME.partial`, flushed to disk, and renamed
at the end. A run that was killed leaves only `NAME.partial`, which no command takes for a model and
which the next run replaces; a lock keeps two runs from writing the same one.

It does not know what the tensors mean.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gptoss_mlx.convert.names import DTYPE_BYTES, TensorSpec
from gptoss_mlx.errors import DiskError, UsageError

__all__ = ["ShardWriter", "free_bytes", "new_directory"]

SHARD_BYTES = 5_000_000_000  # as mlx-lm splits its files


@contextmanager
def new_directory(destination: Path, *, force: bool, needed: int) -> Generator[Path]:
    """A directory to fill, which becomes `destination` when the block ends without an error.

    Args:
        destination: must not exist, unless `force` and it is a checkpoint, which is then replaced.
        force: replace an existing checkpoint, once the new one is complete.
        needed: bytes that will be written.

    Raises:
        UsageError: the destination exists, or another conversion is writing there.
        DiskError: no space, or no right to write.
    """
    _check_destination(destination, force=force)
    partial = destination.with_name(destination.name + ".partial")
    with _translated_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination.with_name(f".{destination.name}.lock"), destination):
            shutil.rmtree(partial, ignore_errors=True)
            _check_space(destination.parent, needed)
            partial.mkdir()
            try:
                yield partial
                _replace(partial, destination)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


class ShardWriter:
    """Safetensors files with an index, of at most `shard_bytes` each, filled row by row."""

    def __init__(self, folder: Path, tensors: dict[str, TensorSpec], shard_bytes: int) -> None:
        self._files: list[BinaryIO] = []
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        shards = _split(tensors, shard_bytes)
        for i, names in enumerate(shards, start=1):
            path = folder / f"model-{i:05}-of-{len(shards):05}.safetensors"
            self._start(path, {name: tensors[name] for name in names})
        _write_index(folder, tensors, {name: f.name for name, (f, _) in self._places.items()})

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at an offset from the start of a tensor."""
        file, start = self._places[name]
        view = memoryview(data)
        while view:
            written = os.pwrite(file.fileno(), view, start + offset)
            view, offset = view[written:], offset + written

    def close(self) -> None:
        """Flush everything to the disk itself."""
        for file in self._files:
            os.fsync(file.fileno())
            file.close()

    def _start(self, path: Path, tensors: dict[str, TensorSpec]) -> None:
        header = _header(tensors)
        file = path.open("wb", buffering=0)
        self._files.append(file)
        file.write(header)
        start = len(header)
        for name, spec in tensors.items():
            self._places[name] = (file, start)
            start += spec.nbytes
        file.truncate(start)


def free_bytes(folder: Path) -> int:
    """Bytes that may be written below a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _split(tensors: dict[str, TensorSpec], shard_bytes: int) -> list[list[str]]:
    """Tensors in their order, cut into shards; in each, wider dtypes first, for alignment."""
    shards: list[list[str]] = []
    room = 0
    for name, spec in tensors.items():
        if spec.nbytes > room or not shards:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= spec.nbytes
    return [sorted(names, key=lambda n: -DTYPE_BYTES[tensors[n].dtype]) for names in shards]


def _header(tensors: dict[str, TensorSpec]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    end = 0
    for name, spec in tensors.items():
        start, end = end, end + spec.nbytes
        entries[name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_index(folder: Path, tensors: dict[str, TensorSpec], files: dict[str, str]) -> None:
    index = {
        "metadata": {"total_size": sum(spec.nbytes for spec in tensors.values())},
        "weight_map": {name: Path(files[name]).name for name in sorted(files)},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _check_destination(destination: Path, *, force: bool) -> None:
    if not destination.exists():
        return
    if not force:
        raise UsageError(f"{destination} exists; choose another place, or --force to replace it")
    if not destination.is_dir() or not _is_checkpoint_or_empty(destination):
        raise UsageError(f"{destination} is not a checkpoint; --force replaces only checkpoints")


def _is_checkpoint_or_empty(folder: Path) -> bool:
    return (folder / "config.json").is_file() or not any(folder.iterdir())


def _check_space(folder: Path, needed: int) -> None:
    free = free_bytes(folder)
    if free < needed:
        raise DiskError(
            f"not enough disk space at {folder}: {needed / 1e9:.1f} GB needed, "
            f"{free / 1e9:.1f} GB free"
        )


def _replace(partial: Path, destination: Path) -> None:
    if not destination.exists():
        partial.rename(destination)
        return
    old = destination.with_name(destination.name + ".old")
    shutil.rmtree(old, ignore_errors=True)  # of an earlier run that was killed just here
    destination.rename(old)
    partial.rename(destination)
    shutil.rmtree(old)


@contextmanager
def _locked(path: Path, destination: Path) -> Generator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another conversion is writing {destination}") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _translated_errors(destination: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"the disk filled up while writing {destination}; nothing was left behind"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiskError(f"{destination.parent} cannot be written: {error.strerror}") from error
        raise
