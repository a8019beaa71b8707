"""The keys and values of one sequence, layer by layer.

Full layers keep every position, in segments: those before the last may be shared with other
sequences and do not change any more; the last one grows. Sliding layers keep the window - 1
positions that the next token can still see (and a few more, so that the last tokens can be taken
back); copies of these, `Windows`, are what makes it possible to go on from an earlier position.
Keys are stored after rotation; full layers may keep 8 bits of a number (`KVBits`), the windows,
which do not grow, keep all. It does not know tokens or layers' weights.

    Segment   positions a .. b in all full layers        one sequence appends to it
    Windows   the last positions before b, sliding layers   never change
    Cache     segments + sliding layers of one sequence   what the model is given
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import mlx.core as mx

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.errors import UsageError
from gptoss_mlx.kernels import KV, Matrix, QuantizedKV

__all__ = [
    "MAX_TRIM",
    "Cache",
    "FullLayer",
    "KVBits",
    "LayerCache",
    "Segment",
    "SlidingLayer",
    "Windows",
    "position_bytes",
]

KVBits = Literal[16, 8]  # 16: as the model computes them, be it in float32

MAX_TRIM = 16  # tokens that can be taken back at any time
_GROWTH = 256  # positions a buffer grows by


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
        self.layers = [_Buffer(bits) for _ in range(num_layers)]

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


class _Buffer:
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
        there = self._room
        return there if self.reserved <= there else _rounded(self.reserved)

    def append(self, k: mx.array, v: mx.array) -> None:
        """Add (B, kv heads, T, D)."""
        self._put([k, v] if self._bits == 16 else [*_quantized(k), *_quantized(v)], k.dtype)

    def append_copy(self, other: _Buffer, length: int) -> None:
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
    return -(-length // _GROWTH) * _GROWTH


class FullLayer:
    """Every position so far: views of shared segments, then a segment's own buffer."""

    def __init__(
        self, buffer: _Buffer | None = None, shared: Sequence[KV | QuantizedKV] = ()
    ) -> None:
        self._buffer = buffer or _Buffer()
        self._shared = list(shared)

    def append(self, k: mx.array, v: mx.array) -> list[KV | QuantizedKV]:
        """Add (B, kv heads, T, D); returns all positions, in order, in as many parts as there are.

        The parts are views: what later appends write is not in them.
        """
        self._buffer.append(k, v)
        return [*self._shared, self._buffer.view(self._buffer.length)]

    def follow_with(self, buffer: _Buffer) -> None:
        """Append to another buffer from now on; the present one may be shared then."""
        self._shared.append(self._buffer.view(self._buffer.length))
        self._buffer = buffer

    def trim(self, n: int) -> None:
        """Forget the last n positions."""
        self._buffer.length -= n

    @property
    def arrays(self) -> list[mx.array]:
        """What an append has changed."""
        return self._buffer.arrays


class SlidingLayer:
    """The last window - 1 positions, in order, in buffers with room for some more.

    A decoded token is put behind them; when the room is used up, the window moves to new buffers.
    """

    def __init__(self, window: int, start: KV | None = None) -> None:
        self._kept = window - 1
        self._keys, self._values = (None, None) if start is None else start
        self._end = 0 if start is None else start.length  # of what the buffers hold
        self._chunk: KV | None = None  # what the last append of several tokens returned

    def append(self, k: mx.array, v: mx.array) -> list[KV]:
        """Add (B, kv heads, T, D); returns the kept positions and the new ones."""
        begin, end = max(0, self._end - self._kept), self._end + k.shape[-2]
        self._chunk = None
        if self._keys is None or self._values is None or end > self._keys.shape[-2]:
            return [self._move(k, v)]
        self._keys[..., self._end : end, :] = k
        self._values[..., self._end : end, :] = v
        self._end = end
        return [KV(self._keys[..., begin:end, :], self._values[..., begin:end, :])]

    def window(self, back: int = 0) -> KV:
        """The kept positions as they were `back` positions ago.

        At most MAX_TRIM ago, or within the last append.
        """
        if self._chunk is not None:
            k, v, end = *self._chunk, self._chunk.length - back
        else:
            k, v, end = self._keys, self._values, self._end - back
        assert k is not None
        assert v is not None
        begin = max(0, end - self._kept)
        return KV(k[..., begin:end, :], v[..., begin:end, :])

    def trim(self, n: int) -> None:
        """Forget the last n positions, at most MAX_TRIM."""
        self._chunk = None
        self._end -= n

    def _move(self, k: mx.array, v: mx.array) -> KV:
        T = k.shape[-2]
        if self._keys is not None and self._values is not None:
            held = slice(max(0, self._end - self._kept - MAX_TRIM), self._end)
            k = mx.concatenate([self._keys[..., held, :], k], axis=-2)
            v = mx.concatenate([self._values[..., held, :], v], axis=-2)
        self._end = min(self._kept + MAX_TRIM, k.shape[-2])
        self._keys, self._values = (self._with_room(x) for x in (k, v))
        begin = max(0, k.shape[-2] - T - self._kept)
        seen = KV(k[..., begin:, :], v[..., begin:, :])
        self._chunk = seen if T > 1 else None
        return seen

    def _with_room(self, x: mx.array) -> mx.array:
        """The last positions of x, and zeros behind them."""
        B, heads, length, D = x.shape
        room = mx.zeros((B, heads, _GROWTH, D), x.dtype)
        return mx.concatenate([x[..., length - self._end :, :], room], axis=-2)

    @property
    def arrays(self) -> list[mx.array]:
        """What an append has changed."""
        return [a for a in (self._keys, self._values) if a is not None]


