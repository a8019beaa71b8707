"""convert(): a source checkpoint, a chunk of rows at a time, into an MLX checkpoint directory.

One pass over the source in file order: a thread reads ahead and hashes, the caller's thread moves
rows apart, quantizes the dense matrices and writes. Memory is a few chunks, whatever the model's
size. verify() makes the same pass and compares instead of writing. Quantization always runs on
MLX's CPU backend, so that a conversion has the same bytes whichever machine made it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig, read_config_file
from gptoss_mlx.convert.hashes import Sink, hashing
from gptoss_mlx.convert.hf_tokenizer import add_tokenizer, find_tokenizer
from gptoss_mlx.convert.names import Part, SourceTensor, TensorSpec, is_dense
from gptoss_mlx.convert.reader import (
    Chunk,
    Source,
    find_files,
    open_source,
    read_chunks,
    read_header,
)
from gptoss_mlx.convert.writer import (
    RECORD,
    SHARD_BYTES,
    ShardWriter,
    index_of,
    new_directory,
)
from gptoss_mlx.errors import MissingFileError, UsageError, VerifyError

__all__ = ["ConversionReport", "Dense", "OnProgress", "convert", "verify"]

Dense = Literal["bf16", "q8", "q4"]
OnProgress = Callable[[int, int], None]  # source bytes done, source bytes in all
DENSE_BITS: dict[Dense, int | None] = {"bf16": None, "q8": 8, "q4": 4}
GROUP_SIZE = 64
_SMALL_FILES_BYTES = 40_000_000  # tokenizer, configs and index, generously


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion or a verification did."""

    destination: Path
    config: ModelConfig
    dense: Dense
    tensors: int
    source_bytes: int
    written_bytes: int
    seconds: float


