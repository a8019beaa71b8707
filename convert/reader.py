"""Source checkpoints on disk: which layout, which tensors, and their bytes in file order.

Recognises a checkpoint by its config.json and its tensors, never by the folder's name. The
safetensors library checks each header against its file; the offsets come from the header itself, so
that a tensor can be read a few rows at a time (format: 8 bytes of length, a JSON header, then the
data; https://huggingface.co/docs/safetensors). Files are hashed as they pass, which costs no second
read.

It does not know what becomes of a tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from safetensors import SafetensorError, safe_open

from gptoss_mlx.config import ModelConfig, is_openai_config, read_config_file
from gptoss_mlx.convert.names import Layout, SourceTensor, TensorSpec, source_tensors
from gptoss_mlx.errors import (
    CheckpointError,
    ConfigError,
    CorruptFileError,
    MissingFileError,
    TensorError,
    UsageError,
)

__all__ = [
    "Chunk",
    "Source",
    "config_of",
    "find_files",
    "open_source",
    "read_chunks",
    "read_header",
]

CHUNK_BYTES = 4 << 20  # stays in the processor's cache on its way from read to write


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie: `offset` counts from the start of the file."""

    spec: TensorSpec
    offset: int


@dataclass(frozen=True)
class Source:
    """A checkpoint whose every tensor has been found and has the shape that the config asks for."""

    folder: Path
    layout: Layout
    config: ModelConfig
    raw_config: dict[str, Any]
    files: dict[Path, dict[str, StoredTensor]]  # tensors in file order
    tensors: dict[str, SourceTensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all source files."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of a source tensor."""

    name: str
    tensor: SourceTensor
    first_row: int
    data: bytes


def open_source(folder: Path, *, allow_unknown_config: bool = False) -> Source:
    """Recognise a checkpoint and check every name, dtype and shape in it against its config.

    Raises:
        MissingFileError, CorruptFileError, ConfigError, TensorError: as their names say.
        UsageError: the folder already holds an MLX conversion.
    """
    paths = find_files(folder)
    raw_config = read_config_file(folder / "config.json")
    files = {path: read_header(path) for path in paths}
    found = _merged(files)
    layout = _recognise(folder, found)
    if is_openai_config(raw_config) != (layout == "openai"):
        raise CheckpointError(
            f"{folder}: config.json and the tensors are of different layouts; "
            "take both from the same folder of the repository"
        )
    config = config_of(folder, raw_config, allow_unknown=allow_unknown_config)
    tensors = source_tensors(config, layout)
    _check_tensors({name: tensor.spec for name, tensor in tensors.items()}, found)
    return Source(folder, layout, config, raw_config, files, tensors)


def config_of(folder: Path, raw: dict[str, Any], *, allow_unknown: bool) -> ModelConfig:
    """The config of a folder; what is wrong with it is said with the folder's name.

    Raises:
        ConfigError: as `ModelConfig.from_dict`.
    """
    try:
        return ModelConfig.from_dict(raw, allow_unknown=allow_unknown)
    except ConfigError as error:
        raise ConfigError(f"{folder}/{error}") from None


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Names, dtypes, shapes and places of a safetensors file's tensors, in file order.

    Raises:
        CorruptFileError: truncated, or a header that does not fit the file.
    """
    try:
        with safe_open(path, framework="numpy"):
            pass  # opening checks lengths, offsets and overlaps
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(
            f"{path}: truncated or damaged ({error}); download it again"
        ) from None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    stored = {
        name: StoredTensor(
            TensorSpec(entry["dtype"], tuple(entry["shape"])), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
    }
    return dict(sorted(stored.items(), key=lambda item: item[1].offset))


def read_chunks(source: Source, on_file: Callable[[Path, str], None]) -> Iterator[Chunk]:
    """All tensors of all files, some rows at a time, in file order.

    Args:
        source: the checkpoint.
        on_file: called with the path and the sha256 of each file once it has been read whole.
    """
    for path, tensors in source.files.items():
        digest = hashlib.sha256()
        with _open(path) as file:
            for name, stored in tensors.items():
                _skip_to(file, stored.offset, digest.update)
                for chunk in _tensor_chunks(file, name, source.tensors[name]):
                    digest.update(chunk.data)
                    yield chunk
            _skip_to(file, path.stat().st_size, digest.update)
        on_file(path, digest.hexdigest())


def _tensor_chunks(file: BinaryIO, name: str, tensor: SourceTensor) -> Iterator[Chunk]:
    # an even number of rows, so that gate and up rows come in pairs
    step = max(2, CHUNK_BYTES // tensor.row_bytes // 2 * 2)
    for first in range(0, tensor.rows, step):
        nbytes = min(step, tensor.rows - first) * tensor.row_bytes
        data = _read(file, nbytes)
        if len(data) != nbytes:
            raise CorruptFileError(f"{file.name}: ends in the middle of {name}; download it again")
        yield Chunk(name, tensor, first, data)


def _skip_to(file: BinaryIO, offset: int, update: Callable[[bytes], None]) -> None:
    """Read on to an offset, for the hash's sake: the header, and gaps if there are any."""
    while (rest := offset - file.tell()) > 0:
        data = _read(file, min(rest, CHUNK_BYTES))
        if not data:
            raise CorruptFileError(f"{file.name}: shorter than its header says; download it again")
        update(data)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _read(file: BinaryIO, nbytes: int) -> bytes:
    """Up to so many bytes, which the system then need not keep: each is read only once."""
    try:
        data = file.read(nbytes)
    except OSError as error:
        raise CheckpointError(f"{file.name}: cannot be read: {error.strerror}") from error
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file.fileno(), 0, file.tell(), os.POSIX_FADV_DONTNEED)
    return data


