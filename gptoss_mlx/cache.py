"""The keys and values of one batch of sequences, layer by layer.

Full layers keep every position; sliding layers keep the window - 1 positions that the next token
can still see, so their size does not grow. Keys are stored after rotation. It does not know tokens
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
    """The last window - 1 positions, in order."""

    def __init__(self, window: int) -> None:
        self.offset = 0
        self._kept = window - 1
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    def append(self, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        """Add (B, kv heads, T, D); returns the kept positions and the new ones."""
        if self._keys is not None and self._values is not None:
            k = mx.concatenate([self._keys, k], axis=-2)
            v = mx.concatenate([self._values, v], axis=-2)
        self._keys = k[..., -self._kept :, :] if self._kept else None
        self._values = v[..., -self._kept :, :] if self._kept else None
        return k, v

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
