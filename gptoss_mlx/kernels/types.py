"""What the operations are given: matrices as they are stored, and which experts a token goes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "KV",
    "ByExpert",
    "Matrix",
    "QuantizedKV",
    "Rotary",
    "Rotation",
    "Routing",
    "Table",
    "concatenated",
]


@dataclass(frozen=True)
class Matrix:
    """The weight of `x @ weight.T`, or a stack of them with one for each expert, as it is stored.

    Dense: `weight` (..., out, in). Quantized: uint32 `weight` (..., out, in * bits / 32) with
    `scales` (..., out, in / group_size), in affine mode `biases` of the same shape too.
    """

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    group_size: int = 0
    bits: int = 16
    mode: Literal["dense", "affine", "mxfp4"] = "dense"

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays that hold it."""
        return [a for a in (self.weight, self.scales, self.biases) if a is not None]

    @property
    def rows(self) -> int:
        """Outputs (of each expert)."""
        return self.weight.shape[-2]

    @property
    def width(self) -> int:
        """Inputs."""
        packed = self.weight.shape[-1]
        return packed if self.scales is None else packed * 32 // self.bits

    def dequantized(self, dtype: mx.Dtype) -> mx.array:
        """The weight (..., out, in) as numbers."""
        if self.scales is None:
            return self.weight.astype(dtype)
        weight = mx.dequantize(
            self.weight,
            scales=self.scales,
            biases=self.biases,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            dtype=dtype,
        )
        return weight.astype(dtype)

    def __getitem__(self, row: object) -> Matrix:
        """Some of the rows, or one expert's matrix; indexed like `weight`."""
        parts = (None if a is None else a[row] for a in (self.weight, self.scales, self.biases))
        weight, scales, biases = parts
        assert weight is not None
        return Matrix(weight, scales, biases, self.group_size, self.bits, self.mode)


class Table(Protocol):
    """Rows that are looked up one by one: a matrix in memory, or one whose rows stay on disk."""

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays that hold it in memory."""
        ...

    def __getitem__(self, row: mx.array, /) -> Matrix:
        """The rows with these numbers, in their shape."""
        ...


def concatenated(parts: list[Matrix]) -> Matrix:
    """The rows of matrices that are stored alike, below each other."""

    def joined(name: str) -> mx.array | None:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else mx.concatenate(arrays)

    weight = joined("weight")
    assert weight is not None
    return replace(parts[0], weight=weight, scales=joined("scales"), biases=joined("biases"))


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (RoPE): how far each pair of dimensions turns with every token.

    frequencies: (D / 2,) radians, float32. periods: (D / 2,) their reciprocals, as MLX takes them.
    """

    frequencies: mx.array
    periods: mx.array

    @classmethod
    def of(cls, frequencies: NDArray[np.float32]) -> Rotary:
        """With the float32 periods whose reciprocals come nearest to the frequencies."""
        guess = (1 / frequencies.astype(np.float64)).astype(np.float32)
        candidates = np.stack([np.nextafter(guess, -np.inf), guess, np.nextafter(guess, np.inf)])
        miss = np.abs((1 / candidates).astype(np.float64) - frequencies)
        periods = candidates[miss.argmin(axis=0), np.arange(len(guess))]
        return cls(mx.array(frequencies), mx.array(periods))

    def at(self, starts: Sequence[int], T: int) -> Rotation:
        """Of T tokens in a row for each sequence, the first of them at its position in `starts`."""
        return Rotation(self, tuple(starts), T)


@dataclass(frozen=True)
class Rotation:
    """The rotation of B sequences' T tokens in a row, the first at positions `starts` (B,)."""

    rotary: Rotary
    starts: tuple[int, ...]
    T: int

    @property
    def head_dim(self) -> int:
        """D."""
        return 2 * self.rotary.frequencies.size

    @cached_property
    def table(self) -> mx.array:
        """Cosines (B, T, D / 2) and sines (B, T, D / 2) beside each other, float32."""
        positions = self.offsets[:, None] + mx.arange(self.T)
        angles = positions[..., None].astype(mx.float32) * self.rotary.frequencies
        return mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=-1)

    @cached_property
    def offsets(self) -> mx.array:
        """`starts` as an array."""
        return mx.array(self.starts)


class KV(NamedTuple):
    """Keys and values of consecutive positions: (B, kv heads, S, D) each."""

    keys: mx.array
    values: mx.array

    @property
    def length(self) -> int:
        """S."""
        return self.keys.shape[-2]


@dataclass(frozen=True)
class QuantizedKV:
    """The same, quantized: matrices of S rows, (B, kv heads, S, D) as numbers.

    The scales are float32, whatever `dtype` the keys and values were given in: rounded to bfloat16
    they would make half as much error again, and the products would be rounded too.
    """

    packed_keys: Matrix
    packed_values: Matrix
    dtype: mx.Dtype

    @property
    def length(self) -> int:
        """S."""
        return self.packed_keys.rows

    @property
    def keys(self) -> mx.array:
        """A copy as numbers."""
        return self.packed_keys.dequantized(self.dtype)

    @property
    def values(self) -> mx.array:
        """A copy as numbers."""
        return self.packed_values.dequantized(self.dtype)


class ByExpert(NamedTuple):
    """The P = N * K (token, expert) pairs, sorted by expert."""

    order: mx.array  # (P,): which pair stands there
    inverse: mx.array  # (P,): where a pair stands
    experts: mx.array  # (P,): ascending


@dataclass(frozen=True)
class Routing:
    """The K experts of each of N tokens, and how much each counts.

    ids: (N, K) uint32. scores: (N, K) float32.
    """

    ids: mx.array
    scores: mx.array

    @cached_property
    def by_expert(self) -> ByExpert:
        """The pairs sorted by expert; both halves of the experts use it."""
        flat = self.ids.reshape(-1)
        order = mx.argsort(flat)
        return ByExpert(order, mx.argsort(order), flat[order])

    def offsets(self, num_experts: int) -> mx.array:
        """(E + 1,) uint32: where each expert's pairs begin in that order, and their number."""
        before = self.by_expert.experts[None] < mx.arange(num_experts + 1)[:, None]
        return before.sum(axis=-1).astype(mx.uint32)