def find_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, all of those that its index or their names promise.

    Raises:
        MissingFileError: no such folder, no such file, or one of several is missing.
        ConfigError: the index is not one.
    """
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise MissingFileError(f"{folder}: {problem}")
    # macOS keeps attributes in `._*` files on disks that have no place for them
    paths = sorted(path for path in folder.glob("*.safetensors") if path.name[:2] != "._")
    if not paths:
        inner = folder / "original"
        hint = f"; did you mean {inner}?" if (inner / "config.json").is_file() else ""
        raise MissingFileError(f"{folder}: not a checkpoint, it has no *.safetensors file{hint}")
    missing = sorted(_expected_files(folder, paths) - {path.name for path in paths})
    if missing:
        raise MissingFileError(
            f"{folder}: {missing[0]} is missing{_and_more(missing)}; download it again"
        )
    return paths


def _expected_files(folder: Path, paths: list[Path]) -> set[str]:
    """The names that the index, or numbering as in x-00001-of-00003, promises."""
    names: set[str] = set()
    for index in folder.glob("*.safetensors.index.json"):
        places: object = read_config_file(index).get("weight_map")
        files = list(cast("dict[str, object]", places).values()) if isinstance(places, dict) else []
        if not files or not all(isinstance(file, str) for file in files):
            raise ConfigError(f"{index}: no weight_map of names to files; download it again")
        names.update(cast("list[str]", files))
    for path in paths:
        if match := re.fullmatch(r"(.*?)(\d+)-of-(\d+)(\.safetensors)", path.name):
            stem, digits, count, end = match.groups()
            names.update(
                f"{stem}{i:0{len(digits)}}-of-{count}{end}" for i in range(1, int(count) + 1)
            )
    return names


def _merged(files: dict[Path, dict[str, StoredTensor]]) -> dict[str, TensorSpec]:
    """What all files hold together; no tensor may be in two of them."""
    found: dict[str, Path] = {}
    for path, tensors in files.items():
        for name in tensors:
            if name in found:
                raise TensorError(
                    f"tensor {name} is in {found[name].name} and in {path.name}: remove one of them"
                )
            found[name] = path
    return {name: files[path][name].spec for name, path in found.items()}


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _recognise(folder: Path, found: dict[str, TensorSpec]) -> Layout:
    if any(name.endswith(".experts.gate_proj.weight") for name in found):
        raise UsageError(
            f"{folder}: already an MLX conversion; use it as it is, with --model {folder}"
        )
    if any(name.endswith("mlp.mlp1_weight.blocks") for name in found):
        return "openai"
    if any(name.endswith("mlp.experts.gate_up_proj_blocks") for name in found):
        return "huggingface"
    raise CheckpointError(
        f"{folder}: not a gpt-oss checkpoint (no MXFP4 expert tensors, as in openai/gpt-oss-20b)"
    )


def _check_tensors(expected: dict[str, TensorSpec], found: dict[str, TensorSpec]) -> None:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    for names, problem in ((missing, "is missing"), (unexpected, "does not belong there")):
        if names:
            raise TensorError(
                f"tensor {names[0]} {problem}{_and_more(names)}: does config.json fit the files?"
            )
    for name, spec in expected.items():
        if found[name].dtype != spec.dtype:
            raise TensorError(
                f"tensor {name} has dtype {found[name].dtype}, expected {spec.dtype}; "
                "only the published MXFP4 checkpoints can be converted"
            )
        if found[name].shape != spec.shape:
            raise TensorError(
                f"tensor {name} has shape {list(found[name].shape)}, expected {list(spec.shape)}"
            )
