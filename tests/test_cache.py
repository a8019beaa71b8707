"""The cache: what full and sliding layers keep, over buffer growth and at the window's edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY

from gptoss_mlx.cache import Cache, FullLayer, LayerCache, SlidingLayer

HEADS, D = 2, 4


def positions(start: int, stop: int) -> mx.array:
    """Keys (1, heads, T, D) that tell their position."""
    return mx.broadcast_to(
        mx.arange(start, stop)[None, None, :, None] * 1.0, (1, HEADS, stop - start, D)
    )


def held(layer: LayerCache, lengths: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The positions of the keys and values that each append of so many tokens returns."""
    found: list[tuple[list[int], list[int]]] = []
    start = 0
    for length in lengths:
        new = positions(start, start + length)
        k, v = layer.append(new, -new)
        assert k.shape == v.shape == (1, HEADS, k.shape[2], D)
        ks, vs = (np.array(x)[0, -1, :, -1].astype(int).tolist() for x in (k, -v))
        found.append((ks, vs))
        start += length
    return found


@pytest.mark.parametrize(
    "lengths",
    [[1], [1] * 5, [255, 1, 1], [256, 1], [257], [200, 200, 200], [600, 1], [1, 1000], [256, 256]],
)
def test_full_layers_keep_everything(lengths: list[int]) -> None:
    """Every append returns all positions so far, in order, however the buffer had to grow."""
    layer = FullLayer()
    for end, (k, v) in zip(np.cumsum(lengths), held(layer, lengths), strict=True):
        assert k == v == list(range(end))
    assert layer.offset == sum(lengths)


@pytest.mark.parametrize(("tokens", "capacity"), [(1, 256), (256, 256), (257, 512), (1025, 1280)])
def test_full_layers_grow_in_steps(tokens: int, capacity: int) -> None:
    """Buffers are a multiple of 256 positions, and no longer than they must be."""
    layer = FullLayer()
    held(layer, [1] if tokens == 1 else [1, tokens - 1])
    assert [a.shape for a in layer.arrays] == [(1, HEADS, capacity, D)] * 2


def test_appending_leaves_earlier_results_alone() -> None:
    """What an append returned does not change when later ones write into the same buffer."""
    layer = FullLayer()
    first, _ = layer.append(positions(0, 3), positions(0, 3))
    layer.append(positions(3, 9), positions(3, 9))
    assert np.array(first)[0, 0, :, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize(
    "lengths",
    [[1] * 12, [1] * 530, [6, 1, 1, 1], [7, 1], [8, 1], [9, 1, 1], [30, 1, 1], [3, 5, 20, 2, 1]],
)
def test_sliding_layers_keep_the_window(window: int, lengths: list[int]) -> None:
    """An append returns its own tokens and the window - 1 before them, in order, no others."""
    layer = SlidingLayer(window)
    start = 0
    for length, (k, v) in zip(lengths, held(layer, lengths), strict=True):
        assert k == v == list(range(max(0, start - (window - 1)), start + length))
        start += length


@pytest.mark.parametrize("lengths", [[300], [1] * 300, [8, 8, 8], [3, 900, 2]])
def test_sliding_layers_do_not_grow(lengths: list[int]) -> None:
    """A sliding layer has room for its window and 256 positions more, however many came."""
    layer = SlidingLayer(8)
    held(layer, lengths)
    assert [a.shape for a in layer.arrays] == [(1, HEADS, 7 + 256, D)] * 2


def test_layers_alternate() -> None:
    """Even layers slide, odd ones are full, and an empty cache has no arrays."""
    cache = Cache(replace(TINY, num_hidden_layers=5))
    kinds = [type(layer) for layer in cache.layers]
    assert kinds == [SlidingLayer, FullLayer, SlidingLayer, FullLayer, SlidingLayer]
    assert cache.arrays == []
    assert cache.offset == 0


def test_arrays_of_all_layers() -> None:
    """Keys and values of every layer are there to be evaluated."""
    cache = Cache(TINY)
    for layer in cache.layers:
        layer.append(positions(0, 3), positions(0, 3))
    assert len(cache.arrays) == 2 * TINY.num_hidden_layers


def test_batches_and_dtypes() -> None:
    """Buffers take batch size and dtype from what is put into them."""
    for layer in (FullLayer(), SlidingLayer(8)):
        k, v = layer.append(mx.ones((3, 1, 2, 4), mx.bfloat16), mx.ones((3, 1, 2, 4), mx.bfloat16))
        assert (k.shape, k.dtype, v.dtype) == ((3, 1, 2, 4), mx.bfloat16, mx.bfloat16)
