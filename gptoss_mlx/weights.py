"""Checkpoint files -> the parameters of a model, by name, in the dtype they are computed in.

Reads the MLX layout only: what `convert` writes, and ready-made conversions such as
mlx-community's. How a matrix is quantized follows from its arrays (packed width, groups, dtype of
the scales), not from config.json. Packed weights stay packed; only the small tensors and the scales
take the compute dtype. The embedding table can stay on disk. It does not know what the parameters
are for.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.config import ModelConfig, is_openai_config, read_config_file
from gptoss_mlx.convert.reader import StoredTensor, config_of, find_files, read_header
from gptoss_mlx.errors import MissingFileError, TensorError, UsageError
from gptoss_mlx.kernels import Matrix, concatenated
from gptoss_mlx.kernels.types import Table

__all__ = ["Places", "RowsOnDisk", "Weights", "load_weights", "read_checkpoint"]

Places = dict[str, tuple[Path, StoredTensor]]  # of tensors, by name


class RowsOnDisk:
    """A matrix whose rows are read from its file each time they are asked for, and held by nobody.

    They are the same, bit for bit, as in memory. Reading needs the row numbers on the host: whoever
    asks waits until MLX has computed them, so that the step of a decoded token cannot be submitted
    before the token is known. What the system caches of the file, it takes back when it must.
    """

    def __init__(self, form: Matrix, tensors: dict[str, _StoredRows]) -> None:
        self._form = form  # how the rows are quantized; its arrays are never evaluated
        self._tensors = tensors

    @property
    def arrays(self) -> list[mx.array]:
        """None: nothing is in memory."""
        return []

    def __getitem__(self, row: mx.array, /) -> Matrix:
        """The rows with these numbers, in their shape."""
        numbers = cast("NDArray[np.integer]", np.asarray(row))
        return replace(self._form, **{k: rows.at(numbers) for k, rows in self._tensors.items()})


@dataclass(frozen=True)
class _StoredRows:
    """A tensor in its file: `bits` (rows, columns) are of dtype `stored`, and used as `dtype`."""

    bits: NDArray[np.unsignedinteger]
    stored: mx.Dtype
    dtype: mx.Dtype

    def at(self, numbers: NDArray[np.integer]) -> mx.array:
        return mx.array(np.array(self.bits[numbers])).view(self.stored).astype(self.dtype)


class Weights:
    """The tensors of one checkpoint; each must be taken, with the shape the model expects.

    `places`: where those tensors lie that may stay on disk; by default none may.
    """

    def __init__(
        self,
        arrays: dict[str, mx.array],
        dtype: mx.Dtype,
        places: Places | None = None,
    ) -> None:
        self.dtype = dtype
        self._arrays = arrays
        self._places = places or {}

    def embedding(self, stem: str, rows: int, width: int) -> Table:
        """A matrix that is only looked up in; it stays on disk if the weights were loaded so.

        Raises:
            TensorError: as `matrix`.
        """
        stored = {name: array.dtype for name, array in self._arrays.items()}
        matrix = self.matrix(stem, rows, width)  # described, but not read: MLX is lazy
        tensors: dict[str, _StoredRows] = {}
        for kind in ("weight", "scales", "biases"):
            array, name = cast("mx.array | None", getattr(matrix, kind)), f"{stem}.{kind}"
            if array is not None and name in self._places:
                bits = _mapped(*self._places[name], array.shape, stored[name])
                tensors[kind] = _StoredRows(bits, stored[name], array.dtype)
        return RowsOnDisk(matrix, tensors) if tensors else matrix

    def vector(self, name: str, *shape: int) -> mx.array:
        """A small tensor (norm, bias, sinks) in the compute dtype.

        Raises:
            TensorError: missing or of another shape.
        """
        array = self._take(name)
        if array.shape != shape:
            raise TensorError(f"tensor {name} has shape {list(array.shape)}, not {list(shape)}")
        return array.astype(self.dtype)

    def matrix(self, stem: str, *shape: int) -> Matrix:
        """A weight of logical shape (..., out, in), dense or quantized.

        Raises:
            TensorError: missing, of another shape, or quantized in an unknown way.
        """
        weight = self._take(f"{stem}.weight")
        if f"{stem}.scales" not in self._arrays:
            if len(shape) > 2:
                raise TensorError(f"tensor {stem}.scales is missing: experts must be quantized")
            if weight.shape != shape:
                raise TensorError(
                    f"tensor {stem}.weight has shape {list(weight.shape)}, not {list(shape)}"
                )
            return Matrix(weight)
        scales = self._take(f"{stem}.scales")
        group_size, bits = _quantization(weight, scales, shape)
        if not bits:
            raise TensorError(f"tensor {stem}: packed arrays do not fit a {list(shape)} matrix")
        if scales.dtype == mx.uint8:
            if (group_size, bits) != (32, 4):
                raise TensorError(f"tensor {stem}: not MXFP4, and no other block format is known")
            return Matrix(weight, scales, None, 32, 4, "mxfp4")
        biases = self._take(f"{stem}.biases").astype(self.dtype)
        if biases.shape != scales.shape:
            raise TensorError(f"tensor {stem}.biases has not the shape of its scales")
        return Matrix(weight, scales.astype(self.dtype), biases, group_size, bits, "affine")

    def stacked(self, rows: dict[str, int], width: int) -> Matrix:
        """Several matrices (rows, width), by stem, as one: their rows below each other.

        Raises:
            TensorError: as `matrix`.
        """
        parts = [self.matrix(stem, n, width) for stem, n in rows.items()]
        if len({(p.mode, p.bits, p.group_size, p.weight.dtype) for p in parts}) > 1:
            parts = [Matrix(part.dequantized(self.dtype)) for part in parts]
        return concatenated(parts)

    def finish(self) -> None:
        """Call when the model is complete.

        Raises:
            TensorError: the checkpoint holds tensors that nobody took.
        """
        if self._arrays:
            names = sorted(self._arrays)
            raise TensorError(
                f"tensor {names[0]} does not belong to a gpt-oss model ({len(names)})"
            )

    def _take(self, name: str) -> mx.array:
        try:
            return self._arrays.pop(name)
        except KeyError:
            raise TensorError(f"tensor {name} is missing: is the checkpoint complete?") from None


def _quantization(weight: mx.array, scales: mx.array, shape: tuple[int, ...]) -> tuple[int, int]:
    """(group size, bits) of packed arrays, or zeros if they make no matrix of this shape."""
    *rows, width = shape
    fits = all(a.ndim == len(shape) and list(a.shape[:-1]) == rows for a in (weight, scales))
    if not fits or weight.dtype != mx.uint32:
        return 0, 0
    groups, packed = scales.shape[-1], weight.shape[-1] * 32
    if not groups or width % groups or packed % width:
        return 0, 0
    return width // groups, packed // width


def _mapped(
    path: Path, tensor: StoredTensor, shape: tuple[int, ...], dtype: mx.Dtype
) -> NDArray[np.unsignedinteger]:
    """A tensor's bits where they lie in its file: what is not touched is not read."""
    bits: NDArray[np.unsignedinteger] = np.memmap(
        path, f"<u{dtype.size}", mode="r", offset=tensor.offset, shape=shape
    )
    return bits


