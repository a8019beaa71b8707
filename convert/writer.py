"""A checkpoint directory that appears whole or not at all.

All sizes are known beforehand, so every shard's header is written first and rows then go to their
places in any order. Everything is written to a hidden sibling, flushed to the disk, and renamed at
the end. A run that was killed leaves only that sibling, which no command takes for a model and
which the next run replaces; a lock on it keeps two runs apart. What is replaced is set aside first
and put back if the rename fails.

It does not know what the tensors mean.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import struct
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from gptoss_mlx.convert.names import DTYPE_BYTES, TensorSpec
from gptoss_mlx.errors import DiskError, UsageError

__all__ = ["RECORD", "SHARD_BYTES", "ShardWriter", "index_of", "new_directory"]

SHARD_BYTES = 5_000_000_000  # as mlx-lm splits its files
RECORD = "conversion.json"  # where a conversion came from; nothing needs it to run the model
_OURS = re.compile(
    r"(config|generation_config|conversion|tokenizer|tokenizer_config|special_tokens_map)\.json"
    r"|chat_template\.jinja|model.*\.safetensors(\.index\.json)?|\.DS_Store"
)


@contextmanager
def new_directory(destination: Path, *, force: bool, needed: int) -> Generator[Path, None, None]:
    """A directory to fill, which becomes `destination` when the block ends without an error.

    Args:
        destination: must not exist, unless `force` and it is a checkpoint, which is then replaced.
        force: replace an existing checkpoint, once the new one is complete.
        needed: bytes that will be written.

    Raises:
        UsageError: the destination exists, or another conversion is writing there.
        DiskError: no space, or no right to write.
    """
    with _translated_errors(destination):
        if destination.is_symlink() and not destination.exists():
            raise UsageError(f"{destination} is a link to nowhere")
        destination = destination.resolve()
        _put_back(destination)
        _check_destination(destination, force=force)
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = _sibling(destination, "partial")
        with _locked(partial, destination):
            try:
                _empty(partial)
                _check_space(destination.parent, needed)
                yield partial
                _flush(partial)
                _check_destination(destination, force=force)  # it may have appeared meanwhile
                _replace(partial, destination)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise


class ShardWriter:
    """Safetensors files with an index, of at most `shard_bytes` each, filled row by row."""

    def __init__(self, folder: Path, tensors: dict[str, TensorSpec], shard_bytes: int) -> None:
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        shards = _split(tensors, shard_bytes)
        with ExitStack() as files:
            for i, names in enumerate(shards, start=1):
                path = folder / f"model-{i:05}-of-{len(shards):05}.safetensors"
                file = files.enter_context(path.open("wb", buffering=0))
                self._start(file, {name: tensors[name] for name in names})
            places = {name: Path(file.name).name for name, (file, _) in self._places.items()}
            text = json.dumps(index_of(tensors, places), indent=2)
            (folder / "model.safetensors.index.json").write_text(text + "\n", encoding="utf-8")
            self._files = files.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put bytes at an offset from the start of a tensor."""
        file, start = self._places[name]
        view = memoryview(data)
        while view:
            written = os.pwrite(file.fileno(), view, start + offset)
            view, offset = view[written:], offset + written

    def _start(self, file: BinaryIO, tensors: dict[str, TensorSpec]) -> None:
        header = _header(tensors)
        file.write(header)
        start = len(header)
        for name, spec in tensors.items():
            self._places[name] = (file, start)
            start += spec.nbytes
        file.truncate(start)


def index_of(tensors: dict[str, TensorSpec], files: dict[str, str]) -> dict[str, object]:
    """The contents of model.safetensors.index.json: which file each tensor is in."""
    return {
        "metadata": {"total_size": sum(spec.nbytes for spec in tensors.values())},
        "weight_map": {name: files[name] for name in sorted(files)},
    }


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


def _sibling(destination: Path, kind: str) -> Path:
    """A place beside the destination that nobody else uses."""
    return destination.with_name(f".{destination.name}.gptoss-mlx-{kind}")


def _check_destination(destination: Path, *, force: bool) -> None:
    if not destination.exists():
        return
    if not force:
        raise UsageError(f"{destination} exists; choose another place, or --force to replace it")
    names = {path.name for path in destination.iterdir()} if destination.is_dir() else {""}
    if names and RECORD not in names:
        raise UsageError(
            f"{destination} is not a checkpoint; --force replaces only checkpoints made by convert"
        )
    foreign = sorted(name for name in names if not _OURS.fullmatch(name))
    if foreign:
        raise UsageError(f"{destination} also holds {foreign[0]}: move it away before --force")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            f"not enough disk space at {folder}: {needed / 1e9:.1f} GB needed, "
            f"{free / 1e9:.1f} GB free"
        )


def _replace(partial: Path, destination: Path) -> None:
    old = _sibling(destination, "old")
    if destination.exists():
        destination.rename(old)
    try:
        partial.rename(destination)
    except OSError:
        _put_back(destination)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(destination: Path) -> None:
    """Undo the first half of a `_replace` that was cut off; or finish its second half."""
    old = _sibling(destination, "old")
    if not old.exists():
        return
    if destination.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(destination)


@contextmanager
def _locked(partial: Path, destination: Path) -> Generator[None, None, None]:
    """Hold the lock on the partial directory, which the system drops if the process dies."""
    handle = _lock(partial, destination)
    try:
        yield
    finally:
        os.close(handle)


def _lock(partial: Path, destination: Path) -> int:
    while True:
        partial.mkdir(exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise UsageError(f"another conversion is writing {destination}") from None
        if partial.exists() and os.path.samestat(os.fstat(handle), partial.stat()):
            return handle
        os.close(handle)  # another run has just renamed it away


def _empty(folder: Path) -> None:
    """Remove what a killed run left."""
    for path in folder.iterdir():
        path.unlink()


def _flush(folder: Path) -> None:
    """Have everything on the disk itself before the rename says that it is complete."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _translated_errors(destination: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"the disk filled up while writing {destination}; nothing was left behind"
            ) from error
        place = Path(error.filename or destination)
        if place.name.startswith(f".{destination.name}.gptoss-mlx"):
            place = destination
        raise DiskError(f"{place}: {error.strerror}") from error
