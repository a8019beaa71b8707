"""Checkpoint files -> the parameters of a model, by name, in the dtype they are computed in.

Reads the MLX layout only: what `convert` writes, and ready-made conversions such as
mlx-community's. How a matrix is quantized follows from its arrays (packed width, groups, dtype of
the scales), not from config.json. Packed weights stay packed; only the small tensors and the scales
take the compute dtype. It does not know what the parameters are for.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import cast

import mlx.core as mx

from gptoss_mlx.config import ModelConfig, is_openai_config, read_config_file
from gptoss_mlx.convert.reader import config_of, find_files, read_header
from gptoss_mlx.errors import MissingFileError, TensorError, UsageError
from gptoss_mlx.kernels import Matrix, concatenated

__all__ = ["Weights", "load_weights"]


class Weights:
    """The tensors of one checkpoint; each must be taken, with the shape the model expects."""

    def __init__(self, arrays: dict[str, mx.array], dtype: mx.Dtype) -> None:
        self.dtype = dtype
        self._arrays = arrays

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


def load_weights(folder: Path, dtype: mx.Dtype) -> tuple[ModelConfig, Weights]:
    """The config and the (lazily read) tensors of an MLX checkpoint.

    Raises:
        MissingFileError: no such folder, or a shard is missing.
        CorruptFileError, ConfigError: as their names say.
        UsageError: the folder holds a checkpoint that must be converted first.
    """
    if not folder.exists():
        raise MissingFileError(
            f"{folder}: no such folder; a model is downloaded (hf download openai/gpt-oss-20b "
            "--include 'original/*' --local-dir DIR) and converted (gptoss-mlx convert) first; "
            "--model demo works now"
        )
    paths = find_files(folder)
    raw = read_config_file(folder / "config.json")
    names = [name for path in paths for name in read_header(path)]
    if is_openai_config(raw) or any(name.endswith("_proj_blocks") for name in names):
        raise UsageError(
            f"{folder} must be converted first: "
            f"gptoss-mlx convert {shlex.quote(str(folder))} NEW_FOLDER"
        )
    config = config_of(folder, raw, allow_unknown=True)
    arrays: dict[str, mx.array] = {}
    for path in paths:
        arrays.update(cast("dict[str, mx.array]", mx.load(str(path))))
    return config, Weights(arrays, dtype)