def load_weights(
    folder: Path, dtype: mx.Dtype, *, embedding_on_disk: bool = False
) -> tuple[ModelConfig, Weights]:
    """The config and the (lazily read) tensors of an MLX checkpoint.

    Raises:
        CheckpointError, UsageError: as `read_checkpoint`.
    """
    config, places = read_checkpoint(folder)
    arrays: dict[str, mx.array] = {}
    for path in dict.fromkeys(path for path, _ in places.values()):
        arrays.update(cast("dict[str, mx.array]", mx.load(str(path))))
    return config, Weights(arrays, dtype, places if embedding_on_disk else None)


def read_checkpoint(folder: Path) -> tuple[ModelConfig, Places]:
    """The config of an MLX checkpoint, and where its tensors lie: from headers alone.

    Raises:
        MissingFileError: no such folder, or a shard is missing.
        CorruptFileError, ConfigError: as their names say.
        UsageError: the folder holds a checkpoint that must be converted first.
    """
    if not folder.exists():
        raise MissingFileError(
            f"{folder}: no such folder, and no model of this name: `gptoss-mlx models` lists those "
            "that are installed, `gptoss-mlx download 20b --convert` installs one; the model demo "
            "works now"
        )
    paths = find_files(folder)
    raw = read_config_file(folder / "config.json")
    places = {name: (path, at) for path in paths for name, at in read_header(path).items()}
    if is_openai_config(raw) or any(name.endswith("_proj_blocks") for name in places):
        raise UsageError(
            f"{folder} must be converted first: "
            f"gptoss-mlx convert {shlex.quote(str(folder))} NEW_FOLDER"
        )
    return config_of(folder, raw, allow_unknown=True), places
