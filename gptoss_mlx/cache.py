"""The keys and values of one batch of sequences, layer by layer.

Full layers keep every position; sliding layers keep the window - 1 positions that the next token
can still see, so their size is bounded. Keys are stored after rotation. It does not know tokens
or layers' weights.
"""

from __future__ import annotations

import mlx.core as mx

from gptoss_mlx.config import ModelConfig

__all__ = ["Cache", "FullLayer", "LayerCache", "SlidingLayer"]

_GROWTH = 256  # positions a full layer's buffer grows by


class FullLayer:
    """Every position so far, in buffers that grow in steps."""

    def __init__(self) -> None:
        self.offset = 0
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    def append(self, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        """Add (B, kv heads, T, D); returns all S positions, (B, kv heads, S, D) each."""
        end = self.offset + k.shape[-2]
        self._keys = _put(self._keys, k, self.offset, end)
        self._values = _put(self._values, v, self.offset, end)
        self.offset = end
        return self._keys[..., :end, :], self._values[..., :end, :]

    @property
    def arrays(self) -> list[mx.array]:
        """What must be evaluated to have the cache in memory."""
        return [a for a in (self._keys, self._values) if a is not None]


class SlidingLayer:
    """The last window - 1 positions, in order, in buffers with room for some more.

    A decoded token is put behind them; when the room is used up, the window moves to new buffers.
    """

    def __init__(self, window: int) -> None:
        self._kept = window - 1
        self._end = 0  # of what the buffers hold
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    def append(self, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        """Add (B, kv heads, T, D); returns the kept positions and the new ones."""
        begin, end = max(0, self._end - self._kept), self._end + k.shape[-2]
        if self._keys is None or self._values is None or end > self._keys.shape[-2]:
            return self._move(k, v)
        self._keys[..., self._end : end, :] = k
        self._values[..., self._end : end, :] = v
        self._end = end
        return self._keys[..., begin:end, :], self._values[..., begin:end, :]

    def _move(self, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        if self._keys is not None and self._values is not None:
            held = slice(max(0, self._end - self._kept), self._end)
            k = mx.concatenate([self._keys[..., held, :], k], axis=-2)
            v = mx.concatenate([self._values[..., held, :], v], axis=-2)
        self._end = min(self._kept, k.shape[-2])
        self._keys, self._values = (self._with_room(x) for x in (k, v))
        return k, v

    def _with_room(self, x: mx.array) -> mx.array:
        """The last positions of x, and zeros behind them."""
        B, heads, length, D = x.shape
        room = mx.zeros((B, heads, _GROWTH, D), x.dtype)
        return mx.concatenate([x[..., length - self._end :, :], room], axis=-2)

    @property
    def arrays(self) -> list[mx.array]:
        """What must be evaluated to have the cache in memory."""
        return [a for a in (self._keys, self._values) if a is not None]


LayerCache = FullLayer | SlidingLayer


class Cache:
    """One layer cache for each layer of a model."""

    def __init__(self, config: ModelConfig) -> None:
        self.layers: list[LayerCache] = [
            SlidingLayer(config.sliding_window) if config.is_sliding(i) else FullLayer()
            for i in range(config.num_hidden_layers)
        ]
        self.offset = 0  # tokens held

    @property
    def arrays(self) -> list[mx.array]:
        """Every array of every layer."""
        return [array for layer in self.layers for array in layer.arrays]


def _put(buffer: mx.array | None, new: mx.array, start: int, end: int) -> mx.array:
    if buffer is None or end > buffer.shape[-2]:
        buffer = _grown(buffer, new, start, end)
    buffer[..., start:end, :] = new
    return buffer


def _grown(buffer: mx.array | None, like: mx.array, start: int, end: int) -> mx.array:
    capacity = -(-end // _GROWTH) * _GROWTH
    B, heads, _, D = like.shape
    if buffer is None:
        return mx.zeros((B, heads, capacity, D), like.dtype)
    room = mx.zeros((B, heads, capacity - start, D), like.dtype)
    return mx.concatenate([buffer[..., :start, :], room], axis=-2)
