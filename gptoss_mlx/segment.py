"""Keys and values of consecutive positions in the full layers, which sequences can share.

Buffers grow in steps; one cache at a time appends to a segment, and views of its first positions
cost nothing. Numbers are kept as the model computes them, or in 8 bits. It does not know tokens,
nor who shares what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import mlx.core as mx

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.errors import UsageError
from gptoss_mlx.kernels import KV, Matrix, QuantizedKV

__all__ = ["GROWTH", "Buffer", "KVBits", "Segment", "position_bytes"]

KVBits = Literal[16, 8]  # 16: as the model computes them, be it in float32

GROWTH = 256  # positions a buffer grows by


def position_bytes(config: ModelConfig, dtype: mx.Dtype, bits: KVBits = 16) -> int:
    """Bytes of a position in all full layers.

    Raises:
        UsageError: there is no such width, or none for heads of this size.
    """
    if bits not in get_args(KVBits):
        raise UsageError(f"kv_bits is 16 or 8, not {bits}")
    numbers = config.num_hidden_layers // 2 * 2 * config.key_value_size
    if bits == 16:
        return numbers * dtype.size
    return numbers + numbers // _group_size(config.head_dim) * 2 * mx.float32.size


class Segment:
    """Keys and values of consecutive positions in every full layer; one cache appends to them.

    It holds `length` positions and has room for `capacity`. Whoever shares it sees some of the
    first, and must have seen to it that nobody appends any more.
    """

    def __init__(self, num_layers: int, bits: KVBits = 16) -> None:
        self.layers = [Buffer(bits) for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """Positions held in the last layer, and so in all of them."""
        return self.layers[-1].length if self.layers else 0

    @property
    def capacity(self) -> int:
        """Positions that there is room for, or will be when it grows next."""
        return self.layers[-1].capacity if self.layers else 0

    def growth(self, n: int) -> int:
        """How many positions of room appending n positions would add."""
        return max(0, _rounded(self.length + n) - self.capacity)

    def reserve(self, length: int) -> None:
        """When it grows next, make room for so many positions at once."""
        for layer in self.layers:
            layer.reserved = length

    def append_copies(self, parts: Sequence[tuple[Segment, int]]) -> None:
        """Append the first so many positions of each of these segments."""
        self.reserve(self.length + sum(length for _, length in parts))
        for n, layer in enumerate(self.layers):
            for part, length in parts:
                layer.append_copy(part.layers[n], length)
            mx.eval(layer.arrays)

    def truncate(self, length: int) -> None:
        """Forget the positions after the first `length`; their room is kept."""
        for layer in self.layers:
            layer.length = length

    def shrink(self, length: int) -> None:
        """Forget the positions after the first `length`, and give back their room."""
        for layer in self.layers:
            layer.shrink(length)
            mx.eval(layer.arrays)

    def exported(self, length: int) -> list[list[mx.array]]:
        """The first positions of each layer as they are stored: what `restore` takes."""
        return [layer.first(length) for layer in self.layers]

    def restore(self, layers: Sequence[list[mx.array]], dtype: mx.Dtype) -> None:
        """Become what was exported; dtype is that of keys and values when they are computed."""
        for layer, arrays in zip(self.layers, layers, strict=True):
            layer.restore(arrays, dtype)

    @property
    def arrays(self) -> list[mx.array]:
        """The buffers of all layers."""
        return [array for layer in self.layers for array in layer.arrays]


class Buffer:
    """Keys and values of one layer: `length` positions in use, of as many as there is room for.

    arrays: keys and values (1, kv heads, capacity, D); of 8 bits, for each of the two the packed
    numbers, scales and biases, all (1, kv heads, capacity, ...).
    """

    def __init__(self, bits: KVBits = 16) -> None:
        self.length = 0
        self.reserved = 0
        self.arrays: list[mx.array] = []
        self._bits = bits
        self._dtype = mx.float32

    @property
    def capacity(self) -> int:
        """Positions that there is room for, or will be when it grows next."""
        there = self._room
        return there if self.reserved <= there else _rounded(self.reserved)

    def append(self, k: mx.array, v: mx.array) -> None:
        """Add (B, kv heads, T, D)."""
        self._put([k, v] if self._bits == 16 else [*_quantized(k), *_quantized(v)], k.dtype)

    def append_copy(self, other: Buffer, length: int) -> None:
        """Add the first positions of another one, as they are stored there."""
        self._put(other.first(length), other._dtype)

    def view(self, length: int) -> KV | QuantizedKV:
        """The first positions, without a copy."""
        arrays = self.first(length)
        if self._bits == 16:
            return KV(*arrays)
        return QuantizedKV(_matrix(*arrays[:3]), _matrix(*arrays[3:]), self._dtype)

    def shrink(self, length: int) -> None:
        """Copy the first positions into buffers that have no room for more."""
        self.length, self.reserved = length, 0
        self.arrays = [
            mx.concatenate([x[..., :length, :], x[..., :0, :]], axis=-2) for x in self.arrays
        ]

    @property
    def _room(self) -> int:
        return self.arrays[0].shape[-2] if self.arrays else 0

    def first(self, length: int) -> list[mx.array]:
        """The first positions of each array, without a copy."""
        return [x[..., :length, :] for x in self.arrays]

    def restore(self, arrays: list[mx.array], dtype: mx.Dtype) -> None:
        """Become these arrays."""
        self.arrays, self._dtype = arrays, dtype
        self.length, self.reserved = arrays[0].shape[-2], 0

    def _put(self, new: list[mx.array], dtype: mx.Dtype) -> None:
        """Add (B, kv heads, T, ...) to each of the arrays."""
        end = self.length + new[0].shape[-2]
        if end > self._room:
            self._grow(new, _rounded(max(end, self.reserved)))
        for array, x in zip(self.arrays, new, strict=True):
            array[..., self.length : end, :] = x
        self.length, self._dtype = end, dtype

    def _grow(self, like: list[mx.array], capacity: int) -> None:
        held = self.first(self.length)
        self.arrays = [
            mx.zeros((*x.shape[:-2], capacity - self.length, x.shape[-1]), x.dtype) for x in like
        ]
        if held:
            pairs = zip(held, self.arrays, strict=True)
            self.arrays = [mx.concatenate([old, room], axis=-2) for old, room in pairs]


def _quantized(x: mx.array) -> tuple[mx.array, ...]:
    """x (..., D) -> packed numbers, scales, biases (..., fewer), the last two in float32."""
    packed, scales, biases = mx.quantize(
        x.astype(mx.float32), group_size=_group_size(x.shape[-1]), bits=8
    )
    return packed, scales, biases


def _matrix(packed: mx.array, scales: mx.array, biases: mx.array) -> Matrix:
    D = 4 * packed.shape[-1]
    return Matrix(packed, scales, biases, _group_size(D), 8, "affine")


def _group_size(head_dim: int) -> int:
    """How many numbers of a head share a scale.

    Raises:
        UsageError: MLX cannot quantize such heads.
    """
    if head_dim % 32:
        raise UsageError(
            f"kv_bits=8 needs heads of a multiple of 32 numbers, not {head_dim}: use kv_bits=16"
        )
    return 32 if head_dim % 64 else 64


def _rounded(length: int) -> int:
    return -(-length // GROWTH) * GROWTH