def convert(
    source_folder: Path,
    destination: Path,
    *,
    dense: Dense = "q8",
    force: bool = False,
    allow_unknown_config: bool = False,
    on_progress: OnProgress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> ConversionReport:
    """Repack a gpt-oss checkpoint for MLX; the destination appears when it is complete.

    Args:
        source_folder: OpenAI's original layout or Hugging Face's, one or several files.
        destination: must not exist, unless `force` and it is a checkpoint.
        dense: how attention, embedding and lm_head are stored: bf16 as they are, or quantized
            (affine, groups of 64). Experts keep their MXFP4 bytes, router and norms their bf16.
        force: replace a checkpoint at the destination once the new one is complete.
        allow_unknown_config: go on although config.json has keys this version does not know.
        on_progress: called with (source bytes done, source bytes in all).
        shard_bytes: largest size of one output file.

    Raises:
        CheckpointError: the source is not usable, whatever the reason.
        UsageError: the destination exists or overlaps the source; or a width rules out `dense`.
        DiskError: no space or no right to write; nothing is left behind.
    """
    started = time.monotonic()
    source = open_source(source_folder, allow_unknown_config=allow_unknown_config)
    _check_apart(source_folder, destination)
    _check_widths(source.config, dense)
    tokenizer = find_tokenizer(source_folder)
    targets = target_tensors(source.tensors, dense)
    written = sum(spec.nbytes for spec in targets.values())
    with new_directory(destination, force=force, needed=written + _SMALL_FILES_BYTES) as folder:
        with ShardWriter(folder, targets, shard_bytes) as writer, hashing(writer) as sink:
            hashes = _stream(source, dense, sink, on_progress)
            written_hashes = sink.hashes
        add_tokenizer(tokenizer, folder)
        _write_json(folder / "config.json", _output_config(source.config, targets, dense))
        _write_json(folder / "generation_config.json", _GENERATION_CONFIG)
        _write_json(folder / RECORD, _record(source, dense, hashes, written_hashes))
    seconds = time.monotonic() - started
    return ConversionReport(
        destination, source.config, dense, len(targets), source.nbytes, written, seconds
    )


def verify(
    destination: Path, source_folder: Path, *, on_progress: OnProgress | None = None
) -> ConversionReport:
    """Read both again and compare every byte, the quantized ones by quantizing again.

    Raises:
        VerifyError: a tensor, the config or a source file differs.
        CheckpointError: one of the two is not usable.
    """
    started = time.monotonic()
    record = _read_record(destination)
    dense: Dense = record["options"]["dense"]
    source = open_source(source_folder, allow_unknown_config=True)
    targets = target_tensors(source.tensors, dense)
    comparer = _Comparer(destination, targets)
    hashes = _stream(source, dense, comparer, on_progress)
    expected = {
        "config.json": _output_config(source.config, targets, dense),
        "generation_config.json": _GENERATION_CONFIG,
        "model.safetensors.index.json": comparer.index,
    }
    for name, contents in expected.items():
        if read_config_file(destination / name) != contents:
            raise VerifyError(f"{destination / name} is not what the source gives; convert again")
    find_tokenizer(destination)  # raises if it is damaged
    if hashes != record["source"]["files"]:
        raise VerifyError(f"{source_folder}: not the files that {destination} was made from")
    seconds = time.monotonic() - started
    return ConversionReport(
        destination,
        source.config,
        dense,
        len(targets),
        source.nbytes,
        sum(spec.nbytes for spec in targets.values()),
        seconds,
    )


def target_tensors(sources: dict[str, SourceTensor], dense: Dense) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes of the converted checkpoint."""
    targets: dict[str, TensorSpec] = {}
    for tensor in sources.values():
        for part in tensor.parts:
            bits = _bits(part.name, dense)
            if bits is None:
                targets[part.name] = part.spec
                continue
            rows, width = part.spec.shape
            groups = TensorSpec("BF16", (rows, width // GROUP_SIZE))
            stem = part.name.removesuffix("weight")
            targets[part.name] = TensorSpec("U32", (rows, width * bits // 32))
            targets[stem + "scales"] = groups
            targets[stem + "biases"] = groups
    return targets


def _stream(
    source: Source, dense: Dense, sink: Sink, on_progress: OnProgress | None
) -> dict[str, dict[str, Any]]:
    """Send every row of the source where it belongs; returns size and sha256 by source file."""
    hashes: dict[str, dict[str, Any]] = {}

    def on_file(path: Path, sha256: str) -> None:
        hashes[path.name] = {"bytes": path.stat().st_size, "sha256": sha256}

    done = 0
    total = sum(tensor.spec.nbytes for tensor in source.tensors.values())
    for chunk in _read_ahead(read_chunks(source, on_file)):
        for name, offset, data in _transformed(chunk, dense):
            sink.write(name, offset, data)
        done += len(chunk.data)
        if on_progress is not None:
            on_progress(done, total)
    return hashes


def _read_ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """The same chunks, each next one being read (and hashed) while this one is worked on."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        pending = reader.submit(next, chunks, None)
        while (chunk := pending.result()) is not None:
            pending = reader.submit(next, chunks, None)
            yield chunk


def _transformed(chunk: Chunk, dense: Dense) -> Iterator[tuple[str, int, bytes | memoryview]]:
    """(MLX tensor name, byte offset in it, bytes) of all that a chunk contributes."""
    rows = np.frombuffer(chunk.data, dtype=np.uint8).reshape(-1, chunk.tensor.row_bytes)
    for part in chunk.tensor.parts:
        first, selected = _rows_of(part, chunk.first_row, rows)
        if not len(selected):
            continue
        bits = _bits(part.name, dense)
        if bits is None:
            data = np.ascontiguousarray(selected)
            yield part.name, first * chunk.tensor.row_bytes, data.reshape(-1).data
            continue
        stem = part.name.removesuffix("weight")
        for kind, array in _quantized(selected, bits).items():
            yield (
                stem + kind,
                first * array.nbytes // len(array),
                array.reshape(-1).view(np.uint8).data,
            )


def _rows_of(part: Part, first_row: int, rows: NDArray[np.uint8]) -> tuple[int, NDArray[np.uint8]]:
    """The rows of a chunk that belong to a part, and the index in the part of the first of them."""
    index = max(0, -(-(first_row - part.start) // part.step))
    begin = part.start + index * part.step - first_row
    end = max(begin, min(part.stop - first_row, len(rows)))
    return index, rows[begin : end : part.step]


def _quantized(rows: NDArray[np.uint8], bits: int) -> dict[str, NDArray[Any]]:
    """Affine quantization of bf16 rows: packed uint32 weight, bf16 scales and biases."""
    words = np.ascontiguousarray(rows).view(np.uint16)
    weights = mx.array(words).view(mx.bfloat16)
    packed, scales, biases = mx.quantize(weights, group_size=GROUP_SIZE, bits=bits, stream=mx.cpu)
    return {
        "weight": np.array(packed),
        "scales": np.array(scales.view(mx.uint16)),
        "biases": np.array(biases.view(mx.uint16)),
    }


class _Comparer:
    """A sink that holds what it is given against a converted checkpoint."""

    def __init__(self, folder: Path, targets: dict[str, TensorSpec]) -> None:
        self._places: dict[str, tuple[Path, int]] = {}
        found: dict[str, TensorSpec] = {}
        for path in find_files(folder):
            for name, stored in read_header(path).items():
                self._places[name] = (path, stored.offset)
                found[name] = stored.spec
        different = sorted({name for name, _ in found.items() ^ targets.items()})
        if different:
            raise VerifyError(f"{folder}: {different[0]} is missing, unexpected or misshapen")
        self.index = index_of(
            targets, {name: path.name for name, (path, _) in self._places.items()}
        )

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Compare instead of writing."""
        path, start = self._places[name]
        with path.open("rb") as file:
            file.seek(start + offset)
            if file.read(len(data)) != data:
                raise VerifyError(f"{path}: {name} differs from the source; convert again")


def _bits(name: str, dense: Dense) -> int | None:
    return DENSE_BITS[dense] if is_dense(name) else None


def _check_apart(source: Path, destination: Path) -> None:
    source, destination = source.resolve(), destination.resolve()
    if source == destination or source in destination.parents or destination in source.parents:
        raise UsageError(f"{destination} and {source} overlap; write the conversion elsewhere")


def _check_widths(config: ModelConfig, dense: Dense) -> None:
    widths = (config.hidden_size, config.query_size)
    if DENSE_BITS[dense] is not None and any(width % GROUP_SIZE for width in widths):
        raise UsageError(
            f"--dense {dense} needs widths that are multiples of {GROUP_SIZE}, "
            f"and this model has {widths[0]} and {widths[1]}: use --dense bf16"
        )


def _output_config(
    config: ModelConfig, targets: dict[str, TensorSpec], dense: Dense
) -> dict[str, Any]:
    """Hugging Face's names, and mlx-lm's `quantization`: MXFP4 unless a layer's entry differs."""
    quantization: dict[str, Any] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    affine = {"group_size": GROUP_SIZE, "bits": DENSE_BITS[dense], "mode": "affine"}
    for name in targets:
        if name.endswith(".biases"):
            quantization[name.removesuffix(".biases")] = affine
    return {
        **config.to_hf_dict(),
        "quantization": quantization,
        "quantization_config": quantization,
    }


_GENERATION_CONFIG = {
    "bos_token_id": 199998,
    "do_sample": True,
    "eos_token_id": [200002, 199999, 200012],
    "pad_token_id": 199999,
}


def _record(
    source: Source, dense: Dense, hashes: dict[str, dict[str, Any]], tensors: dict[str, str]
) -> dict[str, Any]:
    return {
        "tool": "gptoss-mlx",
        "version": version("gptoss-mlx"),
        "mlx": version("mlx"),
        "options": {"dense": dense},
        "source": {
            "layout": source.layout,
            "files": hashes,
            "config": source.raw_config,
        },
        "tensors": tensors,
    }


def _read_record(destination: Path) -> dict[str, Any]:
    path = destination / RECORD
    if not path.is_file():
        raise MissingFileError(
            f"{path}: no such file; only conversions by gptoss-mlx can be verified"
        )
    record = read_config_file(path)
    try:
        known = record["options"]["dense"] in DENSE_BITS and record["source"]["files"] is not None
    except (KeyError, TypeError):
        known = False
    if not known:
        raise VerifyError(f"{path}: damaged, or written by a newer version")
    return record


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    path.write_text(json.dumps(cast("object", contents), indent=2) + "\n", encoding="utf-8")