LayerCache = FullLayer | SlidingLayer


@dataclass(frozen=True)
class Windows:
    """A copy of what the sliding layers keep before `position`.

    keys and values: (sliding layers, 1, kv heads, at most window - 1, D).
    """

    position: int
    keys: mx.array
    values: mx.array

    @property
    def nbytes(self) -> int:
        """Memory of both arrays."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def arrays(self) -> list[mx.array]:
        """What must be evaluated to have the copy."""
        return [self.keys, self.values]


class Cache:
    """One layer cache for each layer of a model; empty, or going on from an earlier position.

    Args:
        config: the model's.
        segment: which new positions are appended to; by default one of its own.
        shared: the segments before it, and how many positions of each belong to this sequence.
        windows: what the sliding layers kept at the end of all those.
    """

    def __init__(
        self,
        config: ModelConfig,
        segment: Segment | None = None,
        shared: Sequence[tuple[Segment, int]] = (),
        windows: Windows | None = None,
    ) -> None:
        full = [n for n in range(config.num_hidden_layers) if not config.is_sliding(n)]
        segment = segment or Segment(len(full))
        self.offset = sum(length for _, length in shared) + segment.length  # tokens held
        self.layers: list[LayerCache] = []
        for n in range(config.num_hidden_layers):
            at = n // 2  # among the layers of its kind, which alternate
            if config.is_sliding(n):
                start = None if windows is None else KV(windows.keys[at], windows.values[at])
                self.layers.append(SlidingLayer(config.sliding_window, start))
            else:
                views = [part.layers[at].view(length) for part, length in shared]
                self.layers.append(FullLayer(segment.layers[at], views))

    def advance(self, T: int) -> None:
        """The model has appended T tokens to every layer."""
        self.offset += T

    def follow_with(self, segment: Segment) -> None:
        """Append to another segment from now on; the present one may be shared then."""
        for n, layer in enumerate(self.layers):
            if isinstance(layer, FullLayer):
                layer.follow_with(segment.layers[n // 2])

    def trim(self, n: int) -> None:
        """Forget the last n tokens: at most MAX_TRIM, and only ones of the present segment."""
        for layer in self.layers:
            layer.trim(n)
        self.offset -= n

    def windows(self, position: int | None = None) -> Windows:
        """A copy, not yet evaluated, of the sliding layers as they were at a position.

        By default the present one; at most MAX_TRIM before, or within the last append.
        """
        position = self.offset if position is None else position
        back = self.offset - position
        kept = [layer.window(back) for layer in self.layers if isinstance(layer, SlidingLayer)]
        return Windows(
            position, mx.stack([kv.keys for kv in kept]), mx.stack([kv.values for kv in kept])
        )

    @property
    def arrays(self) -> list[mx.array]:
        """What must be evaluated to have the last tokens in memory."""
        return [array for layer in self.layers for array in layer.arrays]
