"""The keys and values of one sequence, layer by layer.

Full layers keep every position, in segments: those before the last may be shared with other
sequences and do not change any more; the last one grows. Sliding layers keep the window - 1
positions that the next token can still see (and a few more, so that the last tokens can be taken
back); copies of these, `Windows`, are what makes it possible to go on from an earlier position.
Keys are stored after rotation; full layers may keep 8 bits of a number (`KVBits`), the windows,
which do not grow, keep all. It does not know tokens or layers' weights.

    Segment   positions a .. b in all full layers        one sequence appends to it (segment.py)
    Windows   the last positions before b, sliding layers   never change
    Cache     segments + sliding layers of one sequence   what the model is given
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from gptoss_mlx.config import ModelConfig
from gptoss_mlx.kernels import KV, QuantizedKV
from gptoss_mlx.segment import GROWTH, Buffer, Segment

__all__ = [
    "MAX_TRIM",
    "Cache",
    "FullLayer",
    "LayerCache",
    "SlidingLayer",
    "Windows",
    "window_bytes",
]

MAX_TRIM = 16  # tokens that can be taken back at any time


def window_bytes(config: ModelConfig, dtype: mx.Dtype) -> int:
    """Bytes that the sliding layers of a running sequence take, however long it is."""
    layers = config.num_hidden_layers - config.num_hidden_layers // 2
    positions = config.sliding_window - 1 + MAX_TRIM + GROWTH
    return layers * positions * 2 * config.key_value_size * dtype.size


class FullLayer:
    """Every position so far: views of shared segments, then a segment's own buffer."""

    def __init__(
        self, buffer: Buffer | None = None, shared: Sequence[KV | QuantizedKV] = ()
    ) -> None:
        self._buffer = buffer or Buffer()
        self._shared = list(shared)

    def append(self, k: mx.array, v: mx.array) -> list[KV | QuantizedKV]:
        """Add (B, kv heads, T, D); returns all positions, in order, in as many parts as there are.

        The parts are views: what later appends write is not in them.
        """
        self._buffer.append(k, v)
        return [*self._shared, self._buffer.view(self._buffer.length)]

    def follow_with(self, buffer: Buffer) -> None:
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
        room = mx.zeros((B, heads, GROWTH, D), x.dtype)
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
